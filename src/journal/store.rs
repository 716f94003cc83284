//! The embedded store, and all that is known of it: its files, its keys, what its errors mean.
//!
//! ```text
//! dir/lock              one process at a time
//! dir/ticks/            the store: `entries` by series and slot, `meta` with the format, the size of the rings, and the
//!                       numbers of each series that has others than its newest
//! dir/ticks.corrupt-1/  one that could not be read, put aside
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::embedded::{self, LockError, MADE, caught, complete, damage, put_aside};
pub(super) use crate::embedded::{Failure, Lock};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use peregrine_actors::series::{JournalEntry, Scatter, SeriesName};

use super::entry::{self, VALUE_BYTES_MAX};
use super::kept::{Kept, kept};

/// What the keys and values look like; another number is another layout.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";
const RING_KEY: &str = "ring";
/// Blocks of the store that stay in memory. Entries are written, and read once at start.
const CACHE_BYTES: u64 = 8 << 20;
/// What the store gathers in memory before it writes a table, as it counts; about twice that in the heap.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// The store's own log, which is read again at every start; the least that it takes.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Entries of one commit while a store is rewritten.
const REWRITE_ENTRIES: usize = 8192;

/// The store does not open. The operator acts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two processes must not write one journal.
    #[error("{}: another process has this journal open", .0.display())]
    Locked(PathBuf),
    /// Written by another version of this program, which can read it.
    #[error("{}: format {found}, and this build reads {FORMAT}", dir.display())]
    Format {
        /// Where.
        dir: PathBuf,
        /// What it says.
        found: String,
    },
    /// The disk, or who may write to it.
    #[error("{}: {source}", dir.display())]
    Io {
        /// Where.
        dir: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// What was found in the journal when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Series with entries.
    pub series: usize,
    /// Entries.
    pub entries: u64,
    /// Values that were none, and were removed.
    pub skipped: u64,
    /// Bytes after the last whole commit, dropped: what a dying process was writing, or what followed damage.
    pub torn_bytes: u64,
    /// A store that could not be read.
    pub aside: Option<Aside>,
}

/// A store that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub why: String,
    /// Entries that could still be read and were taken over; all others are lost to this node.
    pub kept: u64,
}

/// An open store.
pub(super) struct Store {
    entries: Keyspace,
    meta: Keyspace,
    db: Database,
    ring: u32,
    /// The file that says that all of it was made; `None`: it is only read.
    made: Option<File>,
}

/// An entry to be written.
pub(super) struct Put {
    pub(super) series: SeriesName,
    pub(super) seq: u64,
    pub(super) value: Vec<u8>,
    /// Beside the ring.
    pub(super) is_aside: bool,
}

impl Put {
    pub(super) fn of(entry: JournalEntry, is_aside: bool) -> Self {
        let value = entry::encode(&entry);
        Self { series: entry.tick.series, seq: entry.seq, value, is_aside }
    }

    fn key(&self, ring: u32) -> Vec<u8> {
        if self.is_aside {
            entry::key_aside(&self.series, self.seq)
        } else {
            entry::key(&self.series, self.seq, ring)
        }
    }
}

/// What one append writes.
pub(super) struct Write {
    pub(super) put: Vec<Put>,
    scattered: Vec<Scatter>,
}

impl Write {
    pub(super) fn of(entries: Vec<JournalEntry>, mut scattered: Vec<Scatter>) -> Self {
        let mut put: Vec<Put> = entries.into_iter().map(|entry| Put::of(entry, false)).collect();
        for scatter in &mut scattered {
            put.extend(scatter.aside.drain(..).map(|entry| Put::of(entry, true)));
        }
        Self { put, scattered }
    }
}

/// What lies in the store of one series.
#[derive(Default)]
struct Lying {
    /// `None`: only keys that name none.
    series: Option<SeriesName>,
    /// By slot.
    entries: Vec<JournalEntry>,
    /// Of values that are no entries.
    bad_keys: Vec<Vec<u8>>,
}

impl Store {
    /// Opens what is in `dir/ticks`, reads all of it, and leaves it with rings of `ring` slots. What cannot be read
    /// is put aside. The caller has locked `dir`.
    pub(super) fn open(
        dir: &Path,
        ring: u32,
        known: &mut HashSet<SeriesName>,
    ) -> Result<(Self, Found), OpenError> {
        let path = dir.join("ticks");
        let failed = |source| OpenError::Io { dir: path.clone(), source };
        let why = match Self::read(&path, ring, known) {
            Ok(opened) => return Ok(opened),
            Err(Failure::Io(source)) => return Err(failed(source)),
            Err(Failure::Format(found)) => return Err(OpenError::Format { dir: path, found }),
            Err(Failure::Damage(why)) => why,
        };
        let aside = put_aside(dir, &path, "ticks").map_err(failed)?;
        known.clear();
        let again = |failure| match failure {
            Failure::Io(source) => failed(source),
            Failure::Format(found) | Failure::Damage(found) => failed(io::Error::other(found)),
        };
        let (store, _) = Self::read(&path, ring, known).map_err(again)?;
        let kept = store.salvage(&aside).map_err(again)?;
        let mut found = store.survey(known).map_err(again)?;
        found.aside = Some(Aside { path: aside, why, kept });
        Ok((store, found))
    }

    /// Opens again what was read before: after a commit failed, the store takes no more until then.
    pub(super) fn reopen(dir: &Path, ring: u32) -> Result<Self, Failure> {
        caught(|| {
            let path = dir.join("ticks");
            let store = Self::connect(&path, ring)?;
            Ok(Self { made: Some(mark(&path)?), ..store })
        })
    }

    fn read(path: &Path, ring: u32, known: &mut HashSet<SeriesName>) -> Result<(Self, Found), Failure> {
        let logs = written_logs(path).map_err(Failure::Io)?;
        caught(|| {
            complete(path)?;
            let mut store = Self::connect(path, ring)?;
            store.made = Some(mark(path)?);
            let torn_bytes = logs.iter().map(|(log, end)| end.saturating_sub(len_of(log, *end))).sum();
            let mut found = store.survey(known)?;
            if store.ring != ring {
                store.resize(ring)?;
                found = store.survey(known)?;
            }
            found.torn_bytes = torn_bytes;
            Ok((store, found))
        })
    }

    fn connect(path: &Path, ring: u32) -> Result<Self, Failure> {
        let builder = Database::builder(path).cache_size(CACHE_BYTES).max_journaling_size(LOG_BYTES_MAX);
        let db = builder.worker_threads(1).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let meta = db.keyspace("meta", options)?;
        let number = |key: &str| -> Result<Option<u32>, Failure> {
            let Some(value) = meta.get(key)? else { return Ok(None) };
            let bytes = value.as_ref().try_into();
            bytes
                .map(|bytes| Some(u32::from_le_bytes(bytes)))
                .map_err(|_| damage(&format!("`{key}` is no number")))
        };
        let ring = match number(FORMAT_KEY)? {
            Some(FORMAT) => {
                number(RING_KEY)?.filter(|&ring| ring > 0).ok_or_else(|| damage("no size of rings"))?
            }
            Some(other) => return Err(Failure::Format(other.to_string())),
            // One with entries and no format has lost it.
            None if !db.keyspace("entries", options)?.is_empty()? => return Err(damage("no format")),
            None => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&meta, FORMAT_KEY, FORMAT.to_le_bytes());
                batch.insert(&meta, RING_KEY, ring.to_le_bytes());
                batch.commit()?;
                ring
            }
        };
        Ok(Self { entries: db.keyspace("entries", options)?, meta, db, ring, made: None })
    }

    /// Commits all or nothing.
    pub(super) fn write(
        &self,
        writes: Vec<Write>,
        forgotten: &[SeriesName],
        to_disk: bool,
    ) -> Result<(), Failure> {
        caught(|| {
            let mut batch = self.batch(to_disk);
            for series in forgotten {
                for guard in self.entries.prefix(entry::prefix(series)) {
                    batch.remove(&self.entries, guard.key()?);
                }
                batch.remove(&self.meta, entry::prefix(series));
            }
            // Later operations of a batch win.
            for Write { put, scattered } in writes {
                for put in put {
                    batch.insert(&self.entries, put.key(self.ring), put.value);
                }
                for Scatter { series, runs, dropped, .. } in &scattered {
                    for &seq in dropped {
                        batch.remove(&self.entries, entry::key_aside(series, seq));
                    }
                    self.put_runs(&mut batch, series, runs);
                }
            }
            batch.commit()?;
            self.is_there()
        })
    }

    /// Everything written is on the disk after this.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        caught(|| {
            self.db.persist(PersistMode::SyncData)?;
            self.is_there()
        })
    }

    /// Files that somebody has removed take entries as before, and nobody will read them.
    fn is_there(&self) -> Result<(), Failure> {
        let Some(made) = &self.made else { return Ok(()) };
        if made.metadata().map_err(Failure::Io)?.nlink() > 0 {
            return Ok(());
        }
        let gone = "its files were removed: what they held is lost at the next start";
        Err(Failure::Io(io::Error::new(ErrorKind::NotFound, gone)))
    }

    /// What counts of each series.
    pub(super) fn each(&self, each: &mut dyn FnMut(Kept)) -> Result<(), Failure> {
        self.each_series(self.entries.iter(), &mut |lying| {
            let runs = self.runs(lying.series.as_ref())?;
            each(kept(lying.entries, &runs, self.ring));
            Ok(())
        })
    }

    /// Numbers of a series that is scattered; of others none.
    fn runs(&self, series: Option<&SeriesName>) -> Result<Vec<(u64, u64)>, Failure> {
        let Some(series) = series else { return Ok(Vec::new()) };
        let Some(value) = self.meta.get(entry::prefix(series))? else { return Ok(Vec::new()) };
        entry::decode_runs(&value).map_err(|_| damage(&format!("numbers of `{series}`")))
    }

    fn put_runs(&self, batch: &mut fjall::OwnedWriteBatch, series: &SeriesName, runs: &[(u64, u64)]) {
        if runs.is_empty() {
            batch.remove(&self.meta, entry::prefix(series));
        } else {
            batch.insert(&self.meta, entry::prefix(series), entry::encode_runs(runs));
        }
    }

    fn batch(&self, to_disk: bool) -> fjall::OwnedWriteBatch {
        self.db.batch().durability(Some(if to_disk { PersistMode::SyncData } else { PersistMode::Buffer }))
    }

    /// Reads everything once, so that damage shows now; removes values that are no entries.
    fn survey(&self, known: &mut HashSet<SeriesName>) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut bad = Vec::new();
        self.each_series(self.entries.iter(), &mut |lying| {
            found.entries += lying.entries.len() as u64;
            bad.extend(lying.bad_keys);
            if let Some(series) = lying.series.filter(|_| !lying.entries.is_empty()) {
                found.series += 1;
                known.insert(series);
            }
            Ok(())
        })?;
        found.skipped = bad.len() as u64;
        for keys in bad.chunks(REWRITE_ENTRIES) {
            let mut batch = self.batch(false);
            keys.iter().for_each(|key| batch.remove(&self.entries, key.as_slice()));
            batch.commit()?;
        }
        Ok(found)
    }

    /// Gives every series a ring of another size. A series is rewritten whole, so that it may be interrupted.
    fn resize(&mut self, ring: u32) -> Result<(), Failure> {
        self.each_series(self.entries.iter(), &mut |lying| {
            let Some(series) = lying.series else { return Ok(()) };
            let mut batch = self.batch(false);
            for guard in self.entries.prefix(entry::prefix(&series)) {
                batch.remove(&self.entries, guard.key()?);
            }
            let runs = self.runs(Some(&series))?;
            let entries = kept(lying.entries, &runs, ring).entries;
            let last = entries.last().map_or(0, |entry| entry.seq);
            let runs = runs_of(&entries);
            self.put_runs(&mut batch, &series, if runs.len() > 1 { &runs } else { &[] });
            // Later operations of a batch win.
            for entry in entries {
                let is_aside = last - entry.seq >= u64::from(ring);
                let put = Put::of(entry, is_aside);
                batch.insert(&self.entries, put.key(ring), put.value);
            }
            Ok(batch.commit()?)
        })?;
        let mut batch = self.batch(true);
        batch.insert(&self.meta, RING_KEY, ring.to_le_bytes());
        batch.commit()?;
        self.ring = ring;
        Ok(())
    }

    /// Takes over what can be read of a damaged store: from its front up to the damage, then from its back. How many.
    fn salvage(&self, aside: &Path) -> Result<u64, Failure> {
        let opened = caught(|| complete(aside).and_then(|()| Self::connect(aside, self.ring)));
        let Ok(damaged) = opened else { return Ok(0) };
        let mut taken = 0;
        let mut scattered = HashMap::new();
        let mut copy = |entries: &mut dyn Iterator<Item = Guard>| -> Result<(), Failure> {
            let mut batch = Vec::new();
            loop {
                // The end, or the damage, or a panic at the damage: all the same here.
                let next = caught(|| entries.next().map(|guard| Ok(guard.into_inner()?)).transpose());
                let is_over = !matches!(next, Ok(Some(_)));
                if let Ok(Some((key, value))) = next
                    && let Ok(series) = entry::series_of(&key)
                    && let Ok(entry) = entry::decode(series.clone(), &value)
                {
                    let is_aside = *key == entry::key_aside(&series, entry.seq);
                    if let Ok(runs) = caught(|| damaged.runs(Some(&series)))
                        && !runs.is_empty()
                    {
                        scattered.insert(series.clone(), runs);
                    }
                    batch.push(Put { series, seq: entry.seq, value: value.to_vec(), is_aside });
                }
                if is_over || batch.len() >= REWRITE_ENTRIES {
                    taken += batch.len() as u64;
                    let write = Write { put: std::mem::take(&mut batch), scattered: Vec::new() };
                    self.write(vec![write], &[], false)?;
                }
                if is_over {
                    return Ok(());
                }
            }
        };
        copy(&mut damaged.entries.iter())?;
        copy(&mut damaged.entries.iter().rev())?;
        let mut batch = self.batch(false);
        scattered.iter().for_each(|(series, runs)| self.put_runs(&mut batch, series, runs));
        batch.commit()?;
        Ok(taken)
    }

    fn is_place(&self, entry: &JournalEntry, key: &[u8]) -> bool {
        let series = &entry.tick.series;
        *key == entry::key(series, entry.seq, self.ring) || *key == entry::key_aside(series, entry.seq)
    }

    /// One series after the other.
    fn each_series(
        &self,
        guards: impl Iterator<Item = Guard>,
        each: &mut dyn FnMut(Lying) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut lying = Lying::default();
        for guard in guards {
            let (key, value) = guard.into_inner()?;
            let Ok(name) = entry::series_of(&key) else {
                lying.bad_keys.push(key.to_vec());
                continue;
            };
            if lying.series.as_ref() != Some(&name) {
                each(std::mem::take(&mut lying))?;
                lying.series = Some(name.clone());
            }
            let fits = value.len() <= VALUE_BYTES_MAX;
            match entry::decode(name, &value) {
                Ok(entry) if fits && self.is_place(&entry, &key) => lying.entries.push(entry),
                _ => lying.bad_keys.push(key.to_vec()),
            }
        }
        each(lying)
    }
}

/// The numbers of entries as runs.
fn runs_of(entries: &[JournalEntry]) -> Vec<(u64, u64)> {
    let runs = entries.chunk_by(|one, next| one.seq + 1 == next.seq);
    runs.filter_map(|run| Some((run.first()?.seq, run.last()?.seq))).collect()
}

/// Says that all of a store was made.
fn mark(store: &Path) -> Result<File, Failure> {
    let made = File::create(store.join(MADE)).map_err(Failure::Io)?;
    made.sync_all().map_err(Failure::Io)?;
    Ok(made)
}

/// The store's logs and where their last byte that is not zero ends. The store gives its logs their full length when it
/// makes them, and cuts them after the last whole commit when it reads them.
fn written_logs(store: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let files = match fs::read_dir(store) {
        Ok(files) => files,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut logs = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") && path.is_file() {
            let end = written_end(&mut File::open(&path)?)?;
            logs.push((path, end));
        }
    }
    Ok(logs)
}

fn written_end(file: &mut File) -> io::Result<u64> {
    let mut block = vec![0; 1 << 16];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(last) = block.iter().rposition(|&byte| byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Of a log that is there no more, all was taken over.
fn len_of(log: &Path, otherwise: u64) -> u64 {
    fs::metadata(log).map_or(otherwise, |log| log.len())
}

/// Takes the folder for this process.
///
/// # Errors
/// Another process has it, or the disk refuses.
pub(super) fn lock(dir: &Path) -> Result<Lock, OpenError> {
    embedded::lock(dir).map_err(|error| match error {
        LockError::Held => OpenError::Locked(dir.to_owned()),
        LockError::Io(source) => OpenError::Io { dir: dir.to_owned(), source },
    })
}

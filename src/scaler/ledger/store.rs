//! The embedded store, and all that is known of it: its files, and what its errors mean.
//!
//! ```text
//! dir/lock                one process at a time
//! dir/ledger/             the store: `entries` by kind and time, `meta` with the format and until when was charged
//! dir/ledger.corrupt-1/   one that could not be read, put aside
//! ```

use std::fs::File;
use std::io;
use std::path::Path;

use crate::embedded::{self, LockError, MADE, caught, complete, damage, put_aside};
pub(super) use crate::embedded::{Failure, Lock};
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use jiff::Timestamp;

use super::entry::{Kind, at_key, is_entry, prefix, read_key};
use super::{Aside, LedgerError};

/// What the keys and values look like; another number is another layout.
const FORMAT: u32 = 1;
const FORMAT_KEY: &str = "format";
const CHARGED_KEY: &str = "charged_until";
const CACHE_BYTES: u64 = 4 << 20;
const MEMTABLE_BYTES: u64 = 4 << 20;
/// The least that the store takes.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Entries of one commit.
const BATCH_ENTRIES: usize = 4096;

/// An open store.
pub(super) struct Store {
    entries: Keyspace,
    meta: Keyspace,
    db: Database,
}

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

impl Store {
    /// Opens what is in `dir/ledger`; what cannot be read is put aside, and what can be read of it is taken over. Says
    /// how many values were none, too. The caller has locked `dir`.
    pub(super) fn open(dir: &Path) -> Result<(Self, u64, Option<Aside>), LedgerError> {
        let path = dir.join("ledger");
        let failed = |source| LedgerError::Io { dir: path.clone(), source };
        let why = match Self::read(&path) {
            Ok((store, skipped)) => return Ok((store, skipped, None)),
            Err(Failure::Io(source)) => return Err(failed(source)),
            Err(Failure::Format(found)) => return Err(LedgerError::Format { dir: path, found }),
            Err(Failure::Damage(why)) => why,
        };
        let aside = put_aside(dir, &path, "ledger").map_err(failed)?;
        let again = |failure| match failure {
            Failure::Io(source) => failed(source),
            Failure::Format(found) | Failure::Damage(found) => failed(io::Error::other(found)),
        };
        let (store, _) = Self::read(&path).map_err(again)?;
        let kept = store.salvage(&aside).map_err(again)?;
        Ok((store, 0, Some(Aside { path: aside, why, kept })))
    }

    /// Opens again what was read before: after a commit failed, the store takes no more until then.
    pub(super) fn reopen(dir: &Path) -> Result<Self, Failure> {
        caught(|| Self::connect(&dir.join("ledger")))
    }

    fn read(path: &Path) -> Result<(Self, u64), Failure> {
        caught(|| {
            complete(path)?;
            let store = Self::connect(path)?;
            File::create(path.join(MADE)).and_then(|made| made.sync_all()).map_err(Failure::Io)?;
            let skipped = store.survey()?;
            Ok((store, skipped))
        })
    }

    fn connect(path: &Path) -> Result<Self, Failure> {
        let builder = Database::builder(path).cache_size(CACHE_BYTES).max_journaling_size(LOG_BYTES_MAX);
        let db = builder.worker_threads(1).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let meta = db.keyspace("meta", options)?;
        let entries = db.keyspace("entries", options)?;
        match meta.get(FORMAT_KEY)? {
            Some(format) if *format == FORMAT.to_le_bytes() => {}
            Some(format) if format.len() == 4 => return Err(Failure::Format(format!("{format:?}"))),
            Some(_) => return Err(damage("`format` is no number")),
            // One with entries and no format has lost it.
            None if !entries.is_empty()? => return Err(damage("no format")),
            None => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&meta, FORMAT_KEY, FORMAT.to_le_bytes());
                batch.commit()?;
            }
        }
        Ok(Self { entries, meta, db })
    }

    /// Reads everything once, so that damage shows now; removes values that are no entries, and says how many.
    fn survey(&self) -> Result<u64, Failure> {
        let mut bad = Vec::new();
        for guard in self.entries.iter() {
            let (key, value) = guard.into_inner()?;
            if !is_entry(&key, &value) {
                bad.push(key.to_vec());
            }
        }
        self.charged_until()?;
        for keys in bad.chunks(BATCH_ENTRIES) {
            self.commit(Vec::new(), keys, None)?;
        }
        Ok(bad.len() as u64)
    }

    /// Takes over what can be read of a damaged store: from its front up to the damage, then from its back. How many.
    fn salvage(&self, aside: &Path) -> Result<u64, Failure> {
        let Ok(damaged) = caught(|| complete(aside).and_then(|()| Self::connect(aside))) else {
            return Ok(0);
        };
        let mut taken = 0;
        let mut copy = |entries: &mut dyn Iterator<Item = Guard>| -> Result<(), Failure> {
            let mut batch = Vec::new();
            loop {
                // The end, or the damage, or a panic at the damage: all the same here.
                let next = caught(|| entries.next().map(|guard| Ok(guard.into_inner()?)).transpose());
                let is_over = !matches!(next, Ok(Some(_)));
                if let Ok(Some((key, value))) = next
                    && is_entry(&key, &value)
                    && caught(|| Ok(self.entries.get(&key)?.is_none()))?
                {
                    batch.push((key.to_vec(), value.to_vec()));
                }
                if is_over || batch.len() >= BATCH_ENTRIES {
                    taken += batch.len() as u64;
                    self.write(std::mem::take(&mut batch), &[], None)?;
                }
                if is_over {
                    return Ok(());
                }
            }
        };
        copy(&mut damaged.entries.iter())?;
        copy(&mut damaged.entries.iter().rev())?;
        if let Ok(Some(until)) = caught(|| damaged.charged_until()) {
            self.write(Vec::new(), &[], Some(until))?;
        }
        Ok(taken)
    }

    /// All or nothing, on the disk when it returns.
    pub(super) fn write(
        &self,
        put: Vec<Entry>,
        removed: &[Vec<u8>],
        charged_until: Option<Timestamp>,
    ) -> Result<(), Failure> {
        caught(|| self.commit(put, removed, charged_until))
    }

    fn commit(
        &self,
        put: Vec<Entry>,
        removed: &[Vec<u8>],
        charged_until: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for key in removed {
            batch.remove(&self.entries, key.as_slice());
        }
        for (key, value) in put {
            batch.insert(&self.entries, key, value);
        }
        if let Some(until) = charged_until {
            batch.insert(&self.meta, CHARGED_KEY, until.as_nanosecond().to_le_bytes());
        }
        Ok(batch.commit()?)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        caught(|| Ok(self.entries.get(key)?.map(|value| value.to_vec())))
    }

    /// Until when costs are in the ledger.
    pub(super) fn charged_until(&self) -> Result<Option<Timestamp>, Failure> {
        let Some(value) = self.meta.get(CHARGED_KEY)? else { return Ok(None) };
        let nanos = value.as_ref().try_into().map(i128::from_le_bytes).ok();
        let at = nanos.and_then(|nanos| Timestamp::from_nanosecond(nanos).ok());
        at.map(Some).ok_or_else(|| damage("`charged_until` is no time"))
    }

    /// Entries of a kind from one time up to, and not with, another: the newest `max` of them, in order.
    pub(super) fn newest(
        &self,
        kind: Kind,
        from: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Result<Vec<Entry>, Failure> {
        if until <= from {
            return Ok(Vec::new());
        }
        caught(|| {
            let range = self.entries.range(at_key(kind, from)..at_key(kind, until));
            let mut entries = Vec::new();
            for guard in range.rev().take(max) {
                let (key, value) = guard.into_inner()?;
                entries.push((key.to_vec(), value.to_vec()));
            }
            entries.reverse();
            Ok(entries)
        })
    }

    /// How many there are of a kind, and the keys of the oldest: those before a time, and those that are too many.
    pub(super) fn surplus(&self, kind: Kind, before: Timestamp, max: usize) -> Result<Vec<Vec<u8>>, Failure> {
        caught(|| {
            let count = self.entries.prefix(prefix(kind)).count();
            let mut keys = Vec::new();
            for guard in self.entries.prefix(prefix(kind)) {
                let key = guard.key()?.to_vec();
                let is_old = read_key(&key).is_none_or(|(_, at)| at < before);
                if !is_old && count - keys.len() <= max {
                    break;
                }
                keys.push(key);
            }
            Ok(keys)
        })
    }
}

/// Takes the folder for this process.
///
/// # Errors
/// Another process has it, or the disk refuses.
pub(super) fn lock(dir: &Path) -> Result<Lock, LedgerError> {
    embedded::lock(dir).map_err(|error| match error {
        LockError::Held => LedgerError::Locked(dir.to_owned()),
        LockError::Io(source) => LedgerError::Io { dir: dir.to_owned(), source },
    })
}

//! Reading a folder of records, beside a node that writes it or without one: finds a record, verifies the whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use peregrine_actors::audit::index::{Index, find_in};
use peregrine_actors::audit::{
    Entry, FRAME_BYTES, Format, Head, Link, PredictionId, Record, Report, Verifier, frame_at, is_intact,
    is_unique, keys_of_name, unchecked,
};

use super::Live;
use super::files::{index_path, list, segment_path};

/// Further records of a name that are looked for.
const OTHERS_MAX: usize = 100;
/// How often a folder is read again because segments were dropped meanwhile.
const TRIES: usize = 3;
const HEAD: &str = "head";
/// Of a link, before a frame.
const LINK_BYTES: u64 = 32;
/// Of what says how a segment holds its entries.
const MAGIC_BYTES: usize = 8;

/// Records cannot be read; the operator acts.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", dir.display())]
pub struct ReadError {
    dir: PathBuf,
    source: io::Error,
}

/// A record that was looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// In which segment it is.
    pub segment: u64,
    /// Where in it.
    pub at: u64,
    /// What it says.
    pub record: Record,
    /// Its rows that were asked for.
    pub rows: Vec<usize>,
    /// Numbers of predictions in older records of the same name, one of each, the newest first; a hundred at most.
    pub others: Vec<PredictionId>,
    /// It is what the chain says at this place. That the chain is whole is for `verify` to say.
    pub is_intact: bool,
}

/// A folder of records.
#[derive(Clone)]
pub struct Folder {
    dir: PathBuf,
    live: Option<Live>,
}

impl Folder {
    /// That of a node that may run, or not.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), live: None }
    }

    pub(super) fn live(dir: &Path, live: Live) -> Self {
        Self { dir: dir.to_owned(), live: Some(live) }
    }

    /// The newest record of that name, and which others there are: a prediction's id, the caller's own of a request, or
    /// `model/series#seq@epoch` of a stream, also without the epoch. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn find(&self, name: &str) -> Result<Option<Located>, ReadError> {
        let keys = keys_of_name(name);
        for _ in 0..TRIES {
            let mut newest = None;
            match self.try_find(name, &keys, &mut newest) {
                // Dropped while it was searched.
                Err(gone) if gone.kind() == ErrorKind::NotFound && self.dir.is_dir() => {
                    if newest.is_some() {
                        return Ok(newest);
                    }
                }
                searched => return searched.map(|()| newest).map_err(|source| self.failed(source)),
            }
        }
        Err(self.failed(io::Error::other("segments are dropped faster than they can be read")))
    }

    fn try_find(&self, name: &str, keys: &[u64], newest: &mut Option<Located>) -> io::Result<()> {
        for segment in list(&self.dir)?.into_iter().rev() {
            let file = File::open(segment_path(&self.dir, segment))?;
            let Some(format) = format(&file)? else { continue };
            for at in self.places(segment, keys)? {
                let Some((bytes, start)) = frame(&file, u64::from(at))? else { continue };
                let Some(frame) = frame_at(&bytes, start, format) else { continue };
                let mut entries: Vec<Entry<'_>> = frame.entries().collect();
                while let Some(entry) = entries.pop() {
                    let Ok(record) = Record::decode(entry.body) else { continue };
                    let rows = record.rows_called(name);
                    let Some(&first) = rows.first() else { continue };
                    if let Some(newest) = newest {
                        newest.others.push(record.ids.row(first));
                    } else {
                        let at = u64::from(at) + entry.at - start as u64;
                        let is_intact = is_intact(&bytes, start, format);
                        *newest = Some(Located { segment, at, record, rows, others: Vec::new(), is_intact });
                    }
                    if is_unique(name) || newest.as_ref().is_some_and(|one| one.others.len() == OTHERS_MAX) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Where a segment may hold it, the newest first.
    fn places(&self, segment: u64, keys: &[u64]) -> io::Result<Vec<u32>> {
        if let Some(live) = &self.live {
            let live = live.lock();
            if live.0 == segment {
                return Ok(live.1.find(keys));
            }
        }
        let kept = match fs::read(index_path(&self.dir, segment)) {
            Ok(bytes) => find_in(&bytes, keys),
            Err(none) if none.kind() == ErrorKind::NotFound => None,
            Err(failed) => return Err(failed),
        };
        if let Some(places) = kept {
            return Ok(places);
        }
        let bytes = fs::read(segment_path(&self.dir, segment))?;
        Ok(Index::of(unchecked(&bytes)).find(keys))
    }

    /// Whether there is nothing here that a node writes. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn is_empty(&self) -> Result<bool, ReadError> {
        let segments = list(&self.dir).map_err(|source| self.failed(source))?;
        Ok(segments.is_empty() && !self.dir.join(HEAD).exists())
    }

    /// Reads everything. `through`: a link that was kept elsewhere, which the chain has to go through. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read; what is wrong with the chain is in the report.
    pub fn verify(&self, through: Option<Link>) -> Result<Report, ReadError> {
        for _ in 0..TRIES {
            match self.try_verify(through) {
                Err(gone) if gone.kind() == ErrorKind::NotFound && self.dir.is_dir() => {}
                report => return report.map_err(|source| self.failed(source)),
            }
        }
        Err(self.failed(io::Error::other("segments are dropped faster than they can be read")))
    }

    fn try_verify(&self, through: Option<Link>) -> io::Result<Report> {
        // Before the segments: a chain that grows meanwhile goes through it all the same.
        let head = match fs::read(self.dir.join(HEAD)) {
            Ok(bytes) => Head::decode(&bytes),
            Err(none) if none.kind() == ErrorKind::NotFound => None,
            Err(failed) => return Err(failed),
        };
        let mut verifier = Verifier::new(head, through);
        let segments = list(&self.dir)?;
        for &segment in &segments {
            let bytes = fs::read(segment_path(&self.dir, segment))?;
            let is_last = segments.last() == Some(&segment);
            let index = match fs::read(index_path(&self.dir, segment)) {
                // The last may just have been ended, behind what was read of it.
                Ok(_) if is_last => None,
                Ok(bytes) => Some(bytes),
                Err(none) if none.kind() == ErrorKind::NotFound => None,
                Err(failed) => return Err(failed),
            };
            verifier.segment(segment, &bytes, index.as_deref(), is_last);
        }
        Ok(verifier.finish())
    }

    fn failed(&self, source: io::Error) -> ReadError {
        ReadError { dir: self.dir.clone(), source }
    }
}

/// Of a segment; `None`: of none that can be read.
fn format(file: &File) -> io::Result<Option<Format>> {
    let mut magic = [0; MAGIC_BYTES];
    let read = file.read_at(&mut magic, 0)?;
    Ok(Format::of(&magic[..read]))
}

/// A frame, the link before it and where it begins in these bytes; `None` if there is none. No more is read than the
/// file has.
fn frame(file: &File, at: u64) -> io::Result<Option<(Vec<u8>, usize)>> {
    let Some(start) = at.checked_sub(LINK_BYTES) else { return Ok(None) };
    let available = file.metadata()?.len().saturating_sub(at);
    let mut len = [0; 4];
    if available < FRAME_BYTES as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut len, at)?;
    let frame = u64::from(u32::from_le_bytes(len)) + FRAME_BYTES as u64;
    if frame > available {
        return Ok(None);
    }
    let Ok(size) = usize::try_from(LINK_BYTES + frame) else { return Ok(None) };
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, start)?;
    Ok(Some((bytes, LINK_BYTES as usize)))
}

//! The segments as they are written: append, begin the next, drop the oldest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peregrine_actors::audit::index::Index;
use peregrine_actors::audit::{
    FRAME_BYTES, HEADER_BYTES, Head, Keep, Link, Note, Sealed, SegmentHeader, Store, StoreError, append,
    is_record,
};
use tracing::{info, warn};

use super::Live;

/// Bytes of one write.
const WRITE_BYTES: usize = 1 << 20;

/// The files of a chain that is open for writing.
pub(super) struct Files {
    dir: PathBuf,
    keep: Keep,
    segment: Segment,
    head_file: File,
    head: Head,
    /// Segments that take no more, oldest first.
    sealed: Vec<Old>,
    /// Of the segment that grows.
    live: Live,
    /// What is to be written next.
    buffer: Vec<u8>,
}

/// The segment that grows.
pub(super) struct Segment {
    pub(super) index: u64,
    pub(super) file: File,
    pub(super) created_ms: u64,
    /// Nothing but its header, and notes of what was dropped for it.
    pub(super) is_empty: bool,
}

/// One that takes no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Old {
    pub(super) index: u64,
    /// Its last link.
    pub(super) end: Link,
    pub(super) sealed: Sealed,
}

impl Files {
    pub(super) fn new(
        dir: &Path,
        keep: Keep,
        segment: Segment,
        head: Head,
        sealed: Vec<Old>,
        index: Index,
    ) -> io::Result<Self> {
        let head_file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("head"))?;
        let live = Arc::new(parking_lot::Mutex::new((segment.index, index)));
        let files =
            Self { dir: dir.to_owned(), keep, segment, head_file, head, sealed, live, buffer: Vec::new() };
        files.put_head(head)?;
        Ok(files)
    }

    pub(super) fn live(&self) -> Live {
        Arc::clone(&self.live)
    }

    /// All or nothing of what is in the buffer, which ends with `link` and holds so many records.
    fn flush(&mut self, link: Link, records: u64) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let start = self.head.offset;
        if let Err(failed) = self.segment.file.write_all_at(&self.buffer, start) {
            // Whatever of it was written is behind the head, and written over by the next try.
            if let Err(kept) = self.segment.file.set_len(start) {
                warn!(error = %kept, "a part of a record stays behind the end of the audit chain");
            }
            return Err(failed);
        }
        self.segment.is_empty = false;
        self.index_buffer(start);
        let offset = start + self.buffer.len() as u64;
        self.head = Head { offset, link, records: self.head.records + records, ..self.head };
        self.buffer.clear();
        // The chain goes on whatever comes of this: the next write says again where it ends.
        self.put_head(self.head)
    }

    fn index_buffer(&self, start: u64) {
        let mut live = self.live.lock();
        let mut at = 0;
        while let Some(body) = peregrine_actors::audit::body_at(&self.buffer, at) {
            live.1.add(start + at as u64, body);
            at += body.len() + FRAME_BYTES;
        }
    }

    fn put_head(&self, head: Head) -> io::Result<()> {
        self.head_file.write_all_at(&head.encode(), 0)
    }

    /// Ends the segment, begins the next, and drops what there is no room or no more use for. Nothing has changed when
    /// it fails.
    fn rotate(&mut self, incoming: u64, now_ms: u64) -> io::Result<()> {
        let (segment, head) = (&self.segment, self.head);
        segment.file.sync_data()?;
        let index = self.live.lock().1.clone().encode();
        let index_bytes = index.len() as u64;
        write_new(&index_path(&self.dir, segment.index), &index)?;
        let sealed = Sealed { bytes: head.offset + index_bytes, ended_ms: now_ms };
        let mut old = self.sealed.clone();
        old.push(Old { index: segment.index, end: head.link, sealed });
        let kinds: Vec<Sealed> = old.iter().map(|old| old.sealed).collect();
        let dropped: Vec<Old> = old.drain(..self.keep.dropped(&kinds, incoming, now_ms)).collect();
        let notes: Vec<Note> = dropped.iter().map(|old| dropped_note(old, now_ms)).collect();
        let next = Begun::new(&self.dir, segment.index + 1, head.link, now_ms, &notes)?;
        self.head = Head { records: head.records, ..next.head };
        self.put_head(self.head)?;
        self.head_file.sync_data()?;
        *self.live.lock() = (next.segment.index, Index::default());
        self.segment = next.segment;
        self.sealed = old;
        // What is not there any more was said to be dropped before, on the disk too.
        dropped.iter().for_each(|old| drop_segment(&self.dir, old));
        Ok(())
    }

    fn appended(&mut self, bodies: &mut [Vec<u8>], now: SystemTime) -> (usize, io::Result<()>) {
        let now_ms = millis(now);
        let (mut written, mut gathered, mut records) = (0, 0, 0);
        let mut link = self.head.link;
        self.buffer.clear();
        for body in bodies {
            let incoming = (body.len() + FRAME_BYTES) as u64;
            let bytes = self.head.offset + self.buffer.len() as u64;
            let is_empty = self.segment.is_empty && self.buffer.is_empty();
            let age = Duration::from_millis(now_ms.saturating_sub(self.segment.created_ms));
            let rotates = self.keep.rotates(bytes, is_empty, age, incoming);
            if rotates || self.buffer.len() >= WRITE_BYTES {
                let before = self.head.offset;
                let flushed = self.flush(link, records);
                if self.head.offset > before {
                    written += std::mem::take(&mut gathered);
                    records = 0;
                }
                if let Err(failed) = flushed {
                    return (written, Err(failed));
                }
            }
            if rotates {
                if let Err(failed) = self.rotate(incoming, now_ms) {
                    return (written, Err(failed));
                }
                link = self.head.link;
            }
            link = append(&mut self.buffer, body, link);
            records += u64::from(is_record(body));
            gathered += 1;
        }
        let before = self.head.offset;
        let flushed = self.flush(link, records);
        if self.head.offset > before {
            written += gathered;
        }
        (written, flushed)
    }
}

impl Store for Files {
    fn append(&mut self, bodies: &mut [Vec<u8>], now: SystemTime) -> (usize, Result<(), StoreError>) {
        let (written, result) = self.appended(bodies, now);
        (written, result.map_err(|failed| self.failed(&failed)))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.segment.file.sync_data().and_then(|()| self.head_file.sync_data());
        synced.map_err(|failed| self.failed(&failed))
    }

    fn head(&self) -> Head {
        self.head
    }
}

impl Files {
    fn failed(&self, failed: &io::Error) -> StoreError {
        StoreError(format!("{}: {failed}", self.dir.display()))
    }
}

/// A segment that was just made.
pub(super) struct Begun {
    pub(super) segment: Segment,
    /// Of no records.
    pub(super) head: Head,
}

impl Begun {
    /// Makes a segment with notes in it, on the disk when this returns; leaves nothing when it fails.
    pub(super) fn new(
        dir: &Path,
        index: u64,
        before: Link,
        created_ms: u64,
        notes: &[Note],
    ) -> io::Result<Self> {
        let (header, mut link) = SegmentHeader { index, created_ms, before }.encode();
        let mut bytes = header.to_vec();
        for note in notes {
            link = append(&mut bytes, &mut note.encode(), link);
        }
        let path = segment_path(dir, index);
        // What a failed try has left is no part of the chain.
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
        let written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all());
        if let Err(failed) = written.and_then(|()| File::open(dir)?.sync_all()) {
            let _ = fs::remove_file(&path); // it stands for nothing yet
            return Err(failed);
        }
        let head = Head { segment: index, offset: bytes.len() as u64, records: 0, link };
        Ok(Self { segment: Segment { index, file, created_ms, is_empty: true }, head })
    }
}

pub(super) fn dropped_note(old: &Old, at_ms: u64) -> Note {
    Note::Dropped { at_ms, segment: old.index, end: old.end, bytes: old.sealed.bytes }
}

pub(super) fn drop_segment(dir: &Path, old: &Old) {
    for path in [index_path(dir, old.index), segment_path(dir, old.index)] {
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(failed) => {
                warn!(path = %path.display(), error = %failed, "audit records stay that were to be deleted");
            }
        }
    }
    info!(segment = old.index, end = %old.end, "audit segment dropped");
}

pub(super) fn segment_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}.segment"))
}

pub(super) fn index_path(dir: &Path, index: u64) -> PathBuf {
    dir.join(format!("{index:016x}.index"))
}

/// Numbers of the segments that are there, rising.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".segment"));
        let number = number.filter(|digits| digits.len() == 16);
        found.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn first_segment_offset() -> u64 {
    HEADER_BYTES as u64
}

/// Since 1970.
pub(super) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All of it, or no file.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let file = File::create(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(path); // nobody would believe half of it, and it is made again
    })
}

//! The segments as they are written: append, begin the next, drop the oldest.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peregrine_actors::audit::index::Index;
use peregrine_actors::audit::{
    Format, Group, HEADER_BYTES, Head, Keep, Link, Note, Sealed, SegmentHeader, Store, StoreError,
};
use tracing::{info, warn};

use super::Live;

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
        let head_file = open_head(dir)?;
        let live = Arc::new(parking_lot::Mutex::new((segment.index, index)));
        let files = Self { dir: dir.to_owned(), keep, segment, head_file, head, sealed, live };
        files.put_head(head)?;
        Ok(files)
    }

    pub(super) fn live(&self) -> Live {
        Arc::clone(&self.live)
    }

    /// All or nothing of a group. The head does not speak of it yet.
    fn put(&mut self, group: &mut Group) -> io::Result<()> {
        let start = self.head.offset;
        let (frame, link) = group.seal(self.head.link);
        if let Err(failed) = self.segment.file.write_all_at(frame, start) {
            // Whatever of it was written is behind the head, and written over by the next try.
            if let Err(kept) = self.segment.file.set_len(start) {
                warn!(error = %kept, "a part of a record stays behind the end of the audit chain");
            }
            return Err(failed);
        }
        let offset = start + frame.len() as u64;
        self.segment.is_empty = false;
        self.head = Head { offset, link, records: self.head.records + group.records(), ..self.head };
        let mut live = self.live.lock();
        group.bodies().for_each(|body| live.1.add(start, body));
        Ok(())
    }

    fn put_head(&self, head: Head) -> io::Result<()> {
        self.head_file.write_all_at(&head.encode(), 0)
    }

    /// Ends the segment, begins the next, and drops what there is no room or no more use for. Nothing has changed when
    /// it fails.
    fn rotate(&mut self, incoming: u64, now_ms: u64) -> io::Result<()> {
        let (segment, head) = (&self.segment, self.head);
        // The next one follows it, also for whoever starts between the two.
        self.put_head(head)?;
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

    /// As far as groups can be written, and how many were.
    fn put_all(&mut self, groups: &mut [&mut Group], now_ms: u64) -> (usize, io::Result<()>) {
        for (written, group) in groups.iter_mut().enumerate().filter(|(_, group)| !group.is_empty()) {
            let incoming = group.frame_bytes() as u64;
            let age = Duration::from_millis(now_ms.saturating_sub(self.segment.created_ms));
            let rotates = self.keep.rotates(self.head.offset, self.segment.is_empty, age, incoming);
            let ready = if rotates { self.rotate(incoming, now_ms) } else { Ok(()) };
            if let Err(failed) = ready.and_then(|()| self.put(group)) {
                return (written, Err(failed));
            }
        }
        (groups.len(), Ok(()))
    }
}

impl Store for Files {
    fn append(&mut self, groups: &mut [&mut Group], now: SystemTime) -> (usize, Result<(), StoreError>) {
        let before = self.head;
        let (written, mut result) = self.put_all(groups, millis(now));
        if self.head != before {
            // The chain goes on whatever comes of this: the next write says again where it ends.
            result = result.and(self.put_head(self.head));
        }
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
        let (header, mut link) =
            SegmentHeader { format: Format::Grouped, index, created_ms, before }.encode();
        let mut bytes = header.to_vec();
        let mut group = Group::default();
        notes.iter().for_each(|note| group.push(&note.encode()));
        if !group.is_empty() {
            let (frame, end) = group.seal(link);
            bytes.extend_from_slice(frame);
            link = end;
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

/// Says where the chain ends, on the disk when this returns.
pub(super) fn write_head(dir: &Path, head: Head) -> io::Result<()> {
    let file = open_head(dir)?;
    file.write_all_at(&head.encode(), 0)?;
    file.sync_data()
}

fn open_head(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("head"))
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

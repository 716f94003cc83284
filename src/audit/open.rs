//! What is found in a folder of records, and where recording goes on: behind the last whole record, or, where what is
//! there is not what was left, in a new segment that says so. Nothing that the head vouches for is ever changed.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::SystemTime;

use peregrine_actors::audit::index::Index;
use peregrine_actors::audit::{
    Flaw, Format, Frames, Group, HEADER_BYTES, Head, Keep, Link, Note, Sealed, SegmentHeader, Store as _,
    is_record,
};

use super::files::{
    Begun, Files, Old, Segment, drop_segment, dropped_note, first_segment_offset, index_path, list, millis,
    segment_path, write_head,
};
use crate::config::NodeConfig;

/// What was found in a folder of records when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments.
    pub segments: usize,
    /// The node before had said that it ended, or there was none.
    pub was_closed: bool,
    /// Bytes of a record that was being written when it was killed.
    pub cut_bytes: u64,
    /// What is not as it was left.
    pub broken: Option<String>,
}

/// Where recording goes on.
enum Place {
    /// In the last segment.
    Behind(Tail),
    /// In the next one, behind this link.
    Next { index: u64, before: Link, was_closed: bool },
    /// In a new segment, since something is wrong.
    Broken { found: String, index: u64, head: Head },
}

/// The end of a segment that may go on.
struct Tail {
    index: u64,
    header: SegmentHeader,
    end: u64,
    link: Link,
    cut_bytes: u64,
    was_closed: bool,
    is_empty: bool,
    /// Records behind the head.
    records: u64,
    entries: Index,
}

/// Opens the records of a folder that the caller has locked.
pub(super) fn open(dir: &Path, keep: Keep, node: &NodeConfig, now: SystemTime) -> io::Result<(Files, Found)> {
    let now_ms = millis(now);
    let head = read_head(dir)?;
    let segments = list(dir)?;
    let mut found = Found { segments: segments.len(), was_closed: true, ..Found::default() };
    let mut records = head.as_ref().map_or(0, |head| head.as_ref().map_or(0, |head| head.records));
    let place = place(dir, &segments, head)?;
    let last = match &place {
        Place::Behind(tail) if tail.header.format == Format::Single => tail.index.saturating_add(1),
        Place::Behind(tail) => tail.index,
        Place::Next { index, .. } | Place::Broken { index, .. } => *index,
    };
    let mut old = sealed(dir, &segments, last, now_ms)?;
    let mut notes = Vec::new();
    let (segment, mut head, entries) = match place {
        Place::Behind(tail) => {
            let file = OpenOptions::new().read(true).write(true).open(segment_path(dir, tail.index))?;
            file.set_len(tail.end)?;
            (found.cut_bytes, found.was_closed) = (tail.cut_bytes, tail.was_closed);
            let Tail { index, header, end: offset, link, is_empty, entries, .. } = tail;
            records += tail.records;
            let end = Head { segment: index, offset, records, link };
            match header.format {
                Format::Grouped => {
                    (Segment { index, file, created_ms: header.created_ms, is_empty }, end, entries)
                }
                // Whoever starts between the two finds an end that the next one follows.
                Format::Single => {
                    file.sync_data()?;
                    write_head(dir, end)?;
                    old.iter_mut().filter(|old| old.index == index).for_each(|old| old.end = link);
                    let begun = Begun::new(dir, index.saturating_add(1), link, now_ms, &[])?;
                    (begun.segment, begun.head, Index::default())
                }
            }
        }
        Place::Next { index, before, was_closed } => {
            found.was_closed = was_closed;
            let begun = Begun::new(dir, index, before, now_ms, &[])?;
            (begun.segment, begun.head, Index::default())
        }
        Place::Broken { found: what, index, head: Head { segment, offset, link, .. } } => {
            found.was_closed = false;
            let begun = Begun::new(dir, index, link, now_ms, &[])?;
            notes.push(Note::Broken { at_ms: now_ms, segment, offset, link, found: what.clone() });
            found.broken = Some(what);
            (begun.segment, begun.head, Index::default())
        }
    };
    head.records = records;
    let kinds: Vec<Sealed> = old.iter().map(|old| old.sealed).collect();
    let dropped: Vec<Old> = old.drain(..keep.dropped(&kinds, 0, now_ms)).collect();
    notes.extend(dropped.iter().map(|old| dropped_note(old, now_ms)));
    notes.push(Note::Opened {
        at_ms: now_ms,
        node: node.name.as_str().to_owned(),
        region: node.region.as_str().to_owned(),
        was_closed: found.was_closed,
        cut_bytes: found.cut_bytes,
    });
    let mut files = Files::new(dir, keep, segment, head, old, entries)?;
    let mut group = Group::default();
    notes.iter().for_each(|note| group.push(&note.encode()));
    let (_, appended) = files.append(&mut [&mut group], now);
    appended.and_then(|()| files.sync()).map_err(io::Error::other)?;
    dropped.iter().for_each(|old| drop_segment(dir, old));
    Ok((files, found))
}

/// `None`: there is no file. An error inside: it is no head.
fn read_head(dir: &Path) -> io::Result<Option<Result<Head, ()>>> {
    match fs::read(dir.join("head")) {
        Ok(bytes) => Ok(Some(Head::decode(&bytes).ok_or(()))),
        Err(none) if none.kind() == ErrorKind::NotFound => Ok(None),
        Err(failed) => Err(failed),
    }
}

fn place(dir: &Path, segments: &[u64], head: Option<Result<Head, ()>>) -> io::Result<Place> {
    let Some(&last) = segments.last() else {
        return Ok(match head {
            None => Place::Next { index: 1, before: Link::default(), was_closed: true },
            Some(Ok(head)) => {
                let (found, index) = ("there was no segment left".to_owned(), head.segment.saturating_add(1));
                Place::Broken { found, index, head }
            }
            Some(Err(())) => {
                let found = "there was no segment left, and the head was edited".to_owned();
                Place::Broken { found, index: 1, head: Head::default() }
            }
        });
    };
    let bytes = fs::read(segment_path(dir, last))?;
    let Some(head) = head else {
        // Killed between the very first segment and the head.
        if segments == [1] && bytes.len() as u64 <= first_segment_offset() {
            return Ok(Place::Next { index: 1, before: Link::default(), was_closed: true });
        }
        let (found, head) = ("the head was missing".to_owned(), end_of(last, &bytes));
        return Ok(Place::Broken { found, index: last.saturating_add(1), head });
    };
    let Ok(head) = head else {
        let (found, head) = ("the head was edited".to_owned(), end_of(last, &bytes));
        return Ok(Place::Broken { found, index: last.saturating_add(1), head });
    };
    let next = last.max(head.segment).saturating_add(1);
    Ok(match tail(last, &bytes, &head) {
        Ok(tail) => Place::Behind(tail),
        // Made, and not yet written, when its node was killed.
        Err(Flaw::Short) if bytes.len() < HEADER_BYTES && head.segment.checked_add(1) == Some(last) => {
            Place::Next { index: last, before: head.link, was_closed: false }
        }
        Err(flaw) => {
            let found = format!("segment {last} did not reach the head: {flaw}");
            Place::Broken { found, index: next, head }
        }
    })
}

/// The end of a segment that goes through the head. Whatever is behind that and no whole record was being written.
fn tail(index: u64, bytes: &[u8], head: &Head) -> Result<Tail, Flaw> {
    let (header, link) = SegmentHeader::decode(bytes)?;
    if header.index != index {
        return Err(Flaw::Header);
    }
    let is_head = |offset: u64, link: Link| (head.segment, head.offset, head.link) == (index, offset, link);
    let follows = head.segment.checked_add(1) == Some(index) && header.before == head.link;
    let mut reaches = follows || is_head(HEADER_BYTES as u64, link);
    let mut frames = Frames::new(bytes, header.format, link);
    let mut records = 0;
    let (mut entries, mut was_closed, mut is_empty, mut flaw) = (Index::default(), false, true, None);
    while let Some(frame) = frames.next() {
        match frame {
            Ok(frame) => {
                for entry in frame.entries() {
                    let note = Note::decode(entry.body);
                    was_closed = matches!(note, Ok(Note::Closed { .. }));
                    is_empty &= matches!(note, Ok(Note::Dropped { .. }));
                    entries.add(frame.at, entry.body);
                    records += u64::from(reaches && is_record(entry.body));
                }
                let (end, link) = frames.end();
                reaches |= is_head(end, link);
            }
            Err(found) => flaw = Some(found),
        }
    }
    let (end, link) = frames.end();
    if !reaches {
        return Err(flaw.unwrap_or(Flaw::Short));
    }
    let cut_bytes = bytes.len() as u64 - end;
    Ok(Tail { index, header, end, link, cut_bytes, was_closed, is_empty, records, entries })
}

/// Where a segment ends, as far as it holds.
fn end_of(segment: u64, bytes: &[u8]) -> Head {
    let Ok((header, link)) = SegmentHeader::decode(bytes) else {
        return Head { segment, ..Head::default() };
    };
    let mut frames = Frames::new(bytes, header.format, link);
    while frames.next().is_some() {}
    let (offset, link) = frames.end();
    Head { segment, offset, link, records: 0 }
}

/// What is known of the segments before `last`, by their headers and sizes.
fn sealed(dir: &Path, segments: &[u64], last: u64, now_ms: u64) -> io::Result<Vec<Old>> {
    let mut old: Vec<Old> = Vec::new();
    for &index in segments.iter().filter(|index| **index <= last) {
        let mut bytes = Vec::new();
        fs::File::open(segment_path(dir, index))?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        // Each says how the one before it ended.
        if let Some(before) = old.last_mut()
            && let Ok((header, _)) = SegmentHeader::decode(&bytes)
        {
            before.end = header.before;
            before.sealed.ended_ms = header.created_ms;
        }
        let bytes = fs::metadata(segment_path(dir, index))?.len();
        let index_bytes = fs::metadata(index_path(dir, index)).map_or(0, |meta| meta.len());
        let sealed = Sealed { bytes: bytes + index_bytes, ended_ms: now_ms };
        old.push(Old { index, end: Link::default(), sealed });
    }
    old.retain(|old| old.index < last);
    Ok(old)
}

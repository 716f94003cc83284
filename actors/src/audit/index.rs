//! The index of a segment: which of its records may be called what. Made from the segment alone, believed in nothing.
//!
//! `magic:8 (key:8 at:4)*`, rising by key and place.

use super::codec::{u32_at, u64_at};
use super::frame::Frame;
use super::record;

const MAGIC: &[u8; 8] = b"PGAINDX1";
const ENTRY_BYTES: usize = 12;

/// Of a segment that grows.
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<(u64, u32)>,
}

impl Index {
    /// Adds what a body in the frame at this place can be found by. Segments end before their places need more than four
    /// bytes.
    pub fn add(&mut self, at: u64, body: &[u8]) {
        let Ok(at) = u32::try_from(at) else { return };
        // What cannot be read cannot be found; `verify` says so.
        let _ = record::keys(body, |key| self.entries.push((key, at)));
    }

    /// Of all frames of a segment.
    #[must_use]
    pub fn of<'a>(frames: impl Iterator<Item = Frame<'a>>) -> Self {
        let mut index = Self::default();
        frames.for_each(|frame| frame.entries().for_each(|entry| index.add(frame.at, entry.body)));
        index
    }

    /// Places of frames that may hold a record of one of these keys, the newest first.
    #[must_use]
    pub fn find(&self, keys: &[u64]) -> Vec<u32> {
        let found = self.entries.iter().rev().filter(|(key, _)| keys.contains(key));
        let mut found: Vec<u32> = found.map(|(_, at)| *at).collect();
        found.dedup();
        found
    }

    /// As it is kept.
    #[must_use]
    pub fn encode(mut self) -> Vec<u8> {
        self.entries.sort_unstable();
        let mut out = Vec::with_capacity(MAGIC.len() + self.entries.len() * ENTRY_BYTES);
        out.extend_from_slice(MAGIC);
        for (key, at) in self.entries {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&at.to_le_bytes());
        }
        out
    }
}

/// As [`Index::find`], in an index that was kept; `None` if the bytes are none.
#[must_use]
pub fn find_in(bytes: &[u8], keys: &[u64]) -> Option<Vec<u32>> {
    let entries = bytes.strip_prefix(MAGIC)?;
    if !entries.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let entry = |place: usize| {
        let at = place * ENTRY_BYTES;
        Some((u64_at(entries, at)?, u32_at(entries, at + 8)?))
    };
    let count = entries.len() / ENTRY_BYTES;
    let mut found = Vec::new();
    for &wanted in keys {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry(middle)?.0 < wanted { low = middle + 1 } else { high = middle }
        }
        while let Some((key, at)) = entry(low).filter(|_| low < count)
            && key == wanted
        {
            found.push(at);
            low += 1;
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    Some(found)
}

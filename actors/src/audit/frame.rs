//! What a segment consists of: frames, each of which ends with a link that covers all of it and the link before.
//!
//! ```text
//! frame := len:4 content:len link:32
//! content of a grouped segment := (len:4 body)*, of a single one := body
//! ```
//! A body is a record or a note. Records that are written at once form a group: one hash for many, over bytes that lie
//! together. A former segment has a link of each body; of a prediction's windows it covers their hash, which stands
//! behind them.

use super::codec::{FORMER_RECORD, u32_at};
use super::link::{Flaw, Format, HEADER_BYTES, Link, link_at, sha256};
use super::note::is_note;
use super::policy::GROUP_BYTES_MAX;
use super::record::is_record;

/// Before and behind a frame's content.
pub const FRAME_BYTES: usize = 36;
/// Of a length, before what it counts.
const LEN_BYTES: usize = 4;
const LINK_BYTES: usize = 32;
/// Before a group's content: the link that it follows, so that what is hashed lies together, and a length.
const START: usize = LINK_BYTES + LEN_BYTES;

/// Entries that become one frame.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// A link and the frame behind it; neither link is valid before it is sealed, nor is the length.
    bytes: Vec<u8>,
    /// Where the content ends.
    end: usize,
    records: u64,
}

impl Group {
    /// Of one body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut group = Self::with_buffer(Vec::with_capacity(START + LEN_BYTES + body.len() + LINK_BYTES));
        group.push(body);
        group
    }

    /// An empty one, which fills this.
    pub(super) fn with_buffer(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { bytes: buffer, end: 0, records: 0 }
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Adds an entry. Bodies are bounded far below 4 GiB.
    pub fn push(&mut self, body: &[u8]) {
        self.bytes.truncate(self.end);
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; START]);
        }
        self.bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(body);
        self.end = self.bytes.len();
        self.records += u64::from(is_record(body));
    }

    /// Nothing to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Predictions in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of its frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.end.max(START) - START + FRAME_BYTES
    }

    /// Its frame behind this link, and its own. May be done again behind another.
    pub fn seal(&mut self, before: Link) -> (&[u8], Link) {
        self.bytes.truncate(self.end);
        let len = (self.end - START) as u32;
        self.bytes[..LINK_BYTES].copy_from_slice(&before.0);
        self.bytes[LINK_BYTES..START].copy_from_slice(&len.to_le_bytes());
        let link = Format::Grouped.hash(&[&self.bytes]);
        self.bytes.extend_from_slice(&link.0);
        (&self.bytes[LINK_BYTES..], link)
    }

    /// What was pushed.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let content = self.bytes.get(START..self.end).unwrap_or_default();
        Entries { format: Format::Grouped, content, at: 0 }.map(|(_, body)| body)
    }
}

/// One link of a segment and what it covers.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where it begins.
    pub at: u64,
    /// Of everything up to its end.
    pub link: Link,
    format: Format,
    content: &'a [u8],
}

/// A record or a note.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it begins in its segment.
    pub at: u64,
    /// What it says.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What it holds, as far as lengths lead; all of it where the link was checked.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let start = self.at + LEN_BYTES as u64;
        let (format, content) = (self.format, self.content);
        let entries = Entries { format, content, at: 0 };
        entries.map(move |(at, body)| match format {
            // The lengths are one.
            Format::Single => Entry { at: start - LEN_BYTES as u64, body },
            Format::Grouped => Entry { at: start + at as u64, body },
        })
    }

    /// Where the next one begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at + (self.content.len() + FRAME_BYTES) as u64
    }
}

/// Bodies, and where the length of each is.
struct Entries<'a> {
    format: Format,
    content: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let body = match self.format {
            Format::Single if at > 0 => return None,
            Format::Single => self.content,
            Format::Grouped => {
                let start = at.checked_add(LEN_BYTES)?;
                let end = start.checked_add(u32_at(self.content, at)? as usize)?;
                self.content.get(start..end)?
            }
        };
        self.at = at + LEN_BYTES + body.len();
        Some((at, body))
    }
}

/// The frames of a segment, each checked against the one before; ends after the first that is flawed.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    format: Format,
    at: usize,
    link: Link,
    is_over: bool,
}

impl<'a> Frames<'a> {
    /// Of a whole segment, whose header gave `link`.
    #[must_use]
    pub fn new(bytes: &'a [u8], format: Format, link: Link) -> Self {
        Self { bytes, format, at: HEADER_BYTES, link, is_over: false }
    }

    /// Where the last good frame ended, and its link.
    #[must_use]
    pub fn end(&self) -> (u64, Link) {
        (self.at as u64, self.link)
    }

    /// What stands behind it.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn checked(&self) -> Result<Frame<'a>, Flaw> {
        let frame = frame_at(self.bytes, self.at, self.format).ok_or(Flaw::Short)?;
        if link_of(self.format, self.link, frame.content)? != frame.link {
            return Err(Flaw::Link);
        }
        Ok(frame)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Flaw>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over || self.at == self.bytes.len() {
            return None;
        }
        let frame = self.checked();
        match &frame {
            Ok(frame) => (self.at, self.link) = (self.at + frame.content.len() + FRAME_BYTES, frame.link),
            Err(_) => self.is_over = true,
        }
        Some(frame)
    }
}

/// The frame at `at`, whatever the chain says of it.
#[must_use]
pub fn frame_at(bytes: &[u8], at: usize, format: Format) -> Option<Frame<'_>> {
    let start = at.checked_add(LEN_BYTES)?;
    let end = start.checked_add(u32_at(bytes, at)? as usize)?;
    let content = bytes.get(start..end)?;
    Some(Frame { at: at as u64, link: link_at(bytes, end)?, format, content })
}

/// Is the frame at `at` whole, and does it follow what stands before it?
#[must_use]
pub fn is_intact(bytes: &[u8], at: usize, format: Format) -> bool {
    let before = at.checked_sub(32).and_then(|start| link_at(bytes, start));
    let (Some(before), Some(frame)) = (before, frame_at(bytes, at, format)) else { return false };
    link_of(format, before, frame.content) == Ok(frame.link)
}

/// Can this be the begin of one frame that is being written? More than one is not torn at once.
pub(super) fn is_begun(bytes: &[u8], format: Format) -> bool {
    let Some(len) = u32_at(bytes, 0).map(|len| len as usize) else { return true };
    let content = &bytes[LEN_BYTES..];
    let is_entry = |body: &[u8]| body.is_empty() || is_record(body) || is_note(body);
    if format == Format::Single {
        return is_entry(content);
    }
    let mut at = 0;
    while at < len.min(content.len()) {
        let Some(body_len) = u32_at(content, at) else { return at + LEN_BYTES <= len };
        let (start, end) = (at + LEN_BYTES, at + LEN_BYTES + body_len as usize);
        // A group ends with the record that fills it.
        let ends_well = end == len || (end < len && end as u64 <= GROUP_BYTES_MAX);
        if !ends_well || !is_entry(&content[start..end.min(content.len())]) {
            return false;
        }
        at = end;
    }
    content.len() < len + LINK_BYTES
}

/// The frames of a segment as far as their lengths lead, unchecked: what is searched need not be whole.
pub fn unchecked(segment: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let (format, mut at) = (Format::of(segment), HEADER_BYTES);
    std::iter::from_fn(move || {
        let frame = frame_at(segment, at, format?)?;
        at += frame.content.len() + FRAME_BYTES;
        Some(frame)
    })
}

/// The link that stands behind this content, if nobody has edited it.
fn link_of(format: Format, before: Link, content: &[u8]) -> Result<Link, Flaw> {
    let len = (content.len() as u32).to_le_bytes();
    match format {
        Format::Single => former_link(before, len, content),
        Format::Grouped => {
            let link = format.hash(&[&before.0, &len, content]);
            let covered: usize =
                Entries { format, content, at: 0 }.map(|(_, body)| body.len() + LEN_BYTES).sum();
            // Nothing hides between entries.
            if covered == content.len() { Ok(link) } else { Err(Flaw::Link) }
        }
    }
}

fn former_link(before: Link, len: [u8; 4], body: &[u8]) -> Result<Link, Flaw> {
    match windows_of(body) {
        Some((inputs, rest)) if sha256(&[&body[5..inputs]]).0 != body[inputs..rest] => Err(Flaw::Windows),
        // The hash of the windows and all behind it.
        Some((inputs, _)) => Ok(sha256(&[&before.0, &len, &body[..5], &body[inputs..]])),
        None if body.first().is_none_or(|&kind| kind == FORMER_RECORD) => Err(Flaw::Link),
        None => Ok(sha256(&[&before.0, &len, body])),
    }
}

/// Of a former record: where the windows end and their hash begins, and where that ends.
fn windows_of(body: &[u8]) -> Option<(usize, usize)> {
    if *body.first()? != FORMER_RECORD {
        return None;
    }
    let inputs = 5_usize.checked_add(u32_at(body, 1)? as usize)?;
    let rest = inputs.checked_add(32)?;
    (rest <= body.len()).then_some((inputs, rest))
}

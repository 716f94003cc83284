//! The chain: each record's hash covers the one before it, so that whatever is edited, removed, added or moved shows.
//!
//! ```text
//! segment := header frame*
//! header  := magic:8 index:8 created_ms:8 before:32 link:32
//! frame   := len:4 body:len link:32
//! ```
//! Pure bytes, little-endian. A link is SHA-256 of the link before it and what it stands for. Of a prediction's windows
//! the link covers their hash, which stands behind them, so that no byte is hashed twice.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::codec::{RECORD, u32_at, u64_at};

/// Of a segment's header.
pub const HEADER_BYTES: usize = 88;
/// Of a head.
pub const HEAD_BYTES: usize = 96;
/// Before and behind a body.
pub const FRAME_BYTES: usize = 36;

const SEGMENT_MAGIC: &[u8; 8] = b"PGAUDIT1";
const HEAD_MAGIC: &[u8; 8] = b"PGAHEAD1";

/// A place in the chain, by what it says of everything before it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Link(pub [u8; 32]);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no link; the caller acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link of the chain has 64 hexadecimal digits")]
pub struct NoLink;

impl FromStr for Link {
    type Err = NoLink;

    fn from_str(text: &str) -> Result<Self, NoLink> {
        let mut link = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoLink);
        }
        for (byte, digits) in link.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoLink)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoLink)?;
        }
        Ok(Self(link))
    }
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Rises by one from segment to segment; the first is 1.
    pub index: u64,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The last link of the segment before.
    pub before: Link,
}

impl SegmentHeader {
    /// Its bytes, and the link that the segment's first frame follows.
    #[must_use]
    pub fn encode(&self) -> ([u8; HEADER_BYTES], Link) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.before.0);
        let link = hash(&[&bytes[..56]]);
        bytes[56..].copy_from_slice(&link.0);
        (bytes, link)
    }

    /// # Errors
    /// When the bytes do not begin with a header, or it was edited.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Link), Flaw> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Flaw::Short)?;
        if bytes[..8] != *SEGMENT_MAGIC || hash(&[&bytes[..56]]).0 != bytes[56..] {
            return Err(Flaw::Header);
        }
        let header = Self {
            index: u64_at(bytes, 8).ok_or(Flaw::Short)?,
            created_ms: u64_at(bytes, 16).ok_or(Flaw::Short)?,
            before: link_at(bytes, 24).ok_or(Flaw::Short)?,
        };
        Ok((header, link_at(bytes, 56).ok_or(Flaw::Short)?))
    }
}

/// Where the chain ends, as it is written beside it: what was cut off its end shows by that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last segment.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
    /// Predictions recorded so far, those included that were dropped since.
    pub records: u64,
    /// The last link.
    pub link: Link,
}

impl Head {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(HEAD_MAGIC);
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.records.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.link.0);
        let check = hash(&[&bytes[..64]]);
        bytes[64..].copy_from_slice(&check.0);
        bytes
    }

    /// `None`: it was edited, or is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != HEAD_BYTES || bytes[..8] != *HEAD_MAGIC || hash(&[&bytes[..64]]).0 != bytes[64..] {
            return None;
        }
        Some(Self {
            segment: u64_at(bytes, 8)?,
            offset: u64_at(bytes, 16)?,
            records: u64_at(bytes, 24)?,
            link: link_at(bytes, 32)?,
        })
    }
}

/// What is wrong with bytes that should be part of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A segment's header.
    #[error("the header of the segment was edited, or is none")]
    Header,
    /// They end within a frame, or its length was edited.
    #[error("the bytes end within a record")]
    Short,
    /// Windows.
    #[error("the windows of a prediction were edited")]
    Windows,
    /// The body or the link, or what was here before is not.
    #[error("a record was edited, removed, added or moved")]
    Link,
}

/// One entry of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Where it begins.
    pub at: u64,
    /// A record or a note.
    pub body: &'a [u8],
    /// Of everything up to its end.
    pub link: Link,
}

/// The frames of a segment, each checked against the one before; ends after the first that is flawed.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    link: Link,
    is_over: bool,
}

impl<'a> Frames<'a> {
    /// Of a whole segment, whose header gave `link`.
    #[must_use]
    pub fn new(bytes: &'a [u8], link: Link) -> Self {
        Self { bytes, at: HEADER_BYTES, link, is_over: false }
    }

    /// Where the last good frame ended, and its link.
    #[must_use]
    pub fn end(&self) -> (u64, Link) {
        (self.at as u64, self.link)
    }

    fn checked(&self) -> Result<Frame<'a>, Flaw> {
        let (body, link) = split(self.bytes, self.at).ok_or(Flaw::Short)?;
        if checked_link(self.link, body)? != link {
            return Err(Flaw::Link);
        }
        Ok(Frame { at: self.at as u64, body, link })
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
            Ok(frame) => (self.at, self.link) = (self.at + frame.body.len() + FRAME_BYTES, frame.link),
            Err(_) => self.is_over = true,
        }
        Some(frame)
    }
}

/// Writes the hash of a record's windows into its body, appends the frame, and returns its link.
pub fn append(out: &mut Vec<u8>, body: &mut [u8], before: Link) -> Link {
    if let Some((inputs, rest)) = windows_of(body) {
        let computed = hash(&[&body[5..inputs]]);
        body[inputs..rest].copy_from_slice(&computed.0);
    }
    let link = link_of(before, body);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&link.0);
    link
}

/// Is the frame at `at` of a segment whole, and does it follow what stands before it?
#[must_use]
pub fn is_intact(segment: &[u8], at: usize) -> bool {
    let before = at.checked_sub(32).and_then(|start| link_at(segment, start));
    let (Some(before), Some((body, link))) = (before, split(segment, at)) else { return false };
    checked_link(before, body) == Ok(link)
}

/// The body of the frame at `at`, whatever the chain says of it.
#[must_use]
pub fn body_at(segment: &[u8], at: usize) -> Option<&[u8]> {
    split(segment, at).map(|(body, _)| body)
}

/// The frames of a segment as far as their lengths lead, unchecked: what is searched need not be whole.
pub fn unchecked(segment: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let (body, link) = split(segment, at)?;
        let frame = Frame { at: at as u64, body, link };
        at += body.len() + FRAME_BYTES;
        Some(frame)
    })
}

/// Body and link of the frame at `at`.
fn split(bytes: &[u8], at: usize) -> Option<(&[u8], Link)> {
    let len = u32_at(bytes, at)? as usize;
    let start = at.checked_add(4)?;
    let end = start.checked_add(len)?;
    let body = bytes.get(start..end)?;
    Some((body, link_at(bytes, end)?))
}

/// The link of a body whose windows are what their hash says.
fn checked_link(before: Link, body: &[u8]) -> Result<Link, Flaw> {
    match windows_of(body) {
        Some((inputs, rest)) if hash(&[&body[5..inputs]]).0 != body[inputs..rest] => Err(Flaw::Windows),
        Some(_) => Ok(link_of(before, body)),
        None if body.first().is_none_or(|&kind| kind == RECORD) => Err(Flaw::Link),
        None => Ok(link_of(before, body)),
    }
}

fn link_of(before: Link, body: &[u8]) -> Link {
    let len = (body.len() as u32).to_le_bytes();
    match windows_of(body) {
        // The hash of the windows and all behind it.
        Some((inputs, _)) => hash(&[&before.0, &len, &body[..5], &body[inputs..]]),
        None => hash(&[&before.0, &len, body]),
    }
}

/// Of a record: where the windows end and their hash begins, and where that ends.
fn windows_of(body: &[u8]) -> Option<(usize, usize)> {
    if *body.first()? != RECORD {
        return None;
    }
    let inputs = 5_usize.checked_add(u32_at(body, 1)? as usize)?;
    let rest = inputs.checked_add(32)?;
    (rest <= body.len()).then_some((inputs, rest))
}

pub(super) fn link_at(bytes: &[u8], at: usize) -> Option<Link> {
    let end = at.checked_add(32)?;
    bytes.get(at..end)?.try_into().ok().map(Link)
}

fn hash(parts: &[&[u8]]) -> Link {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    Link(hash.finalize().into())
}

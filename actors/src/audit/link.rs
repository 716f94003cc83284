//! The chain: each link covers the one before it, so that whatever is edited, removed, added or moved shows.
//!
//! ```text
//! segment := header frame*
//! header  := magic:8 index:8 created_ms:8 before:32 link:32
//! ```
//! Pure bytes, little-endian; `frame` has what follows the header.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::codec::u64_at;

/// Of a segment's header.
pub const HEADER_BYTES: usize = 88;
/// Of a head.
pub const HEAD_BYTES: usize = 96;

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

/// How a segment holds its entries. A chain goes on across a change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Each by itself under SHA-256: read, and no longer written.
    Single,
    /// In groups under BLAKE3, which is as fast as memory on many records and slower than SHA-256 on one.
    Grouped,
}

impl Format {
    const ALL: [(Self, &'static [u8; 8]); 2] = [(Self::Single, b"PGAUDIT1"), (Self::Grouped, b"PGAUDIT2")];

    /// Of a segment that begins so; `None`: of none that this build knows.
    #[must_use]
    pub fn of(segment: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(_, magic)| segment.starts_with(*magic)).map(|(format, _)| *format)
    }

    const fn magic(self) -> &'static [u8; 8] {
        Self::ALL[self as usize].1
    }

    pub(super) fn hash(self, parts: &[&[u8]]) -> Link {
        match (self, parts) {
            (Self::Single, _) => sha256(parts),
            // As a whole it is hashed in as few and as wide steps as there can be.
            (Self::Grouped, [whole]) => Link(blake3::hash(whole).into()),
            (Self::Grouped, _) => {
                let mut hash = blake3::Hasher::new();
                for part in parts {
                    hash.update(part);
                }
                Link(hash.finalize().into())
            }
        }
    }
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What follows it.
    pub format: Format,
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
        bytes[..8].copy_from_slice(self.format.magic());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.created_ms.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.before.0);
        let link = self.format.hash(&[&bytes[..56]]);
        bytes[56..].copy_from_slice(&link.0);
        (bytes, link)
    }

    /// # Errors
    /// When the bytes do not begin with a header, or it was edited.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Link), Flaw> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Flaw::Short)?;
        let format = Format::of(bytes).ok_or(Flaw::Header)?;
        if format.hash(&[&bytes[..56]]).0 != bytes[56..] {
            return Err(Flaw::Header);
        }
        let header = Self {
            format,
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
        let check = sha256(&[&bytes[..64]]);
        bytes[64..].copy_from_slice(&check.0);
        bytes
    }

    /// `None`: it was edited, or is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != HEAD_BYTES || bytes[..8] != *HEAD_MAGIC || sha256(&[&bytes[..64]]).0 != bytes[64..]
        {
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
    /// Windows, of a former segment.
    #[error("the windows of a prediction were edited")]
    Windows,
    /// The body or the link, or what was here before is not.
    #[error("a record was edited, removed, added or moved")]
    Link,
}

pub(super) fn link_at(bytes: &[u8], at: usize) -> Option<Link> {
    let end = at.checked_add(32)?;
    bytes.get(at..end)?.try_into().ok().map(Link)
}

pub(super) fn sha256(parts: &[&[u8]]) -> Link {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    Link(hash.finalize().into())
}

//! What stands in the chain besides predictions: starts and ends, what is missing, and what was dropped on purpose.

use super::codec::{Reader, RecordError, put_text, put_u32, put_u64};
use super::link::{Link, link_at};

/// Something that happened to the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A node began to record.
    Opened {
        /// Milliseconds since 1970.
        at_ms: u64,
        /// Which node.
        node: String,
        /// Where.
        region: String,
        /// The one before had said that it ended. False: it was killed, and what waited to be written then is missing.
        was_closed: bool,
        /// Bytes of a record that was being written when it was killed, cut off.
        cut_bytes: u64,
    },
    /// It ended, and everything was written.
    Closed {
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Predictions were answered without a record.
    Gap {
        /// When the first was, in milliseconds since 1970.
        from_ms: u64,
        /// When it was noted.
        to_ms: u64,
        /// How many.
        count: u64,
        /// Why.
        reason: String,
    },
    /// A segment was deleted because it was old, or there was no more room.
    Dropped {
        /// Milliseconds since 1970.
        at_ms: u64,
        /// Which one.
        segment: u64,
        /// Its last link.
        end: Link,
        /// How large it was.
        bytes: u64,
    },
    /// What was found at a start was not what had been left.
    Broken {
        /// Milliseconds since 1970.
        at_ms: u64,
        /// Of where the chain should have ended.
        segment: u64,
        /// Bytes of it.
        offset: u64,
        /// The last link.
        link: Link,
        /// What was found instead.
        found: String,
    },
}

/// May a note begin so?
pub(super) fn is_note(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(OPENED | CLOSED | GAP | DROPPED | BROKEN)))
}

const OPENED: u8 = 2;
const CLOSED: u8 = 3;
const GAP: u8 = 4;
const DROPPED: u8 = 5;
const BROKEN: u8 = 6;

impl Note {
    /// Its body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Opened { at_ms, node, region, was_closed, cut_bytes } => {
                out.push(OPENED);
                put_u64(&mut out, *at_ms);
                put_text(&mut out, node);
                put_text(&mut out, region);
                put_u32(&mut out, u32::from(*was_closed));
                put_u64(&mut out, *cut_bytes);
            }
            Self::Closed { at_ms } => {
                out.push(CLOSED);
                put_u64(&mut out, *at_ms);
            }
            Self::Gap { from_ms, to_ms, count, reason } => {
                out.push(GAP);
                [*from_ms, *to_ms, *count].iter().for_each(|number| put_u64(&mut out, *number));
                put_text(&mut out, reason);
            }
            Self::Dropped { at_ms, segment, end, bytes } => {
                out.push(DROPPED);
                [*at_ms, *segment, *bytes].iter().for_each(|number| put_u64(&mut out, *number));
                out.extend_from_slice(&end.0);
            }
            Self::Broken { at_ms, segment, offset, link, found } => {
                out.push(BROKEN);
                [*at_ms, *segment, *offset].iter().for_each(|number| put_u64(&mut out, *number));
                out.extend_from_slice(&link.0);
                put_text(&mut out, found);
            }
        }
        out
    }

    /// Reads a body that is no prediction's.
    ///
    /// # Errors
    /// When it is none of this build's notes.
    pub fn decode(body: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(body);
        let kind = reader.u8()?;
        let note = match kind {
            OPENED => Self::Opened {
                at_ms: reader.u64()?,
                node: reader.text()?.to_owned(),
                region: reader.text()?.to_owned(),
                was_closed: reader.u32()? != 0,
                cut_bytes: reader.u64()?,
            },
            CLOSED => Self::Closed { at_ms: reader.u64()? },
            GAP => Self::Gap {
                from_ms: reader.u64()?,
                to_ms: reader.u64()?,
                count: reader.u64()?,
                reason: reader.text()?.to_owned(),
            },
            DROPPED => {
                let [at_ms, segment, bytes] = [reader.u64()?, reader.u64()?, reader.u64()?];
                Self::Dropped { at_ms, segment, bytes, end: link(&mut reader)? }
            }
            BROKEN => {
                let [at_ms, segment, offset] = [reader.u64()?, reader.u64()?, reader.u64()?];
                let link = link(&mut reader)?;
                Self::Broken { at_ms, segment, offset, link, found: reader.text()?.to_owned() }
            }
            code => return Err(RecordError::Code { what: "note", code }),
        };
        reader.end()?;
        Ok(note)
    }
}

fn link(reader: &mut Reader<'_>) -> Result<Link, RecordError> {
    link_at(reader.take(32)?, 0).ok_or(RecordError::Short)
}

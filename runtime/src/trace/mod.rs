//! Which trace a piece of work belongs to: the ids that W3C Trace Context passes from program to program.
//!
//! Plain values, read and printed as its recommendation of level 1 wants. Whether a trace is recorded, what is recorded
//! and where that goes is others' business; here is only what has to cross a border.

mod state;
#[cfg(test)]
mod tests;

use std::fmt;

pub use state::TraceState;

/// Length of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;
/// The one flag of level 1.
const SAMPLED: u8 = 1;

/// A trace. Never all zero, which means none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// One piece of work in a trace. Never all zero, which means none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// The piece of work that another is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// What both belong to.
    pub trace: TraceId,
    /// The one that caused the other.
    pub span: SpanId,
    /// Whether whoever began may have recorded it, and wants the others to.
    pub sampled: bool,
}

impl TraceId {
    /// `None` if all bytes are zero.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// As on the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// `None` if all bytes are zero.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// As on the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl TraceContext {
    /// Reads a `traceparent`; `None`: it is none, and whoever got it begins a trace of its own.
    ///
    /// Of a higher version the part is read that version 00 has, as long as more follows behind a dash only.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        if [head[2], head[35], head[52]] != [b'-'; 3] {
            return None;
        }
        match hex::<1>(&head[..2])? {
            [0xff] => return None,
            [0] if !rest.is_empty() => return None,
            _ if !rest.is_empty() && rest[0] != b'-' => return None,
            _ => {}
        }
        let [flags] = hex::<1>(&head[53..])?;
        Some(Self {
            trace: TraceId::new(hex(&head[3..35])?)?,
            span: SpanId::new(hex(&head[36..52])?)?,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// As a `traceparent` of version 00. Flags that level 1 does not know are not passed on.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }

    /// From the fields of a frame, which carries recorded traces only; zero: not traced.
    pub(crate) fn from_frame(trace: [u8; 16], span: [u8; 8]) -> Option<Self> {
        Some(Self { trace: TraceId::new(trace)?, span: SpanId::new(span)?, sampled: true })
    }

    /// The fields of a frame.
    pub(crate) fn for_frame(context: Option<Self>) -> ([u8; 16], [u8; 8]) {
        let recorded = context.filter(|context| context.sampled);
        recorded.map_or(([0; 16], [0; 8]), |context| (context.trace.bytes(), context.span.bytes()))
    }
}

/// Lowercase hexadecimal digits alone, as the recommendation has it.
fn hex<const LEN: usize>(digits: &[u8]) -> Option<[u8; LEN]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LEN];
    if digits.len() != 2 * LEN {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn print(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(&self.0, f)
    }
}

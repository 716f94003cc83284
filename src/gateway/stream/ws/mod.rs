//! RFC 6455 as pure code: bytes in, messages out. Knows no socket, clock or JSON.

mod frame;
mod message;
#[cfg(test)]
mod tests;

pub(crate) use frame::{Opcode, frame};
pub(crate) use message::{Event, MessageLimits, Reader};

/// Why a connection ends, as its close frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseReason {
    pub(crate) code: u16,
    /// At most 123 bytes are sent.
    pub(crate) text: &'static str,
}

pub(crate) const NORMAL: u16 = 1000;
pub(crate) const GOING_AWAY: u16 = 1001;
pub(crate) const PROTOCOL: u16 = 1002;
pub(crate) const UNSUPPORTED: u16 = 1003;
pub(crate) const NOT_UTF8: u16 = 1007;
pub(crate) const POLICY: u16 = 1008;
pub(crate) const TOO_BIG: u16 = 1009;

impl CloseReason {
    pub(crate) const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text }
    }

    /// The close frame.
    pub(crate) fn frame(&self) -> bytes::Bytes {
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.text.as_bytes()[..self.text.len().min(123)]);
        frame(Opcode::Close, &payload)
    }
}

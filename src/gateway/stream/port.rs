//! What a connection asks of whoever speaks over it, and what is handed between the two. Knows no socket.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::ws::CloseReason;

/// Answers that wait for the client; beyond them it is not read from.
const OUT_BYTES_MAX: usize = 64 << 10;

/// Of one write; also most that a connection keeps of frames that its client has not taken.
pub(super) const WRITE_BYTES: usize = 16 << 10;

/// A message of the client.
pub(in crate::gateway) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// What is said over a websocket.
pub(in crate::gateway) trait Session {
    /// A message came; answers go to `out`.
    fn message(&mut self, message: Message, out: &mut Outbox) -> Result<(), CloseReason>;

    /// May another message come?
    fn ready(&self) -> bool {
        true
    }

    /// Goes on with what was begun.
    fn poll(&mut self, _cx: &mut Context<'_>, _out: &mut Outbox) -> Result<(), CloseReason> {
        Ok(())
    }

    /// Hands out frames until `take` refuses one; at their end the waker is kept. Whether there are more.
    fn frames(
        &mut self,
        _waker: &Waker,
        _take: &mut dyn FnMut(&Bytes) -> bool,
        _out: &mut Outbox,
    ) -> Result<bool, CloseReason> {
        Ok(false)
    }

    /// The connection sleeps with nothing left to write: whole messages may be written to its socket for it, until it takes
    /// that back.
    fn entrust(&mut self, _socket: RawFd, _waker: &Waker) {}

    /// The connection is awake; what was written for it, if somebody was to.
    fn take_back(&mut self) -> Option<Written> {
        None
    }

    /// The client does not take what is sent.
    fn blocked(&mut self, _waker: &Waker, _out: &mut Outbox) -> Result<(), CloseReason> {
        Ok(())
    }

    /// Time has passed. An error is the end of what the client may do here.
    fn tick(&mut self, _out: &mut Outbox) -> Result<(), CloseReason> {
        Ok(())
    }

    /// Nothing was sent for a while.
    fn quiet(&mut self, _out: &mut Outbox) {}

    /// The node is about to close the connection.
    fn goodbye(&mut self, _why: End, _out: &mut Outbox) {}
}

/// What was written for a connection that slept.
#[derive(Debug)]
pub(in crate::gateway) struct Written {
    /// Anything at all.
    pub(super) any: bool,
    /// Of a message that the socket did not take whole.
    pub(super) rest: Bytes,
}

/// Frames for one client alone.
#[derive(Default)]
pub(in crate::gateway) struct Outbox {
    pub(super) frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    pub(in crate::gateway) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= OUT_BYTES_MAX
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        if self.frames.is_empty() {
            self.frames = VecDeque::new(); // an idle connection keeps no buffer
        }
        Some(frame)
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum End {
    /// With both close frames.
    Closed,
    /// The client went without a word.
    Gone,
    /// The client said nothing any more.
    Idle,
    /// The client did not read.
    Slow,
    /// The client broke the rules.
    Violation,
    /// This node stops.
    Drained,
    /// The client's key was revoked or has expired.
    Denied,
}

impl End {
    pub(super) const ALL: [Self; 7] =
        [Self::Closed, Self::Gone, Self::Idle, Self::Slow, Self::Violation, Self::Drained, Self::Denied];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Gone => "gone",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Violation => "violation",
            Self::Drained => "drained",
            Self::Denied => "denied",
        }
    }
}

//! What waits to be written to one lane: senders append whole frames, one writer takes all of them at once.
//!
//! While a write is in flight the next ones gather, so a busy lane is written in few large pieces. Bounded in
//! bytes; full is an answer.

use std::future::poll_fn;
use std::mem;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::wire::{HEADER_BYTES, Header};

/// Memory kept for the next frames once a large burst has left.
const KEPT_BYTES_MAX: usize = 256 << 10;

pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
}

struct State {
    frames: Vec<u8>,
    open: bool,
    writer: Option<Waker>,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsent<E> {
    Full,
    Closed,
    /// The body could not be written.
    Body(E),
}

impl Outbox {
    /// Closed until [`Outbox::open`].
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::new(State { frames: Vec::new(), open: false, writer: None }), bytes_max }
    }

    /// Takes frames from now on.
    pub(crate) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Throws away what waits, ends the writer, and takes nothing more until it is opened again.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.frames = Vec::new();
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Whether everything that was taken is with the writer.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().frames.is_empty()
    }

    /// Appends a frame. `body` writes behind the header; what it has written when it fails is taken back.
    pub(crate) fn push<E>(
        &self,
        mut header: Header,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), Unsent<E>> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(Unsent::Closed);
        }
        if state.frames.len() >= self.bytes_max {
            return Err(Unsent::Full);
        }
        let start = state.frames.len();
        state.frames.extend_from_slice(&[0; HEADER_BYTES]);
        let body_start = state.frames.len();
        if let Err(error) = body(&mut state.frames) {
            state.frames.truncate(start);
            return Err(Unsent::Body(error));
        }
        let body_bytes = state.frames.len() - body_start;
        // One frame may pass the bound, so that any frame that is allowed can be sent at all.
        if start > 0 && state.frames.len() > self.bytes_max {
            state.frames.truncate(start);
            return Err(Unsent::Full);
        }
        header.body_bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        state.frames[start..body_start].copy_from_slice(&header.to_bytes());
        if let Some(writer) = state.writer.take() {
            drop(state);
            writer.wake();
        }
        Ok(())
    }

    /// Swaps everything that waits into `into`, which must be empty; waits for something. False: closed.
    ///
    /// Memory of a burst goes back when the lane has nothing to write: given back after each write, a busy lane
    /// would have its pages mapped anew all the time.
    pub(crate) async fn take(&self, into: &mut Vec<u8>) -> bool {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.open {
                return Poll::Ready(false);
            }
            if state.frames.is_empty() {
                for memory in [&mut *into, &mut state.frames] {
                    memory.shrink_to(KEPT_BYTES_MAX);
                }
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            mem::swap(&mut state.frames, into);
            Poll::Ready(true)
        })
        .await
    }
}

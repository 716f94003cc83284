//! What waits to be written to one lane: senders append whole frames, one writer takes them piece by piece.
//!
//! While a write is in flight the next frames gather, so a busy lane is written in few large pieces. A large frame is
//! a piece of its own, which the network keeps as it is. Bounded in bytes; full is an answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::cluster::spare::Spare;
use crate::wire::{HEADER_BYTES, Header};

/// A piece of this many bytes is full: the next frame begins another.
const PIECE_BYTES: usize = 64 << 10;
/// Memory kept for the next frames once a large burst has left.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// The same while the lane is busy.
const KEPT_BUSY_BYTES_MAX: usize = 4 << 20;

pub(crate) struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    spare: Arc<Spare>,
}

struct State {
    pieces: VecDeque<Vec<u8>>,
    /// In all pieces.
    bytes: usize,
    open: bool,
    /// It had something to write when it was last asked.
    busy: bool,
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
        let state = State { pieces: VecDeque::new(), bytes: 0, open: false, busy: false, writer: None };
        Self { state: Mutex::new(state), bytes_max, spare: Arc::default() }
    }

    /// Takes frames from now on.
    pub(crate) fn open(&self) {
        self.state.lock().open = true;
    }

    /// Throws away what waits, ends the writer, and takes nothing more until it is opened again.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.pieces = VecDeque::new();
        state.bytes = 0;
        self.spare.keep(0);
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Whether everything that was taken is with the writer.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().bytes == 0
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
        if state.bytes >= self.bytes_max {
            return Err(Unsent::Full);
        }
        if state.pieces.back().is_none_or(|piece| piece.len() >= PIECE_BYTES) {
            state.pieces.push_back(self.spare.take());
        }
        let waiting = state.bytes;
        let piece = state.pieces.back_mut().expect("there is one by now");
        let start = piece.len();
        piece.extend_from_slice(&[0; HEADER_BYTES]);
        let body_start = piece.len();
        let written = body(piece);
        let bytes = waiting + piece.len() - start;
        // One frame may pass the bound, so that any frame that is allowed can be sent at all.
        if written.is_err() || (waiting > 0 && bytes > self.bytes_max) {
            piece.truncate(start);
            return Err(written.map_or_else(Unsent::Body, |()| Unsent::Full));
        }
        header.body_bytes = u32::try_from(piece.len() - body_start).unwrap_or(u32::MAX);
        piece[start..body_start].copy_from_slice(&header.to_bytes());
        state.bytes = bytes;
        if let Some(writer) = state.writer.take() {
            drop(state);
            writer.wake();
        }
        Ok(())
    }

    /// Swaps the first piece of what waits into `into`, which must be empty; waits for something. False: closed.
    ///
    /// Memory of a burst goes back when the lane has nothing to write.
    pub(crate) async fn take(&self, into: &mut Vec<u8>) -> bool {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.open {
                return Poll::Ready(false);
            }
            if state.bytes == 0 {
                into.shrink_to(KEPT_BYTES_MAX);
                state.pieces.iter_mut().for_each(|piece| piece.shrink_to(KEPT_BYTES_MAX));
                self.spare.keep(KEPT_BYTES_MAX);
                state.busy = false;
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if !mem::replace(&mut state.busy, true) {
                self.spare.keep(KEPT_BUSY_BYTES_MAX);
            }
            let first = state.pieces.front_mut().expect("there are bytes");
            mem::swap(first, into);
            let emptied = first.capacity();
            // The next frames go into what comes back, if it has room at all.
            if state.pieces.len() > 1 || emptied == 0 {
                self.spare.put(state.pieces.pop_front().unwrap_or_default());
            }
            state.bytes -= into.len();
            Poll::Ready(true)
        })
        .await
    }

    /// Takes a piece as bytes that others may share; its memory comes back when the last of them lets go.
    pub(crate) fn lend(&self, piece: &mut Vec<u8>) -> Bytes {
        self.spare.lend(mem::take(piece))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::fabric::Lane;
    use crate::wire::Kind;

    const LANE_BYTES: usize = 4 << 20;

    #[test]
    fn frames_leave_whole_in_their_order_and_a_large_one_ends_its_piece() {
        let outbox = open(LANE_BYTES);
        let sizes = [10, 20, 1 << 20, 5, PIECE_BYTES, 1, 2];
        let lengths = |range: std::ops::Range<usize>| -> usize {
            sizes[range].iter().map(|bytes| bytes + HEADER_BYTES).sum()
        };
        for (number, bytes) in (0..).zip(sizes) {
            push(&outbox, number, bytes).unwrap();
        }
        let pieces: Vec<Vec<u8>> = std::iter::from_fn(|| take(&outbox)).collect();
        let wanted = [lengths(0..3), lengths(3..5), lengths(5..7)];
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), wanted);
        let mut rest = &pieces.concat()[..];
        for (number, bytes) in (0..).zip(sizes) {
            let (header, behind) = rest.split_first_chunk().unwrap();
            let header = Header::read(header).unwrap();
            assert_eq!((header.sequence, header.body_bytes as usize), (number, bytes));
            assert!(behind[..bytes].iter().all(|&byte| byte == number as u8));
            rest = &behind[bytes..];
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn all_pieces_count_against_the_bound_until_they_are_taken() {
        let outbox = open(LANE_BYTES);
        let taken = (0..).take_while(|&number| push(&outbox, number, 1 << 20).is_ok()).count();
        assert_eq!(taken, 3, "a header more than four do not fit");
        assert_eq!(push(&outbox, 9, 1 << 20), Err(Unsent::Full));
        push(&outbox, 9, 100).unwrap();
        take(&outbox).unwrap();
        push(&outbox, 9, 1 << 20).unwrap();
        assert_eq!(push(&outbox, 9, 1 << 20), Err(Unsent::Full));
    }

    #[test]
    fn a_body_that_cannot_be_written_leaves_nothing() {
        let outbox = open(LANE_BYTES);
        for before in [0, PIECE_BYTES] {
            push(&outbox, 1, before).unwrap();
            let failing = |out: &mut Vec<u8>| {
                out.extend_from_slice(&[9; 100]);
                Err(())
            };
            assert_eq!(outbox.push(header(2), failing), Err(Unsent::Body(())));
            push(&outbox, 3, 7).unwrap();
            let all: usize = std::iter::from_fn(|| take(&outbox)).map(|piece| piece.len()).sum();
            assert_eq!(all, before + 7 + 2 * HEADER_BYTES);
        }
    }

    #[test]
    fn memory_of_a_burst_is_used_again_and_goes_back_at_rest() {
        let outbox = open(LANE_BYTES);
        let burst = || {
            (0..3).for_each(|number| push(&outbox, number, 1 << 20).unwrap());
            let mut pieces: Vec<Vec<u8>> = std::iter::from_fn(|| take_or_leave(&outbox)).collect();
            let memory: Vec<*const u8> = pieces.iter().map(Vec::as_ptr).collect();
            let lent: Vec<Bytes> = pieces.iter_mut().map(|piece| outbox.lend(piece)).collect();
            drop(lent);
            memory
        };
        let mut first = burst();
        assert!(outbox.spare.bytes() >= 3 << 20);
        let mut second = burst();
        first.sort_unstable();
        second.sort_unstable();
        assert_eq!(first, second);
        assert_eq!(take(&outbox), None);
        assert!(outbox.spare.bytes() <= KEPT_BYTES_MAX, "{}", outbox.spare.bytes());
    }

    fn open(bytes_max: usize) -> Outbox {
        let outbox = Outbox::new(bytes_max);
        outbox.open();
        outbox
    }

    fn header(number: u64) -> Header {
        Header { sequence: number, ..Header::new(Kind::Tell, Lane::Bulk) }
    }

    fn push(outbox: &Outbox, number: u64, bytes: usize) -> Result<(), Unsent<()>> {
        outbox.push(header(number), |out| {
            out.resize(out.len() + bytes, number as u8);
            Ok(())
        })
    }

    /// The next piece; nothing once all are taken.
    fn take(outbox: &Outbox) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        outbox.take(&mut piece).now_or_never()?.then_some(piece)
    }

    /// The same, while the writer is busy: it does not come back to find nothing.
    fn take_or_leave(outbox: &Outbox) -> Option<Vec<u8>> {
        if outbox.is_empty() { None } else { take(outbox) }
    }
}

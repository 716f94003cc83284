//! The log of frames that all subscribers of a channel share, and their places in it.
//!
//! Bounded in frames and bytes: what does not fit leaves at the old end, whether everybody has read it or not. Knows
//! no socket; a reader that is at the new end leaves a waker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use super::channel::Tag;
use super::held::Held;

/// A frame and what it is about.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) stream: Arc<Tag>,
    /// Sequence numbers, first and last.
    pub(super) seqs: (u64, u64),
    /// `None`: a gap.
    pub(super) epoch: Option<u64>,
    /// Observations that its model reads: no stream begins at a higher number. `None`: a gap.
    pub(super) window: Option<u64>,
}

/// Most that a log holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) frames_max: usize,
    pub(super) bytes_max: usize,
}

/// A reader that cannot write now.
#[derive(Debug)]
struct Slow {
    reader: u64,
    cursor: u64,
    /// It wants to know before its place leaves, not when it has left.
    early: bool,
    waker: Waker,
}

#[derive(Debug)]
pub(super) struct Log {
    limits: LogLimits,
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Offset of the oldest frame.
    base: u64,
    waiting: Vec<(u64, Waker)>,
    /// Readers that cannot write now.
    slow: Vec<Slow>,
    /// Readers that conflate, and their places.
    following: HashMap<u64, u64>,
    /// None of them is behind this.
    rearmost: u64,
    /// Those of them who had not come when frames left: these are theirs still, conflated.
    overtaken: HashMap<u64, Overtaken>,
}

/// What left the log before a reader that conflates had read it.
#[derive(Debug, Default)]
pub(super) struct Overtaken {
    /// Where it goes on.
    pub(super) cursor: u64,
    pub(super) held: Held,
    pub(super) frames: u64,
}

impl Log {
    pub(super) fn new(limits: LogLimits) -> Self {
        let (frames, waiting, slow) = (VecDeque::new(), Vec::new(), Vec::new());
        let (following, overtaken) = (HashMap::new(), HashMap::new());
        Self { limits, frames, bytes: 0, base: 0, waiting, slow, following, rearmost: 0, overtaken }
    }

    /// Offset of the oldest frame.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Offset of the next frame.
    pub(super) fn head(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    /// Up to here a reader risks that frames leave before it has read them.
    pub(super) fn danger(&self) -> u64 {
        let LogLimits { frames_max, bytes_max } = self.limits;
        let filled = self.frames.len() >= frames_max / 4 * 3 || self.bytes >= bytes_max / 4 * 3;
        if filled { self.base + self.frames.len() as u64 / 2 } else { self.base }
    }

    /// Adds a frame; those who are to be woken are moved to `wake`.
    pub(super) fn append(&mut self, frame: Frame, wake: &mut Vec<Waker>) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
        // The newest frame stays, whatever its size.
        while self.frames.len() > self.limits.frames_max.max(1)
            || (self.bytes > self.limits.bytes_max && self.frames.len() > 1)
        {
            let Some(old) = self.frames.pop_front() else { break };
            self.bytes -= old.bytes.len();
            self.base += 1;
            self.overtake(&old);
        }
        wake.extend(self.waiting.drain(..).map(|(_, waker)| waker));
        let (base, danger) = (self.base, self.danger());
        let due = |slow: &mut Slow| slow.cursor < if slow.early { danger } else { base };
        wake.extend(self.slow.extract_if(.., due).map(|slow| slow.waker));
    }

    /// A frame has left: who conflates and has not read it gets it held. Costs nothing while all of them keep up: their
    /// places are looked through once in as many frames as the log holds.
    fn overtake(&mut self, left: &Frame) {
        let base = self.base;
        if !self.following.is_empty() && self.rearmost < base {
            let behind = self.following.extract_if(|_, cursor| *cursor < base);
            let behind =
                behind.map(|(reader, cursor)| (reader, Overtaken { cursor, ..Overtaken::default() }));
            self.overtaken.extend(behind);
            self.rearmost = self.following.values().copied().min().unwrap_or(base);
        }
        for overtaken in self.overtaken.values_mut() {
            overtaken.held.add(left);
            overtaken.cursor = base;
            overtaken.frames += 1;
        }
    }

    /// A reader that conflates is at this place.
    pub(super) fn follow(&mut self, reader: u64, cursor: u64) {
        self.rearmost = if self.following.is_empty() { cursor } else { self.rearmost.min(cursor) };
        self.following.insert(reader, cursor);
    }

    /// It has left.
    pub(super) fn unfollow(&mut self, reader: u64) {
        self.following.remove(&reader);
        self.overtaken.remove(&reader);
    }

    /// What was held for it, which is its own from now on.
    pub(super) fn overtook(&mut self, reader: u64) -> Option<Overtaken> {
        if self.overtaken.is_empty() {
            return None;
        }
        let overtaken = self.overtaken.remove(&reader)?;
        self.follow(reader, overtaken.cursor);
        Some(overtaken)
    }

    /// The frames from an offset on, which must not have left.
    pub(super) fn from(&self, cursor: u64) -> impl Iterator<Item = &Frame> {
        let skip = usize::try_from(cursor.saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.frames.range(skip.min(self.frames.len())..)
    }

    /// A reader at the new end, which does not wait yet, waits for the next frame.
    pub(super) fn wait_anew(&mut self, reader: u64, waker: &Waker) {
        self.waiting.push((reader, waker.clone()));
    }

    /// A reader that cannot write wants to know when its place leaves, or is about to (`early`).
    pub(super) fn warn(&mut self, reader: u64, cursor: u64, early: bool, waker: &Waker) {
        self.forget_slow(reader);
        self.slow.push(Slow { reader, cursor, early, waker: waker.clone() });
    }

    /// A reader leaves.
    pub(super) fn forget(&mut self, reader: u64) {
        if let Some(at) = self.waiting.iter().position(|(known, _)| *known == reader) {
            self.waiting.swap_remove(at);
        }
        self.forget_slow(reader);
    }

    /// A reader can write again.
    pub(super) fn forget_slow(&mut self, reader: u64) {
        if let Some(at) = self.slow.iter().position(|slow| slow.reader == reader) {
            self.slow.swap_remove(at);
        }
    }
}

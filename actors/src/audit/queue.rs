//! What waits to be written: bounded by bytes, from the moment at which a request is accepted.
//!
//! Room is taken before a forecast is made, so that none is made that cannot be recorded. Records are gathered in groups
//! as they will be written, so that whoever writes finds few large pieces of memory; it is woken once for many of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::frame::Group;

/// So much waiting ends the wait for more: what is still near the processor when it is hashed and written.
const URGENT_BYTES: usize = 384 << 10;
/// Buffers that are kept for groups to come: more than are filled while it is waited for more.
const SPARE_MAX: usize = 8;

/// A group that is to be written, and what hangs on it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Empty: nothing, somebody waits for what came before.
    pub(super) group: Group,
    /// What it counts for, until it is written.
    pub(super) held: usize,
    /// Told when it is as safe as callers were promised.
    pub(super) waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes: AtomicUsize,
    bytes_max: usize,
    record_bytes_max: usize,
    group_bytes: usize,
    is_failing: AtomicBool,
    lost: AtomicU64,
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    /// What they count for.
    queued: usize,
    spare: Vec<Vec<u8>>,
    /// The writer waits for the first record.
    is_asleep: bool,
    /// Somebody waits for a record: no waiting for more.
    is_urgent: bool,
    is_closed: bool,
    /// Why nothing can be written.
    failure: Option<Arc<str>>,
    gap: Option<Lost>,
}

/// Predictions without a record that the chain does not know of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) since: SystemTime,
    pub(super) count: u64,
}

/// There is no room for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Nothing can be written, for this reason.
    Failing(Arc<str>),
    /// More waits than may.
    Full,
    /// It is larger than any may be.
    TooLarge { bytes: usize, bytes_max: usize },
}

/// Room for one record; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Room<'a> {
    queue: &'a Queue,
    bytes: usize,
}

impl Room<'_> {
    /// Hands the record in. The answer comes when it is safe, if somebody waits for that.
    pub(super) fn fill(mut self, body: &[u8], waits: bool) -> Option<oneshot::Receiver<()>> {
        let (done, safe) = if waits { Some(oneshot::channel()).unzip() } else { (None, None) };
        // What nobody knew before the answer: at most what is in flight.
        let more = body.len().saturating_sub(self.bytes);
        if more > 0 {
            self.queue.bytes.fetch_add(more, Relaxed);
        }
        let bytes = std::mem::take(&mut self.bytes) + more;
        self.queue.push(body, bytes, done);
        safe
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // All cores write to that number.
        if self.bytes > 0 {
            self.queue.release(self.bytes);
        }
    }
}

impl Queue {
    pub(super) fn new(bytes_max: usize, record_bytes_max: usize, group_bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            record_bytes_max,
            group_bytes,
            is_failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            state: Mutex::default(),
            came: Condvar::new(),
        }
    }

    /// Room for a record, taken while there is any; a store that fails takes what fits all the same if it is to serve.
    pub(super) fn room(&self, bytes: usize, though_failing: bool) -> Result<Room<'_>, NoRoom> {
        if !though_failing && self.is_failing.load(Relaxed) {
            let reason = self.state().failure.clone();
            return Err(NoRoom::Failing(reason.unwrap_or_else(|| "the store is being tried again".into())));
        }
        if bytes > self.record_bytes_max {
            return Err(NoRoom::TooLarge { bytes, bytes_max: self.record_bytes_max });
        }
        let fits = |held: usize| (held == 0 || held + bytes <= self.bytes_max).then_some(held + bytes);
        match self.bytes.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(Room { queue: self, bytes }),
            Err(_) => Err(NoRoom::Full),
        }
    }

    fn push(&self, body: &[u8], held: usize, done: Option<oneshot::Sender<()>>) {
        // What fills a group is copied before others have to wait for it.
        let alone = (body.len() >= self.group_bytes).then(|| Group::of(body));
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            self.release(held);
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        match alone {
            Some(group) => state.batches.push_back(Batch { group, ..Batch::default() }),
            None => state.open_group(self.group_bytes).push(body),
        }
        self.wait_for_last(state, held, done);
    }

    /// Told when everything that is here now was written.
    pub(super) fn settled(&self) -> oneshot::Receiver<()> {
        let (done, safe) = oneshot::channel();
        let mut state = self.state();
        if state.batches.is_empty() {
            state.batches.push_back(Batch::default());
        }
        self.wait_for_last(state, 0, Some(done));
        safe
    }

    fn wait_for_last(
        &self,
        mut state: MutexGuard<'_, State>,
        held: usize,
        done: Option<oneshot::Sender<()>>,
    ) {
        state.is_urgent |= done.is_some();
        state.queued += held;
        if let Some(last) = state.batches.back_mut() {
            last.held += held;
            last.waiting.extend(done);
        }
        let wakes = state.is_asleep || state.is_urgent || state.queued >= URGENT_BYTES;
        state.is_asleep = false;
        drop(state);
        if wakes {
            self.came.notify_one();
        }
    }

    /// Waits for something, then a moment for more of it, and takes what is there. True: nothing more will come.
    pub(super) fn take(&self, into: &mut Vec<Batch>, wait_max: Option<Duration>, gather: Duration) -> bool {
        let mut state = self.state();
        let is_idle = |state: &mut State| state.batches.is_empty() && !state.is_closed;
        state.is_asleep = true;
        match wait_max {
            None => self.came.wait_while(&mut state, is_idle),
            Some(wait_max) => drop(self.came.wait_while_for(&mut state, is_idle, wait_max)),
        }
        state.is_asleep = false;
        if !state.batches.is_empty() {
            let waits =
                |state: &mut State| !state.is_closed && !state.is_urgent && state.queued < URGENT_BYTES;
            self.came.wait_while_for(&mut state, waits, gather);
        }
        into.extend(state.batches.drain(..));
        (state.queued, state.is_urgent) = (0, false);
        state.is_closed
    }

    /// A group was written: its memory is there for another.
    pub(super) fn recycle(&self, group: Group) {
        let buffer = group.into_buffer();
        // One that held a single large record would be kept for nothing.
        if buffer.capacity() <= 2 * self.group_bytes {
            let mut state = self.state();
            if state.spare.len() < SPARE_MAX {
                state.spare.push(buffer);
            }
        }
    }

    /// Lets time pass; less if nothing more will come.
    pub(super) fn pause(&self, wait: Duration) {
        let mut state = self.state();
        self.came.wait_while_for(&mut state, |state: &mut State| !state.is_closed, wait);
    }

    /// So much was written.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// A prediction is answered without a record.
    pub(super) fn lose(&self, at: SystemTime, count: u64) {
        self.lost.fetch_add(count, Relaxed);
        self.state().gap.get_or_insert(Lost { since: at, count: 0 }).count += count;
    }

    /// What was lost since this was asked last.
    pub(super) fn take_gap(&self) -> Option<Lost> {
        self.state().gap.take()
    }

    /// It could not be noted.
    pub(super) fn put_gap(&self, gap: Lost) {
        let mut state = self.state();
        let more = state.gap.map_or(0, |more| more.count);
        state.gap = Some(Lost { count: gap.count + more, ..gap });
    }

    /// Nothing can be written, or it can again.
    pub(super) fn set_failure(&self, failure: Option<Arc<str>>) {
        self.is_failing.store(failure.is_some(), Relaxed);
        self.state().failure = failure;
    }

    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.state().failure.clone()
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.came.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Bytes that wait, or will.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Predictions answered without a record so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// The group that is not full. With what fills it, it is a little longer: what is hashed at full speed ends shortly
    /// behind a multiple of 16 KiB, and not before one.
    fn open_group(&mut self, group_bytes: usize) -> &mut Group {
        if self.batches.back().is_none_or(|last| last.group.frame_bytes() >= group_bytes) {
            let new = || Vec::with_capacity(group_bytes + group_bytes / 16);
            let buffer = self.spare.pop().unwrap_or_else(new);
            self.batches.push_back(Batch { group: Group::with_buffer(buffer), ..Batch::default() });
        }
        let at = self.batches.len() - 1;
        &mut self.batches[at].group
    }
}

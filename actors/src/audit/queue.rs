//! What waits to be written: bounded by bytes, from the moment at which a request is accepted.
//!
//! Room is taken before a forecast is made, so that none is made that cannot be recorded. The thread that writes is woken
//! once for a group of records, not for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Bytes of one write; so much waiting ends the wait for more.
const GROUP_BYTES: usize = 1 << 20;

/// Something to be written.
#[derive(Debug)]
pub(super) struct Entry {
    /// What it counts for, until it is written.
    pub(super) bytes: usize,
    /// `None`: nothing, somebody waits for what came before.
    pub(super) body: Option<Vec<u8>>,
    /// Told when it is as safe as callers were promised.
    pub(super) done: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    bytes: AtomicUsize,
    bytes_max: usize,
    record_bytes_max: usize,
    is_failing: AtomicBool,
    lost: AtomicU64,
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Of the entries.
    queued: usize,
    /// The writer waits for the first of a group.
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
pub(super) struct Room {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Room {
    /// Hands the record in. The answer comes when it is safe, if somebody waits for that.
    pub(super) fn fill(mut self, body: Vec<u8>, waits: bool) -> Option<oneshot::Receiver<()>> {
        let (done, safe) = if waits { Some(oneshot::channel()).unzip() } else { (None, None) };
        // What nobody knew before the answer: at most what is in flight.
        let more = body.len().saturating_sub(self.bytes);
        self.queue.bytes.fetch_add(more, Relaxed);
        let bytes = std::mem::take(&mut self.bytes) + more;
        self.queue.push(Entry { bytes, body: Some(body), done });
        safe
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Queue {
    pub(super) fn new(bytes_max: usize, record_bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            record_bytes_max,
            is_failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            state: Mutex::default(),
            came: Condvar::new(),
        }
    }

    /// Room for a record, taken while there is any; a store that fails takes what fits all the same if it is to serve.
    pub(super) fn room(self: &Arc<Self>, bytes: usize, though_failing: bool) -> Result<Room, NoRoom> {
        if !though_failing && self.is_failing.load(Relaxed) {
            let reason = self.state().failure.clone();
            return Err(NoRoom::Failing(reason.unwrap_or_else(|| "the store is being tried again".into())));
        }
        if bytes > self.record_bytes_max {
            return Err(NoRoom::TooLarge { bytes, bytes_max: self.record_bytes_max });
        }
        let fits = |held: usize| (held == 0 || held + bytes <= self.bytes_max).then_some(held + bytes);
        match self.bytes.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(Room { queue: Arc::clone(self), bytes }),
            Err(_) => Err(NoRoom::Full),
        }
    }

    fn push(&self, entry: Entry) {
        let mut state = self.state();
        if state.is_closed && entry.body.is_some() {
            drop(state);
            self.release(entry.bytes);
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        state.is_urgent |= entry.done.is_some();
        state.queued += entry.bytes;
        state.entries.push_back(entry);
        let wakes = state.is_asleep || state.is_urgent || state.queued >= GROUP_BYTES;
        state.is_asleep = false;
        drop(state);
        if wakes {
            self.came.notify_one();
        }
    }

    /// Told when everything that is here now was written.
    pub(super) fn settled(&self) -> oneshot::Receiver<()> {
        let (done, safe) = oneshot::channel();
        self.push(Entry { bytes: 0, body: None, done: Some(done) });
        safe
    }

    /// Waits for something, then a moment for more of it, and takes one group. True: nothing more will come.
    pub(super) fn take(&self, into: &mut Vec<Entry>, wait_max: Option<Duration>, gather: Duration) -> bool {
        let mut state = self.state();
        let is_idle = |state: &mut State| state.entries.is_empty() && !state.is_closed;
        state.is_asleep = true;
        match wait_max {
            None => self.came.wait_while(&mut state, is_idle),
            Some(wait_max) => drop(self.came.wait_while_for(&mut state, is_idle, wait_max)),
        }
        state.is_asleep = false;
        if !state.entries.is_empty() {
            let waits =
                |state: &mut State| !state.is_closed && !state.is_urgent && state.queued < GROUP_BYTES;
            self.came.wait_while_for(&mut state, waits, gather);
        }
        let mut taken = 0;
        while let Some(next) = state.entries.front().map(|entry| entry.bytes)
            && (taken == 0 || taken + next <= GROUP_BYTES)
        {
            taken += next;
            into.extend(state.entries.pop_front());
        }
        state.queued -= taken;
        state.is_urgent = state.entries.iter().any(|entry| entry.done.is_some());
        state.is_closed && state.entries.is_empty()
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

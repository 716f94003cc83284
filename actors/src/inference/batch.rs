//! Decides which waiting requests leave together, and which never will.
//!
//! Knows no actor, device or clock: time comes in, batches go out. A device asks for a batch whenever it is free, so
//! a lone request leaves at once and requests gather only while the device is busy. The rules:
//! - a batch holds requests of one model version, oldest first, up to the `rows_max` of its profile;
//! - a request is never split: one that is larger than `rows_max` leaves alone;
//! - the model whose oldest request has waited longest goes first, except that a model with a full batch may
//!   overtake others that have not yet waited `wait_max`: no model starves;
//! - requests whose caller left are dropped, those past their deadline are handed back to be told so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How requests gather, and how many may wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows of one batch; a model's profile may say otherwise.
    pub rows_max: usize,
    /// How long a request may be overtaken by full batches of other models.
    pub wait_max: Duration,
    /// Rows that may wait for one device; more are refused.
    pub queue_rows_max: usize,
    /// Rows of one request; more are refused.
    pub request_rows_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            rows_max: 256,
            wait_max: Duration::from_millis(2),
            queue_rows_max: 8192,
            request_rows_max: 4096,
        }
    }
}

/// A request as far as batching cares.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    /// Which model version it asks; requests of different keys never share a batch.
    pub(crate) key: u64,
    pub(crate) rows: usize,
    /// Rows that a batch of this model may have.
    pub(crate) rows_max: usize,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) item: T,
}

/// What leaves the queue when a device is free.
#[derive(Debug)]
pub(crate) struct Cut<T> {
    /// To be run together; empty when nothing waits.
    pub(crate) batch: Vec<T>,
    /// Rows of the batch.
    pub(crate) rows: usize,
    /// Too late to be run; their callers are to be told.
    pub(crate) expired: Vec<T>,
    /// Their callers left.
    pub(crate) abandoned: Vec<T>,
}

/// The waiting requests of one device.
#[derive(Debug)]
pub(crate) struct Batcher<T> {
    limits: BatchLimits,
    lanes: Vec<Lane<T>>,
    rows: usize,
    requests: usize,
}

#[derive(Debug)]
struct Lane<T> {
    key: u64,
    rows: usize,
    rows_max: usize,
    queue: VecDeque<Waiting<T>>,
}

impl<T> Batcher<T> {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self { limits, lanes: Vec::new(), rows: 0, requests: 0 }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// Whether `rows` more may wait on top of a `reserve` that only work already accepted elsewhere may use.
    /// An empty queue takes any request, so that none is refused forever.
    pub(crate) fn has_room(&self, rows: usize, reserve: usize) -> bool {
        self.requests == 0 || self.rows + rows <= self.limits.queue_rows_max + reserve
    }

    pub(crate) fn push(&mut self, waiting: Waiting<T>) {
        self.rows += waiting.rows;
        self.requests += 1;
        match self.lanes.iter_mut().find(|lane| lane.key == waiting.key) {
            Some(lane) => lane.push(waiting),
            None => {
                let mut lane =
                    Lane { key: waiting.key, rows: 0, rows_max: waiting.rows_max, queue: VecDeque::new() };
                lane.push(waiting);
                self.lanes.push(lane);
            }
        }
    }

    /// Takes the next batch out of the queue.
    pub(crate) fn cut(&mut self, now: Instant, has_left: impl Fn(&T) -> bool) -> Cut<T> {
        let mut cut = Cut { batch: Vec::new(), rows: 0, expired: Vec::new(), abandoned: Vec::new() };
        while cut.batch.is_empty() {
            let Some(at) = self.choose(now) else { break };
            self.fill(at, now, &has_left, &mut cut);
            if self.lanes[at].queue.is_empty() {
                self.lanes.remove(at);
            }
        }
        cut
    }

    /// Takes out everything that waits.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.rows = 0;
        self.requests = 0;
        self.lanes.drain(..).flat_map(|lane| lane.queue).map(|waiting| waiting.item).collect()
    }

    /// The lane that goes next. Lanes are never empty between calls.
    fn choose(&self, now: Instant) -> Option<usize> {
        let oldest = |full_only: bool| {
            let lanes = self.lanes.iter().enumerate();
            let fit = lanes.filter(|(_, lane)| !full_only || lane.rows >= lane.rows_max);
            fit.filter_map(|(at, lane)| Some((lane.queue.front()?.since, at))).min()
        };
        let (since, at) = oldest(false)?;
        if now.saturating_duration_since(since) >= self.limits.wait_max {
            return Some(at);
        }
        Some(oldest(true).map_or(at, |(_, full)| full))
    }

    fn fill(&mut self, at: usize, now: Instant, has_left: &impl Fn(&T) -> bool, cut: &mut Cut<T>) {
        let lane = &mut self.lanes[at];
        while let Some(front) = lane.queue.front() {
            let left = has_left(&front.item);
            let expired = now >= front.deadline;
            let fits = cut.batch.is_empty() || cut.rows + front.rows <= lane.rows_max;
            if !left && !expired && !fits {
                break;
            }
            let Some(waiting) = lane.queue.pop_front() else { break };
            lane.rows -= waiting.rows;
            self.rows -= waiting.rows;
            self.requests -= 1;
            if left {
                cut.abandoned.push(waiting.item);
            } else if expired {
                cut.expired.push(waiting.item);
            } else {
                cut.rows += waiting.rows;
                cut.batch.push(waiting.item);
            }
        }
    }
}

impl<T> Lane<T> {
    fn push(&mut self, waiting: Waiting<T>) {
        self.rows += waiting.rows;
        self.queue.push_back(waiting);
    }
}

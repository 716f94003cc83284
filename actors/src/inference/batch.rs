//! Decides which waiting requests leave together, and which never will.
//!
//! Knows no actor, device or clock: time comes in, batches go out. A device asks for a batch whenever it is free, so
//! a lone request leaves at once and requests gather only while the device is busy. The rules:
//! - a batch holds requests of one model version, oldest first, up to the `rows_max` of its profile;
//! - a request is never split: one that is larger than `rows_max` leaves alone;
//! - the model whose oldest request has waited longest goes first, except that a model with a full batch may
//!   overtake others that have not yet waited `wait_max`: no model starves;
//! - what is more important goes before what is less, in its model's batches and among models, unless that has waited
//!   longer than anything should;
//! - requests whose caller left are dropped, those past their deadline are handed back to be told so.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inference::admission::{self, AdmissionLimits, Claim, Limit, Load, Pulse, Turned};
use crate::request::Priority;

/// How requests gather, and how many may wait.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchLimits {
    /// Rows of one batch; a model's profile may say otherwise.
    pub rows_max: usize,
    /// How long a request may be overtaken by full batches of other models.
    pub wait_max: Duration,
    /// Rows that may wait for one device; more are refused.
    pub queue_rows_max: usize,
    /// Rows of one request; more are refused.
    pub request_rows_max: usize,
    /// How much of it may wait, and for whom.
    pub admission: AdmissionLimits,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            rows_max: 256,
            wait_max: Duration::from_millis(2),
            queue_rows_max: 8192,
            request_rows_max: 4096,
            admission: AdmissionLimits::default(),
        }
    }
}

/// A request as far as batching cares.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    /// Which model version it asks; requests of different keys never share a batch.
    pub(crate) key: u64,
    pub(crate) rows: usize,
    /// Multiply-adds.
    pub(crate) work: u64,
    pub(crate) priority: Priority,
    pub(crate) caller: Arc<str>,
    /// Rows that a batch of this model may have.
    pub(crate) rows_max: usize,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    pub(crate) item: T,
}

impl Waiting<()> {
    pub(crate) fn with<T>(self, item: T) -> Waiting<T> {
        let Self { key, rows, work, priority, caller, rows_max, since, deadline, item: () } = self;
        Waiting { key, rows, work, priority, caller, rows_max, since, deadline, item }
    }
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
    /// By priority.
    held: [Held; PRIORITIES],
    requests: usize,
    /// Work by caller, of whom something waits.
    callers: HashMap<Arc<str>, (usize, u64)>,
    limit: Limit,
}

const PRIORITIES: usize = Priority::ALL.len();

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    rows: usize,
    work: u64,
}

#[derive(Debug)]
struct Lane<T> {
    key: u64,
    rows: usize,
    work: u64,
    rows_max: usize,
    /// By priority; not all of them are empty.
    queues: [VecDeque<Waiting<T>>; PRIORITIES],
}

impl<T> Batcher<T> {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            lanes: Vec::new(),
            held: Default::default(),
            requests: 0,
            callers: HashMap::new(),
            limit: Limit::new(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.held.iter().map(|held| held.rows).sum()
    }

    pub(crate) fn work(&self) -> u64 {
        self.held.iter().map(|held| held.work).sum()
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests
    }

    /// Callers of whom something waits.
    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        self.callers.len()
    }

    /// Work that may wait.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.work()
    }

    /// Whether a request may wait too.
    pub(crate) fn admit<U>(
        &self,
        waiting: &Waiting<U>,
        now: Instant,
        ns: f64,
        busy: Duration,
    ) -> Result<(), Turned> {
        let claim = Claim {
            rows: waiting.rows,
            work: waiting.work,
            priority: waiting.priority,
            remaining: waiting.deadline.saturating_duration_since(now),
        };
        let ahead = self.held[waiting.priority as usize..].iter();
        let (rows_ahead, work_ahead) =
            ahead.fold((0, 0), |(rows, work), held| (rows + held.rows, work + held.work));
        let lane = self.lanes.iter().find(|lane| lane.key == waiting.key);
        let load = Load {
            requests: self.requests,
            rows: self.rows(),
            work: self.work(),
            rows_ahead,
            work_ahead,
            model_work: lane.map_or(0, |lane| lane.work),
            models: self.lanes.len() + usize::from(lane.is_none()),
            caller_work: self.callers.get(&waiting.caller).map_or(0, |(_, work)| *work),
            callers: self.callers.len(),
        };
        let pulse = Pulse { ns, busy, batch_rows: waiting.rows_max };
        let limits = &self.limits;
        admission::judge(&claim, &load, self.limit(), limits.queue_rows_max, pulse, &limits.admission)
    }

    /// Whether work that was accepted elsewhere may wait on top of all others.
    pub(crate) fn has_reserve(&self, rows: usize) -> bool {
        let limits = &self.limits;
        let reserve = limits.queue_rows_max.saturating_add(limits.request_rows_max);
        self.requests == 0 || self.rows() + rows <= limits.queue_rows_max.saturating_add(reserve)
    }

    /// A batch has run; see [`Limit::observe`].
    pub(crate) fn observe(&mut self, waited: Duration, took: Duration, now: Instant) {
        let (held, target) = (self.work(), self.limits.admission.delay_target);
        self.limit.observe(waited, took, held, now, target);
    }

    pub(crate) fn push(&mut self, waiting: Waiting<T>) {
        let held = &mut self.held[waiting.priority as usize];
        held.rows += waiting.rows;
        held.work += waiting.work;
        self.requests += 1;
        match self.callers.get_mut(&waiting.caller) {
            Some((requests, work)) => {
                *requests += 1;
                *work += waiting.work;
            }
            None => {
                self.callers.insert(Arc::clone(&waiting.caller), (1, waiting.work));
            }
        }
        match self.lanes.iter_mut().find(|lane| lane.key == waiting.key) {
            Some(lane) => lane.push(waiting),
            None => {
                let (key, rows_max) = (waiting.key, waiting.rows_max);
                let mut lane = Lane { key, rows: 0, work: 0, rows_max, queues: Default::default() };
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
            if self.lanes[at].is_empty() {
                self.lanes.remove(at);
            }
        }
        cut
    }

    /// Takes out everything that waits.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.held = Default::default();
        self.requests = 0;
        self.callers.clear();
        self.lanes.drain(..).flat_map(|lane| lane.queues).flatten().map(|waiting| waiting.item).collect()
    }

    /// What has waited so long goes first, whatever it is.
    fn too_long(&self) -> Duration {
        self.limits.admission.delay_target.saturating_mul(2)
    }

    /// The lane that goes next. Lanes are never empty between calls.
    fn choose(&self, now: Instant) -> Option<usize> {
        let lanes = || self.lanes.iter().enumerate();
        let (since, at) = lanes().filter_map(|(at, lane)| Some((lane.oldest()?, at))).min()?;
        let waited = now.saturating_duration_since(since);
        if waited >= self.too_long() {
            return Some(at);
        }
        // Of the most important that wait, by the same rules as if nothing else did.
        let top = lanes().filter_map(|(_, lane)| lane.top()).max()?;
        let oldest = |full_only: bool| {
            let fit = lanes().filter(|(_, lane)| !full_only || lane.rows >= lane.rows_max);
            fit.filter_map(|(at, lane)| Some((lane.queues[top].front()?.since, at))).min()
        };
        let (since, at) = oldest(false)?;
        if now.saturating_duration_since(since) >= self.limits.wait_max {
            return Some(at);
        }
        Some(oldest(true).map_or(at, |(_, full)| full))
    }

    fn fill(&mut self, at: usize, now: Instant, has_left: &impl Fn(&T) -> bool, cut: &mut Cut<T>) {
        let too_long = self.too_long();
        let lane = &mut self.lanes[at];
        while let Some(priority) = lane.next(now, too_long) {
            let queue = &mut lane.queues[priority];
            let Some(front) = queue.front() else { break };
            let left = has_left(&front.item);
            let expired = now >= front.deadline;
            let fits = cut.batch.is_empty() || cut.rows + front.rows <= lane.rows_max;
            if !left && !expired && !fits {
                break;
            }
            let Some(waiting) = queue.pop_front() else { break };
            lane.rows -= waiting.rows;
            lane.work -= waiting.work;
            self.held[priority].rows -= waiting.rows;
            self.held[priority].work -= waiting.work;
            self.requests -= 1;
            forget(&mut self.callers, &waiting.caller, waiting.work);
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

/// One request of a caller waits no longer.
fn forget(callers: &mut HashMap<Arc<str>, (usize, u64)>, caller: &Arc<str>, work: u64) {
    let Some((requests, held)) = callers.get_mut(caller) else { return };
    *requests -= 1;
    *held -= work;
    if *requests == 0 {
        callers.remove(caller);
    }
}

impl<T> Lane<T> {
    fn push(&mut self, waiting: Waiting<T>) {
        self.rows += waiting.rows;
        self.work += waiting.work;
        self.queues[waiting.priority as usize].push_back(waiting);
    }

    fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Since when its oldest request waits.
    fn oldest(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| Some(queue.front()?.since)).min()
    }

    /// The most important priority that waits.
    fn top(&self) -> Option<usize> {
        self.queues.iter().rposition(|queue| !queue.is_empty())
    }

    /// The queue whose front leaves next: the most important, unless another's has waited `too_long`.
    fn next(&self, now: Instant, too_long: Duration) -> Option<usize> {
        let fronts =
            self.queues.iter().enumerate().filter_map(|(at, queue)| Some((queue.front()?.since, at)));
        let (since, oldest) = fronts.min()?;
        if now.saturating_duration_since(since) >= too_long { Some(oldest) } else { self.top() }
    }
}

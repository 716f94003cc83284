//! What is still to be told to somebody who may not listen: when the next try is due, and what goes when there is no
//! more room.
//!
//! Pure: pushes, outcomes and clock readings in, the next step out. In order, each at least once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::alert::{Event, Happening};

/// How patiently events are delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryLimits {
    /// Events that may wait.
    pub queue_max: usize,
    /// Before the second try; doubles with every further one.
    pub backoff_base: Duration,
    /// Never longer than this.
    pub backoff_max: Duration,
    /// An event that the receiver refuses is tried for so long, then it makes room for the next.
    pub refused_max: Duration,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            queue_max: 256,
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            refused_max: Duration::from_secs(3600),
        }
    }
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub enum Step<'a> {
    /// Nothing waits.
    Idle,
    /// Try again then.
    Wait(Instant),
    /// Tell this.
    Send(&'a Event),
}

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The receiver cannot be reached, or takes nothing now.
    Passing,
    /// It will not take this one: whatever stands before it may say so for a while, or it means it.
    Refused,
}

/// What came of all tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Events that the receiver took.
    pub delivered: u64,
    /// Tries that failed and were, or will be, made again.
    pub failed: u64,
    /// Events that the receiver refused until they were given up.
    pub refused: u64,
    /// Events that there was no room for.
    pub dropped: u64,
}

/// Events on their way to one receiver.
#[derive(Debug)]
pub struct Outbox {
    limits: DeliveryLimits,
    queue: VecDeque<Event>,
    /// The first is being told right now.
    in_flight: bool,
    failures: u32,
    /// The receiver has taken nothing since its first failure then.
    failing_since: Option<Instant>,
    /// The first was refused from then on, and nothing else was said to it.
    refused_since: Option<Instant>,
    not_before: Option<Instant>,
    counts: DeliveryCounts,
}

impl Outbox {
    /// Nothing to tell.
    #[must_use]
    pub fn new(limits: DeliveryLimits) -> Self {
        let queue_max = limits.queue_max.max(1);
        Self {
            limits: DeliveryLimits { queue_max, ..limits },
            queue: VecDeque::new(),
            in_flight: false,
            failures: 0,
            failing_since: None,
            refused_since: None,
            not_before: None,
            counts: DeliveryCounts::default(),
        }
    }

    /// One more. Without room a reminder goes first, then the oldest: what happened last is worth most.
    pub fn push(&mut self, event: Event) {
        if self.queue.len() == self.limits.queue_max {
            self.counts.dropped += 1;
            let first = usize::from(self.in_flight);
            let reminder = self.queue.iter().skip(first).position(|one| one.what == Happening::Repeated);
            let place = first + reminder.unwrap_or(0);
            if self.queue.remove(place).is_none() {
                return; // the only one that there is room for is on its way
            }
            if place == 0 {
                self.refused_since = None; // of the one that went
            }
        }
        self.queue.push_back(event);
    }

    /// What to do now.
    #[must_use]
    pub fn next(&mut self, now: Instant) -> Step<'_> {
        match (self.queue.front(), self.not_before) {
            (None, _) => Step::Idle,
            (Some(_), Some(at)) if now < at => Step::Wait(at),
            (Some(event), _) => {
                self.in_flight = true;
                Step::Send(event)
            }
        }
    }

    /// The first was taken.
    pub fn delivered(&mut self) {
        self.settle();
        self.failing_since = None;
        self.counts.delivered += 1;
    }

    /// The first was not taken. `roll`, of 0 to 1, is chance: it takes up to half of the delay off, so that nodes that
    /// failed together do not come back together.
    pub fn failed(&mut self, how: Failure, now: Instant, roll: f64) {
        self.failing_since.get_or_insert(now);
        match how {
            Failure::Passing => self.refused_since = None,
            Failure::Refused => {
                let since = *self.refused_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= self.limits.refused_max {
                    self.settle();
                    self.counts.refused += 1;
                    return;
                }
            }
        }
        self.in_flight = false;
        let doubled = 2_u32.saturating_pow(self.failures.min(20));
        let delay = self.limits.backoff_base.saturating_mul(doubled).min(self.limits.backoff_max);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + delay.mul_f64(1.0 - 0.5 * roll.clamp(0.0, 1.0)));
        self.counts.failed += 1;
    }

    /// Somebody else is to be told now: try at once.
    pub fn redirect(&mut self) {
        self.failing_since = None;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        (self.failures, self.refused_since, self.not_before) = (0, None, None);
    }

    /// There is nobody to tell.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.in_flight = false;
        self.redirect();
    }

    /// The first is done with, unless it was taken away meanwhile.
    fn settle(&mut self) {
        if std::mem::take(&mut self.in_flight) {
            self.queue.pop_front();
        }
        self.begin_anew();
    }

    /// Since when the receiver has taken nothing, though it was told.
    #[must_use]
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// Events that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// What came of all tries.
    #[must_use]
    pub fn counts(&self) -> DeliveryCounts {
        self.counts
    }
}

//! Decides what is exported when: how many spans may wait, when a batch leaves, and when a refused one is tried again.
//!
//! Pure: time and chance come in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How spans gather, and how long one batch is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct QueueLimits {
    /// Spans that may wait; more are dropped.
    pub(super) spans_max: usize,
    /// Spans of one batch.
    pub(super) batch_max: usize,
    /// How long the first of a batch may wait for others.
    pub(super) linger: Duration,
}

/// Spans that wait.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limits: QueueLimits,
    waiting: VecDeque<T>,
    /// Since when the first has waited.
    since: Option<Instant>,
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Next<T> {
    Export(Vec<T>),
    WaitUntil(Instant),
    Wait,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting: VecDeque::new(), since: None }
    }

    /// Whether it was taken.
    pub(super) fn push(&mut self, item: T, now: Instant) -> bool {
        if self.waiting.len() >= self.limits.spans_max {
            return false;
        }
        self.since.get_or_insert(now);
        self.waiting.push_back(item);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether whoever waits for a batch is to be woken by what was pushed last.
    pub(super) fn rouses(&self) -> bool {
        self.waiting.len() == 1 || self.waiting.len() == self.limits.batch_max
    }

    /// `is_last`: nothing is waited for any more.
    pub(super) fn next(&mut self, now: Instant, is_last: bool) -> Next<T> {
        let Some(since) = self.since else { return Next::Wait };
        let due = since + self.limits.linger;
        if self.waiting.len() < self.limits.batch_max && now < due && !is_last {
            return Next::WaitUntil(due);
        }
        let count = self.waiting.len().min(self.limits.batch_max);
        let batch = self.waiting.drain(..count).collect();
        self.since = (!self.waiting.is_empty()).then_some(now);
        Next::Export(batch)
    }
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Taken, but for so many spans.
    Taken { rejected: u64 },
    /// Come back later, at the earliest after this.
    Later(Option<Duration>),
    /// The same again would be refused again.
    Refused,
}

/// Longest pause between two attempts, also where the collector asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// A batch is tried no longer than this.
const TRY_FOR: Duration = Duration::from_secs(120);

/// How one batch fares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    since: Instant,
    count: u32,
}

impl Tries {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// When the next attempt is due after one that failed; `None`: there is none. `chance` from 0 to 1 spreads those of
    /// many nodes; the collector's own word is kept to.
    pub(super) fn again(&mut self, after: Option<Duration>, now: Instant, chance: f64) -> Option<Instant> {
        self.count += 1;
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.count - 1).min(16)).min(PAUSE_MAX);
        let pause = match after {
            Some(after) => after.min(PAUSE_MAX),
            None => doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0),
        };
        let at = now + pause;
        (at.saturating_duration_since(self.since) <= TRY_FOR).then_some(at)
    }
}

/// What a status says of the next attempt, as OTLP has it.
pub(super) fn judge(status: u16, retry_after: Option<Duration>) -> Outcome {
    match status {
        200..=299 => Outcome::Taken { rejected: 0 },
        429 | 502 | 503 | 504 => Outcome::Later(retry_after),
        _ => Outcome::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_secs(1);
    const LIMITS: QueueLimits = QueueLimits { spans_max: 5, batch_max: 3, linger: LINGER };

    #[test]
    fn a_batch_leaves_when_it_is_full_or_old() {
        let (mut queue, start) = (Queue::new(LIMITS), Instant::now());
        assert_eq!(queue.next(start, false), Next::Wait);
        assert!(queue.push(1, start) && queue.rouses());
        assert!(queue.push(2, start + LINGER / 2) && !queue.rouses());
        assert_eq!(queue.next(start + LINGER / 2, false), Next::WaitUntil(start + LINGER));
        assert_eq!(queue.next(start + LINGER, false), Next::Export(vec![1, 2]));
        for item in 3..=6 {
            assert!(queue.push(item, start));
        }
        assert_eq!(queue.next(start, false), Next::Export(vec![3, 4, 5]));
        assert_eq!(queue.next(start, false), Next::WaitUntil(start + LINGER), "the rest begins anew");
    }

    #[test]
    fn what_is_too_much_is_not_taken() {
        let (mut queue, now) = (Queue::new(LIMITS), Instant::now());
        let taken = (0..9).filter(|item| queue.push(*item, now)).count();
        assert_eq!((taken, queue.len()), (5, 5));
    }

    #[test]
    fn at_the_end_nothing_is_waited_for() {
        let (mut queue, now) = (Queue::new(LIMITS), Instant::now());
        queue.push(1, now);
        assert_eq!(queue.next(now, true), Next::Export(vec![1]));
        assert_eq!(queue.next(now, true), Next::Wait);
    }

    #[test]
    fn pauses_double_and_end() {
        let start = Instant::now();
        let (mut tries, mut now, mut pauses) = (Tries::new(start), start, Vec::new());
        while let Some(at) = tries.again(None, now, 1.0) {
            pauses.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert!(now - start <= TRY_FOR);
        assert_eq!(Tries::new(start).again(None, start, 0.0), Some(start + PAUSE_MIN / 2));
    }

    #[test]
    fn the_collectors_own_word_is_kept_to_within_reason() {
        let start = Instant::now();
        let after = |seconds| Tries::new(start).again(Some(Duration::from_secs(seconds)), start, 0.0);
        assert_eq!(after(0), Some(start));
        assert_eq!(after(7), Some(start + Duration::from_secs(7)));
        assert_eq!(after(86_400), Some(start + PAUSE_MAX));
    }

    #[test]
    fn statuses_are_read_as_otlp_has_them() {
        let after = Some(Duration::from_secs(3));
        for (status, want) in [
            (200, Outcome::Taken { rejected: 0 }),
            (202, Outcome::Taken { rejected: 0 }),
            (429, Outcome::Later(after)),
            (502, Outcome::Later(after)),
            (503, Outcome::Later(after)),
            (504, Outcome::Later(after)),
            (400, Outcome::Refused),
            (401, Outcome::Refused),
            (500, Outcome::Refused),
            (301, Outcome::Refused),
        ] {
            assert_eq!(judge(status, after), want, "{status}");
        }
    }
}

//! Decides when a second node is asked because the first is late.
//!
//! Late is what the first node itself is not, of late: a percentile of its latest answers. Knows no clock and no node.

use std::time::Duration;

/// When a second node is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeLimits {
    /// Whether at all.
    pub enabled: bool,
    /// The first node is late after this share of its latest answers would have come, in `(0, 1)`.
    pub percentile: f64,
    /// But never sooner than this.
    pub delay_min: Duration,
    /// Answers of a node that must be known before it can be late.
    pub samples_min: usize,
    /// Hedges for each request, in `[0, 1]`.
    pub share: f64,
    /// Hedges that may be saved up.
    pub burst: u32,
}

impl Default for HedgeLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            percentile: 0.95,
            delay_min: Duration::from_millis(5),
            samples_min: 30,
            share: 0.05,
            burst: 10,
        }
    }
}

/// Answers remembered of a node.
const SAMPLES_MAX: usize = 128;
/// The percentile is taken anew after so many answers.
const FRESH: usize = 8;

/// How long the latest answers of one node took.
#[derive(Debug)]
pub(crate) struct Latencies {
    ring: Vec<Duration>,
    next: usize,
    percentile: f64,
    late: Duration,
    since: usize,
}

impl Latencies {
    pub(crate) fn new(percentile: f64) -> Self {
        Self { ring: Vec::new(), next: 0, percentile, late: Duration::ZERO, since: 0 }
    }

    /// An answer came after this time, or was given up then.
    pub(crate) fn record(&mut self, took: Duration) {
        if self.ring.len() < SAMPLES_MAX {
            self.ring.push(took);
        } else {
            self.ring[self.next] = took;
        }
        self.next = (self.next + 1) % SAMPLES_MAX;
        self.since += 1;
        if self.since >= FRESH || self.ring.len() <= FRESH {
            self.since = 0;
            let mut sorted = self.ring.clone();
            let rank = ((sorted.len() as f64 * self.percentile).ceil() as usize).clamp(1, sorted.len()) - 1;
            self.late = *sorted.select_nth_unstable(rank).1;
        }
    }

    /// Answers known, at most [`SAMPLES_MAX`].
    pub(crate) fn samples(&self) -> usize {
        self.ring.len()
    }

    /// The percentile of the latest answers; zero if there are none.
    pub(crate) fn late(&self) -> Duration {
        self.late
    }
}

/// After what time a second node is asked; `None`: not at all. `answer_min` is the least that the second one needs,
/// `remaining` what the caller gives from the first asking on.
pub(crate) fn hedge_after(
    first: &Latencies,
    limits: &HedgeLimits,
    answer_min: Duration,
    remaining: Duration,
) -> Option<Duration> {
    if !limits.enabled || first.samples() < limits.samples_min {
        return None;
    }
    let delay = first.late().max(limits.delay_min);
    (delay.saturating_add(answer_min) < remaining).then_some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_is_late_before_enough_is_known() {
        check(&[10; 29], 1000, None);
        check(&[10; 30], 1000, Some(10));
    }

    #[test]
    fn late_is_the_percentile_of_the_node_itself() {
        let rising: Vec<u32> = (1..=120).collect();
        check(&rising, 1000, Some(114));
        check(&[vec![200; 128], vec![20; 128]].concat(), 1000, Some(20));
    }

    #[test]
    fn there_is_a_least_delay() {
        check(&[0; 40], 1000, Some(5));
    }

    #[test]
    fn a_hedge_that_could_not_answer_in_time_is_not_sent() {
        // The second node needs 3 ms.
        check(&[50; 40], 54, Some(50));
        check(&[50; 40], 53, None);
    }

    #[test]
    fn what_is_switched_off_does_not_happen() {
        let mut first = Latencies::new(0.95);
        (0..50).for_each(|_| first.record(10 * MS));
        let off = HedgeLimits { enabled: false, ..HedgeLimits::default() };
        assert_eq!(hedge_after(&first, &off, MS, 1000 * MS), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut first = Latencies::new(0.95);
        (0..10_000).for_each(|_| first.record(10 * MS));
        assert_eq!(first.samples(), SAMPLES_MAX);
    }

    #[track_caller]
    fn check(took_ms: &[u32], remaining_ms: u32, after_ms: Option<u32>) {
        let mut first = Latencies::new(0.95);
        took_ms.iter().for_each(|&ms| first.record(ms * MS));
        let after = hedge_after(&first, &HedgeLimits::default(), 3 * MS, remaining_ms * MS);
        assert_eq!(after, after_ms.map(|ms| ms * MS));
    }
}

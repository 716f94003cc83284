//! How often somebody may ask: a bucket of tokens for each, in a table that is bounded.
//!
//! Reads no clock: readings come in.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::config::Rate;

/// Fills at a rate, up to its burst; a request takes one token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst, at: now }
    }

    /// # Errors
    /// When there will be one.
    fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let rested = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + rested * rate.per_second).min(rate.burst);
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // The rate may be tiny; who waits a year is not told a longer time.
        let seconds = ((1.0 - self.tokens) / rate.per_second).min(365.0 * 86_400.0);
        Err(Duration::from_secs_f64(seconds))
    }
}

/// Buckets by who asks. Full of others, it forgets whoever has not asked for longest.
#[derive(Debug)]
pub(crate) struct Table<K> {
    entries_max: usize,
    buckets: HashMap<K, (Bucket, u64)>,
    /// By when they were asked for last.
    order: BTreeMap<u64, K>,
    next: u64,
}

impl<K: Copy + Eq + Hash> Table<K> {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries_max, buckets: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    /// # Errors
    /// When `who` may ask again.
    pub(crate) fn take(&mut self, who: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let (mut bucket, last) =
            self.buckets.get(&who).copied().unwrap_or_else(|| (Bucket::full(rate, now), self.next));
        let verdict = bucket.take(rate, now);
        self.order.remove(&last);
        self.order.insert(self.next, who);
        self.buckets.insert(who, (bucket, self.next));
        self.next += 1;
        if self.buckets.len() > self.entries_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10.0, burst: 2.0 };

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        check(RATE, &[(0, 0), (0, 0), (0, 100), (50, 50), (100, 0), (100, 100), (200, 0)]);
    }

    #[test]
    fn a_rest_saves_up_no_more_than_the_burst() {
        check(RATE, &[(0, 0), (60_000, 0), (60_000, 0), (60_000, 100)]);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        check(RATE, &[(1000, 0), (1000, 0), (500, 100), (1000, 100), (1100, 0)]);
    }

    #[test]
    fn less_than_one_a_second_is_possible() {
        check(Rate { per_second: 0.1, burst: 1.0 }, &[(0, 0), (0, 10_000), (9000, 1000), (10_000, 0)]);
    }

    #[test]
    fn a_full_table_forgets_who_has_not_asked_for_longest() {
        let (mut table, now) = (Table::new(2), Instant::now());
        let rate = Rate { per_second: 1.0, burst: 1.0 };
        let mut ask = |who: u8| table.take(who, rate, now).is_ok();
        assert!(ask(1) && ask(2) && !ask(1) && ask(3));
        assert!(!ask(1), "asked lately, so still known");
        assert!(ask(2), "forgotten");
        assert!(!ask(1) || table.buckets.len() == 2);
        assert_eq!((table.buckets.len(), table.order.len()), (2, 2));
    }

    /// Requests as (milliseconds, milliseconds to wait; 0: let through).
    #[track_caller]
    fn check(rate: Rate, asks: &[(u64, u64)]) {
        let start = Instant::now();
        let mut table = Table::new(1);
        for &(at, wait) in asks {
            let verdict = table.take((), rate, start + Duration::from_millis(at));
            let got = verdict.err().map_or(0.0, |after| after.as_secs_f64() * 1e3);
            assert!((got - wait as f64).abs() < 1e-3, "at {at} ms: {got} instead of {wait}");
        }
    }
}

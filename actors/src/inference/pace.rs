//! How long a batch of one model takes on one device, learned from the batches that ran there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::status::nanos;

/// Batches of up to 1, 2, 4, … rows; the last bucket holds everything larger.
const BUCKETS: usize = 14;

/// One moving average a bucket. Lost updates between two threads only delay it.
#[derive(Debug)]
pub(crate) struct Pace {
    born: Instant,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Default)]
struct Bucket {
    /// Moving average of a batch; 0: not known yet.
    took_ns: AtomicU64,
    /// The first batch has run: it compiled kernels and grew buffers, which tells nothing of the next.
    warm: AtomicBool,
    /// Nanoseconds after birth of the last batch.
    seen_ns: AtomicU64,
}

/// What is known of a batch size on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) took: Duration,
    /// Since the last batch of that size.
    pub(crate) age: Duration,
}

impl Pace {
    pub(crate) fn new(born: Instant) -> Self {
        Self { born, buckets: Default::default() }
    }

    /// A batch of `rows` rows took this long and has just ended.
    pub(crate) fn record(&self, rows: usize, took: Duration, now: Instant) {
        let bucket = &self.buckets[bucket(rows)];
        if !bucket.warm.swap(true, Ordering::Relaxed) {
            return;
        }
        let before = bucket.took_ns.load(Ordering::Relaxed);
        let took = nanos(took).max(1);
        // One slow batch is soon forgotten, a device that has become slow is soon noticed.
        let average = if before == 0 { took } else { (before * 3 + took) / 4 };
        bucket.took_ns.store(average, Ordering::Relaxed);
        bucket.seen_ns.store(nanos(now.saturating_duration_since(self.born)), Ordering::Relaxed);
    }

    /// What a batch of `rows` rows will take; `None` before the second of about that size.
    pub(crate) fn expect(&self, rows: usize, now: Instant) -> Option<Expected> {
        let bucket = &self.buckets[bucket(rows)];
        let took_ns = bucket.took_ns.load(Ordering::Relaxed);
        let seen = Duration::from_nanos(bucket.seen_ns.load(Ordering::Relaxed));
        let age = now.saturating_duration_since(self.born).saturating_sub(seen);
        (took_ns > 0).then_some(Expected { took: Duration::from_nanos(took_ns), age })
    }

    /// Largest rows of each bucket that has run, with its time.
    pub(crate) fn list(&self) -> Vec<(usize, Duration)> {
        let took = self.buckets.iter().map(|bucket| bucket.took_ns.load(Ordering::Relaxed));
        let known = took.enumerate().filter(|(_, ns)| *ns > 0);
        known.map(|(index, ns)| (1 << index, Duration::from_nanos(ns))).collect()
    }
}

fn bucket(rows: usize) -> usize {
    let log2 = rows.max(1).next_power_of_two().trailing_zeros() as usize;
    log2.min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn sizes_are_learned_apart() {
        let born = Instant::now();
        let pace = Pace::new(born);
        for _ in 0..2 {
            assert_eq!(pace.expect(1, born), None);
            pace.record(1, MS, born + MS);
            pace.record(100, 8 * MS, born + 3 * MS);
        }
        assert_eq!(pace.expect(1, born + 5 * MS), Some(Expected { took: MS, age: 4 * MS }));
        assert_eq!(pace.expect(65, born + 5 * MS).map(|e| e.took), Some(8 * MS));
        assert_eq!(pace.expect(64, born), None);
        assert_eq!(pace.list(), [(1, MS), (128, 8 * MS)]);
    }

    #[test]
    fn a_change_of_pace_is_followed() {
        let born = Instant::now();
        let pace = Pace::new(born);
        pace.record(4, MS, born);
        pace.record(4, MS, born);
        for _ in 0..12 {
            pace.record(4, 5 * MS, born);
        }
        let took = pace.expect(3, born).unwrap().took;
        assert!(took > MS * 48 / 10 && took <= 5 * MS, "{took:?}");
    }

    #[test]
    fn the_first_batch_of_a_size_is_forgotten() {
        let born = Instant::now();
        let pace = Pace::new(born);
        pace.record(1, 900 * MS, born);
        assert_eq!(pace.expect(1, born), None);
        pace.record(1, MS, born);
        assert_eq!(pace.expect(1, born).map(|e| e.took), Some(MS));
    }

    #[test]
    fn anything_larger_shares_the_last_bucket() {
        let born = Instant::now();
        let pace = Pace::new(born);
        pace.record(usize::MAX / 4, MS, born);
        pace.record(usize::MAX / 4, MS, born);
        assert_eq!(pace.expect(1 << 20, born).map(|e| e.took), Some(MS));
    }
}

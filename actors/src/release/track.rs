//! What became of the requests that a release sent to one version: counts that only grow, taken without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::canary::Seen;

/// Parts of each doubling, as a power of two: a bucket is up to 1/16 of its value wide.
const FINE_BITS: u32 = 4;
const FINE: usize = 1 << FINE_BITS;
/// The unit is 1.024 µs; 2^28 of it are more than four minutes, longer than any deadline.
const UNIT_BITS: u32 = 10;
const BUCKETS: usize = (28 - FINE_BITS as usize + 1) * FINE;

/// For all threads.
pub(crate) struct Track {
    failed: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// A [`Track`] at one moment.
#[derive(Clone)]
pub(crate) struct Reading {
    failed: u64,
    buckets: Box<[u64]>,
}

impl Default for Track {
    fn default() -> Self {
        Self { failed: AtomicU64::new(0), buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Track {
    pub(crate) fn answered(&self, took: Duration) {
        self.buckets[bucket(took)].fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Reading {
        let buckets = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        Reading { failed: self.failed.load(Relaxed), buckets }
    }
}

impl Reading {
    /// What was seen since an earlier reading; `None`: since ever.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Seen {
        let before = |at: usize| earlier.map_or(0, |earlier| earlier.buckets[at]);
        let counts = || self.buckets.iter().enumerate().map(|(at, count)| count - before(at));
        let answered: u64 = counts().sum();
        let failed = self.failed - earlier.map_or(0, |earlier| earlier.failed);
        let wanted = answered - answered / 20; // 95 of 100, rounded up
        let mut passed = 0;
        let found = counts().position(|count| {
            passed += count;
            passed >= wanted
        });
        let p95 = if answered == 0 { Duration::ZERO } else { found.map_or(Duration::ZERO, upper) };
        Seen { requests: answered + failed, failed, p95 }
    }
}

fn bucket(took: Duration) -> usize {
    let units = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) >> UNIT_BITS;
    if units < FINE as u64 {
        return units as usize;
    }
    let doublings = units.ilog2() - FINE_BITS; // of FINE
    let part = (units >> doublings) as usize - FINE;
    ((doublings as usize + 1) * FINE + part).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn upper(bucket: usize) -> Duration {
    let (row, part) = (bucket / FINE, bucket % FINE);
    let units = match row {
        0 => part as u64 + 1,
        _ => (FINE as u64 + part as u64 + 1) << (row - 1),
    };
    Duration::from_nanos(units << UNIT_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_above_what_is_in_it_and_not_far() {
        let mut ns = 1_u64;
        while ns < 200_000_000_000 {
            let (took, end) = (Duration::from_nanos(ns), upper(bucket(Duration::from_nanos(ns))));
            assert!(end > took, "{ns}");
            assert!(end <= took.mul_f64(1.0 + 1.0 / 15.0) + Duration::from_nanos(1024), "{ns}: {end:?}");
            ns = ns * 9 / 8 + 1;
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_is_that_of_what_came_since() {
        let track = Track::default();
        assert_eq!(track.read().since(None), Seen::default());
        (0..100).for_each(|_| track.answered(Duration::from_secs(1)));
        let before = track.read();
        (1..=100).for_each(|ms| track.answered(Duration::from_millis(ms)));
        track.failed();
        let seen = track.read().since(Some(&before));
        assert_eq!((seen.requests, seen.failed), (101, 1));
        let p95 = seen.p95.as_secs_f64();
        assert!((0.095..0.095 * 1.07).contains(&p95), "{p95}");
    }
}

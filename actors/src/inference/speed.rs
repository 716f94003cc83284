//! How fast a device is of late: time for a multiply-add, whatever model it was for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Work and time of late, as bits of `f64`; written by whoever holds the executor.
#[derive(Default)]
pub(crate) struct Speed {
    work: AtomicU64,
    ns: AtomicU64,
}

impl Speed {
    /// A batch has run. Each later one takes a tenth off its weight, so that some ten count.
    pub(crate) fn record(&self, work: u64, took: Duration) {
        for (sum, value) in [(&self.work, work as f64), (&self.ns, took.as_nanos() as f64)] {
            let before = f64::from_bits(sum.load(Ordering::Relaxed));
            sum.store((before * 0.9 + value).to_bits(), Ordering::Relaxed);
        }
    }

    /// Nanoseconds of a multiply-add; zero: nothing has run.
    pub(crate) fn ns(&self) -> f64 {
        let (work, ns) = (self.work.load(Ordering::Relaxed), self.ns.load(Ordering::Relaxed));
        f64::from_bits(ns) / f64::from_bits(work).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_batches_count_for_more_and_old_ones_for_less() {
        let speed = Speed::default();
        assert_eq!(speed.ns(), 0.0, "nothing has run");
        speed.record(10, Duration::from_nanos(1000));
        assert_eq!(speed.ns(), 100.0);
        speed.record(9_991, Duration::from_nanos(9_100));
        assert_eq!(speed.ns(), 1.0);
        (0..200).for_each(|_| speed.record(10, Duration::from_nanos(1000)));
        assert!((speed.ns() - 100.0).abs() < 0.01);
    }
}

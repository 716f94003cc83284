//! The ladder that durations are exported by: four steps a decade, from 10 µs to 10 s, and what took longer.
//!
//! Fixed, so that counts of many nodes add up.

use std::time::Duration;

use crate::status::nanos;

/// Upper bounds in nanoseconds, each included in what it bounds.
const BOUNDS_NS: [u64; 25] = bounds();

const fn bounds() -> [u64; 25] {
    // Powers of the fourth root of ten, to two digits.
    let steps = [10_000, 18_000, 32_000, 56_000];
    let mut bounds = [0; 25];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] = steps[at % steps.len()] * 10_u64.pow((at / steps.len()) as u32);
        at += 1;
    }
    bounds
}

/// How many durations there were between the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// By [`BOUNDS_NS`]; the last is open.
    counts: [u64; BOUNDS_NS.len() + 1],
}

impl Ladder {
    /// Durations in nanoseconds, and how many there were of each.
    #[must_use]
    pub fn of(recorded: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut ladder = Self::default();
        for (ns, count) in recorded {
            ladder.counts[BOUNDS_NS.partition_point(|&bound| bound < ns)] += count;
        }
        ladder
    }

    /// One more.
    pub fn add(&mut self, took: Duration) {
        let ns = nanos(took);
        self.counts[BOUNDS_NS.partition_point(|&bound| bound < ns)] += 1;
    }

    /// Each bound, and how many were no longer.
    pub fn within(&self) -> impl Iterator<Item = (Duration, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS_NS.into_iter().map(Duration::from_nanos).zip(sums)
    }

    /// All of them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_has_four_steps_a_decade() {
        let bounds: Vec<f64> = Ladder::default().within().map(|(bound, _)| bound.as_secs_f64()).collect();
        assert_eq!((bounds[0], bounds[24]), (10e-6, 10.0));
        for pair in bounds.windows(2) {
            assert!((1.7..=1.85).contains(&(pair[1] / pair[0])), "{pair:?}");
        }
        assert!(bounds.windows(5).all(|five| (five[4] / five[0] - 10.0).abs() < 1e-9), "{bounds:?}");
    }

    #[test]
    fn a_duration_counts_at_its_bound_and_above() {
        let mut ladder = Ladder::of([(10_000, 2), (10_001, 3), (u64::MAX, 1)]);
        ladder.add(Duration::from_secs(10));
        let within: Vec<u64> = ladder.within().map(|(_, count)| count).collect();
        assert_eq!((within[0], within[1], within[23], within[24], ladder.count()), (2, 5, 5, 6, 7));
    }
}

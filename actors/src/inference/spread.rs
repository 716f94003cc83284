//! How durations were spread, in steps of a sixteenth of an octave: little enough to keep one per second, and fine
//! enough that a percentile between two of them is right within some percent.
//!
//! Made from the exact histograms when somebody looks; costs a request nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::status::nanos;

/// Steps of an octave.
const STEPS: usize = 16;
/// Octaves of nanoseconds up to some nine minutes; longer times count as the longest.
const OCTAVES: usize = 39;

/// How many durations there were of each length, since something began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    counts: Arc<[u64]>,
}

impl Default for Spread {
    fn default() -> Self {
        Self::of([])
    }
}

impl Spread {
    /// Durations in nanoseconds, and how many there were of each.
    #[must_use]
    pub fn of(recorded: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut counts = vec![0; OCTAVES * STEPS];
        for (ns, count) in recorded {
            counts[step_of(ns)] += count;
        }
        Self { counts: counts.into() }
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let both = self.counts.iter().zip(&*earlier.counts);
        Self { counts: both.map(|(now, then)| now.saturating_sub(*then)).collect() }
    }

    /// Together with another.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = self.counts.iter().zip(&*other.counts);
        Self { counts: both.map(|(one, other)| one + other).collect() }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// As long as `share` of them were at most, evenly spread within a step; `None`: there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all = self.count();
        let rank = (share.clamp(0.0, 1.0) * all as f64).max(f64::MIN_POSITIVE);
        let mut below = 0;
        for (step, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if (below + count) as f64 >= rank {
                let (from, to) = (start_of(step) as f64, start_of(step + 1) as f64);
                let part = (rank - below as f64) / count as f64;
                return Some(Duration::from_nanos((from + (to - from) * part) as u64));
            }
            below += count;
        }
        None
    }
}

fn step_of(ns: u64) -> usize {
    let ns = ns.clamp(1, nanos(LONGEST));
    let octave = ns.ilog2() as usize;
    let within = ((u128::from(ns) * STEPS as u128) >> octave) as usize - STEPS;
    octave * STEPS + within
}

/// Nanoseconds at which a step begins.
fn start_of(step: usize) -> u64 {
    let (octave, within) = (step / STEPS, step % STEPS);
    (((STEPS + within) as u64) << octave) / STEPS as u64
}

const LONGEST: Duration = Duration::from_nanos((1 << OCTAVES) - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_step() {
        for ns in
            (0..40).flat_map(|octave| [1_u64 << octave, (1 << octave) + 1, (3 << octave) / 2, 7 << octave])
        {
            let step = step_of(ns);
            let ns = ns.min(nanos(LONGEST));
            assert!(start_of(step) <= ns && ns < start_of(step + 1).max(ns + 1), "{ns} in {step}");
            assert!(ns < 32 || start_of(step + 1) > ns, "{ns} in {step}");
        }
        assert_eq!(step_of(u64::MAX), OCTAVES * STEPS - 1);
    }

    #[test]
    fn percentiles_are_right_within_a_step() {
        let spread = Spread::of((1..=10_000).map(|us| (us * 1000, 1)));
        for (share, want_us) in [(0.5, 5_000.0), (0.95, 9_500.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
            let got = spread.quantile(share).unwrap().as_secs_f64() * 1e6;
            // A step is at most a sixteenth of what lies in it; where it is not filled evenly, that much may be wrong.
            assert!((got / want_us - 1.0).abs() < 1.0 / STEPS as f64, "{share}: {got} µs, not {want_us}");
        }
    }

    #[test]
    fn only_what_came_since_counts() {
        let before = Spread::of([(1_000_000, 90)]);
        let now = Spread::of([(1_000_000, 90), (64_000_000, 10)]);
        let since = now.since(&before);
        assert_eq!(since.count(), 10);
        assert!(since.quantile(0.01).unwrap() >= Duration::from_millis(60));
        assert_eq!(now.since(&now).quantile(0.5), None, "nothing came");
        assert_eq!(since.and(&before), now);
    }
}

//! Two servers beside each other: short windows in the order A B B A, so that what drifts hits both alike, and the ratio
//! of each neighbouring pair. Pure.
//!
//! The interval comes from a bootstrap: pairs are drawn again and again with replacement, and the middle 95 % of the
//! means is what the pairs that were not measured could have said.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const RESAMPLES: usize = 10_000;
const SEED: u64 = 0x0BAD_5EED;
/// Fewer pairs say nothing of their spread.
pub const PAIRS_MIN: usize = 3;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first URL.
    A,
    /// The second.
    B,
}

/// Whose turn it is in each window: A B, B A, A B, …
#[must_use]
pub fn turns(pairs: usize) -> Vec<Side> {
    let pair = |at| if at % 2 == 0 { [Side::A, Side::B] } else { [Side::B, Side::A] };
    (0..pairs).flat_map(pair).collect()
}

/// What B is of A: 2 is twice as much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Geometric mean over the pairs.
    pub middle: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Ratio {
    /// Whether one is outside the interval.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

/// The ratio B to A of paired figures; `None` where there are fewer than three pairs or a figure is not above zero.
#[must_use]
pub fn ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    let usable = |&(a, b): &(f64, f64)| a > 0.0 && b > 0.0 && a.is_finite() && b.is_finite();
    if pairs.len() < PAIRS_MIN || !pairs.iter().all(usable) {
        return None;
    }
    // Twice as much and half as much cancel out in logarithms only.
    let logs: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
    let mean = |sum: f64| sum / logs.len() as f64;
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut drawn = || mean((0..logs.len()).map(|_| logs[random.random_range(0..logs.len())]).sum());
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| drawn()).collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| means[((RESAMPLES - 1) as f64 * share).round() as usize].exp();
    Some(Ratio { middle: mean(logs.iter().sum()).exp(), low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_swap_their_turns() {
        use Side::{A, B};
        assert_eq!(turns(4), [A, B, B, A, A, B, B, A]);
    }

    #[test]
    fn equal_pairs_have_no_spread() {
        let ratio = ratio(&[(10.0, 20.0); 5]).unwrap();
        for got in [ratio.middle, ratio.low, ratio.high] {
            assert!((got - 2.0).abs() < 1e-12);
        }
        assert!(ratio.differs());
    }

    #[test]
    fn twice_and_half_are_one() {
        let ratio = ratio(&[(1.0, 2.0), (2.0, 1.0), (1.0, 2.0), (2.0, 1.0)]).unwrap();
        assert!((ratio.middle - 1.0).abs() < 1e-12 && !ratio.differs(), "{ratio:?}");
        assert!(ratio.low < 0.8 && ratio.high > 1.25, "{ratio:?}");
    }

    #[test]
    fn the_interval_covers_the_truth_about_as_often_as_it_says() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut noise = || 1.0 + random.random_range(-0.2..0.2);
        let covers = (0..200).filter(|_| {
            let pairs: Vec<(f64, f64)> = (0..12).map(|_| (noise(), 1.5 * noise())).collect();
            let got = ratio(&pairs).unwrap();
            got.low <= 1.5 && 1.5 <= got.high
        });
        // Bootstraps of a dozen are a little too sure of themselves: some 92 % of 200, four deviations either way.
        let covered = covers.count();
        assert!((169..=199).contains(&covered), "{covered}");
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        assert_eq!(ratio(&[(1.0, 1.0); 2]), None);
        assert_eq!(ratio(&[(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]), None);
    }
}

//! Whether something grows: a robust line through samples over time. Pure.
//!
//! Theil–Sen: the median of the slopes of all pairs, which a third of wild samples does not move, with the interval that
//! Kendall's statistic gives for it. The interval takes samples for independent; memory is not, so it is narrower than it
//! should be, and a verdict needs a bound beside it.

/// Of the normal distribution, for an interval of 95 %.
const Z: f64 = 1.96;

/// A line's rise per unit of time, and the interval that holds it with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The median of all pairs' slopes.
    pub slope: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The trend of `(time, value)`; `None` for fewer than three different times.
#[must_use]
pub fn trend(samples: &[(f64, f64)]) -> Option<Trend> {
    let mut slopes = Vec::with_capacity(samples.len() * samples.len().saturating_sub(1) / 2);
    for (at, (time, value)) in samples.iter().enumerate() {
        let later = samples[at + 1..].iter().filter(|(other, _)| other != time);
        slopes.extend(later.map(|(other, last)| (last - value) / (other - time)));
    }
    if slopes.len() < 3 {
        return None;
    }
    slopes.sort_by(f64::total_cmp);
    let (n, count) = (samples.len() as f64, slopes.len() as f64);
    let width = Z * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    let middle = slopes.len() / 2;
    let slope =
        if slopes.len() % 2 == 1 { slopes[middle] } else { (slopes[middle - 1] + slopes[middle]) / 2.0 };
    Some(Trend { slope, low: at(((count - width) / 2.0).floor()), high: at(((count + width) / 2.0).ceil()) })
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn a_straight_line_is_its_own_trend() {
        let line: Vec<_> = (0..20).map(|at| (f64::from(at), 7.0 + 3.0 * f64::from(at))).collect();
        assert_eq!(trend(&line), Some(Trend { slope: 3.0, low: 3.0, high: 3.0 }));
    }

    #[test]
    fn wild_samples_do_not_move_it() {
        let samples: Vec<_> =
            (0..40).map(|at| (f64::from(at), if at % 5 == 0 { 1e6 } else { 2.0 * f64::from(at) })).collect();
        let seen = trend(&samples).unwrap();
        assert!((seen.slope - 2.0).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn the_interval_holds_the_truth_as_often_as_it_says() {
        let held = |slope: f64, seed: u64| {
            let mut random = SmallRng::seed_from_u64(seed);
            let samples: Vec<_> = (0..60)
                .map(|at| (f64::from(at), slope * f64::from(at) + random.random_range(-1.0..1.0)))
                .collect();
            let seen = trend(&samples).unwrap();
            seen.low <= slope && slope <= seen.high
        };
        for slope in [0.0, 0.02] {
            let count = (0..400).filter(|&seed| held(slope, seed)).count();
            assert!((370..=392).contains(&count), "{count} of 400 at {slope}");
        }
    }

    #[test]
    fn growth_is_told_from_noise() {
        let mut random = SmallRng::seed_from_u64(1);
        let samples: Vec<_> = (0..60)
            .map(|at| (f64::from(at), 0.05 * f64::from(at) + random.random_range(-1.0..1.0)))
            .collect();
        assert!(trend(&samples).unwrap().low > 0.0);
    }

    #[test]
    fn two_samples_are_no_trend() {
        assert_eq!(trend(&[]), None);
        assert_eq!(trend(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(trend(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}

//! Figures of forecasts beside what came. All in f64.

use peregrine_actors::scorecard::pinball;
use peregrine_shaders::head::level_column;

/// The standard normal distribution's quantiles at [`LEVELS`].
pub(super) const NORMAL: [f64; 5] = [-1.959_963_985, -1.281_551_566, 0.0, 1.281_551_566, 1.959_963_985];

/// How good the forecasts of one model were.
#[derive(Clone, Debug, PartialEq)]
pub struct Measures {
    /// Values forecast.
    pub points: usize,
    /// Mean absolute error of the median.
    pub mae: f64,
    /// Root of the mean squared error of the median.
    pub rmse: f64,
    /// Scaled continuous ranked probability score: twice the mean pinball loss over the model's levels, by the mean
    /// absolute value. `None` for a point forecast, and where all values are zero.
    pub scrps: Option<f64>,
    /// Percent of values within the central interval of 80 %, bounds included; `None` where it is not forecast.
    pub cover_80: Option<f64>,
    /// As `cover_80`, of 95 %.
    pub cover_95: Option<f64>,
    /// Mean absolute error at each origin.
    pub mae_by_origin: Vec<f64>,
}

/// Sums while forecasts come in.
#[derive(Debug)]
pub(super) struct Tally {
    levels: Vec<f64>,
    cover_80: Option<Cover>,
    cover_95: Option<Cover>,
    points: usize,
    absolute_error: f64,
    squared_error: f64,
    absolute_truth: f64,
    pinball: f64,
    /// Sum of absolute errors and their count.
    by_origin: Vec<(f64, usize)>,
}

#[derive(Debug)]
struct Cover {
    low_at: usize,
    high_at: usize,
    hits: usize,
}

impl Tally {
    pub(super) fn new(levels: &[f64], origins: usize) -> Self {
        let at = |wanted| level_column(levels, wanted);
        let cover = |low, high| Some(Cover { low_at: at(low)?, high_at: at(high)?, hits: 0 });
        Self {
            levels: levels.to_vec(),
            cover_80: cover(0.1, 0.9),
            cover_95: cover(0.025, 0.975),
            points: 0,
            absolute_error: 0.0,
            squared_error: 0.0,
            absolute_truth: 0.0,
            pinball: 0.0,
            by_origin: vec![(0.0, 0); origins],
        }
    }

    /// One value; `quantiles` has one number per level.
    pub(super) fn add(&mut self, origin: usize, truth: f64, median: f64, quantiles: &[f64]) {
        let error = truth - median;
        self.points += 1;
        self.absolute_error += error.abs();
        self.squared_error += error * error;
        self.absolute_truth += truth.abs();
        self.pinball +=
            self.levels.iter().zip(quantiles).map(|(&level, &q)| pinball(level, truth - q)).sum::<f64>();
        for cover in [&mut self.cover_80, &mut self.cover_95].into_iter().flatten() {
            cover.hits += usize::from((quantiles[cover.low_at]..=quantiles[cover.high_at]).contains(&truth));
        }
        let (sum, count) = &mut self.by_origin[origin];
        *sum += error.abs();
        *count += 1;
    }

    pub(super) fn measures(&self) -> Measures {
        let points = self.points as f64;
        let has_scrps = !self.levels.is_empty() && self.absolute_truth > 0.0;
        let percent = |cover: &Option<Cover>| cover.as_ref().map(|cover| 100.0 * cover.hits as f64 / points);
        Measures {
            points: self.points,
            mae: self.absolute_error / points,
            rmse: (self.squared_error / points).sqrt(),
            scrps: has_scrps.then(|| 2.0 * self.pinball / self.levels.len() as f64 / self.absolute_truth),
            cover_80: percent(&self.cover_80),
            cover_95: percent(&self.cover_95),
            mae_by_origin: self.by_origin.iter().map(|&(sum, count)| sum / count as f64).collect(),
        }
    }
}

/// Student's t of the mean of `ours − theirs`; `None` with fewer than two pairs or no spread among them.
pub(super) fn t_statistic(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    let count = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / count;
    let variance = differences.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / (count - 1.0);
    let t = mean / (variance / count).sqrt();
    t.is_finite().then_some(t)
}

/// Between the two nearest of `sorted`, which is not empty, in proportion.
pub(super) fn quantile(sorted: &[f64], level: f64) -> f64 {
    let place = level * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

#[cfg(test)]
mod tests {
    use peregrine_actors::scorecard::LEVELS;

    use super::*;

    #[test]
    fn errors_are_those_done_by_hand() {
        let mut tally = Tally::new(&[], 2);
        tally.add(0, 3.0, 1.0, &[]);
        tally.add(0, -1.0, 0.0, &[]);
        tally.add(1, 2.0, 5.0, &[]);
        tally.add(1, 0.0, 0.0, &[]);
        let got = tally.measures();
        assert_eq!((got.points, got.mae, got.rmse), (4, 6.0 / 4.0, (14.0_f64 / 4.0).sqrt()));
        assert_eq!(got.mae_by_origin, [1.5, 1.5]);
        assert_eq!((got.scrps, got.cover_80, got.cover_95), (None, None, None));
    }

    #[test]
    fn scrps_is_twice_the_mean_pinball_loss_by_the_mean_size() {
        let mut tally = Tally::new(&[0.5, 0.1, 0.9], 1);
        // Pinball: 0.5·1, 0.1·2, (0.9 − 1)·(−1); then 0.5·0, 0.1·1, (0.9 − 1)·(−1).
        tally.add(0, 3.0, 2.0, &[2.0, 1.0, 4.0]);
        tally.add(0, 1.0, 1.0, &[1.0, 0.0, 2.0]);
        let want = 2.0 * ((0.5 + 0.2 + 0.1 + 0.0 + 0.1 + 0.1) / 6.0) / 2.0;
        assert!((tally.measures().scrps.unwrap() - want).abs() < 1e-15);
    }

    #[test]
    fn bounds_belong_to_the_interval() {
        let mut tally = Tally::new(&[0.9, 0.1], 1);
        for truth in [0.0, 1.0, 2.0, 2.5] {
            tally.add(0, truth, 1.0, &[2.0, 0.0]);
        }
        assert_eq!((tally.measures().cover_80, tally.measures().cover_95), (Some(75.0), None));
    }

    #[test]
    fn values_that_are_all_zero_have_no_scale() {
        let mut tally = Tally::new(&LEVELS, 1);
        tally.add(0, 0.0, 1.0, &[1.0; 5]);
        assert_eq!(tally.measures().scrps, None);
    }

    #[test]
    fn t_is_the_mean_difference_by_its_standard_error() {
        // Differences 1, 2, 3: mean 2, deviation 1, standard error 1/√3.
        let t = t_statistic(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]).unwrap();
        assert!((t - 2.0 * 3.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(t_statistic(&[1.0], &[0.0]), None);
        assert_eq!(t_statistic(&[], &[]), None);
        assert_eq!(t_statistic(&[1.0, 2.0], &[0.0, 1.0]), None);
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }
}

//! What one forecast value is scored by: its median, its quantiles, its intervals.

use peregrine_shaders::{Head, ModelSpec, head};

use crate::stream::Prediction;

/// Levels of the quantiles that distributions are scored at.
pub const LEVELS: [f64; 5] = [0.025, 0.1, 0.5, 0.9, 0.975];
/// Levels read from f32 files are this far from the decimal that was meant.
const LEVEL_SLACK: f64 = 1e-6;

/// Loss of a quantile forecast: `level` of its distance where the truth lies above it, `1 − level` where below. Lowest,
/// on average, at the true quantile.
#[must_use]
pub fn pinball(level: f64, above: f64) -> f64 {
    (level * above).max((level - 1.0) * above)
}

/// Levels at which a model's quantiles are scored: those it has trained, or [`LEVELS`]. Empty for a point forecast.
#[must_use]
pub fn levels(head: &Head) -> Vec<f64> {
    match head {
        Head::Point => Vec::new(),
        Head::Quantiles(levels) => levels.clone(),
        Head::StudentT | Head::Normal => LEVELS.to_vec(),
    }
}

/// `[h, levels]` of one row of a forecast, whose medians are given; `None` where its distribution is none.
#[must_use]
pub fn quantiles(spec: &ModelSpec, answer: &[f32], medians: &[f32]) -> Option<Vec<f32>> {
    match spec.head {
        Head::Point => Some(Vec::new()),
        Head::Quantiles(_) => Some(answer.to_vec()),
        Head::StudentT | Head::Normal => {
            let (low_80, high_80) = head::bounds(spec, answer, 80.0)?;
            let (low_95, high_95) = head::bounds(spec, answer, 95.0)?;
            // In the order of LEVELS.
            let step = |at: usize| [low_95[at], low_80[at], medians[at], high_80[at], high_95[at]];
            Some((0..spec.horizon).flat_map(step).collect())
        }
    }
}

/// How a model's predictions are laid out while they wait for the truth: per step the median, then the quantiles.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) horizon: usize,
    /// Of the quantiles, in order of the columns; empty for a point forecast.
    pub(super) levels: Vec<f64>,
    pub(super) intervals: Vec<Interval>,
}

/// A central interval between two quantiles.
#[derive(Debug, PartialEq)]
pub(super) struct Interval {
    /// In percent.
    pub(super) percent: f64,
    /// Places within [`Layout::levels`].
    low_at: usize,
    high_at: usize,
}

impl Layout {
    /// `None`: a model of several series, of no step or without a median; it is not scored.
    pub(super) fn of(spec: &ModelSpec) -> Option<Self> {
        let is_scored = spec.series == 1 && !spec.family.is_multivariate() && spec.horizon > 0;
        if !is_scored || !head::has_median(&spec.head) {
            return None;
        }
        let levels = levels(&spec.head);
        let interval = |(low_at, &low): (usize, &f64)| {
            let high_at = head::level_column(&levels, 1.0 - low).filter(|_| low < 0.5 - LEVEL_SLACK)?;
            let percent = (1e4 * (1.0 - 2.0 * low)).round() / 100.0;
            Some(Interval { percent, low_at, high_at })
        };
        let intervals = levels.iter().enumerate().filter_map(interval).collect();
        Some(Self { horizon: spec.horizon, intervals, levels })
    }

    /// Numbers per step that wait.
    pub(super) fn width(&self) -> usize {
        1 + self.levels.len()
    }

    /// Sums per step.
    pub(super) fn sums(&self) -> usize {
        FIXED_SUMS + self.intervals.len()
    }

    /// The numbers of a prediction, `horizon × width` of them. `None`: not all of them are finite, or there are too few.
    pub(super) fn row(&self, prediction: &Prediction) -> Option<Vec<f32>> {
        let (spec, values) = (&prediction.spec, &prediction.values);
        if values.len() != spec.answer_len() || !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let medians = head::median(spec, values)?;
        let quantiles = quantiles(spec, values, &medians)?;
        let mut row = Vec::with_capacity(self.horizon * self.width());
        for (step, median) in medians.iter().enumerate() {
            row.push(*median);
            row.extend_from_slice(quantiles.get(step * self.levels.len()..(step + 1) * self.levels.len())?);
        }
        (row.len() == self.horizon * self.width()).then_some(row)
    }

    /// Adds to the sums of a step: the weight, and by it the absolute error of the median, the mean pinball loss, and for
    /// each interval whether it holds the truth, bounds included.
    pub(super) fn add(&self, sums: &mut [f64], numbers: &[f32], truth: f64, weight: f64) {
        sums[WEIGHT] += weight;
        sums[ERROR] += weight * (truth - f64::from(numbers[0])).abs();
        let quantiles = &numbers[1..];
        if quantiles.is_empty() {
            return;
        }
        let losses =
            self.levels.iter().zip(quantiles).map(|(&level, &q)| pinball(level, truth - f64::from(q)));
        sums[PINBALL] += weight * losses.sum::<f64>() / quantiles.len() as f64;
        for (hits, interval) in sums[FIXED_SUMS..].iter_mut().zip(&self.intervals) {
            let holds = f64::from(quantiles[interval.low_at]) <= truth
                && truth <= f64::from(quantiles[interval.high_at]);
            if holds {
                *hits += weight;
            }
        }
    }
}

/// Places within the sums of a step.
pub(super) const WEIGHT: usize = 0;
pub(super) const ERROR: usize = 1;
pub(super) const PINBALL: usize = 2;
/// Then one for each interval.
pub(super) const FIXED_SUMS: usize = 3;

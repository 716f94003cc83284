//! From sums of streams to the figures of a model version.

use std::sync::Arc;

use super::measures::{ERROR, FIXED_SUMS, Layout, PINBALL, WEIGHT};

/// How good the predictions of a model version were of late. Weighted: a place counts 1/e of one that is
/// [`WINDOW`](super::WINDOW) places newer.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Name of the model.
    pub model: Arc<str>,
    /// Its version.
    pub version: u32,
    /// Steps ahead, from 1; `None`: all steps.
    pub step: Option<usize>,
    /// Series that are in it.
    pub series: usize,
    /// Sum of the weights of all values that are in it: how many of the newest it is worth.
    pub weight: f64,
    /// Mean absolute error of the median.
    pub mae: f64,
    /// The same by what a naive forecast of one step is off by on average, series by series: 1 is as good as that.
    /// `None` where no series moves.
    pub mase: Option<f64>,
    /// Mean pinball loss over the model's levels; `None` for a point forecast.
    pub pinball: Option<f64>,
    /// Central intervals, narrowest first.
    pub coverage: Vec<Coverage>,
}

/// How often an interval held the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coverage {
    /// The share, in percent, that it is meant to hold.
    pub level: f64,
    /// The share, in percent, that it held.
    pub held: f64,
    /// Values that this rests on, weighted.
    pub weight: f64,
}

impl Coverage {
    /// By how much it held less than it is meant to, as a share; negative where it held more.
    #[must_use]
    pub fn shortfall(&self) -> f64 {
        (self.level - self.held) / 100.0
    }
}

impl Score {
    /// The interval that is furthest below its level, of those that rest on at least so many values.
    #[must_use]
    pub fn worst_interval(&self, values_min: f64) -> Option<Coverage> {
        let known = self.coverage.iter().filter(|one| one.weight >= values_min);
        known.max_by(|a, b| a.shortfall().total_cmp(&b.shortfall())).copied()
    }
}

/// Sums of one or many streams of a model version.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    series: usize,
    weight: f64,
    error: f64,
    /// Of those that can be scaled.
    scaled: [f64; 2],
    /// Of those that have quantiles.
    pinball: [f64; 2],
    coverage: Vec<Coverage>,
}

impl Sum {
    /// One step of one stream.
    pub(super) fn add(&mut self, layout: &Layout, sums: &[f64], scale: Option<f64>) {
        let weight = sums[WEIGHT];
        self.weight += weight;
        self.error += sums[ERROR];
        if let Some(scale) = scale {
            self.scaled[0] += weight;
            self.scaled[1] += sums[ERROR] / scale;
        }
        if !layout.levels.is_empty() {
            self.pinball[0] += weight;
            self.pinball[1] += sums[PINBALL];
        }
        for (interval, hits) in layout.intervals.iter().zip(&sums[FIXED_SUMS..]) {
            let level = interval.percent;
            let at = self.coverage.iter().position(|coverage| coverage.level == level).unwrap_or_else(|| {
                self.coverage.push(Coverage { level, held: 0.0, weight: 0.0 });
                self.coverage.len() - 1
            });
            self.coverage[at].weight += weight;
            self.coverage[at].held += hits;
        }
    }

    pub(super) fn end_of_series(&mut self) {
        self.series += 1;
    }

    /// `None` where nothing was scored.
    pub(super) fn score(&self, model: Arc<str>, version: u32, step: Option<usize>) -> Option<Score> {
        let mean = |[weight, sum]: [f64; 2]| (weight > 0.0).then(|| sum / weight);
        let share = |one: &Coverage| Coverage { held: 100.0 * (one.held / one.weight).min(1.0), ..*one };
        let mut coverage: Vec<Coverage> = self.coverage.iter().map(share).collect();
        coverage.sort_by(|a, b| a.level.total_cmp(&b.level));
        Some(Score {
            model,
            version,
            step,
            series: self.series,
            weight: self.weight,
            mae: mean([self.weight, self.error])?,
            mase: mean(self.scaled),
            pinball: mean(self.pinball),
            coverage,
        })
    }
}

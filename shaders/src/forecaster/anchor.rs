//! What is done to a normalized window right before the network and undone right after it: levels, differences and
//! instance normalization. In f64, outside the plan: windows far from zero with little spread need it.

use crate::normalizer::Scale;

use super::network::Anchor;

/// Added to the variance of an instance.
const EPSILON: f64 = 1e-5;

/// Reversible instance normalization of each series over its whole window, masked steps included (Kim et al. 2022).
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// The last value is taken off instead of the mean.
    pub(super) from_last: bool,
    /// One for each series; ones where none were trained.
    pub(super) weight: Vec<f64>,
    /// One for each series; zeros where none were trained.
    pub(super) bias: Vec<f64>,
    /// Added to the weights on the way back.
    pub(super) slack: f64,
}

/// The ways in and back of one series of one window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    taken_off: f64,
    factor: f64,
    bias: f64,
    /// From the network's numbers to normalized ones.
    pub(super) back: Scale,
}

impl Instance {
    /// Without trained weights.
    pub(super) fn plain(from_last: bool, series: usize) -> Self {
        Self { from_last, weight: vec![1.0; series], bias: vec![0.0; series], slack: 0.0 }
    }

    fn around(&self, series: usize, values: &[f64]) -> Around {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let deviation = (variance + EPSILON).sqrt();
        let centre = if self.from_last { last(values) } else { mean };
        let (weight, bias) = (self.weight[series], self.bias[series]);
        let scale = deviation / (weight + self.slack);
        Around {
            taken_off: centre,
            factor: weight / deviation,
            bias,
            back: Scale { shift: centre - bias * scale, scale },
        }
    }
}

impl Anchor {
    /// For the normalized `values` of one series, oldest first.
    pub(super) fn around(&self, series: usize, values: &[f64]) -> Around {
        let shifted = |taken_off, shift| {
            let back = Scale { shift, scale: 1.0 };
            Around { taken_off, factor: 1.0, bias: 0.0, back }
        };
        match self {
            Self::None => shifted(0.0, 0.0),
            Self::Level => shifted(0.0, last(values)),
            Self::Difference => shifted(last(values), last(values)),
            Self::Instance(instance) => instance.around(series, values),
        }
    }
}

impl Around {
    /// What the network reads.
    pub(super) fn inward(&self, value: f64) -> f64 {
        (value - self.taken_off) * self.factor + self.bias
    }
}

fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or_default()
}

//! Brings a window to unit scale before the network and back after it; statistics in f64 over the observed values.
//!
//! The sum of equal `f32` values is exact in f64, so a constant window has spread zero, not one rounding.

use crate::NormalizerKind;

/// Added to every scale, after a zero has become one.
const EPSILON: f64 = 1e-6;
/// Brings a standard deviation to the size of a median absolute deviation.
const DEVIATION_TO_MAD: f64 = 0.674_489_750_196_081_7;

/// How values are scaled, with the learned affine of [`NormalizerKind::Revin`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Normalizer {
    kind: NormalizerKind,
    revin_weight: f64,
    revin_bias: f64,
}

/// Shift and protected scale of one column of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) shift: f64,
    pub(crate) scale: f64,
}

/// Reused between windows.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// The values that statistics are taken over.
    pub(crate) observed: Vec<f32>,
    keys: Vec<i32>,
    deviations: Vec<u64>,
}

impl Scale {
    pub(crate) const NONE: Self = Self { shift: 0.0, scale: 1.0 };
}

impl Normalizer {
    pub(crate) fn new(kind: NormalizerKind) -> Self {
        Self { kind, revin_weight: 1.0, revin_bias: 0.0 }
    }

    /// For [`NormalizerKind::Revin`].
    pub(crate) fn with_affine(self, revin_weight: f64, revin_bias: f64) -> Self {
        Self { revin_weight, revin_bias, ..self }
    }

    /// False when statistics are not needed at all.
    pub(crate) fn needs_statistics(self) -> bool {
        self.kind != NormalizerKind::Identity
    }

    /// Statistics of `workspace.observed`.
    pub(crate) fn fit(self, workspace: &mut Workspace) -> Scale {
        let Workspace { observed, keys, deviations } = workspace;
        let (shift, spread) = match self.kind {
            NormalizerKind::Identity => return Scale::NONE,
            _ if observed.is_empty() => (0.0, 0.0),
            NormalizerKind::Standard | NormalizerKind::Revin => mean_and_deviation(observed),
            NormalizerKind::Robust | NormalizerKind::Invariant => robust(observed, keys, deviations),
            NormalizerKind::MinMax | NormalizerKind::MinMax1 => {
                let low = f64::from(observed.iter().copied().fold(f32::INFINITY, f32::min));
                let high = f64::from(observed.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                (low, high - low)
            }
        };
        let scale = if spread == 0.0 { 1.0 } else { spread };
        Scale { shift, scale: scale + EPSILON }
    }

    /// Raw to normalized.
    #[inline]
    pub(crate) fn apply(self, value: f32, at: Scale) -> f64 {
        let unit = (f64::from(value) - at.shift) / at.scale;
        match self.kind {
            NormalizerKind::Identity => f64::from(value),
            NormalizerKind::MinMax1 => 2.0 * unit - 1.0,
            NormalizerKind::Invariant => unit.asinh(),
            _ => unit,
        }
    }

    /// The scale for the way out.
    pub(crate) fn outward(self, at: Scale) -> Scale {
        match self.kind {
            NormalizerKind::Revin => Scale {
                shift: at.shift + self.revin_bias,
                scale: at.scale * (self.revin_weight.max(0.0) + EPSILON),
            },
            _ => at,
        }
    }

    /// Normalized to raw; `at` from [`Self::outward`].
    #[inline]
    pub(crate) fn invert(self, value: f64, at: Scale) -> f64 {
        let unit = match self.kind {
            NormalizerKind::Identity => return value,
            NormalizerKind::MinMax1 => (value + 1.0) / 2.0,
            NormalizerKind::Invariant => value.sinh(),
            _ => value,
        };
        unit * at.scale + at.shift
    }
}

fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = sum(values, f64::from) / count;
    let variance = sum(values, |value| (f64::from(value) - mean).powi(2)) / count;
    (mean, variance.sqrt())
}

/// Four running sums: one would wait for each addition before the next.
fn sum(values: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let (fours, rest) = values.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, &value) in sums.iter_mut().zip(four) {
            *sum += term(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| term(value)).sum::<f64>()
}

fn robust(values: &[f32], keys: &mut Vec<i32>, deviations: &mut Vec<u64>) -> (f64, f64) {
    let middle = (values.len() - 1) / 2;
    keys.clear();
    keys.extend(values.iter().map(|&value| sort_key(value)));
    let median = f64::from(from_sort_key(*keys.select_nth_unstable(middle).1));
    deviations.clear();
    // Bits of non-negative floats are ordered as the floats are.
    deviations.extend(values.iter().map(|&value| (f64::from(value) - median).abs().to_bits()));
    let deviation = f64::from_bits(*deviations.select_nth_unstable(middle).1);
    if deviation == 0.0 {
        return (median, DEVIATION_TO_MAD * mean_and_deviation(values).1);
    }
    (median, deviation)
}

/// An integer that is ordered as the float is (and −0 before 0).
fn sort_key(value: f32) -> i32 {
    let bits = value.to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

fn from_sort_key(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) & i32::MAX)).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [NormalizerKind; 7] = [
        NormalizerKind::Identity,
        NormalizerKind::Standard,
        NormalizerKind::Robust,
        NormalizerKind::MinMax,
        NormalizerKind::MinMax1,
        NormalizerKind::Invariant,
        NormalizerKind::Revin,
    ];

    #[track_caller]
    fn check(kind: NormalizerKind, observed: &[f32], shift: f64, scale: f64) {
        let mut workspace = Workspace { observed: observed.to_vec(), ..Workspace::default() };
        let got = Normalizer::new(kind).fit(&mut workspace);
        assert!((got.shift - shift).abs() <= 1e-12 * shift.abs(), "shift {} wanted {shift}", got.shift);
        assert!((got.scale - scale).abs() <= 1e-12 * scale.abs(), "scale {} wanted {scale}", got.scale);
    }

    #[test]
    fn a_constant_window_has_scale_one() {
        for kind in &ALL[1..] {
            check(*kind, &[1.9558; 168], f64::from(1.9558f32), 1.0 + 1e-6);
            check(*kind, &[1.9558; 23], f64::from(1.9558f32), 1.0 + 1e-6);
        }
    }

    #[test]
    fn an_empty_window_has_shift_zero_and_scale_one() {
        for kind in &ALL[1..] {
            check(*kind, &[], 0.0, 1.0 + 1e-6);
        }
    }

    #[test]
    fn the_median_is_the_lower_one() {
        check(NormalizerKind::Robust, &[4.0, 1.0, 3.0, 2.0], 2.0, 1.0 + 1e-6);
    }

    #[test]
    fn robust_falls_back_to_the_deviation_when_most_values_are_equal() {
        let mut values = [0.0f32; 10];
        values[3] = 1.0;
        let wanted = 0.674_489_750_196_081_7 * (0.1f64 - 0.01).sqrt();
        check(NormalizerKind::Robust, &values, 0.0, wanted + 1e-6);
    }

    #[test]
    fn negative_values_sort_below_positive_ones() {
        check(NormalizerKind::Robust, &[-1.0, -3.0, 2.0, -2.0, 5.0], -1.0, 2.0 + 1e-6);
    }

    #[test]
    fn a_tiny_spread_is_not_a_zero_spread() {
        check(NormalizerKind::MinMax, &[0.0, 1e-9], 0.0, f64::from(1e-9f32) + 1e-6);
    }

    #[test]
    fn inverting_undoes_applying() {
        let window = [3.5f32, -2.0, 8.25, 0.0, 1.0, 7.5];
        for kind in ALL {
            let normalizer = Normalizer::new(kind);
            let at = normalizer.fit(&mut Workspace { observed: window.to_vec(), ..Workspace::default() });
            // A weight of one still gains the epsilon on the way out.
            let slack = if kind == NormalizerKind::Revin { 1e-5 } else { 1e-12 };
            for value in window {
                let back = normalizer.invert(normalizer.apply(value, at), normalizer.outward(at));
                assert!((back - f64::from(value)).abs() < slack, "{kind:?}: {back} wanted {value}");
            }
        }
    }

    #[test]
    fn revin_applies_its_affine_on_the_way_out_only() {
        let normalizer = Normalizer::new(NormalizerKind::Revin).with_affine(2.0, 0.5);
        let at = Scale { shift: 1.0, scale: 3.0 };
        assert_eq!(normalizer.apply(4.0, at), 1.0);
        assert_eq!(normalizer.invert(1.0, normalizer.outward(at)), 3.0 * (2.0 + 1e-6) + 1.5);
    }
}

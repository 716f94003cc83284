//! `layer_norm`: each group of columns to mean 0 and variance 1, then scaled and shifted, in one row.

use super::lanes;
use super::simd::Kernel;
use crate::LayerNorm;

/// 2⁻¹⁰⁰: in it the largest number has a square. What so loses digits is nothing beside numbers whose squares are too large.
const SMALL_UNIT: f32 = f32::from_bits((127 - 100) << 23);

/// One row.
pub(crate) struct LayerNormRow<'a> {
    pub(crate) command: &'a LayerNorm,
    pub(crate) src: &'a [f32],
    pub(crate) dst: &'a mut [f32],
}

impl Kernel for LayerNormRow<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { command: LayerNorm { scale, shift, epsilon, .. }, src, dst } = self;
        let group = scale.len();
        let size = group as f32;
        for (to, from) in dst.chunks_exact_mut(group).zip(src.chunks_exact(group)) {
            let (mut unit, (mut mean, mut variance)) = (1.0, moments(from, 1.0, size));
            if !variance.is_finite() {
                unit = SMALL_UNIT;
                (mean, variance) = moments(from, unit, size);
            }
            let factor = 1.0 / (epsilon * unit).mul_add(unit, variance).sqrt();
            for (((to, from), scale), shift) in to.iter_mut().zip(from).zip(&scale[..]).zip(&shift[..]) {
                *to = (from.mul_add(unit, -mean) * factor).mul_add(*scale, *shift);
            }
        }
    }
}

/// Mean and variance of the numbers times `unit`.
#[inline(always)]
fn moments(values: &[f32], unit: f32, size: f32) -> (f32, f32) {
    let mean = lanes::sum(values, |x| x * unit) / size;
    // From the differences, not from the squares: a large mean would swallow a small variance.
    let off = |x: f32| x.mul_add(unit, -mean);
    (mean, lanes::sum(values, |x| off(x) * off(x)) / size)
}

//! `layer_norm`: each group of columns to mean 0 and variance 1, then scaled and shifted, in one row.

use super::lanes;
use super::simd::Kernel;
use crate::LayerNorm;

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
            let mean = lanes::sum(from, |x| x) / size;
            // From the differences, not from the squares: a large mean would swallow a small variance.
            let variance = lanes::sum(from, |x| (x - mean) * (x - mean)) / size;
            let factor = 1.0 / (variance + epsilon).sqrt();
            for (((to, from), scale), shift) in to.iter_mut().zip(from).zip(&scale[..]).zip(&shift[..]) {
                *to = ((from - mean) * factor).mul_add(*scale, *shift);
            }
        }
    }
}

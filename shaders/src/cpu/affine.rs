//! `affine`: scale and shift by column, activation, sum, in one row.

use super::activation;
use super::simd::Kernel;
use crate::Affine;

/// One row.
pub(crate) struct AffineRow<'a> {
    pub(crate) command: &'a Affine,
    pub(crate) src: &'a [f32],
    pub(crate) add: Option<&'a [f32]>,
    pub(crate) dst: &'a mut [f32],
}

impl Kernel for AffineRow<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { command, src, add, dst } = self;
        let (scale, shift) = (&command.scale[..], &command.shift[..]);
        for (to, from) in dst.chunks_exact_mut(scale.len()).zip(src.chunks_exact(scale.len())) {
            for (((to, from), scale), shift) in to.iter_mut().zip(from).zip(scale).zip(shift) {
                *to = from.mul_add(*scale, *shift);
            }
        }
        activation::apply(command.activation, dst, None);
        if let Some(add) = add {
            for (to, add) in dst.iter_mut().zip(add) {
                *to += add;
            }
        }
    }
}

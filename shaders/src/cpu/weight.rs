//! What a weight is kept as, and how a vector of such becomes one of f32: exactly, whatever they are kept as.

use bytemuck::Pod;
use half::f16;

use super::simd::Lanes;
use crate::Precision;

/// A kept weight.
pub(crate) trait Weight: Pod {
    /// Of the matrices that are kept so.
    const PRECISION: Precision;
    /// A sum of products with such weights is multiplied by the scale of its column, and only then joins what is there.
    const SCALED: bool = false;

    /// # Safety
    /// As for [`Lanes`]; `from` is good for `V::LEN` weights.
    unsafe fn load<V: Lanes>(from: *const Self) -> V;
}

impl Weight for f32 {
    const PRECISION: Precision = Precision::F32;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: handed on to the caller.
        unsafe { V::load(from) }
    }
}

impl Weight for f16 {
    const PRECISION: Precision = Precision::F16;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: handed on to the caller.
        unsafe { V::load_halves(from) }
    }
}

impl Weight for i8 {
    const PRECISION: Precision = Precision::Int8;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const Self) -> V {
        // SAFETY: handed on to the caller.
        unsafe { V::load_bytes(from) }
    }
}

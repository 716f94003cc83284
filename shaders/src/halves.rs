//! Rounds f32 to halves in bulk, to the nearest, ties to even.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Rounds `from` into `to`, which may be memory that is only ever written.
///
/// # Panics
/// When the lengths differ: a programmer's error.
pub(crate) fn round(from: &[f32], to: &mut [f16]) {
    assert_eq!(from.len(), to.len(), "as many halves as numbers");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx") {
        // SAFETY: both were detected just now.
        unsafe { round_f16c(from, to) };
        return;
    }
    to.convert_from_f32_slice(from);
}

/// The crate's own conversion is a call for every eight numbers, which costs three times the memory.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn round_f16c(from: &[f32], to: &mut [f16]) {
    use std::arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let (eights, rest) = from.as_chunks::<8>();
    let (targets, rest_of_targets) = to.as_chunks_mut::<8>();
    for (eight, target) in eights.iter().zip(targets) {
        // SAFETY: both point to eight numbers; neither has to be aligned.
        unsafe {
            let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(eight.as_ptr()));
            _mm_storeu_si128(target.as_mut_ptr().cast(), halves);
        }
    }
    for (value, target) in rest.iter().zip(rest_of_targets) {
        *target = f16::from_f32(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_kind_of_number_is_rounded_as_one_by_one() {
        let odd = [0.0, -0.0, 1.0, 65_504.0, 65_520.0, 1e-8, 5.97e-8, 3e-5, -0.1, f32::INFINITY, 2049.0];
        let numbers: Vec<f32> = (0..97).map(|at| odd[at % odd.len()] * (1.0 + at as f32 / 64.0)).collect();
        for len in 0..numbers.len() {
            let mut halves = vec![f16::NAN; len];
            round(&numbers[..len], &mut halves);
            let bits = |half: &f16| half.to_bits();
            let expected: Vec<u16> =
                numbers[..len].iter().map(|value| f16::from_f32(*value).to_bits()).collect();
            assert_eq!(halves.iter().map(bits).collect::<Vec<_>>(), expected);
        }
        let mut nan = [f16::ONE];
        round(&[f32::NAN], &mut nan);
        assert!(nan[0].is_nan());
    }
}

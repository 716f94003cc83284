//! Activations that need an exponential, in plain arithmetic that the compiler can vectorise.
//!
//! Only additions, multiplications, divisions and fused multiply-adds: the same bits at every vector width and at
//! every place in a row, unlike a vector library with a scalar remainder. Errors against f64 are asserted below.
#![allow(clippy::excessive_precision, reason = "constants of plan/command.rs, to the digit")]

use crate::Activation;

/// Applies `activation` to `values` and multiplies by `mask` where there is one (same length).
#[inline(always)]
pub(crate) fn apply(activation: Activation, values: &mut [f32], mask: Option<&[f32]>) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => each(values, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::Leaky(slope) => each(values, |x| if x > 0.0 { x } else { slope * x }),
        Activation::Softplus => each(values, softplus),
        Activation::Tanh => each(values, tanh),
        Activation::Selu => each(values, selu),
        Activation::Sigmoid => each(values, sigmoid),
        Activation::Gelu => each(values, gelu),
    }
    if let Some(mask) = mask {
        for (value, factor) in values.iter_mut().zip(mask) {
            *value *= factor;
        }
    }
}

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for value in values {
        *value = f(*value);
    }
}

#[inline(always)]
fn softplus(x: f32) -> f32 {
    let positive = if x < 0.0 { 0.0 } else { x };
    let sum = positive + ln_1p(exp(-x.abs()));
    if x > 20.0 { x } else { sum }
}

#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let below = exp_m1(-2.0 * x.abs());
    (-below / (below + 2.0)).copysign(x)
}

#[inline(always)]
fn selu(x: f32) -> f32 {
    const SCALE: f32 = 1.050_700_987_355_480_5;
    const SCALE_ALPHA: f32 = (1.050_700_987_355_480_5_f64 * 1.673_263_242_354_377_2) as f32;
    let negative = if x > 0.0 { 0.0 } else { x };
    let curve = SCALE_ALPHA * exp_m1(negative);
    if x > 0.0 { SCALE * x } else { curve }
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let below = exp(-x.abs());
    (if x < 0.0 { below } else { 1.0 }) / (1.0 + below)
}

/// `x · ½ erfc(−x / √2)`, from the scaled complement `erfcx(u) = erfc(u) · exp u²` at `u = |x| / √2`: it falls slowly,
/// and a polynomial in `s = (u − 2) / (u + 2)` holds it to 5e-9 (fitted for this file by interpolation at Chebyshev
/// points).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const ERFCX: [f32; 11] = [
        6.090_864e-5,
        3.268_804e-5,
        -5.888_767e-4,
        -8.179_191e-4,
        3.063_696e-3,
        6.471_019e-3,
        -2.150_632_7e-2,
        -3.644_113_5e-2,
        2.794_718_3e-1,
        -6.871_607e-1,
        1.021_582_7,
    ];
    let u = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let s = (u - 2.0) / (u + 2.0);
    let mut p = ERFCX[0];
    for coefficient in &ERFCX[1..] {
        p = s.mul_add(p, *coefficient);
    }
    // exp(−x² / 2), with what the square lost.
    let square = x * x;
    let lost = x.mul_add(x, -square);
    let bell = exp(-0.5 * square) * (-0.5f32).mul_add(lost, 1.0);
    // The bell last: it may be so small that nothing but the product with it is.
    let tail = x * (0.5 * p / (u + 2.0)) * bell;
    // Far out the square is infinite and what it lost is no number; the tail is nothing there.
    let tail = if u > 9.4 { 0.0 } else { tail };
    if x < 0.0 { tail } else { x - tail }
}

/// `eˣ` for `x ≤ 0`; below −87 it stays at e⁻⁸⁷.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let (scale, rest) = split(x);
    scale.mul_add(rest, scale)
}

/// `eˣ − 1` for `x ≤ 0`, exact in its leading digits near 0.
#[inline(always)]
fn exp_m1(x: f32) -> f32 {
    let (scale, rest) = split(x);
    scale.mul_add(rest, scale - 1.0)
}

/// `(2ⁿ, eʳ − 1)` with `x = n · ln 2 + r`, `|r| ≤ ½ ln 2`. NaN stays NaN in the second.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    const LN2_HIGH: f32 = 0.693_359_375;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5 · 2²³ rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN2_LOW, (-n).mul_add(LN2_HIGH, x));
    // Taylor to r⁷: the next term is below 2⁻²⁵ of r.
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = r.mul_add(p, coefficient);
    }
    let rest = (r * r).mul_add(p, r);
    (f32::from_bits(shifted.to_bits().wrapping_add(127) << 23), rest)
}

/// `ln(1 + u)` for `0 ≤ u ≤ 1`: `2 artanh(u / (2 + u))`.
#[inline(always)]
fn ln_1p(u: f32) -> f32 {
    let s = u / (2.0 + u);
    let z = s * s;
    // z ≤ 1/9: the next term is below 2⁻²⁹ of the sum.
    let mut p = 1.0 / 15.0;
    for coefficient in [1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
        p = z.mul_add(p, coefficient);
    }
    let twice = s + s;
    (twice * z).mul_add(p, twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error in units of the last place that any activation may have.
    const ULPS_MAX: f64 = 4.0;

    #[test]
    fn errors_stay_within_a_few_ulps() {
        for activation in
            [Activation::Softplus, Activation::Tanh, Activation::Selu, Activation::Sigmoid, Activation::Gelu]
        {
            for step in -400_000..=400_000 {
                check(activation, step as f32 * 2e-4);
                check(activation, step as f32 * 1e-8);
            }
        }
    }

    #[test]
    fn nan_stays_nan_and_infinities_reach_the_limits() {
        let at = |activation, x: f32| {
            let mut values = [x; 9];
            apply(activation, &mut values, None);
            values[8]
        };
        for activation in [Activation::Softplus, Activation::Tanh, Activation::Selu, Activation::Sigmoid] {
            assert!(at(activation, f32::NAN).is_nan(), "{activation:?}");
        }
        assert_eq!(at(Activation::Tanh, f32::INFINITY), 1.0);
        assert_eq!(at(Activation::Tanh, f32::NEG_INFINITY), -1.0);
        assert_eq!(at(Activation::Sigmoid, f32::INFINITY), 1.0);
        assert!(at(Activation::Sigmoid, f32::NEG_INFINITY) < 1e-37);
        assert!(at(Activation::Softplus, f32::NEG_INFINITY) < 1e-37);
        assert_eq!(at(Activation::Softplus, f32::INFINITY), f32::INFINITY);
    }

    #[track_caller]
    fn check(activation: Activation, x: f32) {
        let mut value = [x];
        apply(activation, &mut value, None);
        let expected = crate::tests::activate(activation, f64::from(x));
        let smallest = f64::from(f32::MIN_POSITIVE);
        let ulp = expected.abs().max(smallest) * 2f64.powi(-23);
        // Among the subnormal numbers zero is as good.
        let ulp = if expected.abs() < smallest { smallest } else { ulp };
        let error = (f64::from(value[0]) - expected).abs() / ulp;
        assert!(error <= ULPS_MAX, "{activation:?}({x:e}) = {:e}, {error} ulp from {expected:e}", value[0]);
    }
}

//! `linear`: oracle ≈ CPU at every SIMD level, over odd shapes and every epilogue.

use super::cases::weights;
use super::{Case, LinearShape, Tolerance, check};
use crate::{Activation, Init, Linear, Move, PlanBuilder, Repeat};

/// Sums of up to 1,000 terms near 1 in f32: each of the K roundings is at most 2⁻²⁴ of a partial sum below 4, and
/// they do not all point one way: √1000 · 4 · 6e-8 ≈ 7.5e-6. `rel` is for the activation, within 4 ulp.
const TOLERANCE: Tolerance = Tolerance { abs: 8e-6, rel: 5e-7 };

const PLAIN: LinearShape =
    LinearShape { k: 84, n: 17, init: Init::Bias, activation: Activation::Identity, masked: false };

#[test]
fn every_width_and_row_count_is_right() {
    for k in [1, 7, 84, 169, 1000] {
        for n in [1, 5, 17, 120, 288] {
            for rows in [1, 2, 5, 6, 7, 13, 64] {
                check(&Case::linear(LinearShape { k, n, ..PLAIN }, rows), TOLERANCE);
            }
        }
    }
}

#[test]
fn a_thousand_rows_are_right() {
    for (k, n) in [(1, 288), (84, 5), (169, 120)] {
        check(&Case::linear(LinearShape { k, n, ..PLAIN }, 1000), TOLERANCE);
    }
}

#[test]
fn every_activation_init_and_mask_is_right() {
    for activation in [
        Activation::Identity,
        Activation::Relu,
        Activation::Softplus,
        Activation::Tanh,
        Activation::Selu,
        Activation::Leaky(0.01),
        Activation::Leaky(-0.7),
        Activation::Sigmoid,
        Activation::Gelu,
    ] {
        for init in [Init::Bias, Init::Accumulate] {
            for masked in [false, true] {
                for rows in [1, 7, 13] {
                    check(&Case::linear(LinearShape { init, activation, masked, ..PLAIN }, rows), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn every_place_of_a_repeated_layer_is_right() {
    for (k, n, count) in [(3, 5, 2), (16, 8, 16), (40, 33, 70), (1, 1, 20)] {
        // Sources that follow each other, overlap, are one and the same; destinations with and without gaps.
        for (src_step, dst_step) in [(k, n), (1, n + 3), (0, n)] {
            for init in [Init::Bias, Init::Accumulate] {
                for rows in [1, 3, 50] {
                    check(&repeated(k, n, Repeat { count, src_step, dst_step }, init, rows), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn every_step_of_whole_buffers_is_right() {
    // Whole vectors or not, thin or not, several slices of a sum or one.
    for (k, n) in [(32, 32), (36, 20), (8, 36), (48, 4), (1, 144), (48, 5), (23, 32), (130, 3), (16, 260)] {
        for activation in [Activation::Identity, Activation::Relu, Activation::Gelu] {
            for (init, skipped) in [(Init::Bias, 0), (Init::Accumulate, 0), (Init::Accumulate, 2)] {
                let shape = LinearShape { k, n, init, activation, masked: false };
                for rows in [1, 3, 50] {
                    check(&Case::steps(shape, 7, skipped, rows), TOLERANCE);
                }
            }
        }
    }
}

/// The cells between the places must survive.
fn repeated(k: usize, n: usize, repeat: Repeat, init: Init, rows: usize) -> Case {
    let mut plan = PlanBuilder::new(&format!("linear {k}→{n} {repeat:?} {init:?}"));
    let last = repeat.count - 1;
    let src = plan.input(last * repeat.src_step + k + 1).slice(1, last * repeat.src_step + k);
    let before = plan.input(last * repeat.dst_step + n + 2);
    let dst = plan.buffer(before.width);
    plan.move_columns(Move::copy(before, dst));
    let weights = weights(k as u64 * 31 + n as u64, k, n);
    let into = dst.slice(2, dst.width - 2);
    plan.linear(Linear { init, repeat, ..Linear::plain(src, into, weights, Activation::Tanh) });
    Case::of(plan.finish(dst), rows)
}

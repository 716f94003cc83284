//! `affine`: oracle ≈ CPU ≈ GPU over periods, sums and activations.

use super::cases::Noise;
use super::{Case, Tolerance, check};
use crate::{Activation, Affine, PlanBuilder};

/// One rounding of the product, one of the sum of numbers below 4, and an activation within 4 ulp.
const TOLERANCE: Tolerance = Tolerance { abs: 1e-6, rel: 1e-6 };

#[test]
fn every_period_and_sum_is_right() {
    for (period, repeats) in [(1, 1), (1, 77), (5, 3), (64, 2), (129, 1)] {
        for adds in [false, true] {
            for rows in [1, 13, 130] {
                check(&case(period, repeats, adds, Activation::Relu, rows), TOLERANCE);
            }
        }
    }
}

#[test]
fn the_activation_comes_before_the_sum() {
    for activation in [Activation::Identity, Activation::Tanh, Activation::Gelu] {
        check(&case(7, 3, true, activation, 5), TOLERANCE);
    }
}

fn case(period: usize, repeats: usize, adds: bool, activation: Activation, rows: usize) -> Case {
    let width = period * repeats;
    let mut plan = PlanBuilder::new(&format!("affine {period}×{repeats} adds {adds} {activation:?}"));
    let (src, add) = (plan.input(width + 3), plan.input(width + 2));
    let dst = plan.buffer(width);
    let mut noise = Noise(period as u64);
    plan.affine(Affine {
        src: src.slice(2, width),
        dst,
        scale: noise.uniform(period, 2.0).into(),
        shift: noise.uniform(period, 1.0).into(),
        activation,
        add: adds.then(|| add.slice(1, width)),
    });
    Case::of(plan.finish(dst), rows)
}

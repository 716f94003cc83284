//! Activations over their whole range, on every executor, through `affine`.

use super::{Case, Tolerance, check};
use crate::{Activation, Affine, PlanBuilder};

/// What a driver may make of `exp` and `tanh`: WGSL allows an absolute error near 1e-5 for `tanh`, and 3 + 2 |x| ulp for
/// `exp`. The CPU's own errors are held to 4 ulp in cpu/activation.rs.
const TOLERANCE: Tolerance = Tolerance { abs: 1e-5, rel: 4e-6 };

#[test]
fn every_activation_is_right_near_zero_and_far_out() {
    for activation in [
        Activation::Identity,
        Activation::Relu,
        Activation::Softplus,
        Activation::Tanh,
        Activation::Selu,
        Activation::Leaky(0.01),
        Activation::Sigmoid,
        Activation::Gelu,
    ] {
        for reach in [1e-3, 1.0, 10.0, 100.0] {
            let mut plan = PlanBuilder::new(&format!("{activation:?} within {reach}"));
            let src = plan.input(1000);
            let dst = plan.buffer(1000);
            let (scale, shift) = ([reach].into(), [0.0].into());
            plan.affine(Affine { src, dst, scale, shift, activation, add: None });
            check(&Case::of(plan.finish(dst), 2), TOLERANCE);
        }
    }
}

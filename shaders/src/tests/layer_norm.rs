//! `layer_norm`: oracle ≈ CPU ≈ GPU over group widths.

use super::cases::Noise;
use super::{Case, Tolerance, check};
use crate::{LayerNorm, PlanBuilder};

/// Means of up to 300 numbers below 1, then a quotient below √300 of their errors.
const TOLERANCE: Tolerance = Tolerance { abs: 5e-6, rel: 2e-6 };

#[test]
fn every_group_is_right() {
    for (group, groups) in [(1, 1), (1, 20), (3, 7), (17, 5), (96, 1), (64, 3), (300, 2)] {
        for rows in [1, 13, 70] {
            check(&case(group, groups, rows), TOLERANCE);
        }
    }
}

/// Their squares are no floats, and of some not even the sum is.
#[test]
fn groups_of_numbers_without_squares_are_right() {
    for size in [1e15, 1e19, 3e20, 1e30, 3e38] {
        for (group, groups) in [(3, 7), (17, 5), (96, 1)] {
            let mut case = case(group, groups, 13);
            case.inputs.iter_mut().flatten().for_each(|value| *value *= size);
            check(&case, TOLERANCE);
        }
    }
}

fn case(group: usize, groups: usize, rows: usize) -> Case {
    let width = group * groups;
    let mut plan = PlanBuilder::new(&format!("layer norm {groups} × {group}"));
    let src = plan.input(width + 3);
    let dst = plan.buffer(width);
    let mut noise = Noise(width as u64);
    plan.layer_norm(LayerNorm {
        src: src.slice(1, width),
        dst,
        scale: noise.uniform(group, 1.5).into(),
        shift: noise.uniform(group, 1.0).into(),
        epsilon: 1e-5,
    });
    Case::of(plan.finish(dst), rows)
}

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
            check(&Case::of(plan.finish(dst), rows), TOLERANCE);
        }
    }
}

//! `moves`: copies, reversals, broadcasts and strides are exact.

use super::{Case, Tolerance, check};
use crate::{Move, PlanBuilder};

const EXACT: Tolerance = Tolerance { abs: 0.0, rel: 0.0 };

#[test]
fn a_copy_is_exact() {
    every_row_count(168, 168, 0, 1);
    every_row_count(168, 20, 140, 1);
}

#[test]
fn a_reversal_is_exact() {
    every_row_count(168, 168, 167, -1);
    every_row_count(1, 1, 0, -1);
}

#[test]
fn a_broadcast_is_exact() {
    every_row_count(168, 120, 167, 0);
}

#[test]
fn a_stride_is_exact() {
    every_row_count(50, 17, 1, 3);
    every_row_count(50, 7, 49, -8);
}

#[track_caller]
fn every_row_count(width: usize, count: usize, start: usize, step: i32) {
    for rows in [1, 2, 13, 130] {
        check(&Case::moved(width, count, start, step, rows), EXACT);
    }
}

#[test]
fn a_transpose_is_exact() {
    for (steps, columns) in [(1, 1), (7, 3), (3, 7), (64, 23)] {
        for rows in [1, 13] {
            let mut plan = PlanBuilder::new(&format!("transpose {steps}×{columns}"));
            let src = plan.input(steps * columns);
            let dst = plan.buffer(steps * columns);
            plan.move_columns(Move::transpose(src, dst, columns));
            check(&Case::of(plan.finish(dst), rows), EXACT);
        }
    }
}

#[test]
fn columns_are_woven_into_steps() {
    // [12, 2] and [12, 1] reversed in time become [12, 3].
    let mut plan = PlanBuilder::new("weave");
    let (pairs, ones) = (plan.input(24), plan.input(12));
    let dst = plan.buffer(36);
    let (counts, src_steps, dst_steps) = ([12, 2], [2, 1], [3, 1]);
    plan.move_columns(Move { src: pairs, dst, counts, start: 0, src_steps, dst_steps });
    let (counts, src_steps, dst_steps) = ([12, 1], [-1, 0], [3, 0]);
    plan.move_columns(Move { src: ones, dst: dst.slice(2, 34), counts, start: 11, src_steps, dst_steps });
    check(&Case::of(plan.finish(dst), 5), EXACT);
}

//! `moves`: copies, reversals, broadcasts and strides are exact.

use super::{Case, Tolerance, check};

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

//! `pool`: oracle ≈ CPU over short last windows, several columns and both modes.

use super::{Case, Tolerance, check};
use crate::PoolMode;

/// A maximum is exact; a mean of up to 50 numbers below 1 is off by at most 50 roundings of 2⁻²⁴.
const TOLERANCE: Tolerance = Tolerance { abs: 3e-6, rel: 0.0 };

#[test]
fn every_window_is_right() {
    for mode in [PoolMode::Max, PoolMode::Mean] {
        for (steps, columns) in [(1, 1), (168, 1), (169, 1), (25, 3), (50, 2)] {
            for kernel in [1, 2, 3, 8, 50, 200] {
                for rows in [1, 13, 130] {
                    check(&Case::pool(steps, columns, kernel, mode, rows), TOLERANCE);
                }
            }
        }
    }
}

//! Whole plans: the stack of a trained NHITS, and what must not change any bit of a result.

use super::{Case, Tolerance, check, run_guarded};
use crate::cpu::{CpuExecutor, Simd};
use crate::{Executor, Precision};

/// Ten layers of up to 768 terms; each adds about √768 · 6e-8 ≈ 2e-6 of its size (below 4) and hands on what it got.
const TOLERANCE: Tolerance = Tolerance { abs: 5e-5, rel: 1e-6 };

#[test]
fn a_whole_nhits_is_right() {
    for rows in [1, 2, 13, 64, 300] {
        check(&Case::nhits(rows), TOLERANCE);
    }
}

#[test]
fn a_row_alone_equals_the_row_among_a_thousand() {
    for all in kept(1000) {
        let width = all.plan.width(all.plan.output);
        let mut executor = CpuExecutor::new(2);
        let expected = run_guarded(&mut executor, &all);
        for (first, rows) in [(0, 1), (499, 1), (999, 1), (17, 5), (300, 7), (100, 97), (3, 613)] {
            let actual = run_guarded(&mut executor, &all.some_rows(first, rows));
            assert_bits(&actual, &expected[first * width..(first + rows) * width], &all.name);
        }
    }
}

#[test]
fn every_simd_level_and_thread_count_gives_the_same_bits() {
    for case in [1, 5, 200].into_iter().flat_map(kept) {
        let expected = run_guarded(&mut CpuExecutor::with_simd(1, Simd::Portable), &case);
        for simd in Simd::available() {
            for threads in [1, 2, 3] {
                let mut executor = CpuExecutor::with_simd(threads, simd);
                let actual = run_guarded(&mut executor, &case);
                assert_bits(&actual, &expected, executor.device());
            }
        }
    }
}

/// With matrices of every precision.
fn kept(rows: usize) -> [Case; 3] {
    Precision::ALL.map(|precision| Case::nhits(rows).rounded(precision))
}

#[track_caller]
pub(super) fn assert_bits(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), e.to_bits(), "{what}: cell {at}: {a} and {e}");
    }
}

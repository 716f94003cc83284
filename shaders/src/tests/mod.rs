//! Oracle (f64) ≈ CPU twin ≈ GPU kernel on the same cases: one [`check`] for all of them.
//!
//! [`executors`] lists who is compared; [`cases`] makes plans and inputs; [`oracle`](mod@oracle) says what is right.

mod activation;
mod affine;
mod attention;
mod cases;
mod gpu;
mod kept;
mod layer_norm;
mod linear;
mod moves;
mod oracle;
mod pool;
mod precision;
mod recurrent;
mod resident;
mod shorten;
mod sliding;
mod tuning;
mod walk;
mod whole_plan;

pub(crate) use cases::{Case, LinearShape, Noise};
pub(crate) use oracle::{activate, oracle};
pub(crate) use walk::forecast;

use crate::cpu::{CpuExecutor, Simd};
use crate::{Executor, Precision};

/// Largest `|actual − expected| − rel · |expected|` that is let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) abs: f64,
    pub(crate) rel: f64,
}

/// Held by a test whose kernel stays: each keeps a processor busy, and would be late beside the others.
pub(crate) fn alone() -> parking_lot::MutexGuard<'static, ()> {
    static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    ALONE.lock()
}

/// What lies before and after every slice handed to an executor; it must still be there afterwards.
const GUARD: f32 = -7.777e33;
const GUARD_LEN: usize = 64;

/// Everything that can run a plan here. Each result must lie within the tolerance of the oracle.
fn executors() -> Vec<Box<dyn Executor>> {
    let mut all: Vec<Box<dyn Executor>> = Vec::new();
    for simd in Simd::available() {
        all.push(Box::new(CpuExecutor::with_simd(1, simd)));
    }
    all.push(Box::new(CpuExecutor::new(2)));
    all
}

/// Runs `case` on every executor and compares with the oracle.
#[track_caller]
pub(crate) fn check(case: &Case, tolerance: Tolerance) {
    let expected = oracle(&case.plan, case.rows, &case.input_slices());
    for executor in &mut executors() {
        check_on(executor.as_mut(), case, &expected, tolerance);
    }
    gpu::check(case, &expected, tolerance);
    for precision in [Precision::F16, Precision::Int8] {
        check_rounded(&case.rounded(precision), tolerance);
    }
}

/// The same with rounded matrices: the oracle has those as well.
#[track_caller]
fn check_rounded(case: &Case, tolerance: Tolerance) {
    let expected = oracle(&case.plan, case.rows, &case.input_slices());
    for executor in &mut executors() {
        check_on(executor.as_mut(), case, &expected, tolerance);
    }
    gpu::check(case, &expected, tolerance);
}

/// Runs `case` on one executor. The first run gets NaN for input, so that every scratch cell the plan writes is
/// poisoned when the second one starts; the output starts as NaN between guards.
#[track_caller]
pub(crate) fn check_on(executor: &mut dyn Executor, case: &Case, expected: &[f64], tolerance: Tolerance) {
    let poison: Vec<Vec<f32>> = case.inputs.iter().map(|input| vec![f32::NAN; input.len()]).collect();
    let poison: Vec<&[f32]> = poison.iter().map(Vec::as_slice).collect();
    let mut dropped = vec![0.0; expected.len()];
    executor.run(&case.plan, case.rows, &poison, &mut dropped).unwrap();

    let actual = run_guarded(executor, case);
    let width = case.plan.width(case.plan.output);
    for (at, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs();
        // Written so that NaN fails.
        assert!(
            error <= tolerance.abs + tolerance.rel * expected.abs(),
            "{} on {}: row {} column {}: {actual} where {expected} is right (off by {error:e})",
            case.name,
            executor.device(),
            at / width,
            at % width,
        );
    }
}

/// The output of one run; asserts that nothing around it was written.
#[track_caller]
pub(crate) fn run_guarded(executor: &mut dyn Executor, case: &Case) -> Vec<f32> {
    let cells = case.rows * case.plan.width(case.plan.output);
    let mut guarded = vec![GUARD; cells + 2 * GUARD_LEN];
    guarded[GUARD_LEN..GUARD_LEN + cells].fill(f32::NAN);
    executor
        .run(&case.plan, case.rows, &case.input_slices(), &mut guarded[GUARD_LEN..GUARD_LEN + cells])
        .unwrap();
    let intact = |side: &[f32]| side.iter().all(|cell| cell.to_bits() == GUARD.to_bits());
    assert!(intact(&guarded[..GUARD_LEN]), "{}: written before the output", case.name);
    assert!(intact(&guarded[GUARD_LEN + cells..]), "{}: written past the output", case.name);
    guarded[GUARD_LEN..GUARD_LEN + cells].to_vec()
}

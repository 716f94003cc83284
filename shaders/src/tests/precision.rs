//! What is kept of matrices, in how much memory, and that widening it again changes nothing.

use std::sync::Arc;

use super::whole_plan::assert_bits;
use super::{Case, LinearShape, run_guarded};
use crate::cpu::{CpuExecutor, Simd};
use crate::{Activation, Executor, Init, Plan, Precision};

#[test]
fn halves_give_the_bits_of_the_same_numbers_in_f32() {
    let widths = [(1, 1), (3, 33), (7, 15), (84, 17), (169, 64), (1025, 31), (2100, 70)];
    for simd in Simd::available() {
        for (k, n) in widths {
            for rows in [1, 2, 3, 5, 6, 11, 12, 13, 40] {
                let init = if n % 2 == 0 { Init::Bias } else { Init::Accumulate };
                let activation = if k % 2 == 0 { Activation::Tanh } else { Activation::Identity };
                let masked = rows % 2 == 0;
                let halved = Case::linear(LinearShape { k, n, init, activation, masked }, rows).halved();
                let got = run_guarded(&mut CpuExecutor::with_simd(1, simd), &halved);
                let expected = run_guarded(&mut CpuExecutor::with_simd(1, simd), &in_f32(&halved));
                assert_bits(&got, &expected, &halved.name);
            }
        }
    }
}

/// One row leaves out inputs that are zero; sums are scaled once for each thousand of inputs.
#[test]
fn whole_numbers_give_the_same_bits_at_every_level_and_for_every_number_of_rows() {
    for (k, n) in [(1, 1), (3, 33), (84, 17), (1025, 31), (2100, 70)] {
        for init in [Init::Bias, Init::Accumulate] {
            let shape = LinearShape { k, n, init, activation: Activation::Relu, masked: false };
            let mut all = Case::linear(shape, 41).rounded(Precision::Int8);
            all.inputs[0].iter_mut().step_by(3).for_each(|input| *input = -0.0);
            let width = all.plan.width(all.plan.output);
            let expected = run_guarded(&mut CpuExecutor::with_simd(1, Simd::Portable), &all);
            for simd in Simd::available() {
                let mut executor = CpuExecutor::with_simd(1, simd);
                for (first, rows) in [(0, 41), (0, 1), (17, 1), (3, 2), (5, 3), (8, 6), (12, 12), (20, 13)] {
                    let got = run_guarded(&mut executor, &all.some_rows(first, rows));
                    assert_bits(&got, &expected[first * width..(first + rows) * width], &all.name);
                }
            }
        }
    }
}

/// Subnormal halves among them, which some ways of widening lose.
#[test]
fn every_finite_half_is_widened_exactly() {
    let halves: Vec<f32> = (0..=u16::MAX)
        .map(|bits| half::f16::from_bits(bits).to_f32())
        .filter(|half| half.is_finite())
        .collect();
    let mut case = Case::linear(LinearShape { k: 1, n: halves.len(), ..PLAIN }, 1).halved();
    let plan = Arc::get_mut(&mut case.plan).expect("nobody else has it");
    for command in &mut plan.commands {
        if let crate::Command::Linear(linear) = command {
            let bias = vec![0.0; halves.len()];
            linear.weights = Arc::new(crate::Weights::new(halves.len(), 1, &halves, bias));
        }
    }
    case.inputs[0].fill(1.0);
    for simd in Simd::available() {
        let got = run_guarded(&mut CpuExecutor::with_simd(1, simd), &case);
        let into = 3..3 + halves.len();
        assert!(got[into].iter().zip(&halves).all(|(got, half)| got == half), "{simd:?}");
    }
}

const PLAIN: LinearShape =
    LinearShape { k: 84, n: 17, init: Init::Bias, activation: Activation::Identity, masked: false };

#[test]
fn an_executor_says_how_much_memory_its_matrices_take() {
    let mut executor = CpuExecutor::new(1);
    let mut plan_bytes = |case: &Case| {
        executor.load(&case.plan).unwrap();
        let taken = executor.memory().expect("the host's").plan_bytes;
        executor.unload(case.plan.id);
        assert_eq!(executor.memory().expect("the host's").plan_bytes, 0);
        taken as f64 / case.plan.weight_bytes() as f64
    };
    // Panels are padded to whole vectors.
    for share in Precision::ALL.map(|precision| plan_bytes(&Case::nhits(3).rounded(precision))) {
        assert!((1.0..1.1).contains(&share), "{share}");
    }
}

/// The same rounded numbers, kept as they are.
fn in_f32(case: &Case) -> Case {
    let Plan { id, name, buffer_widths, inputs, output, commands, .. } = case.plan.as_ref();
    let plan = Plan {
        id: *id,
        name: name.clone(),
        precision: Precision::F32,
        buffer_widths: buffer_widths.clone(),
        inputs: inputs.clone(),
        output: *output,
        commands: commands.clone(),
    };
    Case {
        name: format!("{}, in f32", case.name),
        plan: Arc::new(plan),
        rows: case.rows,
        inputs: case.inputs.clone(),
    }
}

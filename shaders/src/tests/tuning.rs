//! The choice of kernels by measurement: kept, used again, and never a matter of what is answered.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Case, LinearShape, run_guarded};
use crate::gpu::{AdapterChoice, GpuExecutor, GpuOptions, Tuned};
use crate::{Activation, ExecuteError, Executor, Init, KernelFacts};

/// Enough for all that there is to measure, also where other tests have the CPU that plays the device.
const BUDGET: Duration = Duration::from_secs(60);

fn options(folder: Option<&Path>) -> GpuOptions {
    GpuOptions {
        adapter: AdapterChoice::Software,
        timeout: Duration::from_secs(60),
        kernels: folder.map(Path::to_owned),
        ..GpuOptions::default()
    }
}

fn open(folder: &Path) -> GpuExecutor {
    GpuExecutor::open(&options(Some(folder))).expect("kernel tests need a software Vulkan adapter")
}

/// Layers that are quick even where a CPU plays the device, one of them in either form of the kernels.
fn cases() -> [Case; 2] {
    let odd = LinearShape { k: 9, n: 7, init: Init::Accumulate, activation: Activation::Tanh, masked: true };
    let even = LinearShape { k: 36, n: 12, init: Init::Bias, activation: Activation::Relu, masked: false };
    [Case::linear(odd, 131), Case::linear(even, 67)]
}

fn facts(executor: &GpuExecutor) -> KernelFacts {
    executor.kernels().expect("it has a choice")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn tune(executor: &mut GpuExecutor, cases: &[Case]) -> Tuned {
    let plans: Vec<_> = cases.iter().map(|case| Arc::clone(&case.plan)).collect();
    executor.tune(&plans, BUDGET).expect("the device measures")
}

#[test]
fn choices_are_kept_and_the_next_start_measures_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = cases();
    let mut first = open(folder.path());
    let before: Vec<_> = cases.iter().map(|case| run_guarded(&mut first, case)).collect();
    let tuned = tune(&mut first, &cases);
    assert!(tuned.measured > 10 && tuned.known == 0, "{tuned:?}");
    assert!(tuned.choices.iter().filter(|choice| !choice.micros.is_empty()).count() == tuned.measured);
    // Where a CPU plays the device a layer's own time may be up before the largest classes of lines, which come then.
    let again = tune(&mut first, &cases);
    assert_eq!(again.known, tuned.measured, "nothing is measured twice");
    assert_eq!(again.measured + again.left, tuned.left);

    let mut second = open(folder.path());
    let known =
        second.tune(&cases.each_ref().map(|case| Arc::clone(&case.plan)), Duration::ZERO).expect("known");
    assert_eq!((known.measured, known.known), (0, again.known + again.measured));
    assert_eq!(known.choices, again.choices, "what was kept is used as it is");
    for (case, before) in cases.iter().zip(&before) {
        assert_eq!(bits(&run_guarded(&mut first, case)), bits(before), "{}", case.name);
        assert_eq!(bits(&run_guarded(&mut second, case)), bits(before), "{}", case.name);
    }
}

#[test]
fn a_file_of_choices_that_broke_is_as_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = &cases()[..1];
    let mut executor = open(folder.path());
    tune(&mut executor, cases);
    let file = fs::read_dir(folder.path()).expect("made").map(|entry| entry.expect("one").path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|found| found == "choices"));
    let file = file.expect("choices are kept");
    let whole = fs::read(&file).expect("kept");
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    for broken in [flipped, whole[..whole.len() - 1].to_vec(), b"hostile".to_vec(), Vec::new()] {
        fs::write(&file, &broken).expect("broken");
        let mut executor = open(folder.path());
        assert_eq!(facts(&executor).choices, 0);
        run_guarded(&mut executor, &cases[0]);
    }
    fs::write(&file, &whole).expect("mended");
    assert!(facts(&open(folder.path())).choices > 0);
}

#[test]
fn no_time_is_no_measurement() {
    let mut executor = GpuExecutor::open(&options(None)).expect("a software adapter");
    let plans = cases().map(|case| case.plan);
    let tuned = executor.tune(&plans, Duration::ZERO).expect("nothing to do");
    assert_eq!((tuned.measured, tuned.known), (0, 0));
    assert!(tuned.left > 10 && tuned.choices.iter().all(|choice| choice.chosen == choice.guess));
}

#[test]
fn bits_are_the_same_whatever_was_chosen() {
    let cases = [
        Case::nhits(130),
        Case::linear(
            LinearShape { k: 169, n: 75, init: Init::Accumulate, activation: Activation::Selu, masked: true },
            131,
        ),
        Case::nhits(5),
    ];
    let mut executor = GpuExecutor::open(&options(None)).expect("a software adapter");
    let expected: Vec<_> = cases.iter().map(|case| run_guarded(&mut executor, case)).collect();
    let mut state = 7_usize;
    for table in 0..6 {
        executor.set_choices(&cases, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        });
        for (case, expected) in cases.iter().zip(&expected) {
            let actual = run_guarded(&mut executor, case);
            assert_eq!(bits(&actual), bits(expected), "{}, table {table}", case.name);
        }
    }
}

#[test]
fn a_variant_that_the_driver_refuses_is_lost_and_nothing_else_is() {
    let case = &Case::nhits(130);
    let mut whole = GpuExecutor::open(&options(None)).expect("a software adapter");
    let expected = run_guarded(&mut whole, case);
    assert_eq!(facts(&whole).refused, 0);
    // All but the first two, which take turns with nobody.
    for index in 2..GpuExecutor::VARIANTS {
        let mut executor =
            GpuExecutor::open_refusing(&options(None), index, false).expect("it opens all the same");
        assert_eq!(bits(&run_guarded(&mut executor, case)), bits(&expected), "without variant {index}");
        let refused = facts(&executor).refused;
        assert!((1..=2).contains(&refused), "of plain layers, and of others where there are: {refused}");
        let tuned = executor.tune(&[Arc::clone(&cases()[1].plan)], BUDGET).expect("others are measured");
        let lost = ["line", "lines", "tiny_tile", "paired_tile", "small_tile", "large_tile", "each"][index];
        let tried = |choice: &crate::gpu::KernelChoice| choice.micros.iter().any(|(name, _)| *name == lost);
        assert!(tuned.measured > 10 && !tuned.choices.iter().any(tried), "{lost}");
    }
}

#[test]
fn a_device_that_is_lost_over_a_kernel_is_followed_by_one_that_does_without() {
    let case = &cases()[1];
    let expected = run_guarded(&mut GpuExecutor::open(&options(None)).expect("a software adapter"), case);
    let options = options(None);
    // Small tiles; the plain ones when it is opened, those of other layers when a plan has such.
    let mut executor = GpuExecutor::open_refusing(&options, 4, true).expect("another one opens");
    assert_eq!(facts(&executor).refused, 1);
    let mut output = vec![0.0; case.rows * case.plan.width(case.plan.output)];
    let lost = executor.run(&case.plan, case.rows, &case.input_slices(), &mut output);
    assert!(matches!(lost, Err(ExecuteError::DeviceLost(_))), "{lost:?}");
    let mut executor = GpuExecutor::open_refusing(&options, 4, true).expect("as its owner does then");
    assert_eq!(bits(&run_guarded(&mut executor, case)), bits(&expected));
    assert_eq!(facts(&executor).refused, 2);
}

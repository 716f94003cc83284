//! The GPU third of the kernel triples, and what a device must survive.
//!
//! Needs a Vulkan adapter; a software one will do (`mesa-vulkan-drivers`). Without any these tests fail: a kernel
//! that was not run is not known to be right.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Case, LinearShape, Tolerance, check_on, oracle, run_guarded};
use crate::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use crate::{Activation, ExecuteError, Executor, Init};

/// A software device on a busy machine of two cores.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One device for all cases: opening one takes longer than most of them.
static SHARED: Mutex<Option<GpuExecutor>> = Mutex::new(None);

/// Compares one case on the shared device; `check` of this folder calls it for every case.
#[track_caller]
pub(super) fn check(case: &Case, expected: &[f64], tolerance: Tolerance) {
    with_shared(|executor| {
        check_on(executor, case, expected, tolerance);
        executor.unload(case.plan.id);
    });
}

#[test]
fn a_row_alone_equals_the_row_among_a_thousand() {
    let all = Case::nhits(1000);
    let width = all.plan.width(all.plan.output);
    with_shared(|executor| {
        let expected = run_guarded(executor, &all);
        for (first, rows) in [(0, 1), (499, 1), (999, 1), (17, 5), (300, 32), (300, 33), (100, 97), (3, 613)]
        {
            let actual = run_guarded(executor, &all.some_rows(first, rows));
            let same = bits(&actual) == bits(&expected[first * width..(first + rows) * width]);
            assert!(same, "rows {first}..{} differ from the same rows among a thousand", first + rows);
        }
    });
}

#[test]
fn a_batch_of_several_chunks_gives_the_same_numbers() {
    let shape =
        LinearShape { k: 5, n: 3, init: Init::Accumulate, activation: Activation::Tanh, masked: true };
    let all = Case::linear(shape, 40_000);
    let width = all.plan.width(all.plan.output);
    with_shared(|executor| {
        let expected = run_guarded(executor, &all);
        for (first, rows) in [(0, 1), (4090, 9), (8100, 4200), (16_380, 9), (39_999, 1)] {
            let actual = run_guarded(executor, &all.some_rows(first, rows));
            assert_eq!(bits(&actual), bits(&expected[first * width..(first + rows) * width]), "row {first}");
        }
    });
}

#[test]
fn an_observed_run_says_when_it_was_and_computes_the_same() {
    let mut executor = open();
    for case in [Case::nhits(3), Case::nhits(5000)] {
        let plain = run_guarded(&mut executor, &case);
        assert_eq!(executor.observed(), None, "nobody asked");
        executor.observe(true);
        run_guarded(&mut executor, &case);
        let before = Instant::now();
        let observed = run_guarded(&mut executor, &case);
        let after = Instant::now();
        let times = executor.observed().expect("it was observed");
        executor.observe(false);
        assert_eq!(bits(&observed), bits(&plain), "{}", case.name);
        assert!(before <= times.submitted && times.submitted <= times.finished && times.finished <= after);
        assert_eq!(times.device.is_some(), executor.has_clock(), "{times:?}");
        assert!(times.device.is_none_or(|took| took <= after - before), "{times:?}");
        executor.observe(true);
        executor.observe(false);
        assert_eq!(executor.observed(), None, "of the last run");
    }
}

#[test]
fn plans_and_batch_sizes_may_alternate() {
    let cases = [Case::nhits(3), Case::pool(168, 2, 24, crate::PoolMode::Mean, 200), Case::nhits(70)];
    let expected: Vec<Vec<f64>> =
        cases.iter().map(|case| oracle(&case.plan, case.rows, &case.input_slices())).collect();
    let mut executor = open();
    for _ in 0..2 {
        for (case, expected) in cases.iter().zip(&expected) {
            check_on(&mut executor, case, expected, Tolerance { abs: 5e-5, rel: 1e-6 });
        }
        executor.unload(cases[0].plan.id);
    }
}

#[test]
fn a_device_that_the_host_does_not_reach_gives_the_same_bits() {
    let odd = LinearShape { k: 9, n: 7, init: Init::Bias, activation: Activation::Tanh, masked: true };
    let mut executor = open();
    executor.set_copied();
    for case in [Case::nhits(3), Case::linear(odd, 9000), Case::nhits(70)] {
        let expected = with_shared(|shared| run_guarded(shared, &case));
        assert_eq!(bits(&run_guarded(&mut executor, &case)), bits(&expected), "{}", case.name);
    }
}

#[test]
fn inputs_that_cross_as_halves_are_rounded_to_them() {
    let odd = LinearShape { k: 9, n: 7, init: Init::Accumulate, activation: Activation::Tanh, masked: true };
    let mut executor = open();
    executor.set_narrow();
    for case in [Case::nhits(70), Case::linear(odd, 9000), Case::nhits(3), Case::nhits(5000)] {
        let case = case.halved();
        let mut rounded = case.halved();
        for value in rounded.inputs.iter_mut().flatten() {
            *value = half::f16::from_f32(*value).to_f32();
        }
        rounded.plan = std::sync::Arc::clone(&case.plan);
        let expected = with_shared(|shared| run_guarded(shared, &rounded));
        assert_eq!(bits(&run_guarded(&mut executor, &case)), bits(&expected), "{}", case.name);
        let plain = with_shared(|shared| run_guarded(shared, &case));
        assert_ne!(bits(&plain), bits(&expected), "{}: rounding shows", case.name);
    }
}

#[test]
fn every_variant_of_a_layer_gives_the_same_bits() {
    let odd =
        LinearShape { k: 169, n: 75, init: Init::Accumulate, activation: Activation::Selu, masked: true };
    let even = LinearShape { k: 1100, n: 132, init: Init::Bias, activation: Activation::Relu, masked: false };
    // Whole tiles of every size beside others, an odd number of steps, and fewer columns than a step has.
    let whole = LinearShape { k: 48, n: 260, init: Init::Accumulate, ..even };
    let large = LinearShape { k: 12, n: 256, ..even };
    let masked = LinearShape { masked: true, ..whole };
    let thin = LinearShape { k: 75, n: 6, ..odd };
    let bent = LinearShape { activation: Activation::Gelu, ..whole };
    // One after the other, so that each is asked for when those before it are known.
    let mut executor =
        GpuExecutor::open_carefully(&options(None)).unwrap_or_else(|error| panic!("it opens: {error}"));
    for case in [
        Case::nhits(130),
        Case::linear(odd, 131),
        Case::linear(even, 67),
        Case::alone(even, 67),
        Case::alone(whole, 140),
        Case::alone(large, 129),
        Case::alone(masked, 129),
        Case::steps(even, 5, 0, 31),
        Case::steps(whole, 5, 0, 31),
        Case::steps(whole, 5, 2, 31),
        Case::steps(bent, 5, 0, 31),
        Case::steps(large, 5, 0, 31),
        Case::steps(thin, 5, 0, 31),
    ] {
        let expected = with_shared(|shared| run_guarded(shared, &case));
        for variant in 0..GpuExecutor::VARIANTS {
            executor.force_variant(variant);
            let actual = run_guarded(&mut executor, &case);
            assert_eq!(bits(&actual), bits(&expected), "{}, variant {variant}", case.name);
        }
    }
}

#[test]
fn a_flow_gives_the_bits_of_its_layers() {
    let mut executor = open();
    executor.set_solo_flows();
    let all = Case::stacks(40);
    let width = all.plan.width(all.plan.output);
    let expected = with_shared(|shared| run_guarded(shared, &all));
    // The words of a run are cleared by the next one, whatever their sizes.
    for (first, rows) in [(0, 1), (39, 1), (5, 32), (7, 3), (0, 4), (8, 32), (0, 40), (2, 1)] {
        let actual = run_guarded(&mut executor, &all.some_rows(first, rows));
        assert!(executor.has_flow(all.plan.id), "the flow of {rows} rows failed");
        let expected = &expected[first * width..(first + rows) * width];
        assert_eq!(bits(&actual), bits(expected), "rows {first}..{}", first + rows);
    }
    executor.fail_flow();
    let actual = run_guarded(&mut executor, &all.some_rows(3, 2));
    assert_eq!(bits(&actual), bits(&expected[3 * width..5 * width]), "by its layers instead");
    assert!(!executor.has_flow(all.plan.id), "a flow that failed is not tried again");
}

/// Models of the same size, and the bytes of one of them with the memory of its batches.
fn alike(count: u64) -> (Vec<Case>, [u64; 2]) {
    let cases: Vec<Case> = (0..count).map(|_| Case::nhits(3)).collect();
    let mut executor = open();
    run_guarded(&mut executor, &cases[0]);
    let memory = executor.memory().expect("a device has memory");
    assert_eq!((memory.plans, memory.evictions, memory.budget_bytes), (1, 0, None));
    (cases, [memory.plan_bytes, memory.batch_bytes])
}

#[test]
fn plans_that_were_not_run_for_longest_leave_for_others_and_come_back() {
    let (cases, [plan, batches]) = alike(3);
    let budget = 2 * plan + batches + plan / 2;
    let mut executor = open_within(Some(budget));
    let expected: Vec<_> = cases.iter().map(|case| with_shared(|shared| run_guarded(shared, case))).collect();
    // Which is run, and which of the others is there then.
    for (run, other) in
        [(0, None), (1, Some(0)), (0, Some(1)), (2, Some(0)), (1, Some(2)), (1, Some(2)), (0, Some(1))]
    {
        assert_eq!(bits(&run_guarded(&mut executor, &cases[run])), bits(&expected[run]));
        let here = |index: &usize| executor.has(cases[*index].plan.id);
        let expected: Vec<usize> = (0..3).filter(|index| *index == run || Some(*index) == other).collect();
        assert_eq!((0..3).filter(here).collect::<Vec<_>>(), expected, "after a run of {run}");
        let memory = executor.memory().expect("a device has memory");
        assert!(memory.plan_bytes + memory.batch_bytes <= budget, "{memory:?} of {budget}");
    }
    assert_eq!(executor.memory().map(|memory| memory.evictions), Some(3));
}

#[test]
fn a_large_batch_has_plans_leave_and_is_cut_to_what_there_is() {
    let (cases, [plan, batches]) = alike(2);
    let large = Case::nhits(3000);
    let expected = with_shared(|shared| run_guarded(shared, &large));
    let budget = 3 * plan + 4 * batches;
    let mut executor = open_within(Some(budget));
    cases.iter().for_each(|case| drop(run_guarded(&mut executor, case)));
    assert_eq!(bits(&run_guarded(&mut executor, &large)), bits(&expected));
    let memory = executor.memory().expect("a device has memory");
    assert!(memory.plan_bytes + memory.batch_bytes <= budget, "{memory:?} of {budget}");
}

#[test]
fn a_plan_that_does_not_fit_is_refused_and_nobody_leaves_for_it() {
    let (cases, [plan, batches]) = alike(2);
    let mut executor = open_within(Some(plan + batches + plan / 2));
    run_guarded(&mut executor, &cases[0]);
    let shape = LinearShape {
        k: 2048,
        n: (2 * plan / 2048 / 4) as usize,
        init: Init::Bias,
        activation: Activation::Relu,
        masked: false,
    };
    let wide = Case::linear(shape, 1);
    let refused = run(&mut executor, &wide);
    assert!(
        matches!(&refused, Err(ExecuteError::OutOfMemory(why)) if why.contains("configuration")),
        "{refused:?}"
    );
    assert!(executor.has(cases[0].plan.id) && !executor.has(wide.plan.id));
    run_guarded(&mut executor, &cases[1]);
    assert!(!executor.has(cases[0].plan.id), "for one that fits");
}

#[test]
fn plans_leave_while_the_driver_has_no_memory_left() {
    let cases: Vec<Case> = (0..4).map(|_| Case::nhits(3)).collect();
    let expected = with_shared(|shared| run_guarded(shared, &cases[0]));
    let mut executor = open();
    cases[..3].iter().for_each(|case| executor.load(&case.plan).expect("there is room"));
    executor.refuse_memory(2);
    executor.load(&cases[3].plan).expect("two have left");
    let here = |index: &usize| executor.has(cases[*index].plan.id);
    assert_eq!((0..4).filter(here).collect::<Vec<_>>(), [2, 3]);
    // The memory of a batch, for which everybody else leaves.
    executor.refuse_memory(1);
    assert_eq!(bits(&run_guarded(&mut executor, &cases[2])), bits(&expected));
    assert!(!executor.has(cases[3].plan.id));
    executor.refuse_memory(2);
    let refused = executor.load(&cases[0].plan);
    assert!(matches!(refused, Err(ExecuteError::OutOfMemory(_))), "{refused:?}");
    executor.load(&cases[0].plan).expect("there is room again");
}

#[test]
fn a_batch_of_no_rows_is_no_work() {
    with_shared(|executor| assert!(run_guarded(executor, &Case::nhits(0)).is_empty()));
}

#[test]
fn a_destroyed_device_is_reported_and_stays_lost() {
    let case = Case::nhits(8);
    let mut executor = open();
    run_guarded(&mut executor, &case);
    executor.destroy_device();
    for _ in 0..3 {
        assert_lost(&run(&mut executor, &case));
    }
    assert_lost(&executor.load(&Case::nhits(1).plan));
}

#[test]
fn a_device_destroyed_under_load_never_panics_or_hangs() {
    let case = Case::nhits(200);
    let mut executor = open();
    run_guarded(&mut executor, &case);
    let switch = executor.kill_switch();
    let started = Instant::now();
    let killer = std::thread::spawn(move || switch.destroy_device());
    // Some runs may finish before the thread gets to the device; none may fail otherwise.
    let lost = loop {
        match run(&mut executor, &case) {
            Ok(()) => assert!(started.elapsed() < TIMEOUT, "the device outlived its destruction"),
            Err(error) => break error,
        }
    };
    killer.join().unwrap();
    assert_lost(&Err(lost));
    assert_lost(&run(&mut executor, &case));
}

#[test]
fn a_slow_device_is_given_up_and_serves_again_when_done() {
    let case = Case::nhits(300);
    let mut executor = open();
    let expected = run_guarded(&mut executor, &case);
    executor.set_timeout(Duration::ZERO);
    assert_eq!(run(&mut executor, &case), Err(ExecuteError::Timeout { millis: 0 }));
    executor.set_timeout(TIMEOUT);
    assert_eq!(bits(&run_guarded(&mut executor, &case)), bits(&expected));
}

#[test]
fn an_executor_may_be_dropped_while_its_device_is_busy() {
    let case = Case::nhits(300);
    let mut executor = open();
    executor.load(&case.plan).unwrap();
    executor.set_timeout(Duration::ZERO);
    assert_eq!(run(&mut executor, &case), Err(ExecuteError::Timeout { millis: 0 }));
    drop(executor);
}

#[test]
fn a_plan_too_wide_for_the_device_is_refused_and_harms_no_other() {
    let mut plan = crate::PlanBuilder::new("wide");
    let input = plan.input(1);
    let wide = plan.buffer(1 << 30);
    plan.move_columns(crate::Move::strided(input, wide, 0, 0));
    let wide = std::sync::Arc::new(plan.finish(input));
    with_shared(|executor| {
        let refused = executor.load(&wide);
        assert!(matches!(refused, Err(ExecuteError::Unfit(_))), "{refused:?}");
        run_guarded(executor, &Case::nhits(2));
    });
}

pub(super) fn with_shared<T>(work: impl FnOnce(&mut GpuExecutor) -> T) -> T {
    work(SHARED.lock().get_or_insert_with(open))
}

fn open() -> GpuExecutor {
    open_within(None)
}

/// Whose plans and batches take so many bytes.
fn open_within(memory: Option<u64>) -> GpuExecutor {
    GpuExecutor::open(&options(memory))
        .unwrap_or_else(|error| panic!("kernel tests need a Vulkan adapter: {error}"))
}

fn options(memory: Option<u64>) -> GpuOptions {
    GpuOptions { adapter: AdapterChoice::Any, timeout: TIMEOUT, memory, ..GpuOptions::default() }
}

pub(super) fn run(executor: &mut GpuExecutor, case: &Case) -> Result<(), ExecuteError> {
    let mut output = vec![f32::NAN; case.rows * case.plan.width(case.plan.output)];
    executor.run(&case.plan, case.rows, &case.input_slices(), &mut output)
}

#[track_caller]
fn assert_lost(result: &Result<(), ExecuteError>) {
    assert!(matches!(result, Err(ExecuteError::DeviceLost(_))), "{result:?}");
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

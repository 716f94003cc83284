//! Plans that stay on the device, by one workgroup, which a software adapter runs as well. That many workgroups find each
//! other's words is the same code as in a flow, and is tried on a real device by `examples/resident.rs`.

use std::time::{Duration, Instant};

use super::{Case, alone, run_guarded};
use crate::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use crate::verify::verify_resident;
use crate::{Executor, NotServed, PlainFiles, Stay};

/// Longer than two leases.
const LONG: Duration = Duration::from_millis(700);

#[test]
fn a_plan_that_stays_agrees_with_its_layers() {
    let _alone = alone();
    let shorter = || Case::complete_stacks(&[2, 1, 1], [70, 72, 21], None, 40);
    assert!(shorter().plan.shortened().is_some());
    for (rows_max, all) in [(1, Case::stacks(40)), (4, Case::stacks(40)), (1, shorter()), (4, shorter())] {
        let width = all.plan.width(all.plan.output);
        let expected = run_guarded(&mut open(), &all);
        let mut executor = open_solo();
        executor.reside(&all.plan, for_ever(rows_max)).unwrap();
        let mut started = Instant::now();
        let mut requests = 0;
        // Over launches that hand over to each other, by sets that take turns, without a pause and with one.
        while started.elapsed() < LONG {
            let rows = 1 + requests % rows_max;
            let first = requests * 7 % (40 - rows);
            let actual = run_guarded(&mut executor, &all.some_rows(first, rows));
            let expected = &expected[first * width..(first + rows) * width];
            assert_close(&actual, expected, &format!("request {requests}, {rows} rows of {rows_max}"));
            requests += 1;
            if requests == 1 {
                // Up to here the adapter was busy with compiling.
                started = Instant::now();
            }
            if requests % 50 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let counts = executor.resident_counts(all.plan.id).unwrap();
        assert_eq!((counts.requests, counts.silences), (requests as u64, 0), "all were answered by it");
        assert!(counts.handovers >= 2, "{counts:?}");
    }
}

#[test]
fn the_cases_of_models_pass_one_by_one() {
    let _alone = alone();
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    for model in ["mlp-vol-quantile", "nbeats-vol-quantile", "nhits-vol-quantile"] {
        let report = verify_resident(&models.join(model), &PlainFiles, &mut open_solo()).unwrap();
        let report = report.unwrap_or_else(|| panic!("{model} does not stay"));
        assert!(report.passed && report.cases.len() >= 16, "{report:?}");
        assert!(report.device.ends_with(", stays"));
    }
    let other = verify_resident(&models.join("tcn-vol-point"), &PlainFiles, &mut open_solo()).unwrap();
    assert_eq!(other, None, "layers that do not go in one dispatch");
}

#[test]
fn more_rows_than_stay_go_the_ordinary_way() {
    let _alone = alone();
    let all = Case::stacks(3);
    let mut executor = open_solo();
    executor.reside(&all.plan, for_ever(1)).unwrap();
    run_guarded(&mut executor, &all.some_rows(1, 1));
    let counts = executor.resident_counts(all.plan.id).unwrap();
    assert_eq!(counts.requests, 1);
    // The ordinary way uses the same queue here, which is free once nobody stays.
    executor.unload(all.plan.id);
    run_guarded(&mut executor, &all);
    executor.reside(&all.plan, for_ever(1)).unwrap();
    run_guarded(&mut executor, &all.some_rows(2, 1));
}

#[test]
fn a_kernel_that_falls_silent_is_launched_again_and_then_left() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let expected = run_guarded(&mut executor, &case);
    for restart in 0..=3 {
        if restart == 0 {
            executor.reside(&case.plan, for_ever(1)).unwrap();
        }
        assert_close(&run_guarded(&mut executor, &case), &expected, &format!("after {restart} restarts"));
        executor.miss_resident(&case);
        let until = Instant::now() + Duration::from_secs(30);
        while executor.resident_serves(case.plan.id) != (restart < 3) || executor.resident_rests(case.plan.id)
        {
            assert!(Instant::now() < until, "it neither serves nor is left after {restart} restarts");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(executor.resident_counts(case.plan.id).unwrap().silences, 4);
    assert_close(&run_guarded(&mut executor, &case), &expected, "the ordinary way");
}

#[test]
fn a_request_that_one_launch_leaves_is_answered_by_the_next() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let expected = run_guarded(&mut executor, &case);
    executor.reside(&case.plan, for_ever(1)).unwrap();
    for round in 0..3 {
        assert_close(&run_guarded(&mut executor, &case), &expected, &format!("in round {round}"));
        executor.neglect_resident(case.plan.id, true);
        until(|| executor.resident_left(case.plan.id) == 1, "a launch left");
        let handovers = executor.resident_counts(case.plan.id).unwrap().handovers;
        assert_close(&run_guarded(&mut executor, &case), &expected, "taken up");
        assert_eq!(executor.resident_counts(case.plan.id).unwrap().handovers, handovers + 1);
        executor.neglect_resident(case.plan.id, false);
        until(|| executor.resident_left(case.plan.id) == 0, "another one behind it");
    }
    let counts = executor.resident_counts(case.plan.id).unwrap();
    assert_eq!((counts.requests, counts.silences), (6, 0));
}

#[test]
fn a_kernel_whose_launches_have_all_left_is_launched_again() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let expected = run_guarded(&mut executor, &case);
    executor.reside(&case.plan, for_ever(1)).unwrap();
    // More often than one that fails is launched.
    for round in 0..5 {
        assert_close(&run_guarded(&mut executor, &case), &expected, &format!("in round {round}"));
        executor.neglect_resident(case.plan.id, true);
        until(|| executor.resident_left(case.plan.id) == 2, "both launches left");
        if round % 2 == 0 {
            executor.neglect_resident(case.plan.id, false);
            until(|| executor.resident_left(case.plan.id) == 0, "launched again, without a request");
        } else {
            assert_eq!(executor.ask_resident(&case), Err(NotServed::Away), "an answer of nobody");
            executor.neglect_resident(case.plan.id, false);
        }
        until(|| !executor.resident_rests(case.plan.id), "it serves again");
    }
    assert!(executor.resident_serves(case.plan.id));
    assert_eq!(executor.resident_counts(case.plan.id).unwrap().requests, 5);
}

#[test]
fn a_kernel_that_nobody_asks_rests_and_comes_back() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let expected = run_guarded(&mut executor, &case);
    let stay = Stay { rows_max: 1, rest_after: Some(Duration::from_secs(1)) };
    let resident = executor.reside(&case.plan, stay).unwrap();
    for round in 0..3 {
        until(|| resident.counts().serves, "it serves");
        assert_close(&run_guarded(&mut executor, &case), &expected, &format!("in round {round}"));
        until(|| !resident.counts().serves, "it rests");
        assert_eq!(executor.ask_resident(&case), Err(NotServed::Away), "the request that brings it back");
    }
    let counts = resident.counts();
    assert_eq!((counts.requests, counts.silences), (3, 0));
    drop(executor);
    let mut output = vec![0.0; case.plan.width(case.plan.output)];
    let gone = resident.run(1, &case.input_slices(), &mut output);
    assert_eq!(gone, Err(NotServed::Away), "its executor is gone");
}

/// Waits for what comes by itself, if it comes at all.
#[track_caller]
pub(super) fn until(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_plan_that_stays_leaves_for_nobody() {
    let _alone = alone();
    let cases = [Case::stacks(1), Case::stacks(1), Case::stacks(1)];
    let mut executor = open_solo();
    for case in &cases {
        executor.load(&case.plan).unwrap();
    }
    executor.reside(&cases[0].plan, for_ever(1)).unwrap();
    let before = executor.memory().unwrap();
    executor.unload(cases[1].plan.id);
    let without = executor.memory().unwrap();
    assert!(before.plan_bytes - without.plan_bytes < without.plan_bytes / 2, "what stays counts as well");
    executor.refuse_memory(1);
    executor.load(&cases[1].plan).unwrap();
    assert!(executor.has(cases[0].plan.id) && !executor.has(cases[2].plan.id));
}

#[test]
fn a_plan_of_other_layers_does_not_stay() {
    let _alone = alone();
    let case = Case::pool(168, 2, 24, crate::PoolMode::Mean, 3);
    let mut executor = open_solo();
    assert!(executor.reside(&case.plan, for_ever(1)).is_err());
    run_guarded(&mut executor, &case);
}

#[test]
fn damaged_memory_is_not_hidden_by_a_plan_that_stays() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let resident = executor.reside(&case.plan, for_ever(1)).unwrap();
    let right = run_guarded(&mut executor, &case);
    executor.kill_switch().damage_weights();
    let mut output = vec![0.0; case.plan.width(case.plan.output)];
    assert_eq!(resident.run(1, &case.input_slices(), &mut output), Err(NotServed::Away));
    assert_ne!(run_guarded(&mut executor, &case), right, "wrong, as it was told to be");
    assert_eq!(resident.run(1, &case.input_slices(), &mut output), Err(NotServed::Away), "for good");
}

#[test]
fn a_lost_device_is_reported_by_a_plan_that_stays() {
    let _alone = alone();
    let case = Case::stacks(1);
    let mut executor = open_solo();
    let resident = executor.reside(&case.plan, for_ever(1)).unwrap();
    run_guarded(&mut executor, &case);
    executor.destroy_device();
    let mut output = vec![0.0; case.plan.width(case.plan.output)];
    let beside = resident.run(1, &case.input_slices(), &mut output);
    assert_eq!(beside, Err(NotServed::Away), "its executor is to tell");
    let lost = executor.run(&case.plan, 1, &case.input_slices(), &mut output);
    assert!(matches!(lost, Err(crate::ExecuteError::DeviceLost(_))), "{lost:?}");
}

pub(super) fn for_ever(rows_max: usize) -> Stay {
    Stay { rows_max, rest_after: None }
}

pub(super) fn open() -> GpuExecutor {
    let options = GpuOptions {
        adapter: AdapterChoice::Software,
        timeout: Duration::from_secs(60),
        ..GpuOptions::default()
    };
    GpuExecutor::open(&options)
        .unwrap_or_else(|error| panic!("kernel tests need a software Vulkan adapter: {error}"))
}

pub(super) fn open_solo() -> GpuExecutor {
    let mut executor = open();
    executor.set_solo_residents();
    executor
}

/// Sums of up to 288 numbers near 1, in another order.
#[track_caller]
fn assert_close(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() <= 5e-6, "{what}: {actual} where {expected} is right");
    }
}

//! Calls as words, states as words.

use std::time::{Duration, Instant};

use super::state::{BreakerLimits, Call, Cause, Circuit, Event};

const FAST: Event = Event::Call(Call::Fast);
const PASSED_5: Event = Event::Passed(5, Duration::ZERO);
const SLOW: Event = Event::Call(Call::Slow);
const FAILED: Event = Event::Call(Call::Failed);
const PROBE_FAST: Event = Event::Probe(Call::Fast);
const PROBE_FAILED: Event = Event::Probe(Call::Failed);

#[test]
fn too_few_calls_mean_nothing() {
    check(&[(0, FAILED), (0, FAILED), (0, FAILED)], "closed");
}

#[test]
fn half_of_the_calls_failing_opens() {
    check(&[(0, FAST), (0, FAST), (0, FAILED), (0, FAILED)], "open until 100: Failures");
}

#[test]
fn a_minority_of_failures_does_not_open() {
    check(&[(0, PASSED_5), (0, FAILED), (0, FAILED), (0, FAILED)], "closed");
}

#[test]
fn failures_that_left_the_window_are_forgotten() {
    check(
        &[(0, FAILED), (0, FAILED), (0, FAILED), (0, Event::Passed(8, Duration::ZERO)), (0, FAILED)],
        "closed",
    );
}

#[test]
fn failures_that_are_long_ago_are_forgotten() {
    let two = [(0, FAILED), (0, FAILED)];
    check(&[two[0], two[1], (1000, FAST), (1000, FAILED)], "open until 1100: Failures");
    check(&[two[0], two[1], (1001, FAST), (1001, FAILED), (1002, FAST)], "closed");
}

#[test]
fn calls_that_went_well_long_ago_do_not_dilute_failures() {
    let passed = |over_ms| Event::Passed(10, Duration::from_millis(over_ms));
    check(&[(5000, passed(1000)), (5000, FAILED), (5000, FAILED), (5000, FAILED)], "closed");
    check(&[(5000, passed(5000)), (5000, FAILED), (5000, FAILED)], "open until 5100: Failures");
}

#[test]
fn failures_in_a_row_open_whatever_the_shares() {
    let mut limits = limits();
    (limits.calls_min, limits.consecutive_failures) = (100, 3);
    let failing = |count| std::iter::repeat_n((0, FAILED), count);
    checked(&limits, failing(2).chain([(0, FAST)]).chain(failing(2)), "closed");
    checked(&limits, failing(3), "open until 100: Failures");
}

#[test]
fn one_wrong_answer_opens_and_one_more_opens_for_longer() {
    check(&[(0, Event::Wrong)], "open until 100: Wrong");
    check(&[(0, Event::Wrong), (100, Event::Wrong)], "open until 300: Wrong");
    check(&[(0, Event::Wrong), (100, PROBE_FAST), (110, Event::Wrong)], "open until 310: Wrong");
    check(&[(0, Event::Wrong), (100, PROBE_FAST), (100, PROBE_FAST)], "closed");
}

#[test]
fn slow_calls_open_too() {
    check(&[(0, FAST), (0, SLOW), (0, SLOW), (0, SLOW)], "open until 100: Slowness");
}

#[test]
fn a_lost_device_opens_at_once() {
    check(&[(0, Event::DeviceDown)], "open until 100: DeviceDown");
}

#[test]
fn a_device_that_is_back_may_be_probed_at_once() {
    check(&[(0, Event::DeviceDown), (30, Event::DeviceUp)], "open until 30: DeviceDown");
}

#[test]
fn probes_close_it() {
    check(&[(0, Event::DeviceDown), (100, PROBE_FAST)], "half-open after 1");
    check(&[(0, Event::DeviceDown), (100, PROBE_FAST), (100, PROBE_FAST)], "closed");
}

#[test]
fn a_failed_probe_opens_it_for_longer_each_time() {
    let once = [(0, Event::DeviceDown), (100, PROBE_FAILED)];
    check(&once, "open until 300: ProbeFailed");
    let twice = [once[0], once[1], (300, PROBE_FAST), (310, PROBE_FAILED)];
    check(&twice, "open until 710: ProbeFailed");
}

#[test]
fn the_open_time_is_bounded() {
    let mut events = vec![(0, Event::DeviceDown)];
    events.extend((1..10).map(|_| (1000, PROBE_FAILED)));
    check(&events, "open until 1500: ProbeFailed");
}

#[test]
fn stragglers_of_the_closed_time_do_not_move_an_open_circuit() {
    check(&[(0, Event::DeviceDown), (50, FAILED), (60, FAST)], "open until 100: DeviceDown");
}

/// Applies events at milliseconds to a new circuit.
#[track_caller]
fn check(events: &[(u64, Event)], expected: &str) {
    checked(&limits(), events.iter().copied(), expected);
}

fn limits() -> BreakerLimits {
    BreakerLimits {
        window_calls: 8,
        window_for: Duration::from_millis(1000),
        consecutive_failures: 6,
        calls_min: 4,
        failure_share: 0.5,
        slow_share: 0.75,
        slow_after: Duration::from_millis(10),
        open_for: Duration::from_millis(100),
        open_for_max: Duration::from_millis(500),
        probes: 2,
    }
}

#[track_caller]
fn checked(limits: &BreakerLimits, events: impl IntoIterator<Item = (u64, Event)>, expected: &str) {
    let start = Instant::now();
    let mut circuit = Circuit::new();
    for (ms, event) in events {
        circuit = circuit.next(event, start + Duration::from_millis(ms), limits);
    }
    let found = match circuit {
        Circuit::Closed(_) => "closed".to_owned(),
        Circuit::Open { until, cause, .. } => {
            format!("open until {}: {}", (until - start).as_millis(), name(cause))
        }
        Circuit::HalfOpen { successes, .. } => format!("half-open after {successes}"),
    };
    assert_eq!(found, expected);
}

fn name(cause: Cause) -> String {
    format!("{cause:?}")
}

//! Full queues, deadlines, callers that leave, batches.

use std::time::Duration;

use peregrine_runtime::Deadline;
use peregrine_shaders::{Backend, Windows};

use super::fake::Mode;
use super::{MODEL, Rig, WINDOW, constant, ramp, until};
use crate::{ForecastError, ForecastRequest, Origin, Priority};

#[tokio::test]
async fn a_request_is_answered() {
    let rig = Rig::cpu(|_| {}).await;
    let forecast = rig.ask().await.unwrap();
    assert_eq!((forecast.backend, forecast.degraded, forecast.version), (Backend::Cpu, false, 1));
    assert_eq!(forecast.values.len(), forecast.spec.answer_len());
    assert_eq!(forecast.timing.batch_rows, 1);
    let stats = &rig.system.stats()[0];
    assert_eq!((stats.inference_count, stats.execution_count, stats.success.count), (1, 1, 1));
}

#[tokio::test]
async fn what_gathers_while_the_device_is_busy_runs_as_one_batch() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Hang);
    let first = rig.begin(ramp(1));
    until("the device is busy", || rig.cpu.entered() == 1).await;
    let rest: Vec<_> = (1..=3).map(|rows| rig.begin(ramp(rows))).collect();
    until("three wait", || rig.queued(0) == 3).await;
    rig.cpu.set(Mode::Good);
    first.await.unwrap().unwrap();
    for (rows, request) in (1..=3).zip(rest) {
        let forecast = request.await.unwrap().unwrap();
        assert_eq!(forecast.values.len(), rows * forecast.spec.answer_len());
        assert_eq!(forecast.timing.batch_rows, 6);
    }
    assert_eq!(rig.cpu.rows(), [1, 6]);
}

#[tokio::test]
async fn a_full_queue_refuses_and_loses_nothing() {
    let rig = Rig::cpu(|settings| settings.batching.queue_rows_max = 4).await;
    rig.cpu.set(Mode::Hang);
    let mut accepted = vec![rig.begin(ramp(1))];
    until("the device is busy", || rig.cpu.entered() == 1).await;
    accepted.extend((0..4).map(|_| rig.begin(ramp(1))));
    until("the queue is full", || rig.queued(0) == 4).await;
    assert!(matches!(rig.ask().await, Err(ForecastError::Overloaded { retry_after_ms: 1.. })));
    rig.cpu.set(Mode::Good);
    for request in accepted {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_would_be_refused_is_refused_at_the_door() {
    let rig = Rig::cpu(|settings| {
        (settings.batching.queue_rows_max, settings.batching.request_rows_max) = (4, 8);
    })
    .await;
    let knock = |model, version, rows| {
        let deadline = rig.system.default_deadline();
        rig.system.turned_away((model, version), rows, &Origin::default(), deadline)
    };
    assert_eq!(knock(MODEL, None, 8), Ok(()), "nobody waits");
    rig.cpu.set(Mode::Hang);
    let mut accepted = vec![rig.begin(ramp(1))];
    until("the device is busy", || rig.cpu.entered() == 1).await;
    accepted.extend((0..2).map(|_| rig.begin(ramp(1))));
    until("two wait", || rig.queued(0) == 2).await;
    let failures = rig.system.stats()[0].fail.count;
    assert_eq!(knock(MODEL, None, 2), Ok(()), "there is room for two");
    assert!(matches!(knock(MODEL, Some(1), 3), Err(ForecastError::Overloaded { retry_after_ms: 1.. })));
    assert_eq!(rig.system.health().devices[0].refused[0], ("rows", 1), "counted where it is refused");
    assert_eq!(rig.system.stats()[0].fail.count, failures + 1, "and by its model");
    assert_eq!(knock(MODEL, None, 9), Ok(()), "too large for ever: that is to be said");
    assert_eq!(knock("other", None, 3), Ok(()), "nobody is turned away from what is not there");
    assert_eq!(rig.queued(0), 2, "who only knocks does not wait");
    rig.cpu.set(Mode::Good);
    for request in accepted {
        request.await.unwrap().unwrap();
    }
    assert_eq!(knock(MODEL, None, 3), Ok(()), "it is over");
}

#[tokio::test]
async fn nobody_waits_past_the_deadline() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Hang);
    let busy = rig.begin(ramp(1));
    until("the device is busy", || rig.cpu.entered() == 1).await;
    let mut request = rig.request(ramp(1));
    request.deadline = Deadline::after(peregrine_runtime::Clock::now(&*rig.clock), Duration::from_millis(20));
    assert_eq!(rig.system.forecast(request).await.err(), Some(ForecastError::DeadlineExceeded));
    rig.cpu.set(Mode::Good);
    busy.await.unwrap().unwrap();
    rig.ask().await.unwrap();
    assert_eq!(rig.cpu.rows(), [1, 1], "the late one never ran");
}

#[tokio::test]
async fn what_its_callers_thread_computed_too_late_is_no_answer() {
    let rig = Rig::cpu(|settings| settings.inline_macs_max = usize::MAX).await;
    let within = |time| {
        let deadline = Deadline::after(peregrine_runtime::Clock::now(&*rig.clock), time);
        rig.system.forecast(ForecastRequest { deadline, ..rig.request(ramp(1)) })
    };
    rig.cpu.set(Mode::Slow(Duration::from_secs(2)));
    assert_eq!(within(Duration::from_secs(1)).await.err(), Some(ForecastError::DeadlineExceeded));
    assert_eq!(rig.cpu.rows(), [1], "it was computed");
    within(Duration::from_secs(3)).await.unwrap();
}

#[tokio::test]
async fn work_of_a_caller_that_left_is_dropped() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Hang);
    let busy = rig.begin(ramp(1));
    until("the device is busy", || rig.cpu.entered() == 1).await;
    let leaving = rig.begin(ramp(2));
    until("it waits", || rig.queued(0) == 1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    rig.cpu.set(Mode::Good);
    busy.await.unwrap().unwrap();
    rig.ask().await.unwrap();
    assert_eq!(rig.cpu.rows(), [1, 1]);
    until("it is counted", || rig.system.stats()[0].abandoned == 1).await;
}

#[tokio::test]
async fn only_the_request_that_overflows_fails() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Hang);
    let busy = rig.begin(ramp(1));
    until("the device is busy", || rig.cpu.entered() == 1).await;
    let before: Vec<_> = (0..3).map(|_| rig.begin(ramp(1))).collect();
    until("three wait", || rig.queued(0) == 3).await;
    let bad = rig.begin(constant());
    until("four wait", || rig.queued(0) == 4).await;
    let after = rig.begin(ramp(2));
    until("five wait", || rig.queued(0) == 5).await;
    rig.cpu.set(Mode::NanForConstant);
    for mate in before.into_iter().chain([busy, after]) {
        mate.await.unwrap().unwrap();
    }
    assert_eq!(bad.await.unwrap().err(), Some(ForecastError::NotFinite { row: 0 }));
}

#[tokio::test]
async fn what_cannot_be_forecast_is_refused_before_it_waits() {
    let rig = Rig::cpu(|settings| settings.batching.request_rows_max = 2).await;
    let ask = |model: &str, version, windows| {
        let deadline = rig.system.default_deadline();
        rig.system.forecast(ForecastRequest { version, ..ForecastRequest::new(model, windows, deadline) })
    };
    assert!(matches!(ask("other", None, ramp(1)).await, Err(ForecastError::UnknownModel(_))));
    assert!(matches!(
        ask(MODEL, Some(4), ramp(1)).await,
        Err(ForecastError::UnknownVersion { version: 4, .. })
    ));
    assert!(matches!(ask(MODEL, None, ramp(3)).await, Err(ForecastError::TooManyRows { rows: 3, max: 2 })));
    let short = Windows { rows: 1, y: vec![0.0; WINDOW - 1], ..Windows::default() };
    assert!(matches!(ask(MODEL, None, short).await, Err(ForecastError::Window(_))));
    assert_eq!(rig.cpu.entered(), 0);
}

#[tokio::test]
async fn what_cannot_be_in_time_is_refused_at_once_and_the_urgent_overtake() {
    let rig = Rig::cpu(|settings| settings.batching.rows_max = 2).await;
    rig.cpu.set(Mode::Slow(Duration::from_millis(100)));
    for _ in 0..3 {
        rig.ask().await.unwrap();
    }
    rig.cpu.set(Mode::Hang);
    let busy = rig.begin(ramp(1));
    until("the device is busy", || rig.cpu.entered() == 4).await;
    let waiting: Vec<_> = (0..4).map(|_| rig.begin(ramp(1))).collect();
    until("four wait", || rig.queued(0) == 4).await;
    let hurried = |millis, priority| {
        let now = peregrine_runtime::Clock::now(&*rig.clock);
        let mut request = rig.request(ramp(1));
        request.deadline = Deadline::after(now, Duration::from_millis(millis));
        request.origin.priority = priority;
        let system = rig.system.clone();
        async move { system.forecast(request).await }
    };
    // One that runs, four that wait and itself take some 600 ms.
    let refused = hurried(400, Priority::Normal).await.err();
    let Some(ForecastError::Overloaded { retry_after_ms }) = refused else { panic!("{refused:?}") };
    assert!((50..=400).contains(&retry_after_ms), "it says when: {retry_after_ms}");
    assert_eq!(rig.system.health().devices[0].refused[1], ("deadline", 1));
    let urgent = tokio::spawn(hurried(400, Priority::High));
    until("it waits", || rig.queued(0) == 5).await;
    rig.cpu.set(Mode::Good);
    urgent.await.unwrap().unwrap();
    for request in waiting.into_iter().chain([busy]) {
        request.await.unwrap().unwrap();
    }
}

//! Devices that fail, actors that panic, and circuits that open and close.

use std::time::Duration;

use peregrine_runtime::{ActorState, Deadline};
use peregrine_shaders::{Backend, ExecuteError};

use super::fake::Mode;
use super::{MODEL, Rig, constant, ramp, until};
use crate::{BreakerState, DeviceState, FallbackPolicy, ForecastError};

const GPU: usize = 1;

fn breaker(rig: &Rig, backend: Backend) -> BreakerState {
    rig.system.breakers().iter().find(|breaker| breaker.guards.backend() == backend.name()).unwrap().state
}

fn gpu_is_up(rig: &Rig) -> bool {
    rig.system.health().devices[GPU].state == DeviceState::Up
}

#[tokio::test]
async fn the_gpu_serves_when_it_can() {
    let rig = Rig::gpu(|_| {}).await;
    let forecast = rig.ask().await.unwrap();
    assert_eq!((forecast.backend, forecast.degraded), (Backend::Gpu, false));
}

#[tokio::test]
async fn a_breaker_opens_keeps_the_gpu_out_probes_and_closes() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::Fail(ExecuteError::Timeout { millis: 5 }));
    for _ in 0..2 {
        let forecast = rig.ask().await.unwrap();
        assert_eq!((forecast.backend, forecast.degraded), (Backend::Cpu, true));
    }
    until("it opens", || matches!(breaker(&rig, Backend::Gpu), BreakerState::Open { .. })).await;
    rig.gpu.set(Mode::Good);
    assert!(rig.ask().await.unwrap().degraded, "open");
    assert_eq!(rig.gpu.entered(), 2, "the gpu is left alone");
    rig.clock.advance(Duration::from_secs(61));
    assert_eq!(breaker(&rig, Backend::Gpu), BreakerState::HalfOpen);
    for _ in 0..2 {
        assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu, "a probe");
    }
    until("it closes", || breaker(&rig, Backend::Gpu) == BreakerState::Closed).await;
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
}

#[tokio::test]
async fn a_failed_probe_is_answered_by_the_cpu_and_opens_again() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::Fail(ExecuteError::Refused("no".into())));
    rig.ask().await.unwrap();
    rig.ask().await.unwrap();
    until("it opens", || matches!(breaker(&rig, Backend::Gpu), BreakerState::Open { .. })).await;
    rig.clock.advance(Duration::from_secs(61));
    assert!(rig.ask().await.unwrap().degraded);
    let longer =
        |state| matches!(state, BreakerState::Open { remaining } if remaining > Duration::from_secs(100));
    until("it opens for longer", || longer(breaker(&rig, Backend::Gpu))).await;
}

#[tokio::test]
async fn slow_calls_open_the_breaker() {
    let rig = Rig::gpu(|settings| settings.breaker.slow_after = Duration::from_secs(1)).await;
    for run in 1..=2 {
        rig.gpu.set(Mode::Hang);
        let slow = rig.begin(ramp(1));
        until("it runs", || rig.gpu.entered() == run).await;
        rig.clock.advance(Duration::from_secs(2));
        rig.gpu.set(Mode::Good);
        assert_eq!(slow.await.unwrap().unwrap().backend, Backend::Gpu);
    }
    until("it opens", || matches!(breaker(&rig, Backend::Gpu), BreakerState::Open { .. })).await;
}

#[tokio::test]
async fn a_lost_device_loses_no_request_and_comes_back() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::Hang);
    let running = rig.begin(ramp(1));
    until("the gpu is busy", || rig.gpu.entered() == 1).await;
    let waiting: Vec<_> = (0..5).map(|_| rig.begin(ramp(1))).collect();
    until("five wait", || rig.queued(GPU) == 5).await;
    rig.gpu.set(Mode::Gone);
    for request in waiting.into_iter().chain([running]) {
        let forecast = request.await.unwrap().unwrap();
        assert_eq!((forecast.backend, forecast.degraded), (Backend::Cpu, true));
    }
    until("the gpu is down", || !gpu_is_up(&rig)).await;
    until("its breaker is open", || breaker(&rig, Backend::Gpu) != BreakerState::Closed).await;
    let health = rig.system.health();
    assert!(health.live && health.ready && !health.reasons.is_empty(), "degraded: {:?}", health.reasons);
    assert!(rig.ask().await.unwrap().degraded);
    rig.gpu.set(Mode::Good);
    rig.recover("the gpu is back", || gpu_is_up(&rig)).await;
    until("probes may try", || breaker(&rig, Backend::Gpu) == BreakerState::HalfOpen).await;
    for _ in 0..2 {
        assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
    }
    until("the breaker closes", || breaker(&rig, Backend::Gpu) == BreakerState::Closed).await;
    assert_eq!(rig.gpu.built(), 2);
}

#[tokio::test]
async fn a_panicking_gpu_loses_no_request_and_is_rebuilt() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::Panic);
    assert!(rig.ask().await.unwrap().degraded);
    rig.gpu.set(Mode::Good);
    rig.recover("it is rebuilt", || rig.gpu.built() == 2 && gpu_is_up(&rig)).await;
}

#[tokio::test]
async fn without_fallback_a_failing_gpu_is_said_to_be_unavailable() {
    let rig = Rig::gpu(|settings| settings.fallback = FallbackPolicy::Never).await;
    assert!(rig.system.health().ready);
    rig.gpu.set(Mode::Gone);
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })));
    until("the gpu is down", || !gpu_is_up(&rig)).await;
    assert!(rig.system.health().ready, "not at once: it may be back in a moment");
    rig.recover("it is refused", || !rig.system.health().ready).await;
    assert_eq!(rig.cpu.entered(), 0);
    rig.gpu.set(Mode::Good);
    rig.recover("the gpu is back", || gpu_is_up(&rig)).await;
    let health = rig.system.health();
    assert!(!health.ready && !health.reasons.is_empty(), "not at once either: {:?}", health.reasons);
    rig.recover("it is ready again", || rig.system.health().ready).await;
}

#[tokio::test]
async fn one_model_may_be_kept_off_the_cpu_where_others_fall_back() {
    let rig = Rig::gpu(|settings| {
        settings.fallback_by_model.insert(MODEL.to_owned(), FallbackPolicy::Never);
    })
    .await;
    rig.gpu.set(Mode::NanForConstant);
    let answer = rig.begin(constant()).await.unwrap();
    assert!(matches!(answer, Err(ForecastError::NotFinite { row: 0 })), "nobody else is asked: {answer:?}");
    rig.gpu.set(Mode::Gone);
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })), "what the device had");
    until("the gpu is down", || !gpu_is_up(&rig)).await;
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })), "what finds no device");
    assert_eq!(rig.cpu.entered(), 0);
    assert!(rig.system.health().ready, "for the other models");
    rig.gpu.set(Mode::Good);
    rig.recover("the gpu answers again", || gpu_is_up(&rig)).await;
}

#[tokio::test]
async fn one_model_may_fall_back_where_others_do_not() {
    let rig = Rig::gpu(|settings| {
        settings.fallback = FallbackPolicy::Never;
        settings.fallback_by_model.insert(MODEL.to_owned(), FallbackPolicy::Allow);
    })
    .await;
    rig.gpu.set(Mode::Gone);
    let forecast = rig.ask().await.unwrap();
    assert_eq!((forecast.backend, forecast.degraded), (Backend::Cpu, true));
}

#[tokio::test]
async fn a_gpu_that_is_wrong_is_corrected_and_counted() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::NanForConstant);
    let forecast = rig.begin(constant()).await.unwrap().unwrap();
    assert_eq!((forecast.backend, forecast.degraded), (Backend::Cpu, true));
    let failures = || rig.system.breakers().iter().map(|breaker| breaker.failures).sum::<u64>();
    until("it is counted", || failures() == 1).await;
}

#[tokio::test]
async fn an_overflow_that_both_devices_see_is_the_callers() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::NanForConstant);
    rig.cpu.set(Mode::NanForConstant);
    assert_eq!(rig.begin(constant()).await.unwrap().err(), Some(ForecastError::NotFinite { row: 0 }));
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
    assert!(rig.system.breakers().iter().all(|breaker| breaker.failures == 0));
}

#[tokio::test]
async fn any_actor_may_panic() {
    // Virtual time passes by the second while an actor comes back: to admission that looks like a slow device.
    let rig = Rig::gpu(|settings| settings.batching.admission.delay_target = Duration::from_secs(3600)).await;
    let names: Vec<_> = rig.system.tree().snapshot().iter().map(|actor| actor.name.clone()).collect();
    assert_eq!(names.len(), 5);
    for name in names {
        let busy: Vec<_> = (0..20).map(|_| rig.begin(ramp(1))).collect();
        assert!(rig.system.tree().inject_panic(&name));
        let back = || {
            let actors = rig.system.tree().snapshot();
            let same = actors.iter().find(|actor| actor.name == name);
            same.is_some_and(|actor| actor.restarts == 1 && actor.state == ActorState::Running)
        };
        rig.recover("the actor comes back", back).await;
        for request in busy {
            match request.await.unwrap() {
                Ok(_) | Err(ForecastError::Unavailable { .. }) => {}
                Err(other) => panic!("{name}: {other}"),
            }
        }
        rig.ask().await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_in_the_callers_thread_is_contained() {
    let rig = Rig::cpu(|settings| settings.inline_macs_max = usize::MAX).await;
    for _ in 0..5 {
        rig.ask().await.unwrap();
    }
    rig.cpu.set(Mode::Panic);
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })));
    rig.cpu.set(Mode::Good);
    let (system, mut patient) = (rig.system.clone(), rig.request(ramp(1)));
    patient.deadline = Deadline::after(patient.deadline.instant(), Duration::from_secs(3600));
    let next = tokio::spawn(async move { system.forecast(patient).await });
    rig.recover("the next one is answered", || next.is_finished()).await;
    next.await.unwrap().unwrap();
    assert_eq!(rig.cpu.built(), 2);
    let cpu = rig.system.tree().snapshot().into_iter().find(|actor| &*actor.name == "inference-cpu").unwrap();
    assert_eq!(cpu.restarts, 1);
}

/// The actor finds the executor gone before it is told so; the next one, which has an executor, is told it then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_actor_is_told_of_a_lost_executor_does_not_cost_the_next_one() {
    let rig = Rig::cpu(|settings| settings.inline_macs_max = usize::MAX).await;
    rig.cpu.set(Mode::Hang);
    let begin = || {
        let (system, mut patient) = (rig.system.clone(), rig.request(ramp(1)));
        patient.deadline = Deadline::after(patient.deadline.instant(), Duration::from_secs(3600));
        tokio::spawn(async move { system.forecast(patient).await })
    };
    let inline = begin();
    until("it runs in its caller's thread", || rig.cpu.entered() == 1).await;
    let next = begin();
    let told = || {
        rig.system.tree().snapshot().into_iter().find(|actor| &*actor.name == "inference-cpu").unwrap().depth
    };
    until("the actor is awake and waits for the executor", || rig.queued(0) == 1 && told() == 0).await;
    rig.cpu.set(Mode::Panic);
    assert!(matches!(inline.await.unwrap(), Err(ForecastError::Unavailable { .. })));
    rig.cpu.set(Mode::Good);
    rig.recover("the next one is answered", || next.is_finished()).await;
    next.await.unwrap().unwrap();
    assert_eq!(rig.cpu.built(), 2);
}

#[tokio::test]
async fn a_stopped_system_has_answered_what_it_accepted() {
    let rig = Rig::gpu(|_| {}).await;
    rig.gpu.set(Mode::Hang);
    let running = rig.begin(ramp(1));
    until("the gpu is busy", || rig.gpu.entered() == 1).await;
    let waiting = rig.begin(ramp(1));
    until("one waits", || rig.queued(GPU) == 1).await;
    let system = rig.system.clone();
    let deadline = Deadline::after(std::time::Instant::now(), Duration::from_secs(10));
    let stopped = tokio::spawn(async move { system.stop(deadline).await });
    until("it refuses", || rig.system.health().reasons.iter().any(|reason| reason.contains("stopping")))
        .await;
    rig.gpu.set(Mode::Good);
    stopped.await.unwrap();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })));
}

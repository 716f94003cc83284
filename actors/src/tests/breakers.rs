//! Devices that lie, operators that decide, and what answers when nothing else does.

use std::time::Duration;

use peregrine_shaders::{Backend, ExecuteError};

use super::fake::Mode;
use super::{Rig, until};
use crate::{BreakerMode, BreakerSelector, BreakerState, BreakerStatus, Settings};

const EVERY: Duration = Duration::from_secs(1);

fn checked(settings: &mut Settings) {
    settings.checks.every = EVERY;
}

fn gate(rig: &Rig, backend: Backend) -> BreakerStatus {
    rig.system.breakers().into_iter().find(|breaker| breaker.guards.backend() == backend.name()).unwrap()
}

fn is_open(rig: &Rig, backend: Backend) -> bool {
    matches!(gate(rig, backend).state, BreakerState::Open { .. })
}

/// The answer of a device that is right.
async fn truth(rig: &Rig) -> Vec<f32> {
    rig.ask().await.unwrap().values
}

#[tokio::test]
async fn damaged_memory_is_found_and_built_anew_and_probes_reach_nobody_unchecked() {
    let rig = Rig::gpu(checked).await;
    let right = truth(&rig).await;
    until("the first answer is checked", || rig.system.stats()[0].checks.checked == 1).await;
    rig.gpu.set(Mode::Damaged);
    rig.clock.advance(EVERY);
    assert_ne!(truth(&rig).await, right, "a sample finds it only afterwards");
    until("it is found out", || rig.system.stats()[0].checks.wrong == 1).await;
    until("the device is built anew", || {
        rig.gpu.built() == 2 || {
            rig.clock.advance(EVERY);
            false
        }
    })
    .await;
    until("probes may try", || gate(&rig, Backend::Gpu).state == BreakerState::HalfOpen).await;
    for _ in 0..2 {
        let answer = rig.ask().await.unwrap();
        assert_eq!(
            (answer.backend, &answer.values),
            (Backend::Cpu, &right),
            "a probe is answered by the cpu"
        );
    }
    until("it closes", || gate(&rig, Backend::Gpu).state == BreakerState::Closed).await;
    let answer = rig.ask().await.unwrap();
    assert_eq!((answer.backend, answer.values), (Backend::Gpu, right));
    assert_eq!(rig.system.stats()[0].checks.wrong, 1);
}

#[tokio::test]
async fn a_device_that_goes_on_lying_stays_out_and_is_built_anew_once() {
    let rig = Rig::gpu(checked).await;
    let right = truth(&rig).await;
    until("the first answer is checked", || rig.system.stats()[0].checks.checked == 1).await;
    rig.gpu.set(Mode::Lies);
    rig.clock.advance(EVERY);
    rig.ask().await.unwrap();
    until("it is found out", || rig.system.stats()[0].checks.wrong == 1).await;
    until("the device is built anew", || {
        rig.gpu.built() == 2 || {
            rig.clock.advance(EVERY);
            false
        }
    })
    .await;
    for round in 0..5 {
        until("probes may try", || {
            rig.clock.advance(EVERY);
            gate(&rig, Backend::Gpu).state == BreakerState::HalfOpen
        })
        .await;
        assert_eq!(truth(&rig).await, right, "round {round}");
        until("the probe has failed", || is_open(&rig, Backend::Gpu)).await;
        assert_eq!(truth(&rig).await, right, "round {round}, open");
    }
    assert_eq!(rig.gpu.built(), 2, "what did not help once is not done again and again");
    assert!(gate(&rig, Backend::Gpu).reason.contains("differs from the cpu's"));
}

#[tokio::test]
async fn checks_cost_the_cpu_one_row_in_a_while() {
    let rig = Rig::gpu(checked).await;
    // The quantiles of this fake cross in every answer, so ten are looked at in the time of one.
    for _ in 0..50 {
        rig.ask().await.unwrap();
        rig.clock.advance(EVERY / 100);
    }
    until("the samples are checked", || rig.system.stats()[0].checks.checked >= 5).await;
    assert_eq!(rig.cpu.rows().iter().sum::<usize>(), 5);
    assert_eq!(rig.system.stats()[0].inference_count, 50, "checks are nobody's forecasts");
}

#[tokio::test]
async fn an_operator_keeps_a_device_out_whatever_its_calls_say() {
    let rig = Rig::gpu(|_| {}).await;
    let gpu = BreakerSelector { backend: Some("gpu".into()), ..BreakerSelector::default() };
    let ordered = rig.system.set_breaker_mode(gpu.clone(), BreakerMode::ForcedOpen).await.unwrap();
    assert_eq!(
        (ordered.len(), ordered[0].mode, ordered[0].state),
        (1, BreakerMode::ForcedOpen, BreakerState::ForcedOpen)
    );
    assert_eq!(gate(&rig, Backend::Gpu).state, BreakerState::ForcedOpen);
    rig.system.load(super::forecaster(), 1).await.unwrap();
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu, "loaded again, the order still stands");
    rig.clock.advance(Duration::from_secs(3600));
    let answer = rig.ask().await.unwrap();
    assert_eq!((answer.backend, answer.degraded), (Backend::Cpu, true));
    let ordered = rig.system.set_breaker_mode(gpu, BreakerMode::Auto).await.unwrap();
    assert_eq!((ordered[0].mode, ordered[0].state), (BreakerMode::Auto, BreakerState::Closed));
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
}

#[tokio::test]
async fn a_breaker_may_only_show_what_it_would_do() {
    let rig = Rig::gpu(|settings| settings.breaker_mode = BreakerMode::MetricsOnly).await;
    rig.gpu.set(Mode::Fail(ExecuteError::Timeout { millis: 5 }));
    for _ in 0..2 {
        rig.ask().await.unwrap();
    }
    until("it would open", || is_open(&rig, Backend::Gpu)).await;
    rig.gpu.set(Mode::Good);
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu, "but nothing is kept out");
    rig.clock.advance(Duration::from_secs(61));
    for _ in 0..2 {
        assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
    }
    until("it would close", || gate(&rig, Backend::Gpu).state == BreakerState::Closed).await;
}

#[tokio::test]
async fn a_breaker_that_is_off_counts_nothing() {
    let rig = Rig::gpu(|settings| settings.breaker_mode = BreakerMode::Disabled).await;
    rig.gpu.set(Mode::Fail(ExecuteError::Timeout { millis: 5 }));
    for _ in 0..20 {
        assert!(rig.ask().await.unwrap().degraded, "the cpu takes what the gpu could not do");
    }
    assert_eq!(rig.gpu.entered(), 20);
    assert_eq!(
        (gate(&rig, Backend::Gpu).state, gate(&rig, Backend::Gpu).failures),
        (BreakerState::Closed, 0)
    );
}

#[tokio::test]
async fn the_only_device_is_not_ejected_for_being_slow() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Slow(Duration::from_secs(2)));
    for _ in 0..2 {
        rig.ask().await.unwrap();
    }
    until("it opens", || is_open(&rig, Backend::Cpu)).await;
    for _ in 0..3 {
        rig.ask().await.unwrap();
    }
    let all = BreakerSelector::default();
    rig.system.set_breaker_mode(all, BreakerMode::ForcedOpen).await.unwrap();
    rig.ask().await.unwrap_err();
    assert!(rig.system.refuses(super::MODEL, None), "and says so");
    let reasons = rig.system.health().reasons;
    assert!(reasons.iter().any(|reason| reason == "breakers of every model are forced open"), "{reasons:?}");
}

#[tokio::test]
async fn the_only_device_is_ejected_for_breaking() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(Mode::Fail(ExecuteError::Refused("no".into())));
    for _ in 0..2 {
        rig.ask().await.unwrap_err();
    }
    until("it opens", || is_open(&rig, Backend::Cpu)).await;
    let entered = rig.cpu.entered();
    rig.ask().await.unwrap_err();
    assert_eq!(rig.cpu.entered(), entered, "other models are not to suffer");
}

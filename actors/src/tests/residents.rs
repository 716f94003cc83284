//! Models that stay on the GPU between requests: what answers, and what happens when it does not.

use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::ManualClock;
use peregrine_shaders::{Backend, ExecuteError, NotServed, ResidentCounts, Stay};

use super::fake::{Mode, Script, Staying};
use super::{MODEL, Rig, forecaster, ramp, until};
use crate::{BreakerState, DeviceMeter, Meters, Profile, Settings, System};

fn quick(settings: &mut Settings) {
    settings.profiles.default = Profile::UltraLowLatency;
}

/// Failed calls that the GPU's breaker has seen open it.
fn opens_at_once(settings: &mut Settings) {
    quick(settings);
    settings.breaker.consecutive_failures = 1;
}

fn is_open(rig: &Rig) -> bool {
    let gate = rig.system.breakers().into_iter().find(|breaker| breaker.guards.backend() == "gpu").unwrap();
    matches!(gate.state, BreakerState::Open { .. })
}

#[tokio::test]
async fn a_single_window_waits_for_no_batch() {
    let rig = Rig::gpu(quick).await;
    rig.gpu.set(Mode::Hang);
    let batch = rig.begin(ramp(2));
    until("a batch runs", || rig.gpu.entered() == 1).await;
    for asked in 1..=20 {
        let answer = rig.ask().await.unwrap();
        assert_eq!((answer.backend, answer.degraded), (Backend::Gpu, false));
        assert_eq!(rig.gpu.answered_staying(), asked);
    }
    assert_eq!(rig.gpu.entered(), 1, "beside the executor");
    rig.gpu.set(Mode::Good);
    assert_eq!(batch.await.unwrap().unwrap().backend, Backend::Gpu);
    assert_eq!(rig.system.stats()[0].success.count, 21, "all of them are counted");
}

#[tokio::test]
async fn both_ways_give_one_answer() {
    let rig = Rig::gpu(quick).await;
    let staying = rig.ask().await.unwrap();
    rig.gpu.set_staying(Staying::Not(NotServed::Away));
    let ordinary = rig.ask().await.unwrap();
    assert_eq!((rig.gpu.answered_staying(), rig.gpu.rows()), (1, vec![1]));
    assert_eq!(staying.values, ordinary.values);
}

#[tokio::test]
async fn one_that_rests_or_is_busy_is_nobodys_fault() {
    for why in [NotServed::Away, NotServed::Busy] {
        let rig = Rig::gpu(opens_at_once).await;
        rig.gpu.set_staying(Staying::Not(why));
        for _ in 0..5 {
            assert_eq!(rig.ask().await.unwrap().backend, Backend::Gpu);
        }
        assert!(!is_open(&rig));
        assert_eq!(rig.gpu.rows(), [1; 5]);
    }
}

#[tokio::test]
async fn one_that_is_silent_is_the_devices_fault_and_the_request_is_answered() {
    let rig = Rig::gpu(opens_at_once).await;
    rig.gpu.set_staying(Staying::Not(NotServed::Silent));
    let answer = rig.ask().await.unwrap();
    assert_eq!((answer.backend, rig.gpu.rows()), (Backend::Gpu, vec![1]), "the ordinary way");
    until("its breaker opens", || is_open(&rig)).await;
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu);
    let device =
        rig.system.health().devices.into_iter().find(|device| device.backend == Backend::Gpu).unwrap();
    let counts = ResidentCounts { silences: 1, ..ResidentCounts::default() };
    assert_eq!(device.residents.iter().map(|resident| resident.counts).collect::<Vec<_>>(), [counts]);
}

#[tokio::test]
async fn a_device_that_is_built_anew_has_them_again() {
    let rig = Rig::gpu(quick).await;
    rig.gpu.set(Mode::Fail(ExecuteError::DeviceLost("pulled".into())));
    assert_eq!(rig.system.forecast(rig.request(ramp(2))).await.unwrap().backend, Backend::Cpu);
    rig.gpu.set(Mode::Good);
    rig.recover("it is built anew", || rig.gpu.built() == 2 && rig.gpu.stays().len() == 2).await;
    rig.recover("it answers as before", || {
        rig.system
            .health()
            .devices
            .iter()
            .all(|device| device.backend == Backend::Cpu || device.residents.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn a_kernel_that_polls_is_no_load() {
    struct Driver;
    impl Meters for Driver {
        fn read(&self) -> Vec<DeviceMeter> {
            vec![DeviceMeter { utilisation: Some(1.0), power_watts: Some(140.0), ..DeviceMeter::default() }]
        }
    }
    let clock = Arc::new(ManualClock::new());
    let (cpu, gpu) = (Script::new(&clock), Script::new(&clock));
    let mut settings = Settings { sample_every: Duration::from_millis(5), ..Settings::default() };
    quick(&mut settings);
    let factories = (cpu.factory(Backend::Cpu), Some(gpu.factory(Backend::Gpu)));
    let driver = Some(Arc::new(Driver) as Arc<dyn Meters>);
    let system = System::start_metered(settings, factories.0, factories.1, driver, clock, 7).unwrap();
    let read = || system.health().meters.first().map(|meter| (meter.utilisation, meter.power_watts));
    until("it is read", || read() == Some((Some(1.0), Some(140.0)))).await;
    system.load(forecaster(), 1).await.unwrap();
    assert_eq!(read(), Some((None, Some(140.0))), "it says nothing of requests");
    gpu.set_staying(Staying::Not(NotServed::Away));
    assert_eq!(read(), Some((Some(1.0), Some(140.0))), "while it rests the driver is right");
}

#[tokio::test]
async fn only_what_is_to_be_quick_stays_and_only_where_it_may() {
    for (profile, resident, stays) in [
        (Profile::UltraLowLatency, true, 1),
        (Profile::UltraLowLatency, false, 0),
        (Profile::Balanced, true, 0),
        (Profile::HighThroughput, true, 0),
        (Profile::MemoryOptimized, true, 0),
    ] {
        let rest_after = Some(Duration::from_secs(5));
        let rig = Rig::gpu(|settings| {
            settings.profiles.default = profile;
            settings.resident = resident;
            settings.rest_after = rest_after;
        })
        .await;
        assert_eq!(rig.gpu.stays(), vec![Stay { rows_max: 1, rest_after }; stays], "{profile:?}, {resident}");
        assert_eq!(rig.cpu.stays(), []);
        rig.ask().await.unwrap();
        assert_eq!(rig.gpu.answered_staying(), stays as u64);
    }
}

#[tokio::test]
async fn a_device_that_keeps_none_serves_the_ordinary_way() {
    let rig = Rig::gpu(|settings| {
        quick(settings);
        settings.profiles.by_model.insert("other".to_owned(), Profile::Balanced);
    })
    .await;
    rig.gpu.set_staying(Staying::Refused);
    rig.gpu.set(Mode::Fail(ExecuteError::DeviceLost("pulled".into())));
    let _ = rig.system.forecast(rig.request(ramp(2))).await;
    rig.gpu.set(Mode::Good);
    rig.recover("it is built anew", || rig.gpu.built() == 2 && rig.gpu.stays().len() == 2).await;
    let up = || rig.system.health().devices.iter().all(|device| device.state == crate::DeviceState::Up);
    rig.recover("it is up", up).await;
    rig.ask().await.unwrap();
    assert_eq!(rig.gpu.answered_staying(), 0);
}

#[tokio::test]
async fn a_model_that_is_unloaded_stays_no_longer() {
    let rig = Rig::gpu(quick).await;
    rig.ask().await.unwrap();
    assert!(rig.system.unload(MODEL, None).await);
    let gone = || rig.system.health().devices.iter().all(|device| device.residents.is_empty());
    until("it is forgotten", gone).await;
    until("its weights leave", || rig.gpu.loaded() == 0).await;
}

#[tokio::test]
async fn a_model_that_had_no_room_stays_once_another_has_left() {
    let rig = Rig::gpu(quick).await;
    rig.gpu.set_staying(Staying::Refused);
    rig.system.load(forecaster(), 2).await.unwrap();
    assert_eq!(rig.gpu.stays().len(), 2, "the second one has been refused");
    rig.gpu.set_staying(Staying::Serves);
    assert!(rig.system.unload(MODEL, Some(1)).await);
    until("it is tried again", || rig.gpu.stays().len() == 3).await;
    until("it stays", || {
        let devices = rig.system.health().devices;
        devices.iter().any(|device| device.backend == Backend::Gpu && device.residents.len() == 1)
    })
    .await;
    rig.ask().await.unwrap();
    assert_eq!(rig.gpu.answered_staying(), 1);
    assert!(rig.system.unload(MODEL, None).await);
    until("its weights leave", || rig.gpu.loaded() == 0).await;
    assert_eq!(rig.gpu.stays().len(), 3, "nobody is left who wants to");
}

//! Several GPUs of one node: who runs what, and who takes over.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use peregrine_runtime::ManualClock;
use peregrine_shaders::{Backend, ExecuteError, Forecaster, NotServed};

use super::fake::{Mode, Script, Staying};
use super::{MODEL, Rig, folder, forecaster, ramp, until};
use crate::{
    BreakerMode, BreakerSelector, BreakerState, DeviceId, DeviceState, ExecutorFactory, FallbackPolicy,
    Forecast, ForecastError, Placement, Profile, Settings, System,
};

const US: Duration = Duration::from_micros(1);

fn state(rig: &Rig, id: DeviceId) -> BreakerState {
    rig.system.breakers().into_iter().find(|one| one.guards.device() == Some(id)).unwrap().state
}

fn is_up(rig: &Rig, id: DeviceId) -> bool {
    rig.system.health().devices.into_iter().find(|device| device.id() == id).unwrap().state == DeviceState::Up
}

fn entered(rig: &Rig) -> Vec<usize> {
    rig.gpus.iter().map(|gpu| gpu.entered()).collect()
}

#[track_caller]
fn assert_by_a_gpu(forecast: &Forecast) {
    assert_eq!((forecast.backend, forecast.degraded), (Backend::Gpu, false));
}

fn lost() -> Mode {
    Mode::Fail(ExecuteError::DeviceLost("pulled".into()))
}

#[tokio::test]
async fn each_has_an_actor_of_its_own() {
    let rig = Rig::gpus(3, |_| {}).await;
    let actors = rig.system.tree().snapshot();
    let names = actors.iter().filter_map(|actor| actor.name.strip_prefix("inference-"));
    assert_eq!(names.collect::<Vec<_>>(), ["cpu", "gpu", "gpu-1", "gpu-2"]);
    assert_eq!(rig.system.breakers().len(), 4, "the model has a breaker for each");
}

#[tokio::test]
async fn while_one_is_busy_another_runs_what_comes() {
    let rig = Rig::gpus(2, |_| {}).await;
    rig.gpus[0].set(Mode::Hang);
    let running = rig.begin(ramp(1));
    until("the first is busy", || entered(&rig) == [1, 0]).await;
    for _ in 0..5 {
        assert_by_a_gpu(&rig.ask().await.unwrap());
    }
    assert_eq!(entered(&rig), [1, 5]);
    rig.gpus[0].set(Mode::Good);
    assert_by_a_gpu(&running.await.unwrap().unwrap());
    let devices = rig.system.health().devices;
    let done = |at: usize| (devices[at].requests, devices[at].rows, devices[at].batches);
    assert_eq!([0, 1, 2].map(done), [(0, 0, 0), (1, 1, 1), (5, 5, 5)]);
}

#[tokio::test]
async fn the_faster_one_is_asked_and_the_cpu_where_it_is_faster_still() {
    let rig = Rig::gpus(2, |settings| settings.placement = Placement::Fastest).await;
    for (gpus, cpu, expected) in [([90, 30], 60, DeviceId::gpu(1)), ([90, 80], 20, DeviceId::CPU)] {
        for (gpu, took) in rig.gpus.iter().zip(gpus) {
            gpu.set(Mode::Slow(took * US));
        }
        rig.cpu.set(Mode::Slow(cpu * US));
        for _ in 0..20 {
            rig.ask().await.unwrap();
        }
        let before = rig.system.health().devices;
        rig.ask().await.unwrap();
        let after = rig.system.health().devices;
        let asked =
            after.iter().zip(&before).find(|(after, before)| after.requests > before.requests).unwrap().0;
        assert_eq!(asked.id(), expected);
    }
}

#[tokio::test]
async fn one_that_dies_loses_nothing_and_comes_back() {
    let rig = Rig::gpus(2, |_| {}).await;
    rig.gpus.iter().for_each(|gpu| gpu.set(Mode::Hang));
    let first = [rig.begin(ramp(1)), rig.begin(ramp(1))];
    until("both are busy", || entered(&rig) == [1, 1]).await;
    let waiting: Vec<_> = (0..6).map(|_| rig.begin(ramp(1))).collect();
    until("six wait", || rig.queued(1) + rig.queued(2) == 6).await;
    assert_eq!([rig.queued(1), rig.queued(2)], [3, 3]);
    rig.gpus[0].set(Mode::Gone);
    until("the other one has all", || rig.queued(2) == 7).await;
    rig.gpus[1].set(Mode::Good);
    for request in waiting.into_iter().chain(first) {
        assert_by_a_gpu(&request.await.unwrap().unwrap());
    }
    until("its breaker opens", || state(&rig, DeviceId::gpu(0)) != BreakerState::Closed).await;
    assert_eq!(state(&rig, DeviceId::gpu(1)), BreakerState::Closed);
    assert_by_a_gpu(&rig.ask().await.unwrap());
    let health = rig.system.health();
    assert!(health.ready && health.reasons[0].starts_with("gpu is down: "), "{:?}", health.reasons);
    rig.gpus[0].set(Mode::Good);
    rig.recover("it is back", || is_up(&rig, DeviceId::gpu(0))).await;
    until("probes may try", || state(&rig, DeviceId::gpu(0)) == BreakerState::HalfOpen).await;
    for _ in 0..2 {
        assert_by_a_gpu(&rig.ask().await.unwrap());
    }
    until("its breaker closes", || state(&rig, DeviceId::gpu(0)) == BreakerState::Closed).await;
    assert_eq!((rig.gpus[0].built(), rig.gpus[1].built(), rig.cpu.entered()), (2, 1, 0));
}

#[tokio::test]
async fn a_request_that_breaks_what_runs_it_does_not_break_all() {
    let rig = Rig::gpus(3, |_| {}).await;
    rig.gpus.iter().for_each(|gpu| gpu.set(Mode::Panic));
    let forecast = rig.ask().await.unwrap();
    assert_eq!((forecast.backend, forecast.degraded), (Backend::Cpu, true));
    assert_eq!(entered(&rig).iter().sum::<usize>(), 2);
}

#[tokio::test]
async fn only_the_one_that_lies_is_kept_out() {
    let every = Duration::from_secs(1);
    let rig = Rig::gpus(2, |settings| settings.checks.every = every).await;
    let right = rig.ask().await.unwrap().values;
    until("the first answer is checked", || rig.system.stats()[0].checks.checked == 1).await;
    rig.gpus[0].set(Mode::Lies);
    rig.clock.advance(every);
    assert_ne!(rig.ask().await.unwrap().values, right, "a sample finds it only afterwards");
    until("its breaker opens", || matches!(state(&rig, DeviceId::gpu(0)), BreakerState::Open { .. })).await;
    for _ in 0..5 {
        let forecast = rig.ask().await.unwrap();
        assert_by_a_gpu(&forecast);
        assert_eq!(forecast.values, right);
    }
    assert_eq!(state(&rig, DeviceId::gpu(1)), BreakerState::Closed);
}

#[tokio::test]
async fn an_operator_takes_one_out() {
    let rig = Rig::gpus(2, |_| {}).await;
    let selector = BreakerSelector { backend: Some("gpu".into()), device: Some(0), ..Default::default() };
    let ordered = rig.system.set_breaker_mode(selector, BreakerMode::ForcedOpen).await.unwrap();
    assert_eq!((ordered.len(), ordered[0].state), (1, BreakerState::ForcedOpen));
    for _ in 0..3 {
        assert_by_a_gpu(&rig.ask().await.unwrap());
    }
    assert_eq!(entered(&rig), [0, 3]);
}

#[tokio::test]
async fn without_fallback_another_gpu_takes_over_and_the_cpu_never() {
    let rig = Rig::gpus(2, |settings| settings.fallback = FallbackPolicy::Never).await;
    rig.gpus.iter().for_each(|gpu| gpu.set(Mode::Hang));
    let first = [rig.begin(ramp(1)), rig.begin(ramp(1))];
    until("both are busy", || entered(&rig) == [1, 1]).await;
    let waiting: Vec<_> = (0..4).map(|_| rig.begin(ramp(1))).collect();
    until("four wait", || rig.queued(1) + rig.queued(2) == 4).await;
    rig.gpus[0].set(Mode::Gone);
    until("the other one has all", || rig.queued(2) == 5).await;
    rig.gpus[1].set(Mode::Good);
    for request in waiting.into_iter().chain(first) {
        assert_by_a_gpu(&request.await.unwrap().unwrap());
    }
    assert_by_a_gpu(&rig.ask().await.unwrap());
    rig.gpus[1].set(Mode::Gone);
    assert!(matches!(rig.ask().await, Err(ForecastError::Unavailable { .. })));
    assert_eq!(rig.cpu.entered(), 0);
}

#[tokio::test]
async fn what_waits_for_the_only_gpu_that_may_run_it_waits_on() {
    let rig = Rig::gpus(2, |settings| settings.fallback = FallbackPolicy::Never).await;
    rig.gpus[1].set(Mode::Gone);
    rig.gpus[0].set(Mode::Hang);
    let running = rig.begin(ramp(1));
    until("the first is busy", || entered(&rig)[0] == 1).await;
    // The second finds out that its device is gone, and has nobody to turn to but the first.
    let relieved = rig.begin(ramp(1));
    until("the second is down", || !is_up(&rig, DeviceId::gpu(1))).await;
    until("it is handed on", || rig.queued(1) == 1).await;
    rig.gpus[0].set(Mode::Good);
    assert_by_a_gpu(&running.await.unwrap().unwrap());
    assert_by_a_gpu(&relieved.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_model_is_served_where_one_gpu_takes_it() {
    let rig = Rig::gpus(2, |settings| settings.fallback = FallbackPolicy::Never).await;
    rig.gpus[0].set(Mode::Gone);
    until("a request finds it gone", || {
        entered(&rig)[0] == 1 || {
            drop(rig.begin(ramp(1)));
            false
        }
    })
    .await;
    until("it is down", || !is_up(&rig, DeviceId::gpu(0))).await;
    rig.system.load(forecaster(), 2).await.unwrap();
    assert_by_a_gpu(&rig.ask().await.unwrap());
}

fn quick(settings: &mut Settings) {
    settings.profiles.default = Profile::UltraLowLatency;
}

/// How many plans stay on each.
fn staying(rig: &Rig) -> Vec<usize> {
    let devices = rig.system.health().devices;
    devices.iter().filter(|one| one.backend == Backend::Gpu).map(|one| one.residents.len()).collect()
}

async fn ask_version(rig: &Rig, version: u32) -> Forecast {
    let mut request = rig.request(ramp(1));
    request.version = Some(version);
    rig.system.forecast(request).await.unwrap()
}

#[tokio::test]
async fn models_that_stay_are_spread_and_asked_where_they_stay() {
    let rig = Rig::gpus(2, quick).await;
    assert_eq!(staying(&rig), [1, 0]);
    rig.system.load(forecaster(), 2).await.unwrap();
    assert_eq!(staying(&rig), [1, 1]);
    for asked in 1..=3 {
        for version in [1, 2] {
            assert_by_a_gpu(&ask_version(&rig, version).await);
        }
        assert_eq!([0, 1].map(|at: usize| rig.gpus[at].answered_staying()), [asked, asked]);
    }
    assert_eq!(entered(&rig), [0, 0]);
    rig.system.load(forecaster(), 3).await.unwrap();
    assert!(rig.system.unload(MODEL, Some(2)).await);
    until("the second has room", || staying(&rig) == [2, 0]).await;
    rig.system.load(forecaster(), 4).await.unwrap();
    assert_eq!(staying(&rig), [2, 1]);
}

#[tokio::test]
async fn a_model_that_stays_is_answered_by_another_while_its_own_gpu_is_away() {
    let rig = Rig::gpus(2, quick).await;
    rig.gpus[0].set(lost());
    rig.gpus[0].set_staying(Staying::Not(NotServed::Away));
    assert_by_a_gpu(&rig.ask().await.unwrap());
    assert_eq!((entered(&rig), rig.gpus[1].answered_staying()), (vec![1, 1], 0), "the ordinary way");
    rig.gpus[0].set(Mode::Good);
    rig.gpus[0].set_staying(Staying::Serves);
    rig.recover("it is back with what stayed", || is_up(&rig, DeviceId::gpu(0)) && staying(&rig) == [1, 0])
        .await;
}

#[tokio::test]
async fn where_one_has_no_room_to_stay_the_next_one_is_asked() {
    let rig = Rig::gpus(3, quick).await;
    rig.gpus[1].set_staying(Staying::Refused);
    rig.system.load(forecaster(), 2).await.unwrap();
    assert_eq!(staying(&rig), [1, 0, 1]);
    assert_eq!(rig.gpus.iter().map(|gpu| gpu.stays().len()).collect::<Vec<_>>(), [1, 1, 1]);
    rig.gpus[1].set_staying(Staying::Serves);
    assert!(rig.system.unload(MODEL, Some(2)).await);
    until("it has left", || staying(&rig) == [1, 0, 0]).await;
    assert_eq!(rig.gpus[1].stays().len(), 1, "it was not to stay where it had been refused");
}

/// A node whose CPU answers first, with a GPU that does not come up before what is returned is dropped.
fn with_slow_driver(change: impl FnOnce(&mut Settings)) -> (Rig, mpsc::Sender<()>) {
    let mut settings = Settings { inline_macs_max: 0, cpu_first: true, ..Settings::default() };
    settings.checks.every = Duration::ZERO;
    change(&mut settings);
    let clock = Arc::new(ManualClock::new());
    let (cpu, gpu) = (Script::new(&clock), Script::new(&clock));
    let (driver, ready) = mpsc::channel::<()>();
    let (ready, factory) = (Mutex::new(ready), gpu.factory(Backend::Gpu));
    let slow: ExecutorFactory = Arc::new(move || {
        let _gone = ready.lock().recv();
        factory()
    });
    let system = System::start(settings, cpu.factory(Backend::Cpu), [slow], clock.clone(), 7).unwrap();
    (Rig { system, cpu, gpus: vec![Arc::clone(&gpu)], gpu, clock }, driver)
}

#[tokio::test]
async fn the_cpu_answers_until_the_gpu_has_come_up_and_has_the_models() {
    let (rig, driver) = with_slow_driver(|_| {});
    let unloaded = Arc::new(Forecaster::load(&folder()).unwrap().named("unloaded"));
    for (forecaster, version) in [(forecaster(), 1), (unloaded, 1)] {
        rig.system.load(forecaster, version).await.unwrap();
    }
    let by_cpu = rig.ask().await.unwrap();
    assert_eq!((by_cpu.backend, by_cpu.degraded), (Backend::Cpu, true));
    assert!(rig.system.unload("unloaded", None).await);

    // Up, and not to be asked: the first of its callers would wait for weights and kernels.
    drop(driver);
    until("the gpu is up", || is_up(&rig, DeviceId::gpu(0))).await;
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu);
    assert_eq!((rig.gpu.entered(), rig.gpu.loaded()), (0, 0));

    rig.system.bring_gpus().await;
    assert_eq!((rig.gpu.entered(), rig.gpu.loaded()), (0, 1), "what is served, and no more");
    assert_by_a_gpu(&rig.ask().await.unwrap());
    let late = Arc::new(Forecaster::load(&folder()).unwrap().named("late"));
    rig.system.load(late, 1).await.unwrap();
    assert_eq!(rig.gpu.loaded(), 2, "from now on a model is ready when the gpu has it");
}

#[tokio::test]
async fn a_gpu_that_comes_late_answers_from_then_on() {
    let (rig, driver) = with_slow_driver(|_| {});
    rig.system.load(forecaster(), 1).await.unwrap();
    let bringing = tokio::spawn({
        let system = rig.system.clone();
        async move { system.bring_gpus().await }
    });
    for _ in 0..3 {
        assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu);
    }
    drop(driver);
    bringing.await.unwrap();
    assert_by_a_gpu(&rig.ask().await.unwrap());
}

#[tokio::test]
async fn a_gpu_that_never_comes_keeps_nobody_waiting() {
    let (rig, driver) = with_slow_driver(|_| {});
    rig.gpu.set(Mode::Gone);
    rig.system.load(forecaster(), 1).await.unwrap();
    drop(driver);
    rig.system.bring_gpus().await;
    assert_eq!(rig.ask().await.unwrap().backend, Backend::Cpu);
    rig.gpu.set(Mode::Good);
    rig.recover("it is there after all", || is_up(&rig, DeviceId::gpu(0))).await;
    until("probes may try", || state(&rig, DeviceId::gpu(0)) == BreakerState::HalfOpen).await;
    assert_by_a_gpu(&rig.ask().await.unwrap());
}

#[tokio::test]
async fn where_the_cpu_stands_in_for_less_than_all_models_wait_for_the_gpu() {
    let (rig, driver) = with_slow_driver(|settings| {
        settings.fallback_by_model.insert(MODEL.to_owned(), FallbackPolicy::Never);
    });
    let loading = tokio::spawn({
        let system = rig.system.clone();
        async move { system.load(forecaster(), 1).await }
    });
    until("it is on its way", || rig.cpu.loaded() == 1).await;
    assert!(!loading.is_finished() && rig.ask().await.is_err());
    drop(driver);
    loading.await.unwrap().unwrap();
    assert_by_a_gpu(&rig.ask().await.unwrap());
}

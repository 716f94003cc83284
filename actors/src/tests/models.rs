//! Models that come and go under traffic, and forecasts that do not depend on their company.

use std::sync::Arc;

use peregrine_runtime::SystemClock;
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{ExecuteError, Executor, Forecaster, Precision, Windows};

use super::{MODEL, Rig, WINDOW, folder, forecaster, ramp, until};
use crate::{ExecutorFactory, ForecastRequest, LoadRefused, Profile, Settings, System};

#[tokio::test]
async fn replacing_a_model_under_traffic_loses_nothing() {
    let rig = Rig::gpu(|_| {}).await;
    let mut requests = Vec::new();
    for round in 0..4 {
        requests.extend((0..50).map(|_| rig.begin(ramp(1))));
        rig.system.load(forecaster(), 1 + round % 2).await.unwrap();
    }
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(rig.system.models().len(), 2);
    until("only two plans stay on the device", || rig.gpu.loaded() == 2).await;
    let answered: u64 = rig.system.stats().iter().map(|stats| stats.success.count).sum();
    assert_eq!(answered, 200, "a replaced version goes on counting");
}

#[tokio::test]
async fn an_unloaded_model_finishes_what_it_accepted_and_leaves_the_device() {
    let rig = Rig::cpu(|_| {}).await;
    rig.cpu.set(super::fake::Mode::Hang);
    let running = rig.begin(ramp(1));
    until("it runs", || rig.cpu.entered() == 1).await;
    assert!(rig.system.unload(MODEL, Some(1)).await);
    assert!(!rig.system.unload(MODEL, None).await, "there is none any more");
    assert!(rig.ask().await.is_err());
    rig.cpu.set(super::fake::Mode::Good);
    running.await.unwrap().unwrap();
    until("the device forgets it", || rig.cpu.loaded() == 0).await;
}

#[tokio::test]
async fn of_models_that_stream_one_at_a_time_is_on_the_device() {
    let rig = Rig::cpu(|settings| settings.profiles.default = Profile::MemoryOptimized).await;
    let other = Arc::new(Forecaster::load(&folder()).unwrap().named("other"));
    rig.system.load(other, 1).await.unwrap();
    assert_eq!(rig.cpu.loaded(), 0, "they fit, and are not kept");
    for model in [MODEL, "other", MODEL, MODEL] {
        let request = ForecastRequest { model: model.into(), ..rig.request(ramp(1)) };
        rig.system.forecast(request).await.unwrap();
        assert_eq!(rig.cpu.loaded(), 1, "only `{model}`");
    }
}

#[tokio::test]
async fn matrices_have_halves_where_a_profile_or_the_owner_wants_them() {
    use Precision::{F16, F32, Int8};
    type Choose = fn(&mut Settings);
    let cases: [(bool, Choose, Precision); 7] = [
        (true, |settings| settings.profiles.default = Profile::HighThroughput, F16),
        (true, |settings| settings.profiles.default = Profile::Balanced, F32),
        (false, |settings| settings.profiles.default = Profile::HighThroughput, F32),
        (false, |settings| settings.precision = Some(F16), F16),
        (true, |settings| settings.precision = Some(Int8), Int8),
        (
            true,
            |settings| {
                settings.profiles.default = Profile::HighThroughput;
                settings.precision_by_model.insert(MODEL.to_owned(), Some(F32));
            },
            F32,
        ),
        (
            true,
            |settings| {
                settings.precision = Some(F16);
                settings.precision_by_model.insert(MODEL.to_owned(), None);
            },
            F32,
        ),
    ];
    let exact = forecaster();
    for (at, (gpu, choose, wanted)) in cases.into_iter().enumerate() {
        let rig = if gpu { Rig::gpu(choose).await } else { Rig::cpu(choose).await };
        let models = rig.system.models();
        let (hex, precision) = Precision::of_digest(&models[0].digest);
        assert_eq!((hex, precision), (exact.digest(), wanted), "case {at}");
        assert_eq!(models[0].weight_bytes < exact.weight_bytes(), wanted != F32, "case {at}");
        rig.ask().await.unwrap();
    }
}

#[tokio::test]
async fn a_model_that_stays_is_not_moved_by_one_that_streams() {
    let streams = |settings: &mut Settings| {
        settings.profiles.by_model.insert("other".into(), Profile::MemoryOptimized);
    };
    let rig = Rig::cpu(streams).await;
    let other = Arc::new(Forecaster::load(&folder()).unwrap().named("other"));
    rig.system.load(other, 1).await.unwrap();
    for (model, loaded) in [(MODEL, 1), ("other", 2), (MODEL, 1)] {
        let request = ForecastRequest { model: model.into(), ..rig.request(ramp(1)) };
        rig.system.forecast(request).await.unwrap();
        assert_eq!(rig.cpu.loaded(), loaded, "after `{model}`");
    }
}

#[tokio::test]
async fn no_model_is_loaded_without_a_device() {
    let broken: ExecutorFactory = Arc::new(|| Err(ExecuteError::Refused("no".into())));
    let system = System::start(Settings::default(), broken, None, Arc::new(SystemClock), 7).unwrap();
    assert!(matches!(system.load(forecaster(), 1).await, Err(LoadRefused::DeviceDown { .. })));
    assert!(system.models().is_empty() && !system.health().ready);
}

#[tokio::test]
async fn models_that_are_loaded_together_come_in_one_moment_or_not_at_all() {
    let rig = Rig::cpu(|_| {}).await;
    let named = |name: &str| Arc::new(Forecaster::load(&folder()).unwrap().named(name));
    let served = || {
        let names = rig.system.models().into_iter().map(|model| (model.spec.name.clone(), model.version));
        let mut names: Vec<(String, u32)> = names.collect();
        names.sort();
        names
    };
    rig.system.load_together(vec![(named("x"), 1), (named("y"), 2)]).await.unwrap();
    let both = [("x".to_owned(), 1), ("y".to_owned(), 2)];
    assert!(both.iter().all(|one| served().contains(one)) && served().len() == 3, "{:?}", served());

    // The second is larger than the device: the first does not come either.
    let before = served();
    rig.cpu.refuse_after(1);
    let refused = rig.system.load_together(vec![(named("p"), 1), (named("q"), 1)]).await;
    assert!(matches!(&refused, Err((name, LoadRefused::Device { .. })) if name == "q"), "{refused:?}");
    assert_eq!(served(), before);
}

#[tokio::test]
async fn a_row_forecasts_the_same_alone_and_among_a_thousand() {
    let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(2)) as Box<dyn Executor>));
    let system = System::start(Settings::default(), cpu, None, Arc::new(SystemClock), 7).unwrap();
    system.load(forecaster(), 1).await.unwrap();
    let ask = |windows| {
        let deadline = system.default_deadline();
        system.forecast(ForecastRequest::new(MODEL, windows, deadline))
    };
    let many = ramp(1000);
    let together = ask(many.clone()).await.unwrap();
    let row_len = together.spec.answer_len();
    for row in [0, 1, 499, 999] {
        let y = many.y[row * WINDOW..][..WINDOW].to_vec();
        let alone = ask(Windows { rows: 1, y, ..Windows::default() }).await.unwrap();
        assert_eq!(alone.values, together.values[row * row_len..][..row_len], "row {row}");
    }
}

#[tokio::test]
async fn counters_only_grow_over_unloading() {
    let rig = Rig::cpu(|_| {}).await;
    rig.ask().await.unwrap();
    assert!(rig.system.unload(MODEL, None).await);
    rig.system.load(forecaster(), 1).await.unwrap();
    rig.ask().await.unwrap();
    assert_eq!(rig.system.stats()[0].success.count, 2);
}

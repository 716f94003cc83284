//! Whole systems on fake devices: every failure, and what callers see of it.

mod audit;
mod breakers;
mod devices;
mod failures;
mod fake;
mod in_line;
mod meters;
mod models;
mod placement;
mod queueing;
mod releases;
mod remote;
mod residents;
mod series;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_runtime::{Deadline, ManualClock};
use peregrine_shaders::{Backend, Forecaster, Windows};

use crate::{Forecast, ForecastError, ForecastRequest, Settings, System};
use fake::Script;

const MODEL: &str = "nhits-168x24-quantile";
const WINDOW: usize = 168;

/// A system on fakes, with one model in version 1.
struct Rig {
    system: System,
    cpu: Arc<Script>,
    /// The first of the GPUs.
    gpu: Arc<Script>,
    gpus: Vec<Arc<Script>>,
    clock: Arc<ManualClock>,
}

impl Rig {
    /// With a CPU alone; every request goes through the queue.
    async fn cpu(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start(0, change).await
    }

    /// With a GPU that the CPU stands by.
    async fn gpu(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start(1, change).await
    }

    /// With several GPUs that the CPU stands by.
    async fn gpus(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start(count, change).await
    }

    async fn start(count: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings { inline_macs_max: 0, ..Settings::default() };
        settings.breaker.calls_min = 2;
        settings.breaker.open_for = Duration::from_secs(60);
        settings.breaker.open_for_max = Duration::from_secs(600);
        // Tests of checks switch them on.
        settings.checks.every = Duration::ZERO;
        change(&mut settings);
        let clock = Arc::new(ManualClock::new());
        let (cpu, gpu) = (Script::new(&clock), Script::new(&clock));
        let mut gpus = vec![Arc::clone(&gpu)];
        gpus.resize_with(count.max(1), || Script::new(&clock));
        let factories = gpus.iter().take(count).map(|gpu| gpu.factory(Backend::Gpu));
        let system = System::start(settings, cpu.factory(Backend::Cpu), factories, clock.clone(), 7).unwrap();
        system.load(forecaster(), 1).await.unwrap();
        Self { system, cpu, gpu, gpus, clock }
    }

    /// One request of one window, answered within 10 s.
    async fn ask(&self) -> Result<Forecast, ForecastError> {
        self.system.forecast(self.request(ramp(1))).await
    }

    fn request(&self, windows: Windows) -> ForecastRequest {
        let deadline = Deadline::after(peregrine_runtime::Clock::now(&*self.clock), Duration::from_secs(10));
        ForecastRequest::new(MODEL, windows, deadline)
    }

    /// Begins a request and goes on.
    fn begin(&self, windows: Windows) -> tokio::task::JoinHandle<Result<Forecast, ForecastError>> {
        let (system, request) = (self.system.clone(), self.request(windows));
        tokio::spawn(async move { system.forecast(request).await })
    }

    /// Lets virtual time pass until something holds: backoffs end by the system's clock.
    async fn recover(&self, what: &'static str, holds: impl Fn() -> bool) {
        let passing = || {
            self.clock.advance(Duration::from_millis(1));
            holds()
        };
        until(what, passing).await;
    }

    fn queued(&self, device: usize) -> usize {
        self.system.health().devices[device].queue_requests
    }
}

fn forecaster() -> Arc<Forecaster> {
    Arc::new(Forecaster::load(&folder()).unwrap())
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models").join(MODEL)
}

/// Windows that differ from row to row.
fn ramp(rows: usize) -> Windows {
    let y = (0..rows * WINDOW).map(|at| {
        let (row, step) = (at / WINDOW, at % WINDOW);
        ((step * (row % 13 + 3)) % 29) as f32 + row as f32 * 0.125
    });
    Windows { rows, y: y.collect(), ..Windows::default() }
}

/// A window in which nothing happens: the one that fakes can be told to choke on.
fn constant() -> Windows {
    Windows { rows: 1, y: vec![5.0; WINDOW], ..Windows::default() }
}

/// Lets others run until something holds.
#[track_caller]
fn until(what: &'static str, holds: impl Fn() -> bool) -> impl Future<Output = ()> {
    let give_up = Instant::now() + Duration::from_secs(15);
    async move {
        while !holds() {
            assert!(Instant::now() < give_up, "never came true: {what}");
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }
}

//! What one forecast costs on the way through the actors, with and without running in the caller's thread.
//!
//! `cargo run --release -p peregrine_actors --example forecast_cost`

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peregrine_actors::{ExecutorFactory, ForecastRequest, Settings, System};
use peregrine_runtime::{Deadline, SystemClock};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Forecaster, Windows};

const MODEL: &str = "nhits-168x24-quantile";

fn main() {
    let cpu: ExecutorFactory = Arc::new(|| Ok(Box::new(CpuExecutor::new(2)) as Box<dyn Executor>));
    measure("cpu executor", &cpu);
}

fn forecaster() -> Arc<Forecaster> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/");
    Arc::new(Forecaster::load(&Path::new(dir).join(MODEL)).expect("a model that ships"))
}

fn ramp() -> Windows {
    Windows { rows: 1, y: (0..168).map(|i| (i as f32 * 0.37).sin()).collect(), ..Windows::default() }
}

fn measure(what: &str, cpu: &ExecutorFactory) {
    for inline in [Settings::default().inline_macs_max, 0] {
        let settings = Settings { inline_macs_max: inline, ..Settings::default() };
        let system =
            System::start(settings, Arc::clone(cpu), None, Arc::new(SystemClock), 7).expect("it runs");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it runs");
        runtime.block_on(system.load(forecaster(), 1)).expect("it runs");
        let mut times: Vec<_> = (0..4000).map(|_| runtime.block_on(timed(&system))).collect();
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        let (p50, p99) = (at(0.5), at(0.99));
        let count = AtomicU64::new(0);
        let window = Duration::from_secs(2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it runs");
                    let tasks = (0..4).map(|_| async {
                        let until = Instant::now() + window;
                        while Instant::now() < until {
                            timed(&system).await;
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    runtime.block_on(futures_util::future::join_all(tasks));
                });
            }
        });
        let rate = count.load(Ordering::Relaxed) as f64 / window.as_secs_f64();
        println!(
            "{what}, inline up to {inline} macs: p50 {p50:?} p99 {p99:?}, 8 tasks on 2 threads {rate:.0}/s"
        );
    }
}

async fn timed(system: &System) -> Duration {
    let windows = ramp();
    let started = Instant::now();
    let deadline = Deadline::after(started, Duration::from_secs(5));
    system.forecast(ForecastRequest::new(MODEL, windows, deadline)).await.expect("it runs");
    started.elapsed()
}

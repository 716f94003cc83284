//! `peregrine bench --profiles`: what each profile gives on this machine, measured inside this process.
//!
//! Per profile a system of actors of its own on the configured devices, with every model loaded. Inputs are fresh
//! random walks; an answer that is not finite or not of the right length ends the bench.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use peregrine_actors::{ForecastError, ForecastRequest, LoadRefused, Profile, Profiles, System};
use peregrine_runtime::{Clock, Deadline, SystemClock};
use peregrine_shaders::{Forecaster, LoadError, ModelSpec, Windows};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::load::{self, LoadArgs};
use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json, print_line, print_table};
use crate::{backends, catalog, settings};

/// Requests that are under way at once in the second measurement.
const AT_ONCE: usize = 64;
/// Rows of a request in the third.
const BATCH_ROWS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("With --profiles: configuration file; later ones win over earlier ones")))]
#[command(mut_arg("models", |arg| arg.help("With --profiles: adds a model repository")))]
pub(super) struct BenchArgs {
    /// What each profile gives here, inside this process
    #[arg(long)]
    profiles: bool,
    /// Which model is asked; default: the configured one
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Length of each measurement: of a profile, or of one window under load
    #[arg(long, default_value_t = 2.0)]
    pub(super) seconds: f64,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    #[command(flatten)]
    pub(super) models: ModelsArgs,
    /// As JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

/// Why a bench gave up.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// A model does not load.
    #[error("model `{model}`: {source}")]
    Load { model: String, source: LoadError },
    /// A device refuses a model.
    #[error("model `{model}`: {source}")]
    Refused { model: String, source: LoadRefused },
    /// A forecast failed.
    #[error("a forecast failed: {0}")]
    Forecast(#[from] ForecastError),
    /// No thread or no runtime is to be had.
    #[error("cannot start: {0}")]
    Start(String),
}

/// What one profile gave.
struct Measured {
    profile: Profile,
    single_p50: Duration,
    single_p99: Duration,
    requests_per_s: f64,
    windows_per_s: f64,
    process_bytes: u64,
    backends: String,
}

pub(super) fn run(args: BenchArgs) -> Result<(), CliError> {
    if !args.profiles {
        return load::run(&args);
    }
    if !(0.1..=600.0).contains(&args.seconds) {
        return Err(CliError::Usage("--seconds is not within 0.1 and 600".to_owned()));
    }
    let config = args.config.resolved(&args.models)?.config;
    let mut models = Vec::new();
    for entry in catalog::scan(&config.models.repositories)? {
        let loaded = catalog::load(&entry, &config.models.vault);
        let failed = |source| BenchError::Load { model: entry.name.clone(), source };
        models.push((Arc::new(loaded.map_err(failed)?), entry.version));
    }
    let wanted = args.model.or(config.models.default.clone());
    let asked =
        models.iter().find(|(model, _)| wanted.as_ref().is_none_or(|name| *name == model.spec().name));
    let Some((asked, _)) = asked else {
        return Err(CliError::Usage("no repository holds the model; `--model NAME` names one".to_owned()));
    };
    let spec = Arc::clone(asked.spec());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let each = Duration::from_secs_f64(args.seconds);
    let mut all = Vec::new();
    for profile in Profile::ALL {
        let factories = backends::factories(&config.backend)?;
        let mut settings = settings::settings(&config, factories.placement);
        settings.profiles = Profiles { default: profile, ..Profiles::default() };
        settings.batching.request_rows_max = settings.batching.request_rows_max.max(BATCH_ROWS);
        settings.batching.queue_rows_max = settings.batching.queue_rows_max.max(2 * BATCH_ROWS);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let system =
            System::start(settings, factories.cpu, factories.gpus, Arc::clone(&clock), rand::random())
                .map_err(|error| BenchError::Start(error.to_string()))?;
        let measured = runtime.block_on(async {
            let measured = measure(&system, &models, &spec, profile, each).await;
            system.stop(Deadline::after(clock.now(), PATIENCE)).await;
            measured
        })?;
        all.push(measured);
    }
    print(&spec.name, &all, args.json)
}

async fn measure(
    system: &System,
    models: &[(Arc<Forecaster>, u32)],
    spec: &ModelSpec,
    profile: Profile,
    each: Duration,
) -> Result<Measured, BenchError> {
    for (model, version) in models {
        let name = &model.spec().name;
        let refused = |source| BenchError::Refused { model: name.clone(), source };
        system.load(Arc::clone(model), *version).await.map_err(refused)?;
    }
    let mut inputs = SmallRng::seed_from_u64(1);
    // Devices learn their pace, and the first allocations are made.
    for rows in [1, 1, BATCH_ROWS, 1] {
        ask(system, spec, &mut inputs, rows).await?;
    }
    let started = Instant::now();
    let mut singles = Vec::new();
    while started.elapsed() < each {
        singles.push(ask(system, spec, &mut inputs, 1).await?);
    }
    singles.sort_unstable();
    let at = |share: f64| singles[((singles.len() - 1) as f64 * share) as usize];

    let started = Instant::now();
    let mut answered = 0_u64;
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE && started.elapsed() < each {
            under_way.push(forecast(system, spec, windows(spec, &mut inputs, 1)));
        }
        match under_way.next().await {
            Some(answer) => answer?,
            None => break,
        };
        answered += 1;
    }
    let requests_per_s = answered as f64 / started.elapsed().as_secs_f64();

    let started = Instant::now();
    let (mut rows, mut asked) = (0, Duration::ZERO);
    while started.elapsed() < each {
        // Making a thousand random walks takes about as long as forecasting them.
        asked += ask(system, spec, &mut inputs, BATCH_ROWS).await?;
        rows += BATCH_ROWS;
    }
    let windows_per_s = rows as f64 / asked.as_secs_f64();
    let stats = system.stats().into_iter().find(|stats| stats.model == spec.name);
    let used = stats.iter().flat_map(|stats| &stats.backends).filter(|backend| backend.requests > 0);
    let backends = used.map(|backend| format!("{} {}", backend.backend.name(), backend.rows));
    Ok(Measured {
        profile,
        single_p50: at(0.5),
        single_p99: at(0.99),
        requests_per_s,
        windows_per_s,
        process_bytes: system.health().system.map_or(0, |vitals| vitals.process_bytes),
        backends: backends.collect::<Vec<_>>().join(", "),
    })
}

/// One request of `rows` windows, and how long it took.
async fn ask(
    system: &System,
    spec: &ModelSpec,
    inputs: &mut SmallRng,
    rows: usize,
) -> Result<Duration, BenchError> {
    let windows = windows(spec, inputs, rows);
    let started = Instant::now();
    forecast(system, spec, windows).await?;
    Ok(started.elapsed())
}

async fn forecast(system: &System, spec: &ModelSpec, windows: Windows) -> Result<(), BenchError> {
    let deadline = Deadline::after(SystemClock.now(), PATIENCE);
    let request = ForecastRequest::new(spec.name.clone(), windows, deadline);
    system.forecast(request).await?;
    Ok(())
}

/// Random walks around −2, and random numbers for everything exogenous.
fn windows(spec: &ModelSpec, inputs: &mut SmallRng, rows: usize) -> Windows {
    let mut noise = |len: usize| -> Vec<f32> { (0..len).map(|_| inputs.random_range(-0.5..0.5)).collect() };
    let span = spec.window + spec.horizon;
    let mut y = noise(rows * spec.y_len());
    for row in y.chunks_exact_mut(spec.y_len()) {
        let mut level = -2.0;
        for value in row {
            level = 0.95 * level - 0.1 + *value;
            *value = level;
        }
    }
    Windows {
        rows,
        y,
        mask: None,
        hist_exog: noise(rows * spec.window * spec.hist_exog.len()),
        futr_exog: noise(rows * span * spec.futr_exog.len()),
        stat_exog: noise(rows * spec.stat_exog.len()),
    }
}

fn print(model: &str, all: &[Measured], as_json: bool) -> Result<(), CliError> {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    if as_json {
        let rows: Vec<Value> = all
            .iter()
            .map(|m| {
                json!({
                    "profile": m.profile.name(),
                    "single_p50_us": micros(m.single_p50),
                    "single_p99_us": micros(m.single_p99),
                    "requests_per_second": m.requests_per_s,
                    "windows_per_second": m.windows_per_s,
                    "process_bytes": m.process_bytes,
                    "rows_by_backend": m.backends,
                })
            })
            .collect();
        let body = json!({ "model": model, "at_once": AT_ONCE, "batch_rows": BATCH_ROWS, "profiles": rows });
        return Ok(print_json(&body)?);
    }
    let header =
        ["profile", "1 row p50", "p99", "64 at once", "batches of 1,000", "process", "rows by backend"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|m| {
        vec![
            m.profile.name().to_owned(),
            format!("{:.0} us", micros(m.single_p50)),
            format!("{:.0} us", micros(m.single_p99)),
            format!("{:.0} requests/s", m.requests_per_s),
            format!("{:.0} windows/s", m.windows_per_s),
            format!("{} MiB", m.process_bytes >> 20),
            m.backends.clone(),
        ]
    }));
    print_line(model)?;
    Ok(print_table(&rows)?)
}

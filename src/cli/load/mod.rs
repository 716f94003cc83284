//! `peregrine bench`: load on a server over its own protocols, and what became of it.
//!
//! Starts nothing: the server is whoever answers at the URL. The generator is the crate `peregrine_load`.

mod against;
mod hops;
mod measure;
mod report;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_load::request::{self, Ask, Kind};
use peregrine_load::session::Level;
use peregrine_load::shape::{self, Shape};
use peregrine_load::target::{Target, Trust};
use peregrine_load::{LoadError, control, ramp};
use serde_json::Value;

use super::CliError;
use super::bench::BenchArgs;
use super::trust::{node_url, shown_key};
use crate::client::KEY_VARIABLE;

/// Rows that no server takes in one request.
const ROWS_MAX: usize = 65_536;
const CONNECTIONS_MAX: usize = 65_536;
const THREADS_MAX: usize = 64;
/// Requests a second: one in a quarter of an hour, and more than one machine sends.
const RATE_MIN: f64 = 0.001;
const RATE_MAX: f64 = 1e6;
/// Longest window and warm-up, in seconds.
const SECONDS_MAX: f64 = 600.0;

/// How requests are made.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Body {
    /// /v2/models/M/infer with tensors in JSON
    Json,
    /// The same with raw tensors
    Binary,
    /// /neural/predict, or /neural/batch_predict with --rows
    Neural,
    /// /v1/forecast
    Native,
    /// Ticks over /v1/stream, each answered by its prediction
    Stream,
}

impl From<Body> for Kind {
    fn from(body: Body) -> Self {
        match body {
            Body::Json => Self::Json,
            Body::Binary => Self::Binary,
            Body::Neural => Self::Neural,
            Body::Native => Self::Native,
            Body::Stream => Self::Stream,
        }
    }
}

/// The options of a load.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = node_url)]
    #[arg(conflicts_with = "profiles")]
    url: String,
    /// Another one: short windows in turns, A B B A, and the ratio of the two
    #[arg(long, value_name = "URL", value_parser = node_url, conflicts_with_all = ["profiles", "breakdown"])]
    against: Option<String>,
    /// Closed loop: connections, each of which asks again once it is answered. `8`, `1:64` (doubling) or `10:50:10`
    #[arg(long, value_name = "A:B:STEP", conflicts_with_all = ["profiles", "rate"])]
    concurrency: Option<String>,
    /// Open loop: requests a second at random moments, answered or not, and latency counted from when each was due
    #[arg(long, value_name = "A:B:STEP", conflicts_with = "profiles")]
    rate: Option<String>,
    /// Connections of an open loop; what is due while all are busy waits, and its wait counts
    #[arg(long, value_name = "N", default_value_t = 64)]
    connections: usize,
    /// How requests are made
    #[arg(long, value_enum, default_value = "binary")]
    body: Body,
    /// Windows in one request
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// A level is over when rate and latency of three windows are within so many per cent of their mean; its figures are
    /// of the last three
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    stable: f64,
    /// Which latency has to be stable
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0)]
    percentile: f64,
    /// …or after so many windows; with --against: pairs of windows
    #[arg(long, value_name = "N", default_value_t = 10)]
    windows: usize,
    /// Seconds of load before anything counts but failures
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warmup: f64,
    /// What the server is told to give up after, with the bodies json, binary and native
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// Longest wait for an answer; then the connection is made anew
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    timeout: f64,
    /// API key, or @FILE that holds it; default: what PEREGRINE_API_KEY holds
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// PEM file with who vouches for an https server
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Series of the server for the body `neural`; default: of the data that ship
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_values = ["AUD", "CAD", "CHF", "GBP", "JPY", "USD"])]
    symbols: Vec<String>,
    /// Threads of the generator
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Of the windows and of the moments of an open loop
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A row for each window
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// The generator's threads stay awake while they wait, a core each: the figures are without the client's wake-ups
    #[arg(long, conflicts_with = "profiles")]
    busy_poll: bool,
    /// One request at a time, hop by hop
    #[arg(long, conflicts_with_all = ["profiles", "rate", "concurrency"])]
    breakdown: bool,
}

/// What is measured and how, checked.
struct Plan {
    target: Target,
    against: Option<Target>,
    shape: Shape,
    ask: Ask,
    levels: Vec<Level>,
    window: Duration,
    warmup: Duration,
    stable_percent: f64,
    percentile: f64,
    windows_max: usize,
    threads: usize,
    csv: Option<PathBuf>,
    as_json: bool,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    let plan = plan(args)?;
    if args.load.breakdown {
        return hops::run(&plan);
    }
    if let Some(against) = &plan.against {
        return against::run(&plan, against);
    }
    let bar = bar(plan.levels.len() * plan.windows_max);
    let mut levels = Vec::with_capacity(plan.levels.len());
    for &level in &plan.levels {
        levels.push(measure::level(&plan, level, &bar)?);
    }
    bar.finish_and_clear();
    report::print(&plan, &levels)
}

fn plan(args: &BenchArgs) -> Result<Plan, CliError> {
    let load = &args.load;
    let usage = |text: &str| CliError::Usage(text.to_owned());
    let seconds = |name: &str, value: f64, least: f64| {
        let wrong = || CliError::Usage(format!("{name} is not within {least} and {SECONDS_MAX}"));
        if (least..=SECONDS_MAX).contains(&value) { Ok(Duration::from_secs_f64(value)) } else { Err(wrong()) }
    };
    if !args.config.files.is_empty() || !args.models.dirs.is_empty() {
        return Err(usage("--config and --models go with --profiles: under load the server has its own"));
    }
    let within = [
        ("--rows", load.rows, ROWS_MAX),
        ("--connections", load.connections, CONNECTIONS_MAX),
        ("--threads", load.threads, THREADS_MAX),
        ("--windows", load.windows, 10_000),
    ];
    for (name, value, most) in within {
        if !(1..=most).contains(&value) {
            return Err(CliError::Usage(format!("{name} is not within 1 and {most}")));
        }
    }
    if !(load.stable > 0.0 && load.stable <= 100.0 && load.percentile > 0.0 && load.percentile <= 100.0) {
        return Err(usage("--stable and --percentile are above 0 and at most 100"));
    }
    if load.deadline_ms == Some(0) {
        return Err(usage("--deadline-ms is at least 1"));
    }
    let levels = levels(load).map_err(|error| CliError::Usage(error.to_string()))?;
    if levels.iter().any(|level| level.connections > CONNECTIONS_MAX) {
        return Err(usage("more than 65536 connections"));
    }
    if levels.iter().filter_map(|level| level.rate).any(|rate| !(RATE_MIN..=RATE_MAX).contains(&rate)) {
        return Err(usage("--rate is not within 0.001 and 1000000"));
    }
    if load.against.is_some() && levels.len() > 1 {
        return Err(usage("--against compares at one level"));
    }
    let trust = match (&load.ca, load.insecure) {
        (Some(file), _) => Trust::File(file.clone()),
        (None, true) => Trust::Anybody,
        (None, false) => Trust::Usual,
    };
    let key = shown_key(load.key.as_deref())?;
    let timeout = seconds("--timeout", load.timeout, 0.01)?;
    let target = |url: &str| {
        let mut target = Target::new(url, &trust, key.clone(), timeout).map_err(of_usage)?;
        target.busy_poll = load.busy_poll;
        Ok::<_, CliError>(target)
    };
    let against = load.against.as_deref().map(target).transpose()?;
    let (window, warmup) =
        (seconds("--seconds", args.seconds, 0.05)?, seconds("--warmup", load.warmup, 0.0)?);
    let target = target(&load.url)?;
    let shape = shape_of(&target, args.model.as_deref())?;
    if let Some(against) = &against {
        let other = shape_of(against, Some(&shape.model))?;
        if other != shape {
            return Err(usage("the two servers have different models by that name"));
        }
    }
    let ask = Ask {
        kind: load.body.into(),
        rows: load.rows,
        deadline: load.deadline_ms.map(Duration::from_millis),
        seed: load.seed,
        symbols: load.symbols.clone(),
    };
    for target in [Some(&target), against.as_ref()].into_iter().flatten() {
        if let Some(first) = request::sample(target, &shape, &ask)? {
            tried(control::try_one(target, &first), ask.rows)?;
        }
    }
    if let Some(file) = &load.csv {
        // Now, not when the load is over; what is there is replaced only then.
        let opened = fs::OpenOptions::new().append(true).create(true).open(file);
        opened.map_err(|error| CliError::Usage(format!("--csv {}: {error}", file.display())))?;
    }
    Ok(Plan {
        target,
        against,
        shape,
        ask,
        levels,
        window,
        warmup,
        stable_percent: load.stable,
        percentile: load.percentile,
        windows_max: load.windows,
        threads: load.threads,
        csv: load.csv.clone(),
        as_json: args.json,
    })
}

fn levels(load: &LoadArgs) -> Result<Vec<Level>, ramp::RampError> {
    if let Some(rates) = &load.rate {
        let level = |rate| Level { connections: load.connections, rate: Some(rate) };
        return Ok(ramp::ramp(rates)?.into_iter().map(level).collect());
    }
    let counts = ramp::counts(load.concurrency.as_deref().unwrap_or("1"))?;
    Ok(counts.into_iter().map(|connections| Level { connections, rate: None }).collect())
}

/// What becomes of a load whose first request became this.
fn tried(one: Result<(), LoadError>, rows: usize) -> Result<(), CliError> {
    match one {
        Err(refused @ LoadError::Refused { .. }) => Err(of_key(refused)),
        Err(failed) if rows > 1 => Err(failed.into()),
        // It is counted, as others of the load.
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Who mends it where the server refuses the key, or that there is none.
fn of_key(error: LoadError) -> CliError {
    match error {
        LoadError::Refused { status: 401 | 403, .. } => CliError::Reported(format!(
            "{error}; show a key that may with --key or {KEY_VARIABLE}: whoever runs the server gives them out"
        )),
        other => other.into(),
    }
}

/// What of a load is the command line's mistake.
fn of_usage(error: LoadError) -> CliError {
    match error {
        LoadError::Url(_) | LoadError::Certificates { .. } | LoadError::Unsuited(_) => {
            CliError::Usage(error.to_string())
        }
        other => other.into(),
    }
}

/// The named model, or the server's default.
fn shape_of(target: &Target, model: Option<&str>) -> Result<Shape, CliError> {
    let model = match model {
        Some(name) => name.to_owned(),
        None => default_model(target)?,
    };
    let path = shape::path(&model).map_err(of_usage)?;
    Ok(Shape::of(&model, &control::get(target, &path).map_err(of_key)?)?)
}

fn default_model(target: &Target) -> Result<String, CliError> {
    let all = control::get(target, "/v1/models").map_err(of_key)?;
    let named = all["default"].as_str().filter(|name| !name.is_empty());
    let ready = |model: &&Value| model["state"] == "ready";
    let first = || all["models"].as_array()?.iter().find(ready)?["name"].as_str();
    let name = named
        .or_else(first)
        .ok_or_else(|| CliError::Usage("the server names no model; --model does".to_owned()))?;
    Ok(name.to_owned())
}

/// On stderr, and only where that is a terminal.
fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} windows at most, {msg}") {
        bar.set_style(style);
    }
    bar
}

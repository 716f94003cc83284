//! `peregrine models tune`: measures on this machine's GPU which kernels are the fastest for the layers of the models, and keeps
//! that beside what the driver made of them, where every later start finds it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use peregrine_shaders::gpu::{KernelChoice, Tuned};
use peregrine_shaders::{Executor, Plan};
use serde_json::{Value, json};

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json, print_line, print_table, say};
use crate::backends::{self, Tuner};
use crate::catalog;
use crate::config::BackendChoice;

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// How long at most; what is not measured by then is left for another time
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Which device, instead of the configured one
    #[arg(long, value_enum)]
    backend: Option<BackendChoice>,
    /// With matrices of halves as well, as the profiles high_throughput and memory_optimized have them
    #[arg(long)]
    halves: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: TuneArgs) -> Result<(), CliError> {
    if !(0.0..=3600.0).contains(&args.seconds) {
        return Err(CliError::Usage("--seconds is not within 0 and 3600".to_owned()));
    }
    let mut config = args.config.resolved(&args.models)?.config;
    if let Some(backend) = args.backend {
        config.backend.choice = backend;
    }
    let mut plans: Vec<Arc<Plan>> = Vec::new();
    for entry in catalog::scan(&config.models.repositories)? {
        match catalog::load(&entry, &config.models.vault) {
            Ok(model) => {
                plans.extend(model.plans().cloned());
                let halved = args.halves.then(|| model.halved()).flatten();
                plans.extend(halved.iter().flat_map(|model| model.plans().cloned()));
            }
            // As a node does, whose other models are served.
            Err(error) => say(format_args!("{}: {error}", entry.name)),
        }
    }
    if plans.is_empty() {
        return Err(CliError::Usage("no repository holds a model; `--models DIR` adds one".to_owned()));
    }
    let Tuner { mut executor, folder } = backends::open_tuner(&config.backend)?;
    if folder.is_none() {
        say("nothing will be kept: backend.kernel_cache names no folder");
    }
    let tuned = executor.tune(&plans, Duration::from_secs_f64(args.seconds));
    let tuned = tuned.map_err(|error| CliError::Reported(format!("{}: {error}", executor.device())))?;
    let facts = executor.kernels().unwrap_or_default();
    if args.json {
        return Ok(print_json(&json!({
            "device": executor.device(),
            "folder": folder,
            "measured": tuned.measured,
            "known": tuned.known,
            "left": tuned.left,
            "refused": facts.refused,
            "choices": tuned.choices.iter().map(view).collect::<Vec<_>>(),
        }))?);
    }
    let header = ["layer", "rows up to", "arithmetic", "guess", "used", "gain", "microseconds"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(tuned.choices.iter().filter(|choice| !choice.micros.is_empty()).map(cells));
    print_table(&rows)?;
    Ok(print_line(summary(executor.device(), &tuned))?)
}

fn summary(device: &str, tuned: &Tuned) -> String {
    let Tuned { measured, known, left, .. } = tuned;
    format!("{device}: {measured} measured, {known} known before, {left} left to the guess")
}

fn cells(choice: &KernelChoice) -> Vec<String> {
    let micros = choice.micros.iter().map(|(name, micros)| format!("{name} {micros:.1}"));
    let kind = if choice.kind == "plain" { String::new() } else { format!(", {}", choice.kind) };
    vec![
        format!("{} to {}{kind}", choice.in_width, choice.out_width),
        choice.lines.to_string(),
        choice.arithmetic.to_owned(),
        choice.guess.to_owned(),
        choice.chosen.to_owned(),
        choice.gain().map_or_else(|| "-".to_owned(), |gain| format!("{gain:.2}")),
        micros.collect::<Vec<_>>().join(", "),
    ]
}

fn view(choice: &KernelChoice) -> Value {
    let KernelChoice { in_width, out_width, lines, kind, arithmetic, guess, chosen, micros } = choice;
    let micros: serde_json::Map<String, Value> =
        micros.iter().map(|(name, micros)| ((*name).to_owned(), json!(micros))).collect();
    json!({
        "in_width": in_width,
        "out_width": out_width,
        "lines": lines,
        "kind": kind,
        "arithmetic": arithmetic,
        "guess": guess,
        "chosen": chosen,
        "micros": micros,
    })
}

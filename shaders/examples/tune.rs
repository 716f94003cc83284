//! What the measured choice of kernels would gain on this device: for each layer and number of rows the guess, the fastest,
//! and the microseconds of each candidate by the device's own clock.
//!
//! `cargo run --release -p peregrine_shaders --example tune -- models/* 60`: the layers of N-HiTS 512→96, some others, and
//! those of the model folders that are named, or these `--alone`; a number is the seconds for all of it, `--software` takes llvmpipe.
//! Nothing is kept. Batches of more than 4,096 rows are cut into such.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions, KernelChoice};
use peregrine_shaders::{Activation, Executor, Forecaster, Linear, PlainFiles, Plan, PlanBuilder};

use support::{Noise, nhits};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let software = arguments.iter().any(|argument| argument == "--software");
    let seconds = arguments.iter().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(60.0);
    let adapter = if software { AdapterChoice::Software } else { AdapterChoice::Hardware };
    let timeout = Duration::from_secs(60);
    let mut gpu = GpuExecutor::open(&GpuOptions { adapter, timeout, ..GpuOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"));
    let mut plans: Vec<Arc<Plan>> = Vec::new();
    if !arguments.iter().any(|argument| argument == "--alone") {
        plans.push(Arc::new(nhits(512, 512, 96)));
        // 1024×512×512 and 1024×512×1024 are these over 1,024 rows, 4096³ the last one over 4,096.
        plans.extend([(512, 512), (1024, 512), (4096, 4096)].map(|(k, n)| Arc::new(layer(k, n))));
    }
    for folder in arguments.iter().map(Path::new).filter(|path| path.is_dir()) {
        match Forecaster::load_from(folder, &PlainFiles) {
            Ok(forecaster) => plans.extend(forecaster.plans().cloned()),
            Err(error) => println!("{}: {error}", folder.display()),
        }
    }
    let halved: Vec<Arc<Plan>> = plans.iter().filter_map(|plan| plan.halved().map(Arc::new)).collect();
    plans.extend(halved);
    let began = Instant::now();
    let tuned = gpu.tune(&plans, Duration::from_secs_f64(seconds)).unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{}: {} measured, {} left to the guess, {:.1} s, {} kernels refused",
        gpu.device(),
        tuned.measured,
        tuned.left,
        began.elapsed().as_secs_f64(),
        gpu.kernels().map_or(0, |facts| facts.refused),
    );
    let measured: Vec<&KernelChoice> =
        tuned.choices.iter().filter(|choice| !choice.micros.is_empty()).collect();
    for choice in &measured {
        println!("{}", line(choice));
    }
    summary(&measured);
}

fn line(choice: &KernelChoice) -> String {
    let KernelChoice { in_width, out_width, lines, kind, arithmetic, guess, chosen, micros } = choice;
    let micros =
        micros.iter().map(|(name, micros)| format!("{name} {micros:.2}")).collect::<Vec<_>>().join(", ");
    let gain = match choice.gain() {
        Some(gain) if chosen != guess => format!("{guess} → {chosen} {gain:.2}×"),
        None if chosen != guess => format!("{guess} (refused) → {chosen}"),
        _ => (*chosen).to_owned(),
    };
    format!("{lines:>6} × {out_width} × {in_width} {arithmetic} {kind}: {gain}  [{micros}]")
}

/// By arithmetic: how often the guess was not the best, and what it cost.
fn summary(measured: &[&KernelChoice]) {
    for arithmetic in ["single", "half", "matrices"] {
        let gains: Vec<f64> = measured
            .iter()
            .filter(|choice| choice.arithmetic == arithmetic)
            .filter_map(|choice| choice.gain())
            .collect();
        if gains.is_empty() {
            continue;
        }
        let better = gains.iter().filter(|gain| **gain > 1.0).count();
        let mean = (gains.iter().map(|gain| gain.ln()).sum::<f64>() / gains.len() as f64).exp();
        let most = gains.iter().copied().fold(1.0, f64::max);
        println!(
            "{arithmetic}: {better} of {} choices are not the guess; geometric mean {mean:.3}×, at most {most:.2}×",
            gains.len()
        );
    }
}

fn layer(k: usize, n: usize) -> Plan {
    let mut plan = PlanBuilder::new(&format!("{k}→{n}"));
    let (src, dst) = (plan.input(k), plan.buffer(n));
    plan.linear(Linear::plain(src, dst, Noise(7).weights(k, n), Activation::Relu));
    plan.finish(dst)
}

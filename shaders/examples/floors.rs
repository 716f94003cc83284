//! How near each model comes to what a device could do: for every plan and batch the floors, what was reached host memory
//! to host memory, and the share of it that the highest floor is. Every cell is checked against the CPU first.
//!
//! `cargo run --release -p peregrine_shaders --example floors -- models/* [SECONDS]`, a number is the seconds of a cell;
//! best kept off the CPU that takes the device's interrupt (`taskset`). `--software` takes llvmpipe, to try the program
//! itself. The constants are those of an H200.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Command, Executor, Forecaster, PlainFiles, Plan, Precision};

use support::measured::{Bench, Parts, Times, precisions};
use support::nhits;

const BATCHES: [usize; 4] = [1, 32, 1024, 16384];
/// Rows of a check.
const CHECKED_MAX: usize = 65;
/// Halves of a second: longer than the compiler takes for the longest of these plans.
const WARM_TIMES: usize = 3;

/// What an H200 does at most: the first is its data sheet's, the others were measured on it by something that does nothing else.
mod device {
    /// Multiply-adds count as two.
    pub(super) const F32_PER_S: f64 = 66.9e12;
    /// What torch makes of 4,096 by 4,096 halves, by instructions that Vulkan does not offer.
    pub(super) const HALVES_PER_S: f64 = 725e12;
    /// Weights come from the second-level cache.
    pub(super) const CACHE_BYTES_PER_S: f64 = 5.2e12;
    /// Inputs and results cross the bus, each way at once.
    pub(super) const BUS_BYTES_PER_S: f64 = 52e9;
    /// A layer that waits for the one before, within one kernel.
    pub(super) const LAYER_S: f64 = 0.7e-6;
    /// A request through wgpu that computes nothing.
    pub(super) const REQUEST_S: f64 = 28.8e-6;
}

/// Seconds below which a batch cannot take by each of what it needs.
struct Floors {
    operations: f64,
    weights: f64,
    bus: f64,
    chain: f64,
}

impl Floors {
    fn of(plan: &Plan, rows: usize) -> Self {
        let rows = rows as f64;
        let per_s = match plan.precision {
            Precision::F32 | Precision::Int8 => device::F32_PER_S,
            Precision::F16 => device::HALVES_PER_S,
        };
        let floats: usize = plan.inputs.iter().map(|buffer| plan.width(*buffer)).sum();
        let widest = floats.max(plan.width(plan.output));
        Self {
            operations: 2.0 * plan.row_macs() as f64 * rows / per_s,
            weights: plan.weight_bytes() as f64 / device::CACHE_BYTES_PER_S,
            bus: (widest * size_of::<f32>()) as f64 * rows / device::BUS_BYTES_PER_S,
            chain: plan.commands.iter().map(layers).sum::<usize>() as f64 * device::LAYER_S,
        }
    }

    /// A request takes as long as an empty one and, at the same time as anything else it does, as the slowest of it.
    fn highest(&self) -> f64 {
        let work = [self.operations, self.weights, self.bus, self.chain];
        device::REQUEST_S + work.into_iter().fold(0.0, f64::max)
    }
}

/// Layers that wait for one another in a command: of a recurrent one its steps.
fn layers(command: &Command) -> usize {
    match command {
        Command::Recurrent(layer) => layer.steps,
        Command::Linear(_) | Command::Attention(_) => 1,
        // May be done by whoever reads what they write.
        _ => 0,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let software = arguments.iter().any(|argument| argument == "--software");
    let seconds = arguments.iter().find_map(|argument| argument.parse::<f64>().ok()).unwrap_or(0.3);
    let adapter = if software { AdapterChoice::Software } else { AdapterChoice::Hardware };
    let timeout = Duration::from_secs(20);
    let gpu = GpuExecutor::open(&GpuOptions { adapter, timeout, ..GpuOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{}; microseconds\n", gpu.device());
    println!(
        "| model | batch | operations | weights | bus | chain | floor | reached | p99 | share | on the device | error |"
    );
    println!("{}|", "|---".repeat(12));
    let mut bench = Bench::new(gpu, Duration::from_secs_f64(seconds));
    let mut plans = vec![Arc::new(nhits(512, 512, 96))];
    for folder in arguments.iter().map(Path::new).filter(|path| path.is_dir()) {
        match Forecaster::load_from(folder, &PlainFiles) {
            Ok(forecaster) => plans.extend(forecaster.plans().cloned()),
            Err(error) => eprintln!("{}: {error}", folder.display()),
        }
    }
    for exact in &plans {
        for plan in precisions(exact) {
            // Single dispatches are compiled while layers serve.
            (0..WARM_TIMES).for_each(|_| bench.warm(&plan, 1));
            BATCHES.into_iter().for_each(|rows| cell(&mut bench, exact, &plan, rows));
            bench.gpu.unload(plan.id);
        }
    }
}

fn cell(bench: &mut Bench, exact: &Arc<Plan>, plan: &Arc<Plan>, rows: usize) {
    let error = bench.error(exact, plan, rows.min(CHECKED_MAX));
    let Times { p50, p99, .. } = bench.times(plan, rows);
    let Parts { device, .. } = bench.parts(plan, rows);
    let floors = Floors::of(plan, rows);
    let micros = |seconds: f64| seconds * 1e6;
    println!(
        "| {}, {} | {rows} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {p50:.0} | {p99:.0} | {:.2} | {device:.0} | {error:.0e} |",
        plan.name,
        plan.precision.name(),
        micros(floors.operations),
        micros(floors.weights),
        micros(floors.bus),
        micros(floors.chain),
        micros(floors.highest()),
        micros(floors.highest()) / p50,
    );
}

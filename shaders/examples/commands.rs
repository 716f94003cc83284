//! Where the device's time goes within a plan: what each command adds to the commands before it.
//!
//! `cargo run --release -p peregrine_shaders --example commands -- models/* [ROWS]`; `--halves` keeps matrices as halves,
//! `--software` takes llvmpipe. A command's figure is the difference of two medians and may be a microsecond off.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Command, Executor, Forecaster, PlainFiles, Plan, PlanId};

use support::measured::Bench;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asks = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let rows = arguments.iter().find_map(|argument| argument.parse::<usize>().ok()).unwrap_or(1024);
    let adapter = if asks("--software") { AdapterChoice::Software } else { AdapterChoice::Hardware };
    let timeout = Duration::from_secs(20);
    let gpu = GpuExecutor::open(&GpuOptions { adapter, timeout, ..GpuOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{}; microseconds on the device for {rows} rows", gpu.device());
    let mut bench = Bench::new(gpu, Duration::ZERO);
    for folder in arguments.iter().map(Path::new).filter(|path| path.is_dir()) {
        let forecaster = match Forecaster::load_from(folder, &PlainFiles) {
            Ok(forecaster) => forecaster,
            Err(error) => {
                eprintln!("{}: {error}", folder.display());
                continue;
            }
        };
        for plan in forecaster.plans() {
            let plan = if asks("--halves") {
                Arc::new(plan.halved().expect("small weights"))
            } else {
                Arc::clone(plan)
            };
            println!("\n{}, {}", plan.name, plan.precision.name());
            table(&mut bench, &plan, rows);
        }
    }
}

fn table(bench: &mut Bench, plan: &Arc<Plan>, rows: usize) {
    println!("| command | shape | µs | TFLOP/s |\n|---|---|---|---|");
    // The device's clock takes its time.
    bench.warm(plan, rows);
    let mut before = 0.0;
    for count in 1..=plan.commands.len() {
        let part = Arc::new(first(plan, count));
        let now = bench.parts(&part, rows).device;
        bench.gpu.unload(part.id);
        let command = &plan.commands[count - 1];
        let took = now - before;
        let flops = 2.0 * (first(plan, count).row_macs() - first(plan, count - 1).row_macs()) as f64;
        println!("| {} | {took:.1} | {:.2} |", described(command), flops * rows as f64 / took / 1e6);
        before = now;
    }
    println!("| all | | {before:.1} | {:.2} |", 2.0 * plan.row_macs() as f64 * rows as f64 / before / 1e6);
}

/// The first commands of a plan as one of its own.
fn first(plan: &Plan, count: usize) -> Plan {
    Plan {
        id: PlanId(u64::MAX - count as u64),
        name: plan.name.clone(),
        precision: plan.precision,
        buffer_widths: plan.buffer_widths.clone(),
        inputs: plan.inputs.clone(),
        output: plan.output,
        commands: plan.commands[..count].to_vec(),
    }
}

fn described(command: &Command) -> String {
    match command {
        Command::Linear(linear) => format!(
            "linear | {}→{}, {} places by {}→{}, from {} to {}, {:?}, {:?}{}",
            linear.weights.in_width,
            linear.weights.out_width,
            linear.repeat.count,
            linear.repeat.src_step,
            linear.repeat.dst_step,
            linear.src.offset,
            linear.dst.offset,
            linear.activation,
            linear.init,
            if linear.mask.is_some() { ", masked" } else { "" },
        ),
        Command::Pool(pool) => format!("pool | {}→{}", pool.src.width, pool.dst.width),
        Command::Move(step) => format!("move | {:?}", step.counts),
        Command::Affine(affine) => format!(
            "affine | {}, period {}{}",
            affine.dst.width,
            affine.scale.len(),
            if affine.add.is_some() { ", adds" } else { "" }
        ),
        Command::LayerNorm(norm) => format!("layer norm | {} by {}", norm.dst.width, norm.scale.len()),
        Command::Attention(attention) => format!(
            "attention | {} heads, {} steps, {} wide",
            attention.heads, attention.steps, attention.dst.width
        ),
        Command::Recurrent(layer) => format!(
            "recurrent | {:?}, {} steps, {} units{}",
            layer.cell,
            layer.steps,
            layer.units(),
            if layer.projection.is_some() { ", projected" } else { "" }
        ),
    }
}

//! Latency and arithmetic of the device, host memory to host memory, each figure after a check against the CPU.
//!
//! `cargo run --release -p peregrine_shaders --example gpu_forecast`, best kept off the CPU that takes the device's
//! interrupt (`taskset`). `--software` takes llvmpipe, to try the program itself; `--layers` leaves the models out,
//! `--quick` shortens everything; a number is the seconds for each figure.
//! The same models in torch: `benches/peers/torch_gpu.py`.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Executor, Plan, Precision};

use support::measured::{Bench, Parts, Times, precisions};
use support::{nhits, repeated};

fn model(bench: &mut Bench, plan: Plan, batches: &[usize]) {
    let exact = Arc::new(plan);
    for plan in precisions(&exact) {
        println!(
            "{}, {}: {} multiply-adds a row, {} KiB of weights",
            plan.name,
            plan.precision.name(),
            plan.row_macs(),
            plan.weight_bytes() >> 10
        );
        for &rows in batches {
            let error = [rows.min(257), rows.min(3)]
                .map(|rows| checked(bench, &exact, &plan, rows))
                .into_iter()
                .fold(0.0, f64::max);
            let Times { p50, p99, count } = bench.times(&plan, rows);
            let Parts { before, device, behind } = bench.parts(&plan, rows);
            let flops = 2.0 * plan.row_macs() as f64 * rows as f64;
            println!(
                "  batch {rows:>6}: p50 {p50:>9.1} µs  p99 {p99:>9.1} µs  (until the last submission {before:.0}, device {device:.0}, results out {behind:.0}; {count} runs, {:.2} TFLOP/s, {:.0} rows/s, error {error:.1e})",
                flops / p50 / 1e6,
                rows as f64 / p50 * 1e6,
            );
        }
        bench.gpu.unload(plan.id);
    }
}

/// Worst difference to the CPU; panics on what cannot be rounding.
fn checked(bench: &mut Bench, exact: &Arc<Plan>, plan: &Arc<Plan>, rows: usize) -> f64 {
    let error = bench.error(exact, plan, rows);
    let allowed = match plan.precision {
        Precision::F32 | Precision::Int8 => 2e-5,
        Precision::F16 => 5e-3,
    };
    assert!(error < allowed, "{}, {rows} rows: off by {error:e}", plan.name);
    error
}

/// Time of one layer, everything else subtracted.
fn layer(bench: &mut Bench, rows: usize, k: usize, n: usize, times: usize) {
    let (few, many) = (Arc::new(repeated(k, n, 26)), Arc::new(repeated(k, n, 26 + times)));
    for (exact, few, many) in precisions(&few)
        .into_iter()
        .zip(precisions(&many))
        .map(|(halved, many)| (Arc::clone(&few), halved, many))
    {
        let error = checked(bench, &exact, &few, rows.min(300));
        // The long one first, and once more before that: under the short one alone, and while the host checks, the device
        // lowers its clock.
        bench.warm(&many, rows);
        let long = bench.times(&many, rows).p50;
        let micros = (long - bench.times(&few, rows).p50) / times as f64;
        let flops = 2.0 * (rows * k * n) as f64;
        println!(
            "layer {rows}×{n}×{k}, {}: {micros:.2} µs, {:.2} TFLOP/s (error {error:.1e})",
            few.precision.name(),
            flops / micros / 1e6
        );
        bench.gpu.unload(few.id);
        bench.gpu.unload(many.id);
    }
}

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (software, quick) = (asked("--software"), asked("--quick"));
    let adapter = if software { AdapterChoice::Software } else { AdapterChoice::Hardware };
    let opened = Instant::now();
    let gpu =
        GpuExecutor::open(&GpuOptions { adapter, timeout: Duration::from_secs(20), ..GpuOptions::default() })
            .unwrap_or_else(|error| panic!("{error}"));
    println!("{}, opened in {:.0} ms", gpu.device(), opened.elapsed().as_secs_f64() * 1e3);
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse::<f64>().ok());
    let budget = Duration::from_secs_f64(seconds.unwrap_or(if quick { 0.05 } else { 1.5 }));
    let mut bench = Bench::new(gpu, budget);
    let batches: &[usize] = if quick { &[1, 8, 33] } else { &[1, 8, 32, 128, 256, 512, 1024, 16384] };
    if !asked("--layers") {
        model(&mut bench, nhits(512, 512, 96), batches);
        model(&mut bench, nhits(168, 256, 120), batches);
    }
    if quick {
        layer(&mut bench, 64, 64, 64, 4);
        return;
    }
    layer(&mut bench, 1, 16, 16, 64);
    for rows in [1, 4, 8, 32, 64, 128, 256, 512] {
        layer(&mut bench, rows, 512, 512, 64);
    }
    layer(&mut bench, 1024, 256, 256, 64);
    layer(&mut bench, 1024, 512, 512, 64);
    layer(&mut bench, 1024, 1024, 512, 64);
    layer(&mut bench, 4096, 512, 512, 64);
    layer(&mut bench, 16384, 512, 512, 64);
    layer(&mut bench, 4096, 4096, 4096, 12);
    layer(&mut bench, 1024, 512, 512, 64);
}

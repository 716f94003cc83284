//! Latency and arithmetic of the device, host memory to host memory, each figure after a check against the CPU.
//!
//! `cargo run --release -p peregrine_shaders --example gpu_forecast`, best kept off the CPU that takes the device's
//! interrupt (`taskset`). `--software` takes llvmpipe, to try the program itself; `--quick` shortens everything.
//! The same models in torch: `benches/peers/torch_gpu.py`.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Executor, Plan};

use support::{Noise, nhits, repeated};

struct Bench {
    gpu: GpuExecutor,
    cpu: CpuExecutor,
    budget: Duration,
}

struct Times {
    p50: f64,
    p99: f64,
    count: usize,
}

impl Bench {
    /// Microseconds of one run; inputs change from run to run.
    fn times(&mut self, plan: &Arc<Plan>, rows: usize) -> Times {
        let width = plan.width(plan.inputs[0]);
        let inputs: Vec<Vec<f32>> =
            (0..4).map(|seed| Noise(rows as u64 + seed).uniform(rows * width, 1.0)).collect();
        let mut output = vec![f32::NAN; rows * plan.width(plan.output)];
        let mut micros = Vec::new();
        let started = Instant::now();
        // A third warms up: the device's clock takes its time.
        for run in 0.. {
            let begun = Instant::now();
            self.gpu.run(plan, rows, &[&inputs[run % 4]], &mut output).expect("the device runs");
            let elapsed = begun.elapsed();
            if started.elapsed() > self.budget / 3 {
                micros.push(elapsed.as_secs_f64() * 1e6);
            }
            if started.elapsed() > self.budget && micros.len() >= 5 {
                break;
            }
        }
        micros.sort_by(f64::total_cmp);
        let at = |share: f64| micros[((micros.len() - 1) as f64 * share).round() as usize];
        Times { p50: at(0.5), p99: at(0.99), count: micros.len() }
    }

    /// Worst difference to the CPU over the largest value; panics on what cannot be rounding.
    fn check(&mut self, plan: &Arc<Plan>, rows: usize) -> f64 {
        let input = Noise(rows as u64 * 31 + 5).uniform(rows * plan.width(plan.inputs[0]), 1.0);
        let cells = rows * plan.width(plan.output);
        let (mut expected, mut actual) = (vec![f32::NAN; cells], vec![f32::NAN; cells]);
        self.cpu.run(plan, rows, &[&input], &mut expected).expect("the host runs");
        self.gpu.run(plan, rows, &[&input], &mut actual).expect("the device runs");
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let pairs = actual.iter().zip(&expected);
        let worst =
            pairs.fold(0.0_f32, |most, (a, e)| if (a - e).abs() <= most { most } else { (a - e).abs() });
        let error = f64::from(worst / largest);
        assert!(error < 2e-5, "{}, {rows} rows: off by {error:e}", plan.name);
        error
    }

    fn model(&mut self, plan: Plan, batches: &[usize]) {
        let plan = Arc::new(plan);
        println!("{}: {} multiply-adds a row", plan.name, plan.row_macs());
        for &rows in batches {
            let error = [rows.min(257), rows.min(3)]
                .map(|rows| self.check(&plan, rows))
                .into_iter()
                .fold(0.0, f64::max);
            let Times { p50, p99, count } = self.times(&plan, rows);
            let flops = 2.0 * plan.row_macs() as f64 * rows as f64;
            println!(
                "  batch {rows:>6}: p50 {p50:>9.1} µs  p99 {p99:>9.1} µs  ({count} runs, {:.2} TFLOP/s, {:.0} rows/s, error {error:.1e})",
                flops / p50 / 1e6,
                rows as f64 / p50 * 1e6,
            );
        }
        self.gpu.unload(plan.id);
    }

    /// Time of one layer, everything else subtracted.
    fn layer(&mut self, rows: usize, k: usize, n: usize, times: usize) {
        let few = Arc::new(repeated(k, n, 26));
        let error = self.check(&few, rows.min(300));
        // The long one first: under the short one alone the device lowers its clock.
        let many = Arc::new(repeated(k, n, 26 + times));
        let long = self.times(&many, rows).p50;
        let micros = (long - self.times(&few, rows).p50) / times as f64;
        let flops = 2.0 * (rows * k * n) as f64;
        println!(
            "layer {rows}×{n}×{k}: {micros:.2} µs, {:.2} TFLOP/s (error {error:.1e})",
            flops / micros / 1e6
        );
        self.gpu.unload(few.id);
        self.gpu.unload(many.id);
    }
}

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (software, quick) = (asked("--software"), asked("--quick"));
    let adapter = if software { AdapterChoice::Software } else { AdapterChoice::Hardware };
    let opened = Instant::now();
    let gpu = GpuExecutor::open(&GpuOptions { adapter, timeout: Duration::from_secs(20) })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{}, opened in {:.0} ms", gpu.device(), opened.elapsed().as_secs_f64() * 1e3);
    let budget = Duration::from_millis(if quick { 50 } else { 1500 });
    let mut bench = Bench { gpu, cpu: CpuExecutor::new(2), budget };
    let batches: &[usize] = if quick { &[1, 8, 33] } else { &[1, 8, 32, 128, 1024, 16384] };
    bench.model(nhits(512, 512, 96), batches);
    bench.model(nhits(168, 256, 120), batches);
    if quick {
        bench.layer(64, 64, 64, 4);
        return;
    }
    bench.layer(1, 16, 16, 64);
    for rows in [1, 4, 8, 32, 64, 128, 256] {
        bench.layer(rows, 512, 512, 64);
    }
    bench.layer(1024, 512, 512, 64);
    bench.layer(1024, 1024, 512, 64);
    bench.layer(4096, 512, 512, 64);
    bench.layer(4096, 4096, 4096, 12);
    bench.layer(1024, 512, 512, 64);
}

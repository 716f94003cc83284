//! Latency and arithmetic of the device, host memory to host memory, each figure after a check against the CPU.
//!
//! `cargo run --release -p peregrine_shaders --example gpu_forecast`, best kept off the CPU that takes the device's
//! interrupt (`taskset`). `--software` takes llvmpipe, to try the program itself; `--quick` shortens everything.
//! The same models in torch: `benches/peers/torch_gpu.py`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{
    Activation, Executor, Init, Linear, Move, Plan, PlanBuilder, Pool, PoolMode, View, Weights,
};

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self, count: usize, size: f32) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 * size - size
        };
        (0..count).map(|_| next()).collect()
    }

    fn weights(&mut self, k: usize, n: usize) -> Arc<Weights> {
        let matrix = self.uniform(k * n, (3.0 / k as f32).sqrt());
        Arc::new(Weights { out_width: n, in_width: k, matrix, bias: self.uniform(n, 0.1) })
    }
}

/// Three stacks as the forecaster records them for complete data: pooled by 2, 2 and 1, two hidden layers, the backcast
/// off the residual, all forecasts by one last layer into which the interpolation is folded.
fn nhits(window: usize, hidden: usize, outputs: usize) -> Plan {
    let mut noise = Noise(4242);
    let mut plan = PlanBuilder::new(&format!("nhits {window}→{outputs}, hidden {hidden}"));
    let features = plan.input(window);
    let residual = plan.buffer(window);
    let joined = plan.buffer(3 * hidden);
    let middle = plan.buffer(hidden);
    plan.move_columns(Move::copy(features, residual));
    let mut pooled: Option<View> = None;
    for (stack, kernel) in [2, 2, 1].into_iter().enumerate() {
        let residual_now = if stack == 0 { features } else { residual };
        let src = if kernel == 1 {
            residual_now
        } else {
            let dst = *pooled.get_or_insert_with(|| plan.buffer(window / 2));
            plan.pool(Pool { src: residual_now, dst, columns: 1, kernel, mode: PoolMode::Max });
            dst
        };
        let hidden_out = joined.slice(stack * hidden, hidden);
        let relu = Activation::Relu;
        plan.linear(Linear::plain(src, middle, noise.weights(src.width, hidden), relu));
        plan.linear(Linear::plain(middle, hidden_out, noise.weights(hidden, hidden), relu));
        if stack < 2 {
            let backcast = noise.weights(hidden, window);
            let init = Init::Accumulate;
            plan.linear(Linear {
                init,
                ..Linear::plain(hidden_out, residual, backcast, Activation::Identity)
            });
        }
    }
    let output = plan.buffer(outputs);
    plan.linear(Linear::plain(joined, output, noise.weights(3 * hidden, outputs), Activation::Identity));
    plan.finish(output)
}

/// The same layer `times` over between two narrow ones, so that the difference of two counts is the layer's time.
fn repeated(k: usize, n: usize, times: usize) -> Plan {
    let mut noise = Noise(7);
    let mut plan = PlanBuilder::new(&format!("{k}→{n}, {times} times"));
    let input = plan.input(16);
    let (src, dst, output) = (plan.buffer(k), plan.buffer(n), plan.buffer(16));
    plan.linear(Linear::plain(input, src, noise.weights(16, k), Activation::Identity));
    let layer = noise.weights(k, n);
    for _ in 0..times {
        plan.linear(Linear::plain(src, dst, Arc::clone(&layer), Activation::Relu));
    }
    plan.linear(Linear::plain(dst, output, noise.weights(n, 16), Activation::Identity));
    plan.finish(output)
}

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

//! Latency and arithmetic of the device, host memory to host memory, each figure after a check against the CPU.
//!
//! `cargo run --release -p peregrine_shaders --example gpu_forecast`, best kept off the CPU that takes the device's
//! interrupt (`taskset`). `--software` takes llvmpipe, to try the program itself; `--layers` leaves the models out,
//! `--quick` shortens everything; a number is the seconds for each figure.
//! The same models in torch: `benches/peers/torch_gpu.py`.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Executor, Plan, Precision};

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

    /// Medians in microseconds of where the time of a run goes: until it is submitted, on the device, behind it.
    fn parts(&mut self, plan: &Arc<Plan>, rows: usize) -> [f64; 3] {
        const RUNS: usize = 31;
        let input = Noise(rows as u64).uniform(rows * plan.width(plan.inputs[0]), 1.0);
        let mut output = vec![f32::NAN; rows * plan.width(plan.output)];
        let mut parts = [(); 3].map(|()| Vec::with_capacity(RUNS));
        self.gpu.observe(true);
        for _ in 0..RUNS {
            let begun = Instant::now();
            self.gpu.run(plan, rows, &[&input], &mut output).expect("the device runs");
            let ended = Instant::now();
            let times = self.gpu.observed().expect("it was observed");
            let device = times.device.unwrap_or_default();
            let each = [times.submitted - begun, device, ended - times.finished];
            parts.iter_mut().zip(each).for_each(|(part, took)| part.push(took.as_secs_f64() * 1e6));
        }
        self.gpu.observe(false);
        parts.map(|mut part| {
            part.sort_by(f64::total_cmp);
            part[RUNS / 2]
        })
    }

    /// Worst difference to what the CPU makes of `exact`, over the largest value; panics on what cannot be rounding.
    fn check(&mut self, exact: &Arc<Plan>, plan: &Arc<Plan>, rows: usize) -> f64 {
        let input = Noise(rows as u64 * 31 + 5).uniform(rows * plan.width(plan.inputs[0]), 1.0);
        let cells = rows * plan.width(plan.output);
        let (mut expected, mut actual) = (vec![f32::NAN; cells], vec![f32::NAN; cells]);
        self.cpu.run(exact, rows, &[&input], &mut expected).expect("the host runs");
        self.gpu.run(plan, rows, &[&input], &mut actual).expect("the device runs");
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let pairs = actual.iter().zip(&expected);
        let worst =
            pairs.fold(0.0_f32, |most, (a, e)| if (a - e).abs() <= most { most } else { (a - e).abs() });
        let error = f64::from(worst / largest);
        let allowed = match plan.precision {
            Precision::F32 | Precision::Int8 => 2e-5,
            Precision::F16 => 5e-3,
        };
        assert!(error < allowed, "{}, {rows} rows: off by {error:e}", plan.name);
        error
    }

    fn model(&mut self, plan: Plan, batches: &[usize]) {
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
                    .map(|rows| self.check(&exact, &plan, rows))
                    .into_iter()
                    .fold(0.0, f64::max);
                let Times { p50, p99, count } = self.times(&plan, rows);
                let [before, device, behind] = self.parts(&plan, rows);
                let flops = 2.0 * plan.row_macs() as f64 * rows as f64;
                println!(
                    "  batch {rows:>6}: p50 {p50:>9.1} µs  p99 {p99:>9.1} µs  (until the last submission {before:.0}, device {device:.0}, results out {behind:.0}; {count} runs, {:.2} TFLOP/s, {:.0} rows/s, error {error:.1e})",
                    flops / p50 / 1e6,
                    rows as f64 / p50 * 1e6,
                );
            }
            self.gpu.unload(plan.id);
        }
    }

    /// Half a second of runs.
    fn warm(&mut self, plan: &Arc<Plan>, rows: usize) {
        let input = Noise(3).uniform(rows * plan.width(plan.inputs[0]), 1.0);
        let mut output = vec![f32::NAN; rows * plan.width(plan.output)];
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(500) {
            self.gpu.run(plan, rows, &[&input], &mut output).expect("the device runs");
        }
    }

    /// Time of one layer, everything else subtracted.
    fn layer(&mut self, rows: usize, k: usize, n: usize, times: usize) {
        let (few, many) = (Arc::new(repeated(k, n, 26)), Arc::new(repeated(k, n, 26 + times)));
        for (exact, few, many) in precisions(&few)
            .into_iter()
            .zip(precisions(&many))
            .map(|(halved, many)| (Arc::clone(&few), halved, many))
        {
            let error = self.check(&exact, &few, rows.min(300));
            // The long one first, and once more before that: under the short one alone, and while the host checks, the device
            // lowers its clock.
            self.warm(&many, rows);
            let long = self.times(&many, rows).p50;
            let micros = (long - self.times(&few, rows).p50) / times as f64;
            let flops = 2.0 * (rows * k * n) as f64;
            println!(
                "layer {rows}×{n}×{k}, {}: {micros:.2} µs, {:.2} TFLOP/s (error {error:.1e})",
                few.precision.name(),
                flops / micros / 1e6
            );
            self.gpu.unload(few.id);
            self.gpu.unload(many.id);
        }
    }
}

/// A plan as it is, and with matrices of halves.
fn precisions(exact: &Arc<Plan>) -> [Arc<Plan>; 2] {
    [Arc::clone(exact), Arc::new(exact.halved().expect("small weights"))]
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
    let mut bench = Bench { gpu, cpu: CpuExecutor::new(2), budget };
    let batches: &[usize] = if quick { &[1, 8, 33] } else { &[1, 8, 32, 128, 256, 512, 1024, 16384] };
    if !asked("--layers") {
        bench.model(nhits(512, 512, 96), batches);
        bench.model(nhits(168, 256, 120), batches);
    }
    if quick {
        bench.layer(64, 64, 64, 4);
        return;
    }
    bench.layer(1, 16, 16, 64);
    for rows in [1, 4, 8, 32, 64, 128, 256, 512] {
        bench.layer(rows, 512, 512, 64);
    }
    bench.layer(1024, 256, 256, 64);
    bench.layer(1024, 512, 512, 64);
    bench.layer(1024, 1024, 512, 64);
    bench.layer(4096, 512, 512, 64);
    bench.layer(16384, 512, 512, 64);
    bench.layer(4096, 4096, 4096, 12);
    bench.layer(1024, 512, 512, 64);
}

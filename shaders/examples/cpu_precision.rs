//! What the CPU executor takes for a batch by the precision of matrices, all of them in turn, and the floor: as many bytes as
//! the weights have, only read.
//!
//! `cargo run --release -p peregrine_shaders --example cpu_precision`; a number is the seconds for each line.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Plan, Precision};

use support::{Noise, nhits};

const THREADS: usize = 2;

fn main() {
    let seconds = std::env::args().nth(1).map_or(3.0, |text| text.parse().expect("seconds"));
    println!("two threads at most; median µs of one run, of alternating ones");
    for (window, hidden, outputs) in [(512, 512, 96), (168, 256, 120)] {
        let exact = nhits(window, hidden, outputs);
        let kept = Precision::ALL.map(|precision| Arc::new(in_precision(&exact, precision)));
        println!("{}", exact.name);
        for plan in &kept {
            let micros = reading(plan.weight_bytes());
            let gib = plan.weight_bytes() as f64 / micros / 1e-6 / f64::from(1 << 30);
            let (name, kib) = (plan.precision.name(), plan.weight_bytes() >> 10);
            println!("  {name:5} {kib:5} KiB, read by one thread in {micros:7.1} µs, {gib:5.1} GiB/s");
        }
        for rows in [1, 8, 32, 1024] {
            let medians = alternate(&kept, rows, Duration::from_secs_f64(seconds));
            let cells = kept.iter().zip(&medians).map(|(plan, micros)| {
                format!("{} {micros:8.1} ({:.2})", plan.precision.name(), medians[0] / micros)
            });
            println!("  {rows:5} rows  {}", Vec::from_iter(cells).join("  "));
        }
    }
}

fn in_precision(exact: &Plan, precision: Precision) -> Plan {
    exact.rounded(precision).expect("small weights")
}

/// Median microseconds of each plan's runs; one after the other has its turn.
fn alternate(plans: &[Arc<Plan>], rows: usize, budget: Duration) -> Vec<f64> {
    let mut executor = CpuExecutor::new(THREADS);
    let width = plans[0].width(plans[0].inputs[0]);
    let input = Noise(rows as u64).uniform(rows * width, 1.0);
    let mut output = vec![f32::NAN; rows * plans[0].width(plans[0].output)];
    let mut micros = vec![Vec::new(); plans.len()];
    let started = Instant::now();
    // A turn is several runs: the first finds the other plan's weights in the caches.
    let runs = (256 / rows).max(2);
    while started.elapsed() < budget {
        for (plan, micros) in plans.iter().zip(&mut micros) {
            for run in 0..runs {
                let begun = Instant::now();
                executor.run(plan, rows, &[&input], &mut output).expect("it runs");
                let took = begun.elapsed();
                if run > 0 {
                    micros.push(took.as_secs_f64() * 1e6);
                }
            }
            black_box(&output);
        }
    }
    micros.into_iter().map(median).collect()
}

/// Median microseconds of reading so many bytes again and again.
fn reading(bytes: usize) -> f64 {
    let words = vec![1_u64; bytes / size_of::<u64>()];
    let mut micros = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let mut sums = [0_u64; 16];
        for chunk in words.as_chunks::<16>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
        }
        black_box(sums);
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    median(micros)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

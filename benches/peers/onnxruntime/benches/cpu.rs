//! ONNX Runtime and peregrine's CPU executor on the same network, the same data and the same threads, in one run.
//!
//! Per batch size and thread count one group of four: `peregrine` (the network alone, on its plan), `peregrine-whole`
//! (`Forecaster::forecast` on raw windows: statistics, network, head, inverse), `ort` (the graph as exported) and
//! `ort-folded` (the graph after the same algebra that peregrine does at load). Before anything is timed, answers are
//! compared on fresh random data. `run.sh` exports the graphs; `ORT_DYLIB_PATH` names the runtime.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ort::environment::Environment;
use peer_onnxruntime::{Network, build_dir, environment};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Forecaster, Scratch, Windows};

const MODEL: &str = "nhits-168x24-quantile";
const ROWS: [usize; 3] = [1, 32, 1024];
const THREADS: [usize; 2] = [1, 2];
/// Largest difference allowed, as a share of a row's largest value: sums of a few hundred terms in f32.
const TOLERANCE: f32 = 1e-5;

/// Standard normal walks, each scaled to unit spread: what a network sees behind its normalizer.
struct Walks(u64);

impl Walks {
    fn seeded() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = now.as_nanos() as u64 | 1;
        println!("data seed {seed}");
        Self(seed)
    }

    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }

    fn draw(&mut self, rows: usize, window: usize) -> Vec<f32> {
        let mut all = Vec::with_capacity(rows * window);
        for _ in 0..rows {
            let mut level = 0.0;
            let walk: Vec<f64> = (0..window)
                .map(|_| {
                    level += self.uniform();
                    level
                })
                .collect();
            let mean = walk.iter().sum::<f64>() / window as f64;
            let spread = (walk.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / window as f64).sqrt();
            all.extend(walk.iter().map(|v| ((v - mean) / spread) as f32));
        }
        all
    }
}

/// Reused from run to run.
#[derive(Default)]
struct Buffers {
    features: Vec<f32>,
    mask: Vec<f32>,
    out: Vec<f32>,
}

/// The two implementations at one thread count.
struct Pair {
    forecaster: Forecaster,
    executor: CpuExecutor,
    plain: Network,
    folded: Network,
}

impl Pair {
    fn open(environment: &Environment, threads: usize) -> Self {
        let graph = |suffix: &str| {
            let file = build_dir().join(format!("{MODEL}{suffix}.onnx"));
            Network::open(environment, &file, threads)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../models").join(MODEL);
        let forecaster =
            Forecaster::load(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let executor = CpuExecutor::new(threads);
        Self { forecaster, executor, plain: graph(""), folded: graph(".folded") }
    }

    /// What the graphs compute, by the plan: it takes windows newest first and leaves the level to its caller.
    fn network(&mut self, rows: usize, y: &[f32], buffers: &mut Buffers) {
        let (spec, plan) = (self.forecaster.spec(), self.forecaster.plans().next().expect("a network has a plan"));
        buffers.features.clear();
        y.chunks_exact(spec.window).for_each(|row| buffers.features.extend(row.iter().rev()));
        buffers.mask.resize(y.len(), 1.0);
        buffers.out.resize(rows * spec.answer_len(), f32::NAN);
        let inputs = [buffers.features.as_slice(), buffers.mask.as_slice()];
        self.executor
            .run(plan, rows, &inputs[..plan.inputs.len()], &mut buffers.out)
            .unwrap_or_else(|error| panic!("{error}"));
        for (row, y) in buffers.out.chunks_exact_mut(spec.answer_len()).zip(y.chunks_exact(spec.window)) {
            row.iter_mut().for_each(|step| *step += y[spec.window - 1]);
        }
    }

    /// Every implementation against the exported graph, on data that nobody has seen.
    fn compare(&mut self, walks: &mut Walks) {
        let spec = self.forecaster.spec().clone();
        for rows in [1, 3, 32, 257] {
            let y = walks.draw(rows, spec.window);
            let mut ours = Buffers::default();
            self.network(rows, &y, &mut ours);
            let plain = self.plain.run(rows, &y, <[f32]>::to_vec).expect("the exported graph runs");
            let folded = self.folded.run(rows, &y, <[f32]>::to_vec).expect("the folded graph runs");
            for (name, got) in [("peregrine", &ours.out), ("ort-folded", &folded)] {
                let error = worst_error(got, &plain, spec.answer_len());
                println!("{name} against ort, {rows} rows: worst relative error {error:.1e}");
                assert!(error <= TOLERANCE, "{name} computes something else");
            }
        }
    }
}

fn worst_error(got: &[f32], want: &[f32], row_len: usize) -> f32 {
    assert_eq!(got.len(), want.len(), "count of numbers");
    let row_error = |(got, want): (&[f32], &[f32])| {
        let largest = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let off =
            got.iter().zip(want).map(|(g, w)| if g.is_finite() { (g - w).abs() } else { f32::INFINITY });
        off.fold(0.0, f32::max) / largest
    };
    got.chunks(row_len).zip(want.chunks(row_len)).map(row_error).fold(0.0, f32::max)
}

fn cpu(criterion: &mut Criterion) {
    let environment = environment().unwrap_or_else(|error| panic!("{error}; is ORT_DYLIB_PATH set?"));
    let mut walks = Walks::seeded();
    for threads in THREADS {
        let mut pair = Pair::open(&environment, threads);
        pair.compare(&mut walks);
        let spec = pair.forecaster.spec().clone();
        for rows in ROWS {
            let y = walks.draw(rows, spec.window);
            let mut ours = Buffers::default();
            let windows = Windows { rows, y: y.clone(), ..Windows::default() };
            let mut group = criterion.benchmark_group(format!("{MODEL}/{rows}-rows/{threads}-threads"));
            group.throughput(Throughput::Elements(rows as u64));
            let mut out = vec![0.0; rows * spec.answer_len()];
            group.bench_function("peregrine", |b| b.iter(|| pair.network(rows, black_box(&y), &mut ours)));
            group.bench_function("ort", |b| {
                b.iter(|| {
                    pair.plain.run(rows, black_box(&y), |data| out.copy_from_slice(data)).expect("runs")
                });
            });
            group.bench_function("ort-folded", |b| {
                b.iter(|| {
                    pair.folded.run(rows, black_box(&y), |data| out.copy_from_slice(data)).expect("runs")
                });
            });
            let (mut scratch, mut whole) = (Scratch::default(), Vec::new());
            group.bench_function("peregrine-whole", |b| {
                b.iter(|| {
                    pair.forecaster
                        .forecast(&mut pair.executor, black_box(&windows), &mut scratch, &mut whole)
                        .expect("finite");
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1500));
    targets = cpu
}
criterion_main!(benches);

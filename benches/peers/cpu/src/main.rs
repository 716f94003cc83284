//! N-HiTS on two threads of the CPU, by peregrine, ONNX Runtime, faer and torch, all in turns on the same data.
//!
//! `peer_cpu ROUNDS MODEL_DIR…`, run by `run.sh cpu`. Scaled windows in, network outputs out: the network alone. Everybody but `ort` has the network
//! after the algebra that peregrine does at load (`export.py`), so that folding is not credited to kernels. Answers are compared
//! on fresh random data before anything is timed. A cell is the median of the rounds' medians, a ratio the median of the
//! rounds' ratios: absolute times drift on shared machines.

mod layers;
mod torch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use faer::Par;
use peer_onnxruntime::{Network, build_dir, environment};
use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::{Executor, Forecaster};

use layers::Folded;
use torch::Torch;

const THREADS: usize = 2;
const ROWS: [usize; 4] = [1, 8, 32, 1024];
const NAMES: [&str; 7] =
    ["peregrine", "ort", "ort folded", "faer", "faer, one thread", "torch", "torch frozen"];
/// Of one measurement.
const BUDGET: Duration = Duration::from_millis(400);
/// Largest difference allowed, as a share of a row's largest value: sums of a few hundred terms in f32.
const TOLERANCE: f32 = 1e-5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(3);
    let folders: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let names: Vec<String> = folders
        .iter()
        .map(|folder| folder.file_name().expect("a model has a name").to_string_lossy().into_owned())
        .collect();
    let files: Vec<PathBuf> =
        names.iter().map(|name| build_dir().join(format!("{name}.layers.safetensors"))).collect();
    let environment = environment().unwrap_or_else(|error| panic!("{error}; is ORT_DYLIB_PATH set?"));
    let mut torch = Torch::start(THREADS, &files).expect("TORCH_PYTHON and TORCH_PEER: see run.sh");
    println!("\n| model | rows | {} |", NAMES.map(|name| format!("{name}, µs")).join(" | "));
    println!("{}|", "|---".repeat(2 + NAMES.len()));
    for ((folder, name), file) in folders.iter().zip(&names).zip(&files) {
        let open = |suffix: &str| {
            let graph = build_dir().join(format!("{name}{suffix}.onnx"));
            Network::open(&environment, &graph, THREADS)
                .unwrap_or_else(|error| panic!("{}: {error}", graph.display()))
        };
        let mut peers = Peers {
            ours: Ours::open(folder),
            graphs: [open(""), open(".folded")],
            faer: Folded::open(file),
            torch: &mut torch,
            file,
        };
        peers.compare();
        for rows in ROWS {
            let mut cells = vec![Vec::new(); NAMES.len()];
            for round in 0..rounds {
                for turn in 0..NAMES.len() {
                    // Each round begins with another.
                    let which = (turn + round) % NAMES.len();
                    let seconds = peers.time(which, rows);
                    cells[which].push(seconds);
                }
            }
            let ours = cells[0].clone();
            let row: Vec<String> = cells
                .iter()
                .map(|times| {
                    let ratio = median(times.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect());
                    format!("{:.1} ({ratio:.2})", median(times.clone()) * 1e6)
                })
                .collect();
            println!("| {name} | {rows} | {} |", row.join(" | "));
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// peregrine, on its plan.
struct Ours {
    forecaster: Forecaster,
    executor: CpuExecutor,
    features: Vec<f32>,
    mask: Vec<f32>,
    out: Vec<f32>,
}

impl Ours {
    fn open(folder: &Path) -> Self {
        let forecaster =
            Forecaster::load(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let executor = CpuExecutor::new(THREADS);
        Self { forecaster, executor, features: Vec::new(), mask: Vec::new(), out: Vec::new() }
    }

    /// It takes windows newest first and leaves the level to its caller.
    fn run(&mut self, rows: usize, y: &[f32]) -> &[f32] {
        let spec = self.forecaster.spec();
        let plan = self.forecaster.plans().next().expect("a network has a plan");
        self.features.clear();
        y.chunks_exact(spec.window).for_each(|row| self.features.extend(row.iter().rev()));
        self.mask.resize(y.len(), 1.0);
        self.out.resize(rows * spec.answer_len(), f32::NAN);
        let inputs = [self.features.as_slice(), self.mask.as_slice()];
        self.executor
            .run(plan, rows, &inputs[..plan.inputs.len()], &mut self.out)
            .unwrap_or_else(|error| panic!("{error}"));
        for (row, y) in self.out.chunks_exact_mut(spec.answer_len()).zip(y.chunks_exact(spec.window)) {
            row.iter_mut().for_each(|step| *step += y[spec.window - 1]);
        }
        &self.out
    }
}

struct Peers<'a> {
    ours: Ours,
    graphs: [Network; 2],
    faer: Folded,
    torch: &'a mut Torch,
    file: &'a Path,
}

impl Peers<'_> {
    fn window(&self) -> usize {
        self.ours.forecaster.spec().window
    }

    /// Everybody against the exported graph, on data that nobody has seen.
    fn compare(&mut self) {
        let mut noise = Noise::seeded();
        let row_len = self.ours.forecaster.spec().answer_len();
        for rows in [1, 3, 32, 257] {
            let y = noise.windows(rows, self.window());
            let [plain, folded] = &mut self.graphs;
            let want = plain.run(rows, &y, <[f32]>::to_vec).expect("the exported graph runs");
            let mut faer = Vec::new();
            self.faer.run(rows, &y, &mut faer, Par::rayon(THREADS));
            let torch = self.torch.check(self.file, rows, &y);
            let (eager, frozen) = torch.split_at(want.len());
            let folded = folded.run(rows, &y, <[f32]>::to_vec).expect("the folded graph runs");
            let ours = self.ours.run(rows, &y).to_vec();
            for (name, got) in [
                ("peregrine", ours.as_slice()),
                ("ort folded", &folded),
                ("faer", &faer),
                ("torch", eager),
                ("torch frozen", frozen),
            ] {
                let error = worst_error(got, &want, row_len);
                assert!(error <= TOLERANCE, "{name} computes something else: {error:e} at {rows} rows");
            }
        }
    }

    /// Median seconds of a run.
    fn time(&mut self, which: usize, rows: usize) -> f64 {
        match NAMES[which] {
            "torch" => return self.torch.time("eager", self.file, rows, BUDGET),
            "torch frozen" => return self.torch.time("frozen", self.file, rows, BUDGET),
            _ => {}
        }
        let mut noise = Noise::seeded();
        let turns: Vec<Vec<f32>> = (0..4).map(|_| noise.windows(rows, self.window())).collect();
        let mut out = Vec::new();
        let mut times = Vec::new();
        let started = Instant::now();
        while times.len() < 5 || started.elapsed() < BUDGET {
            let y = &turns[times.len() % turns.len()];
            let begun = Instant::now();
            match NAMES[which] {
                "peregrine" => {
                    self.ours.run(rows, y);
                }
                "ort" => self.graphs[0].run(rows, y, |_| ()).expect("it ran before"),
                "ort folded" => self.graphs[1].run(rows, y, |_| ()).expect("it ran before"),
                "faer" => self.faer.run(rows, y, &mut out, Par::rayon(THREADS)),
                _ => self.faer.run(rows, y, &mut out, Par::Seq),
            }
            times.push(begun.elapsed().as_secs_f64());
        }
        // The first ones warm up.
        median(times.split_off(times.len() / 4))
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

/// Xorshift.
struct Noise(u64);

impl Noise {
    fn seeded() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(now.as_nanos() as u64 | 1)
    }

    /// Numbers of about unit spread, as a network sees them behind its normalizer.
    fn windows(&mut self, rows: usize, window: usize) -> Vec<f32> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 11) as f64 / (1_u64 << 53) as f64 * 3.4 - 1.7) as f32
        };
        (0..rows * window).map(|_| next()).collect()
    }
}

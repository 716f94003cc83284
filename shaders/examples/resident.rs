//! Requests to a plan that stays on the device, host memory to host memory, each answer compared with one in f64.
//!
//! `cargo run --release -p peregrine_shaders --example resident -- [COUNT] [--pauses] [--crowd] [--beside SECONDS] [--second]`, best
//! kept off the CPU that takes the device's interrupt (`taskset`); COUNT requests of one row, 1,000,000 unless said; 0: only what follows.
//! `--pauses` asks at one request per 1, 10, 100 ms and after 3 s, by a thread that sleeps between them and by one that does not; `--beside` asks for so long while the same executor runs
//! ordinary batches of another plan; `--crowd` has other plans stay as well; `--second` does the same with another executor, whose device is another to the driver.
//! The same model as a CUDA graph: `benches/peers/torch_gpu.py`.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions};
use peregrine_shaders::{Executor, Plan, ResidentPlan, Stay};

use support::{Noise, nhits, reference};

/// Threads that watch for pauses of the machine itself.
const WATCHES: usize = 3;
/// Rows of all inputs that take turns, so that no answer can be that of the request before.
const ROWS: usize = 1024;

struct Asked {
    plan: Arc<Plan>,
    rows: usize,
    inputs: Vec<Vec<f32>>,
    expected: Vec<Vec<f64>>,
    output: Vec<f32>,
    worst: f64,
    micros: Vec<f32>,
}

impl Asked {
    fn new(plan: &Arc<Plan>, rows: usize) -> Self {
        let cells = rows * plan.width(plan.output);
        let width = plan.width(plan.inputs[0]);
        let inputs: Vec<Vec<f32>> =
            (0..(ROWS / rows) as u64).map(|seed| Noise(77 + seed).uniform(rows * width, 1.0)).collect();
        let answer =
            |input: &Vec<f32>| input.chunks_exact(width).flat_map(|row| reference(plan, row)).collect();
        let expected = inputs.iter().map(answer).collect();
        let output = vec![f32::NAN; cells];
        Self { plan: Arc::clone(plan), rows, inputs, expected, output, worst: 0.0, micros: Vec::new() }
    }

    /// One request; its time is kept.
    fn ask(&mut self, gpu: &mut GpuExecutor, turn: usize) {
        self.output.fill(f32::NAN);
        let asked = Instant::now();
        gpu.run(&self.plan, self.rows, &[&self.inputs[turn % self.inputs.len()]], &mut self.output)
            .expect("answered");
        self.answered(turn, asked);
    }

    fn answered(&mut self, turn: usize, asked: Instant) {
        self.micros.push(asked.elapsed().as_secs_f32() * 1e6);
        let expected = &self.expected[turn % self.expected.len()];
        let largest = expected.iter().fold(1e-9_f64, |most, value| most.max(value.abs()));
        for (actual, expected) in self.output.iter().zip(expected) {
            let error = (f64::from(*actual) - expected).abs() / largest;
            self.worst = if error <= self.worst { self.worst } else { error };
        }
    }

    fn report(&mut self, what: &str) {
        self.micros.sort_by(f32::total_cmp);
        let at = |share: f64| self.micros[((self.micros.len() - 1) as f64 * share).round() as usize];
        println!(
            "{what:<34} {:>8} requests  p50 {:>7.2}  p99 {:>7.2}  p99.9 {:>7.2}  p99.99 {:>8.2}  max {:>9.1} µs  error {:.1e}",
            self.micros.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
            at(1.0),
            self.worst,
        );
        self.micros.clear();
        self.worst = 0.0;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let count = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000_usize);
    let options = GpuOptions {
        adapter: AdapterChoice::Hardware,
        timeout: Duration::from_secs(20),
        ..GpuOptions::default()
    };
    let mut gpu = GpuExecutor::open(&options).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", gpu.device());
    for (window, hidden, outputs) in [(512, 512, 96), (168, 256, 120)] {
        if count == 0 {
            break;
        }
        let plan = Arc::new(nhits(window, hidden, outputs));
        for rows in [1, 8, 32] {
            let mut asked = Asked::new(&plan, rows);
            for turn in 0..20_000 {
                asked.ask(&mut gpu, turn);
            }
            asked.report(&format!("{}, {rows}, submitted", plan.name));
            let begun = Instant::now();
            if let Err(error) = gpu.reside(&plan, stay(rows)) {
                println!("{}, {rows}: does not stay: {error}", plan.name);
                continue;
            }
            let launched = begun.elapsed();
            for turn in 0..20_000 {
                asked.ask(&mut gpu, turn);
            }
            asked.report(&format!("  stays (warm-up, {:.0} ms to start)", launched.as_secs_f64() * 1e3));
            for turn in 0..if rows == 1 { count } else { count / 10 } {
                asked.ask(&mut gpu, turn);
            }
            asked.report("  stays");
            gpu.unload(plan.id);
        }
    }
    let plan = Arc::new(nhits(512, 512, 96));
    let mut one = Asked::new(&plan, 1);
    let resident = gpu.reside(&plan, stay(1)).expect("it stayed before");
    if asked("--pauses") {
        for (how, wait) in [("asleep", std::thread::sleep as fn(Duration)), ("awake", stay_awake)] {
            for (pause, requests) in [(1, 3000), (10, 500), (100, 50), (3000, 6)] {
                for turn in 0..requests {
                    wait(Duration::from_millis(pause));
                    one.ask(&mut gpu, turn);
                }
                one.report(&format!("one request per {pause} ms, {how}"));
            }
        }
    }
    if asked("--crowd") {
        // Some more that stay; the one that is asked hands over as all of them do.
        for seed in 1..5 {
            let mut other = nhits(512, 512, 96);
            other.name = format!("another, {seed}");
            if let Err(error) = gpu.reside(&Arc::new(other), stay(1)) {
                println!("{seed} others stay, the next does not: {error}");
                break;
            }
        }
        for turn in 0..5000 {
            std::thread::sleep(Duration::from_millis(1));
            one.ask(&mut gpu, turn);
        }
        one.report("one request per 1 ms, among others");
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "--beside") {
        let seconds = arguments.get(at + 1).and_then(|seconds| seconds.parse().ok()).expect("seconds");
        let mut second = asked("--second").then(|| GpuExecutor::open(&options).expect("opened before"));
        beside(second.as_mut().unwrap_or(&mut gpu), &resident, one, Duration::from_secs(seconds));
    }
}

/// Requests of one row through a plan that stays, while an executor runs batches of 256 rows.
fn beside(gpu: &mut GpuExecutor, resident: &Arc<dyn ResidentPlan>, mut one: Asked, span: Duration) {
    let mut batch = Asked::new(&Arc::new(nhits(512, 512, 96)), 256);
    let until = Instant::now() + span;
    let watching: Vec<_> = (0..WATCHES).map(|_| std::thread::spawn(move || pauses(until))).collect();
    let asking = std::thread::spawn({
        let resident = Arc::clone(resident);
        move || {
            let (mut missed, mut turn) = (0_u64, 0);
            let (begun, ours, mut slow) = (Instant::now(), Processor::of_this_thread(), Vec::new());
            while Instant::now() < until {
                let before = ours.times();
                let asked = Instant::now();
                match resident.run(1, &[&one.inputs[turn % one.inputs.len()]], &mut one.output) {
                    Ok(()) => {
                        let took = asked.elapsed();
                        one.answered(turn, asked);
                        if took > Duration::from_millis(1) && slow.len() < 20 {
                            slow.push((begun.elapsed(), took, before, ours.times()));
                        }
                    }
                    Err(_) => {
                        missed += 1;
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
                turn += 1;
            }
            one.report("one row, beside batches");
            println!("{missed} times it did not answer; {:?}", resident.counts());
            for (at, took, before, after) in slow {
                let [ran, waited] = [0, 1].map(|which| after[which].saturating_sub(before[which]));
                println!(
                    "after {at:.1?} one took {took:.1?}: its thread ran for {ran:.1?} and waited for a CPU for {waited:.1?}"
                );
            }
        }
    });
    let mut turn = 0;
    while Instant::now() < until {
        batch.ask(gpu, turn);
        turn += 1;
    }
    batch.report("256 rows, submitted, beside that");
    asking.join().expect("the asking one ends");
    for watch in watching {
        let (longest, pauses) = watch.join().expect("it only looks");
        println!(
            "a thread that only reads the clock: {longest:.1?} at most between two readings; over a millisecond {pauses:.1?}"
        );
    }
}

/// Reads the clock again and again: the longest time between two readings, and after how long there was one of over a
/// millisecond. Of a thread that had its CPU all the time it is the machine that pauses.
fn pauses(until: Instant) -> (Duration, Vec<(Duration, Duration)>) {
    let begun = Instant::now();
    let (mut last, mut longest, mut pauses) = (begun, Duration::ZERO, Vec::new());
    while last < until {
        let now = Instant::now();
        let pause = now - last;
        longest = longest.max(pause);
        if pause > Duration::from_millis(1) && pauses.len() < 20 {
            pauses.push((now - begun, pause));
        }
        last = now;
    }
    (longest, pauses)
}

/// What the scheduler notes of a thread.
struct Processor(File);

impl Processor {
    fn of_this_thread() -> Self {
        Self(File::open("/proc/thread-self/schedstat").expect("Linux notes it"))
    }

    /// On a CPU, and waiting for one.
    fn times(&self) -> [Duration; 2] {
        let mut text = [0; 64];
        let read = self.0.read_at(&mut text, 0).expect("it was opened");
        let text = std::str::from_utf8(&text[..read]).expect("numbers");
        let mut nanos = text.split(' ').map(|number| number.parse().expect("a number"));
        [(); 2].map(|()| Duration::from_nanos(nanos.next().expect("two")))
    }
}

fn stay_awake(pause: Duration) {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn stay(rows_max: usize) -> Stay {
    Stay { rows_max, rest_after: None }
}

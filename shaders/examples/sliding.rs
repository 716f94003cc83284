//! Stacked LSTMs as STAC-ML Markets has them, host memory to host memory: over windows that slide (Tacana), one step in, one
//! number out, and over whole windows (Sumaco), all steps in. A device that stays busy with the windows to come answers late to who asks too soon: each model is asked as fast
//! as it answers, and at a pace that leaves it time.
//!
//! `cargo run --release -p peregrine_shaders --example sliding -- [SECONDS]` a line, best kept off the CPU that takes the
//! device's interrupt (`taskset`). The same in torch: `benches/peers/torch_gpu.py 2 lstm`.

mod support;

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::{AdapterChoice, GpuExecutor, GpuOptions, Slider};
use peregrine_shaders::{Executor, NotServed, Plan, ResidentPlan, SlidingStack, Stay};

use support::{Noise, lstm};

/// Layers, steps, inputs, units; microseconds from one step to the next.
const MODELS: [([usize; 4], u64); 3] =
    [([2, 64, 128, 96], 100), ([3, 96, 192, 160], 200), ([4, 128, 512, 736], 2_000)];
/// Of one instance and eight, in turns.
const ROUNDS: usize = 15;
/// Steps that take turns: more than any window has, and no divisor of one.
const SERIES: usize = 1021;

struct Asked {
    slider: Slider,
    series: Arc<Vec<f32>>,
    pushed: usize,
    micros: Vec<f32>,
    silences: usize,
    last: f32,
}

impl Asked {
    fn new(gpu: &GpuExecutor, stack: &Arc<SlidingStack>) -> Self {
        let slider = gpu.slide(stack).unwrap_or_else(|error| panic!("{}: {error}", stack.name));
        let series = Arc::new(Noise(5).uniform(SERIES * stack.in_width(), 1.0));
        Self { slider, series, pushed: 0, micros: Vec::new(), silences: 0, last: f32::NAN }
    }

    fn push(&mut self) {
        let width = self.slider.stack().in_width();
        let at = self.pushed % SERIES * width;
        let mut output = [f32::NAN];
        let asked = Instant::now();
        let answered = self.slider.push(&self.series[at..at + width], &mut output);
        self.micros.push(asked.elapsed().as_secs_f32() * 1e6);
        self.pushed += 1;
        match answered {
            Ok(()) => self.last = output[0],
            Err(_) => {
                self.silences += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// A step every `pace`, or as fast as there are answers.
    fn run(&mut self, span: Duration, pace: Option<Duration>) {
        let begun = Instant::now();
        let mut due = begun;
        while begun.elapsed() < span {
            while pace.is_some() && Instant::now() < due {
                std::hint::spin_loop();
            }
            due = Instant::now() + pace.unwrap_or_default();
            self.push();
        }
    }

    /// The error of the last answer against the host's, over the whole window.
    fn error(&self, cpu: &mut CpuExecutor) -> f32 {
        let plan = Arc::new(self.slider.stack().plan());
        let mut expected = [f32::NAN];
        cpu.run(&plan, 1, &[&self.slider.window()], &mut expected).expect("the host runs");
        (self.last - expected[0]).abs()
    }

    fn report(&mut self, what: &str, error: f32) {
        report(what, &mut self.micros, self.silences, error);
        self.silences = 0;
    }
}

/// Its p99.
fn report(what: &str, micros: &mut Vec<f32>, silences: usize, error: f32) -> f32 {
    micros.sort_by(f32::total_cmp);
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share).round() as usize];
    println!(
        "{what:<52} {:>8} answers  p50 {:>7.2}  p99 {:>7.2}  p99.9 {:>7.2}  max {:>9.1} µs  silences {silences}  error {error:.1e}",
        micros.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    );
    let p99 = at(0.99);
    micros.clear();
    p99
}

/// Whole windows that take turns, so that no answer can be that of the request before.
const WINDOWS: usize = 61;

/// A stack that is asked with a whole window each time, and every answer compared with the host's.
struct Fixed {
    plan: Arc<Plan>,
    resident: Arc<dyn ResidentPlan>,
    windows: Vec<Vec<f32>>,
    expected: Vec<f32>,
    micros: Vec<f32>,
    silences: usize,
    worst: f32,
}

impl Fixed {
    fn new(gpu: &mut GpuExecutor, cpu: &mut CpuExecutor, stack: &SlidingStack) -> Result<Self, String> {
        let plan = Arc::new(stack.plan());
        let stay = Stay { rows_max: 1, rest_after: None };
        let resident = gpu.reside(&plan, stay).map_err(|error| error.to_string())?;
        let (width, len) = (stack.in_width(), stack.steps * stack.in_width());
        let series = Noise(5).uniform(len + WINDOWS * width, 1.0);
        let windows: Vec<Vec<f32>> =
            (0..WINDOWS).map(|first| series[first * width..][..len].to_vec()).collect();
        let mut expected = vec![f32::NAN; WINDOWS];
        cpu.run(&plan, WINDOWS, &[&windows.concat()], &mut expected).expect("the host runs");
        Ok(Self { plan, resident, windows, expected, micros: Vec::new(), silences: 0, worst: 0.0 })
    }

    fn run(&mut self, span: Duration) {
        let begun = Instant::now();
        for turn in (0..WINDOWS).cycle() {
            if begun.elapsed() >= span {
                break;
            }
            let mut output = [f32::NAN];
            let asked = Instant::now();
            let answered: Result<(), NotServed> = self.resident.run(1, &[&self.windows[turn]], &mut output);
            self.micros.push(asked.elapsed().as_secs_f32() * 1e6);
            if answered.is_err() {
                self.silences += 1;
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let error = (output[0] - self.expected[turn]).abs();
            // Written so that NaN counts.
            self.worst = if error <= self.worst { self.worst } else { error };
        }
    }
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(3.0);
    let span = Duration::from_secs_f64(seconds);
    let options = GpuOptions {
        adapter: AdapterChoice::Hardware,
        timeout: Duration::from_secs(20),
        ..GpuOptions::default()
    };
    let mut gpu = GpuExecutor::open(&options).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", gpu.device());
    let mut cpu = CpuExecutor::new(4);
    for (shape, pace_us) in MODELS {
        let stack = Arc::new(lstm(shape));
        let begun = Instant::now();
        let mut one = Asked::new(&gpu, &stack);
        println!("{}: {:.0} ms to start", stack.name, begun.elapsed().as_secs_f64() * 1e3);
        one.run(span / 3, None);
        one.micros.clear();
        let mut worst = 0.0_f32;
        for _ in 0..20 {
            one.push();
            worst = worst.max(one.error(&mut cpu));
        }
        one.report("  one at a time, checked (pauses between)", worst);
        one.run(span, None);
        let error = one.error(&mut cpu);
        one.report("  one instance, as fast as it answers", error);
        one.run(span, Some(Duration::from_micros(pace_us)));
        let error = one.error(&mut cpu);
        one.report(&format!("  one instance, a step every {pace_us} µs"), error);
        drop(one);
        match Fixed::new(&mut gpu, &mut cpu, &stack) {
            Ok(mut fixed) => {
                fixed.run(span / 3);
                fixed.micros.clear();
                fixed.run(span);
                let what = "  whole windows, as fast as it answers";
                report(what, &mut fixed.micros, fixed.silences, fixed.worst);
                gpu.unload(fixed.plan.id);
            }
            Err(error) => println!("  whole windows: {error}"),
        }
        if shape[3] > 400 {
            continue; // its workgroups fill the device
        }
        // In turns, since a virtual machine's minutes differ by more than eight instances do from one.
        let ratios: Vec<f32> = (0..ROUNDS).map(|_| crowded(&gpu, &mut cpu, &stack, span, pace_us)).collect();
        let mut sorted = ratios.clone();
        sorted.sort_by(f32::total_cmp);
        println!("  p99 of eight to that of one, in turns: {:.2} of {ratios:.2?}", sorted[ROUNDS / 2]);
    }
}

/// The p99 of eight instances at once, to that of one alone right before.
fn crowded(
    gpu: &GpuExecutor,
    cpu: &mut CpuExecutor,
    stack: &Arc<SlidingStack>,
    span: Duration,
    pace_us: u64,
) -> f32 {
    let [one, eight] = [1, 8].map(|count| {
        let gate = Barrier::new(count);
        let instances: Vec<Asked> = (0..count).map(|_| Asked::new(gpu, stack)).collect();
        let ended: Vec<Asked> = std::thread::scope(|scope| {
            let run = |mut one: Asked| {
                let gate = &gate;
                scope.spawn(move || {
                    one.run(span / 3, Some(Duration::from_micros(pace_us)));
                    one.micros.clear();
                    gate.wait();
                    one.run(span, Some(Duration::from_micros(pace_us)));
                    one
                })
            };
            let threads: Vec<_> = instances.into_iter().map(run).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ran")).collect()
        });
        let worst = ended.iter().map(|one| one.error(cpu)).fold(0.0, f32::max);
        let silences = ended.iter().map(|one| one.silences).sum();
        let mut micros: Vec<f32> = ended.iter().flat_map(|one| one.micros.iter().copied()).collect();
        report(&format!("  {count} at once, a step every {pace_us} µs each"), &mut micros, silences, worst)
    });
    eight / one
}

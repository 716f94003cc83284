//! One plan after the other on a device: how long its runs take, where their time goes, and how far off they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_shaders::cpu::CpuExecutor;
use peregrine_shaders::gpu::GpuExecutor;
use peregrine_shaders::{Executor, Plan};

use super::Noise;

/// Inputs that take turns, so that no run can leave its answer to the next.
const TURNS: usize = 4;

/// A device, and the host to check it.
pub struct Bench {
    pub gpu: GpuExecutor,
    cpu: CpuExecutor,
    budget: Duration,
}

/// Microseconds of a run.
pub struct Times {
    pub p50: f64,
    pub p99: f64,
    pub count: usize,
}

/// Medians in microseconds of where the time of a run goes.
pub struct Parts {
    /// Until its last submission.
    pub before: f64,
    pub device: f64,
    /// From the end of the device's work until the results are out.
    pub behind: f64,
}

impl Bench {
    /// Each figure may take so long.
    pub fn new(gpu: GpuExecutor, budget: Duration) -> Self {
        Self { gpu, cpu: CpuExecutor::new(2), budget }
    }

    /// Of runs one after the other; a third of them warms up: the device's clock takes its time.
    pub fn times(&mut self, plan: &Arc<Plan>, rows: usize) -> Times {
        let mut micros = Vec::new();
        let (budget, started) = (self.budget, Instant::now());
        self.run(plan, rows, |_, begun, ended| {
            if ended - started > budget / 3 {
                micros.push((ended - begun).as_secs_f64() * 1e6);
            }
            ended - started <= budget || micros.len() < 5
        });
        micros.sort_by(f64::total_cmp);
        let at = |share: f64| micros[((micros.len() - 1) as f64 * share).round() as usize];
        Times { p50: at(0.5), p99: at(0.99), count: micros.len() }
    }

    /// By the host's clock and the device's.
    pub fn parts(&mut self, plan: &Arc<Plan>, rows: usize) -> Parts {
        const RUNS: usize = 31;
        let mut parts = [(); 3].map(|()| Vec::with_capacity(RUNS));
        self.gpu.observe(true);
        self.run(plan, rows, |gpu, begun, ended| {
            let times = gpu.observed().expect("it was observed");
            let device = times.device.unwrap_or_default();
            let each = [times.submitted - begun, device, ended - times.finished];
            parts.iter_mut().zip(each).for_each(|(part, took)| part.push(took.as_secs_f64() * 1e6));
            parts[0].len() < RUNS
        });
        self.gpu.observe(false);
        let [before, device, behind] = parts.map(|mut part| {
            part.sort_by(f64::total_cmp);
            part[RUNS / 2]
        });
        Parts { before, device, behind }
    }

    /// Half a second of runs.
    pub fn warm(&mut self, plan: &Arc<Plan>, rows: usize) {
        let started = Instant::now();
        self.run(plan, rows, |_, _, ended| ended - started < Duration::from_millis(500));
    }

    /// Worst difference to what the CPU makes of `exact`, over the largest value.
    pub fn error(&mut self, exact: &Arc<Plan>, plan: &Arc<Plan>, rows: usize) -> f64 {
        let inputs = inputs(plan, rows, 31);
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let cells = rows * plan.width(plan.output);
        let (mut expected, mut actual) = (vec![f32::NAN; cells], vec![f32::NAN; cells]);
        self.cpu.run(exact, rows, &inputs, &mut expected).expect("the host runs");
        self.gpu.run(plan, rows, &inputs, &mut actual).expect("the device runs");
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let pairs = actual.iter().zip(&expected);
        let worst =
            pairs.fold(0.0_f32, |most, (a, e)| if (a - e).abs() <= most { most } else { (a - e).abs() });
        f64::from(worst / largest)
    }

    /// Until `goes_on`, told when each run began and ended, says no.
    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        mut goes_on: impl FnMut(&GpuExecutor, Instant, Instant) -> bool,
    ) {
        let turns: Vec<_> = (0..TURNS as u64).map(|seed| inputs(plan, rows, seed)).collect();
        let turns: Vec<Vec<&[f32]>> =
            turns.iter().map(|inputs| inputs.iter().map(Vec::as_slice).collect()).collect();
        let mut output = vec![f32::NAN; rows * plan.width(plan.output)];
        for inputs in turns.iter().cycle() {
            let begun = Instant::now();
            self.gpu.run(plan, rows, inputs, &mut output).expect("the device runs");
            if !goes_on(&self.gpu, begun, Instant::now()) {
                break;
            }
        }
    }
}

fn inputs(plan: &Plan, rows: usize, seed: u64) -> Vec<Vec<f32>> {
    let widths = plan.inputs.iter().map(|buffer| plan.width(*buffer));
    (0..)
        .zip(widths)
        .map(|(at, width)| Noise((rows as u64) << 16 | seed << 8 | at).uniform(rows * width, 1.0))
        .collect()
}

/// A plan as it is, and with matrices of halves.
pub fn precisions(exact: &Arc<Plan>) -> [Arc<Plan>; 2] {
    [Arc::clone(exact), Arc::new(exact.halved().expect("small weights"))]
}

//! Measures variants of a layer on the device: passes of every candidate in turns, all of them queued at once.
//!
//! A device that idles lowers its clock for a while, and one that is waited for idles: so it is warmed up first, and the
//! host looks once all passes of a question are done. Candidates take turns, so that what changes meets all of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::{Device, Flows};
use super::kernels::Kernels;
use super::mapped::Copier;
use super::memory::Memory;
use super::params::BatchParams;
use super::prepared::{Fit, Prepared};
use super::timer::Timer;
use super::tuner;
use super::variants::{Layer, Variant};
use crate::{ExecuteError, Linear, Move, Plan, PlanBuilder, View};

/// Passes of each candidate, of which the median counts.
const ROUNDS: usize = 7;
/// The same where one dispatch takes longer than a pass should.
const ROUNDS_OF_LONG: usize = 5;
/// Passes of one dispatch before that, of which the shortest says what the others are to be: the first one also brings the
/// layer's numbers near.
const TRIALS: usize = 3;
/// How long a pass of the fastest candidate is to take, so that its ends do not count for much.
const PASS: Duration = Duration::from_micros(100);
/// The same by the host's clock, which sees the way there and back too.
const PASS_BY_HOST: Duration = Duration::from_millis(2);
/// Dispatches of a pass at most.
const DISPATCHES_MAX: usize = 64;
/// A candidate that takes so many times the fastest one's time in them is measured no further.
const HOPELESS: u64 = 3;
/// A device of its own is warm after so long under load, its clock having been down.
const WARM_UP: Duration = Duration::from_millis(800);
/// Dispatches between two looks at the host's clock meanwhile.
const WARM_UP_DISPATCHES: usize = 32;

/// A device that measures, beside whatever else it has.
pub(super) struct Stand<'a> {
    device: Device,
    kernels: &'a Kernels,
    /// Whose layers are measured.
    plan: &'a Plan,
    copier: Copier,
    timeout: Duration,
    born: Instant,
    warm: bool,
    /// `None`: the device has no clock that can be asked.
    timer: Option<Timer>,
    /// The layer that was measured last.
    bound: Option<Bound>,
}

/// One layer, alone in a plan.
struct Bound {
    of: Linear,
    prepared: Prepared,
    memory: Memory,
}

/// One pass: so many dispatches of a candidate.
type Pass = (Variant, usize);

impl<'a> Stand<'a> {
    /// For layers of a plan; `timeout` for all passes of a question.
    pub(super) fn new(
        device: &Device,
        kernels: &'a Kernels,
        plan: &'a Plan,
        timeout: Duration,
        warm: bool,
    ) -> Result<Self, ExecuteError> {
        // A layer alone is never run in one dispatch with others.
        let mut device = device.clone();
        device.flows = Flows::None;
        let passes = u32::try_from(ROUNDS * Variant::ALL.len()).expect("a few dozen");
        let timer = Timer::new(&device, passes)?;
        let (copier, born) = (Copier::default(), Instant::now());
        Ok(Self { device, kernels, plan, copier, timeout, born, warm, timer, bound: None })
    }

    /// Whether the device's clock has been brought up.
    pub(super) fn is_warm(&self) -> bool {
        self.warm
    }

    /// Brings a layer to the device, with room for all the rows that one batch may have.
    fn bind(&mut self, Layer { linear, .. }: Layer<'_>) -> Result<(), ExecuteError> {
        let same = |bound: &Bound| {
            Arc::ptr_eq(&bound.of.weights, &linear.weights)
                && (bound.of.src, bound.of.dst, bound.of.repeat) == (linear.src, linear.dst, linear.repeat)
        };
        if self.bound.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.bound = None;
        let plan = Arc::new(alone(linear, self.plan));
        let fit = Fit::of(&self.device, &plan, None)?;
        let mut prepared = Prepared::new(&self.device, self.kernels, &plan, &fit)?;
        let rows = prepared.chunk_rows_max;
        let memory = Memory::new(&self.device, prepared.need(self.kernels, rows), 1)?;
        prepared.bind(&self.device, self.kernels, 0, &memory, rows)?;
        // What the arithmetic costs may depend on the numbers, by the power that it takes.
        let layout = prepared.bound(0).0;
        for (at, input) in plan.inputs.iter().enumerate() {
            let floats = noise(at as u32 + 1, rows * layout.stride(*input));
            let bytes = bytemuck::cast_slice(&floats);
            let offset = (layout.base(*input) * size_of::<f32>()) as u64;
            self.device.queue.write_buffer(memory.arena.buffer(), offset, bytes);
        }
        self.bound = Some(Bound { of: linear.clone(), prepared, memory });
        Ok(())
    }

    /// Runs passes over so many rows; nanoseconds of one dispatch of each of them.
    fn run(&self, passes: &[Pass], rows: usize) -> Result<Vec<u64>, ExecuteError> {
        let bound = self.bound.as_ref().expect("a layer is bound before it is run");
        let row_count = u32::try_from(rows).expect("a chunk is short");
        let batch = BatchParams { row_count, ..BatchParams::default() };
        bound.memory.batch.write(0, bytemuck::bytes_of(&batch), &self.copier);
        let each = |passes: &[Pass], took: Vec<Duration>| {
            let nanos = passes.iter().zip(took).map(|((_, dispatches), took)| {
                u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / *dispatches as u64
            });
            nanos.collect::<Vec<_>>()
        };
        if let Some(timer) = &self.timer {
            return Ok(each(passes, self.submit(bound, passes, rows, Some(timer))?));
        }
        let mut all = Vec::new();
        for pass in passes.chunks(1) {
            let started = Instant::now();
            self.submit(bound, pass, rows, None)?;
            all.extend(each(pass, vec![started.elapsed()]));
        }
        Ok(all)
    }

    /// Submits passes and waits for them; what the device's clock says of each.
    fn submit(
        &self,
        bound: &Bound,
        passes: &[Pass],
        rows: usize,
        timer: Option<&Timer>,
    ) -> Result<Vec<Duration>, ExecuteError> {
        let Self { device, kernels, plan, .. } = self;
        let [groups, _] = bound.prepared.bound(0).1;
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("measurement") };
        let mut encoder = device.raw.create_command_encoder(&descriptor);
        let count = u32::try_from(passes.len()).expect("a few dozen");
        for (at, (variant, dispatches)) in (0..).zip(passes) {
            let timestamp_writes = timer.map(|timer| timer.writes(at));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            let Some((pipeline, [columns, lines])) =
                kernels.by(plan.precision, Layer::of(plan, &bound.of), rows, *variant)
            else {
                return Err(ExecuteError::Refused("a variant that is not there is measured".to_owned()));
            };
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &groups[0], &[]);
            (0..*dispatches).for_each(|_| pass.dispatch_workgroups(columns, lines, 1));
        }
        if let Some(timer) = timer {
            timer.resolve(&mut encoder, count);
        }
        let submission = device.queue.submit([encoder.finish()]);
        device.wait(&submission, true, Instant::now(), self.timeout)?;
        let Some(timer) = timer else { return Ok(Vec::new()) };
        let period_ns = device.queue.get_timestamp_period();
        let took = |at| timer.read(at, &self.copier).map(|stretch| stretch.took(period_ns));
        (0..count)
            .map(|at| took(at).ok_or_else(|| ExecuteError::Refused("its clock makes no sense".to_owned())))
            .collect()
    }

    fn by(&self, layer: Layer<'_>, rows: usize, variant: Variant) -> bool {
        self.kernels.by(self.plan.precision, layer, rows, variant).is_some()
    }

    /// Brings a layer to the device and, the first time, the device's clock up: neither is time that the layer takes.
    pub(super) fn make_ready(&mut self, layer: Layer<'_>) -> Result<(), ExecuteError> {
        self.bind(layer)?;
        let rows = self.bound.as_ref().expect("just now").prepared.chunk_rows_max;
        let is_there = |variant: &Variant| self.by(layer, rows, *variant);
        let Some(variant) = Variant::ALL.into_iter().rev().find(is_there) else { return Ok(()) };
        let began = Instant::now();
        while !self.warm {
            self.run(&[(variant, WARM_UP_DISPATCHES)], rows)?;
            self.warm = began.elapsed() >= WARM_UP;
        }
        Ok(())
    }
}

impl tuner::Stand for Stand<'_> {
    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn measure(
        &mut self,
        layer: Layer<'_>,
        lines: usize,
        candidates: &[Variant],
    ) -> Result<Vec<(Variant, u64)>, ExecuteError> {
        self.bind(layer)?;
        let prepared = &self.bound.as_ref().expect("just now").prepared;
        let rows = lines.div_ceil(layer.lines(1)).min(prepared.chunk_rows_max);
        let is_there = |variant: &&Variant| self.by(layer, rows, **variant);
        let there: Vec<Variant> = candidates.iter().filter(is_there).copied().collect();
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let alone: Vec<Pass> = there.iter().map(|variant| (*variant, 1)).collect();
        // Candidates take turns.
        let trials = by_candidate(&self.run(&alone.repeat(TRIALS), rows)?, there.len());
        let shortest: Vec<u64> = trials.iter().filter_map(|trials| trials.iter().min().copied()).collect();
        let least = shortest.iter().min().copied().unwrap_or_default().max(1);
        let pass = if self.timer.is_some() { PASS } else { PASS_BY_HOST }.as_nanos() as u64;
        let dispatches = usize::try_from(pass.div_ceil(least)).unwrap_or(DISPATCHES_MAX).min(DISPATCHES_MAX);
        let rounds = if least > pass { ROUNDS_OF_LONG } else { ROUNDS };
        let (hopeful, slow): (Vec<_>, Vec<_>) =
            there.iter().copied().zip(shortest).partition(|(_, shortest)| *shortest <= HOPELESS * least);
        let timed: Vec<Pass> = hopeful.iter().map(|(variant, _)| (*variant, dispatches)).collect();
        let nanos = self.run(&timed.repeat(rounds), rows)?;
        let medians = by_candidate(&nanos, timed.len()).into_iter().map(|mut of| {
            of.sort_unstable();
            of[of.len() / 2]
        });
        Ok(timed.iter().map(|(variant, _)| *variant).zip(medians).chain(slow).collect())
    }
}

/// What each of so many candidates took in its turns.
fn by_candidate(nanos: &[u64], candidates: usize) -> Vec<Vec<u64>> {
    (0..candidates).map(|at| nanos.iter().skip(at).step_by(candidates).copied().collect()).collect()
}

/// A plan of the layer alone, whose output is read by another command: else it would be stored where the host sees it.
fn alone(linear: &Linear, of: &Plan) -> Plan {
    let mut plan = PlanBuilder::new("a layer alone");
    // In a buffer as wide as its own: that says how its lines lie.
    let mut like = |view: View| plan.input(of.width(view.buffer)).slice(view.offset, view.width);
    let (src, dst) = (like(linear.src), like(linear.dst));
    let mask = linear.mask.map(like);
    let output = plan.buffer(1);
    plan.linear(Linear { src, dst, mask, ..linear.clone() });
    plan.move_columns(Move::copy(dst.slice(0, 1), output));
    Plan { precision: of.precision, ..plan.finish(output) }
}

/// Numbers between −1 and 1.
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1_u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

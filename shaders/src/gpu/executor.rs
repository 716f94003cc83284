//! The executor: loads plans, cuts batches, and carries each chunk to the device and back.

#[cfg(test)]
mod testing;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::{Device, KillSwitch};
use super::flow::Running;
use super::halved::Halved;
use super::kernels::Kernels;
use super::layout::{self, Layout};
use super::loaded::Loaded;
use super::mapped::{Copier, Mapped};
use super::memory::{Arena, Memory, Need};
use super::params::BatchParams;
use super::prepared::Prepared;
use super::resident::{Program, Resident};
use super::slide::Slider;
use super::timer::{Stretch, Timer};
use super::{GpuError, GpuOptions, adapter, narrow};
use crate::{
    Backend, BufferId, DeviceMemory, ExecuteError, Executor, KernelFacts, Plan, PlanId, ResidentPlan,
    RunTimes, SlidingStack, Stay,
};

/// How long the last handle of a device waits for a submission that timed out, before it leaks the device instead.
const FAREWELL: Duration = Duration::from_millis(100);
/// While the device computes one chunk, the host carries the one before and the one after.
pub(super) const LANES: usize = 2;

/// Runs plans on one Vulkan device. After [`ExecuteError::DeviceLost`] it stays lost: open a new one.
pub struct GpuExecutor {
    label: String,
    pub(super) timeout: Duration,
    pub(super) device: Device,
    pub(super) kernels: Kernels,
    copier: Copier,
    plans: Loaded,
    lanes: [Lane; LANES],
    generation: u64,
    /// Whether the times of runs are noted.
    observes: bool,
    noted: Noted,
}

/// Of the run that is under way, or was.
#[derive(Clone, Copy, Debug, Default)]
struct Noted {
    submitted: Option<Instant>,
    finished: Option<Instant>,
    device: Option<Stretch>,
}

/// What one chunk in flight occupies. A batch of one chunk only ever uses the first lane.
#[derive(Default)]
struct Lane {
    memory: Option<Memory>,
    /// Set from the submission until it is known to be done, also beyond a run that gave up waiting: until then the
    /// host keeps off the lane's memory.
    in_flight: Option<wgpu::SubmissionIndex>,
    /// Made once a run is observed; `None` inside: the device has no clock.
    timer: Option<Option<Timer>>,
}

impl GpuExecutor {
    /// Opens the adapter that the options ask for and compiles every kernel.
    ///
    /// # Errors
    /// See [`GpuError`].
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        Self::open_after(options, |_| ())
    }

    /// The same with something done to a device before its kernels are compiled. A device that is lost over a kernel is followed
    /// by one that does without it.
    fn open_after(options: &GpuOptions, before: impl Fn(&Device)) -> Result<Self, GpuError> {
        loop {
            let lessons = options.refusals.lessons();
            match Self::open_once(options, &before) {
                Err(GpuError::KernelRefused { .. }) if options.refusals.lessons() > lessons => {}
                opened => return opened,
            }
        }
    }

    fn open_once(options: &GpuOptions, before: impl Fn(&Device)) -> Result<Self, GpuError> {
        let (adapter, facts) = adapter::find(options.adapter, options.index)?;
        let device = Device::open(&adapter, &facts, options.kernels.as_deref(), &options.refusals)?;
        before(&device);
        let kernels = Kernels::compile(&device).map_err(|error| GpuError::KernelRefused {
            adapter: facts.name.clone(),
            reason: error.to_string(),
        })?;
        device.compiler.keep();
        tracing::info!(adapter = %facts.name, driver = %facts.driver, software = facts.software, "device opened");
        Ok(Self {
            label: format!("{} ({})", facts.name, facts.driver),
            timeout: options.timeout,
            copier: Copier::new(facts.software),
            device,
            kernels,
            plans: Loaded::new(options.memory),
            lanes: <[Lane; LANES]>::default(),
            generation: 0,
            observes: false,
            noted: Noted::default(),
        })
    }

    /// Destroys the device: the next run answers [`ExecuteError::DeviceLost`]. For tests of failover.
    pub fn destroy_device(&self) {
        self.device.kill_switch().destroy_device();
    }

    /// Destroys the device from another thread, while this executor is owned by its own.
    #[must_use]
    pub fn kill_switch(&self) -> KillSwitch {
        self.device.kill_switch()
    }

    /// Keeps a stack and the states of its windows on the device: every step that is pushed has its forecast.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] where the device or the stack does not allow it; what the driver says otherwise.
    pub fn slide(&self, stack: &Arc<SlidingStack>) -> Result<Slider, ExecuteError> {
        self.device.guard(|| Slider::start(&self.device, stack))
    }

    /// Sends the rows of a chunk on their way through a lane that is free.
    fn start(
        &mut self,
        id: PlanId,
        lane: usize,
        rows: &Range<usize>,
        inputs: &[&[f32]],
    ) -> Result<(), ExecuteError> {
        self.make_room(id, lane, rows.len())?;
        let prepared = self.plans.of(id);
        let Lane { memory, in_flight, timer } = &mut self.lanes[lane];
        if self.observes && timer.is_none() {
            *timer = Some(Timer::new(&self.device, 1)?);
        }
        let timer = timer.as_ref().and_then(Option::as_ref).filter(|_| self.observes);
        let memory = memory.as_mut().expect("room was made");
        let flows = prepared.flows(lane, rows.len());
        let row_count = u32::try_from(rows.len()).expect("a chunk is short");
        let batch = match prepared.flow.as_mut().filter(|_| flows) {
            Some(flow) => flow.next(rows.len(), layout::stride(prepared.plan.width(prepared.plan.output))),
            None => BatchParams { row_count, ..BatchParams::default() },
        };
        memory.batch.write(0, bytemuck::bytes_of(&batch), &self.copier);
        let prepared = &*prepared;
        let memory = &*memory;
        let plan = &prepared.plan;
        let way = match prepared.flow.as_ref().filter(|_| flows) {
            Some(flow) => Way::Flow(flow),
            None => Way::Layers { widen: self.kernels.widens(plan, rows.len()) },
        };
        let is_narrow = matches!(way, Way::Layers { widen: Some(_) });
        let input_floats = plan.inputs.iter().map(|input| plan.width(*input)).sum::<usize>() * rows.len();
        let commands = self.copier.beside(
            input_floats * if is_narrow { size_of::<half::f16>() } else { size_of::<f32>() },
            || match is_narrow {
                true => write_halves(plan, prepared.capacity(lane), memory, rows, inputs, &self.copier),
                false => write_inputs(plan, prepared.bound(lane).0, memory, rows, inputs, &self.copier),
            },
            || encode(&self.device, &self.kernels, prepared, way, memory, lane, rows.len(), timer),
        );
        *in_flight = Some(self.device.queue.submit([commands]));
        if self.observes {
            self.noted.submitted = Some(Instant::now());
        }
        Ok(())
    }

    /// Waits for what a lane has in flight, if anything; the lane is free afterwards.
    fn wait(&mut self, lane: usize, started: Instant, timeout: Duration) -> Result<(), ExecuteError> {
        let newest = self.lanes.iter().filter(|lane| lane.in_flight.is_some()).count() == 1;
        if let Some(submission) = &self.lanes[lane].in_flight {
            self.device.wait(submission, newest, started, timeout)?;
            self.lanes[lane].in_flight = None;
        }
        Ok(())
    }

    /// Waits for a chunk and copies its results out.
    fn finish(
        &mut self,
        plan: &Plan,
        lane: usize,
        rows: &Range<usize>,
        inputs: &[&[f32]],
        output: &mut [f32],
        started: Instant,
    ) -> Result<(), ExecuteError> {
        self.wait(lane, started, self.timeout)?;
        if self.flow_failed(plan, lane) {
            self.start(plan.id, lane, rows, inputs)?;
            self.wait(lane, started, self.timeout)?;
        }
        self.note(lane);
        let memory = self.lanes[lane].memory.as_ref().expect("the lane was used");
        let width = plan.width(plan.output);
        let stride_bytes = layout::stride(width) * size_of::<f32>();
        if stride_bytes == width * size_of::<f32>() {
            memory.readback.read(0, bytemuck::cast_slice_mut(output), &self.copier);
        } else {
            for (row, output) in output.chunks_exact_mut(width).enumerate() {
                memory.readback.read(row * stride_bytes, bytemuck::cast_slice_mut(output), &self.copier);
            }
        }
        Ok(())
    }

    /// What is known of a chunk that is done.
    fn note(&mut self, lane: usize) {
        if !self.observes {
            return;
        }
        self.noted.finished = Some(Instant::now());
        let timer = self.lanes[lane].timer.as_ref().and_then(Option::as_ref);
        if let Some(stretch) = timer.and_then(|timer| timer.read(0, &self.copier)) {
            self.noted.device = Some(self.noted.device.map_or(stretch, |known| known.joined(stretch)));
        }
    }

    /// Whether the workgroups of a flow did not run at once; then the plan has no flow any more.
    fn flow_failed(&mut self, plan: &Plan, lane: usize) -> bool {
        let memory = self.lanes[lane].memory.as_mut().expect("the lane was used");
        let mut word = [0; size_of::<u32>()];
        memory.failed.read(0, &mut word, &self.copier);
        if u32::from_ne_bytes(word) == 0 {
            return false;
        }
        memory.failed.write(0, &[0; size_of::<u32>()], &self.copier);
        if let Some(prepared) = self.plans.get_mut(plan.id) {
            prepared.flow = None;
        }
        tracing::warn!(plan = %plan.name, device = %self.label, "workgroups do not run at once, one dispatch a layer from now on");
        true
    }

    /// Capacity, memory and bind groups for a chunk; does nothing at steady state.
    fn make_room(&mut self, id: PlanId, lane: usize, rows: usize) -> Result<(), ExecuteError> {
        let beside = self.batch_bytes();
        let Self { device, kernels, plans, lanes, generation, .. } = self;
        let prepared = plans.of(id);
        let plan = Arc::clone(&prepared.plan);
        let capacity_rows = prepared.capacity_rows(lane, rows);
        let need = prepared.need(kernels, capacity_rows);
        let memory = &mut lanes[lane].memory;
        if !memory.as_ref().is_some_and(|memory| memory.holds(need)) {
            let need = memory.as_ref().map_or(need, |memory: &Memory| -> Need { memory.grown(need) });
            // The old buffers go first: both together may not fit.
            let others = beside - memory.take().map_or(0, |memory| memory.bytes());
            *generation += 1;
            let made = plans.granted(device, id, || Memory::new(device, need, *generation))?;
            plans.make_room(device, &plan, others + made.bytes())?;
            *memory = Some(made);
        }
        let memory = memory.as_ref().expect("made above");
        plans.of(id).bind(device, kernels, lane, memory, capacity_rows)
    }

    /// Bytes of what batches are computed in.
    fn batch_bytes(&self) -> u64 {
        self.lanes.iter().filter_map(|lane| lane.memory.as_ref()).map(Memory::bytes).sum()
    }

    /// Whether a kernel that stays has answered.
    fn answered_by_resident(
        &mut self,
        plan: &Plan,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<bool, ExecuteError> {
        let Some(resident) = self.plans.get_mut(plan.id).and_then(|prepared| prepared.resident.as_ref())
        else {
            return Ok(false);
        };
        // What was damaged on purpose is stopped by who takes the damage.
        if rows > resident.rows_max() || self.device.is_damaged() {
            return Ok(false);
        }
        self.device.check_lost()?;
        Ok(resident.run_soundly(rows, inputs, output).is_ok())
    }
}

impl Executor for GpuExecutor {
    fn backend(&self) -> Backend {
        Backend::Gpu
    }

    fn device(&self) -> &str {
        &self.label
    }

    fn load(&mut self, plan: &Arc<Plan>) -> Result<(), ExecuteError> {
        let beside = self.batch_bytes();
        let Self { device, kernels, plans, .. } = self;
        device.guard(|| plans.bring(device, kernels, plan, beside))
    }

    fn memory(&self) -> Option<DeviceMemory> {
        Some(DeviceMemory {
            plans: self.plans.len(),
            plan_bytes: self.plans.bytes(),
            batch_bytes: self.batch_bytes(),
            budget_bytes: self.plans.budget(),
            evictions: self.plans.evictions(),
        })
    }

    fn kernels(&self) -> Option<KernelFacts> {
        Some(KernelFacts { choices: self.kernels.choices.len(), refused: self.kernels.refused() })
    }

    fn observe(&mut self, wanted: bool) {
        self.observes = wanted;
        if wanted {
            self.noted = Noted::default();
        }
    }

    fn observed(&self) -> Option<RunTimes> {
        let Noted { submitted, finished, device } = self.noted;
        let period_ns = self.device.queue.get_timestamp_period();
        let device = device.map(|stretch| stretch.took(period_ns));
        Some(RunTimes { submitted: submitted?, finished: finished?, device })
    }

    fn reside(&mut self, plan: &Arc<Plan>, stay: Stay) -> Result<Arc<dyn ResidentPlan>, ExecuteError> {
        self.load(plan)?;
        if let Some(resident) = &self.plans.of(plan.id).resident {
            return Ok(Arc::clone(resident) as Arc<dyn ResidentPlan>);
        }
        let device = self.device.clone();
        let program = || Program::of(&device, plan, stay.rows_max);
        let resident = device.guard(|| Resident::start(&device, program()?, stay.rest_after))?;
        let resident = Arc::new(resident);
        self.plans.of(plan.id).resident = Some(Arc::clone(&resident));
        Ok(resident)
    }

    fn unload(&mut self, plan: PlanId) {
        self.plans.remove(plan);
    }

    fn run(
        &mut self,
        plan: &Arc<Plan>,
        rows: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) -> Result<(), ExecuteError> {
        plan.assert_fits(rows, inputs, output);
        let output_width = plan.width(plan.output);
        self.noted = Noted::default();

        // First, and touching nothing else: after a pause every line of memory that is not in a cache costs as much as a
        // layer of the answer.
        if self.answered_by_resident(plan, rows, inputs, output)? {
            return Ok(());
        }
        self.load(plan)?;
        let started = Instant::now();
        let device = self.device.clone();
        if device.takes_damage() {
            for prepared in self.plans.all() {
                // Its weights are its own.
                if let Some(resident) = prepared.resident.take() {
                    resident.stop();
                }
                prepared.damage(&device.queue);
            }
        }
        device.guard(|| {
            for lane in 0..LANES {
                // Left behind by a run that gave up.
                self.wait(lane, started, self.timeout)?;
            }
            let chunk_rows_max = self.plans.of(plan.id).chunk_rows_max;
            let mut outputs = output.chunks_mut((chunk_rows_max * output_width).max(1));
            let mut under_way: [Option<(Range<usize>, &mut [f32])>; LANES] = [const { None }; LANES];
            let mut lane = 0;
            for chunk in layout::chunks(rows, chunk_rows_max) {
                if let Some((rows, output)) = under_way[lane].take() {
                    self.finish(plan, lane, &rows, inputs, output, started)?;
                }
                self.start(plan.id, lane, &chunk, inputs)?;
                under_way[lane] = outputs.next().map(|output| (chunk, output));
                lane = (lane + 1) % LANES;
            }
            for lane in (lane..lane + LANES).map(|lane| lane % LANES) {
                if let Some((rows, output)) = under_way[lane].take() {
                    self.finish(plan, lane, &rows, inputs, output, started)?;
                }
            }
            Ok(())
        })
    }
}

impl Drop for GpuExecutor {
    fn drop(&mut self) {
        let device = self.device.clone();
        for lane in 0..LANES {
            let done = device.guard(|| self.wait(lane, Instant::now(), FAREWELL));
            if matches!(done, Err(ExecuteError::Timeout { .. })) {
                tracing::error!(device = %self.label, "device hangs, leaking it");
                device.abandon();
                return;
            }
        }
    }
}

/// The rows of every input where they are read or copied from.
fn write_inputs(
    plan: &Plan,
    layout: &Layout,
    memory: &Memory,
    rows: &Range<usize>,
    inputs: &[&[f32]],
    copier: &Copier,
) {
    let mut upload_at = 0;
    for (input, buffer) in inputs.iter().zip(&plan.inputs) {
        let width = plan.width(*buffer);
        let input = &input[rows.start * width..rows.end * width];
        match &memory.arena {
            Arena::Written(arena) => {
                write_rows(arena, layout.base(*buffer) * size_of::<f32>(), width, input, copier);
            }
            Arena::Copied { upload, .. } => {
                write_rows(upload, upload_at, width, input, copier);
                upload_at += rows.len() * layout.stride(*buffer) * size_of::<f32>();
            }
        }
    }
}

/// The rows of every input as halves, which are widened in the arena.
fn write_halves(
    plan: &Plan,
    capacity_rows: usize,
    memory: &Memory,
    rows: &Range<usize>,
    inputs: &[&[f32]],
    copier: &Copier,
) {
    let mut at = 0;
    for (input, buffer) in inputs.iter().zip(&plan.inputs) {
        let width = plan.width(*buffer);
        narrow::write(memory, at, width, &input[rows.start * width..rows.end * width], copier);
        at += capacity_rows * layout::stride(width) * size_of::<half::f16>();
    }
}

/// Rows of `width` floats, each padded to its stride.
fn write_rows(to: &Mapped, at: usize, width: usize, rows: &[f32], copier: &Copier) {
    let stride_bytes = layout::stride(width) * size_of::<f32>();
    if stride_bytes == width * size_of::<f32>() {
        to.write(at, bytemuck::cast_slice(rows), copier);
    } else {
        for (row, cells) in rows.chunks_exact(width).enumerate() {
            to.write(at + row * stride_bytes, bytemuck::cast_slice(cells), copier);
        }
    }
}

/// How the rows of a chunk become results.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// In one dispatch.
    Flow(&'a Running),
    /// In one dispatch a command, after one an input if it crossed as halves.
    Layers { widen: Option<&'a wgpu::ComputePipeline> },
}

/// One dispatch a command, or one in all; copies only where a kernel does not reach what the host sees.
#[expect(clippy::too_many_arguments, reason = "parts of two owners, borrowed apart")]
fn encode(
    device: &Device,
    kernels: &Kernels,
    prepared: &Prepared,
    way: Way<'_>,
    memory: &Memory,
    lane: usize,
    rows: usize,
    timer: Option<&Timer>,
) -> wgpu::CommandBuffer {
    let plan = &prepared.plan;
    let (layout, [groups, widening]) = prepared.bound(lane);
    let place = |buffer: BufferId| {
        let floats = [layout.base(buffer), rows * layout.stride(buffer)];
        floats.map(|count| (count * size_of::<f32>()) as u64)
    };
    let mut encoder =
        device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("batch") });
    if let Arena::Copied { arena, upload } = &memory.arena
        && !matches!(way, Way::Layers { widen: Some(_) })
    {
        let mut at = 0;
        for buffer in &plan.inputs {
            let [offset, bytes] = place(*buffer);
            encoder.copy_buffer_to_buffer(&upload.buffer, at, arena, offset, bytes);
            at += bytes;
        }
    }
    {
        let timestamp_writes = timer.map(|timer| timer.writes(0));
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        match way {
            Way::Flow(flow) => flow.record(&mut pass, rows),
            Way::Layers { widen } => {
                if let Some(pipeline) = widen {
                    pass.set_pipeline(pipeline);
                    for (input, group) in plan.inputs.iter().zip(widening) {
                        pass.set_bind_group(0, group, &[]);
                        pass.dispatch_workgroups(narrow::workgroups(plan, *input, rows), 1, 1);
                    }
                }
                let halves = kernels.halves(plan.precision, rows);
                for ((command, halved), group) in plan.commands.iter().zip(&prepared.halved).zip(groups) {
                    let halved = if halves { *halved } else { Halved::default() };
                    let (pipeline, [columns, rows]) = kernels.of(plan, command, halved, rows);
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, group, &[]);
                    pass.dispatch_workgroups(columns, rows, 1);
                }
            }
        }
    }
    if let Some(timer) = timer {
        timer.resolve(&mut encoder, 1);
    }
    let readback = &memory.readback.buffer;
    if !prepared.sinks {
        let [offset, bytes] = place(plan.output);
        encoder.copy_buffer_to_buffer(memory.arena.buffer(), offset, readback, 0, bytes);
    }
    encoder.finish()
}

//! The executor: loads plans, cuts batches, and carries each chunk to the device and back.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::{Device, KillSwitch};
use super::kernels::Kernels;
use super::layout;
use super::memory::{BATCH_BYTES, Memory, Need};
use super::params::BatchParams;
use super::prepared::Prepared;
use super::{GpuError, GpuOptions, adapter};
use crate::{Backend, ExecuteError, Executor, Plan, PlanId};

/// How long the last handle of a device waits for a submission that timed out, before it leaks the device instead.
const FAREWELL: Duration = Duration::from_millis(100);

/// Runs plans on one Vulkan device. After [`ExecuteError::DeviceLost`] it stays lost: open a new one.
pub struct GpuExecutor {
    label: String,
    timeout: Duration,
    device: Device,
    kernels: Kernels,
    plans: HashMap<PlanId, Prepared>,
    memory: Option<Memory>,
    generation: u64,
    /// A submission that was given up waiting for; its staging buffers are still its own.
    in_flight: Option<wgpu::SubmissionIndex>,
}

impl GpuExecutor {
    /// Opens the adapter that the options ask for and compiles every kernel.
    ///
    /// # Errors
    /// See [`GpuError`].
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        let (adapter, facts) = adapter::find(options.adapter)?;
        let device = Device::open(&adapter, &facts)?;
        let kernels = Kernels::compile(&device).map_err(|error| GpuError::KernelRefused {
            adapter: facts.name.clone(),
            reason: error.to_string(),
        })?;
        tracing::info!(adapter = %facts.name, driver = %facts.driver, software = facts.software, "device opened");
        Ok(Self {
            label: format!("{} ({})", facts.name, facts.driver),
            timeout: options.timeout,
            device,
            kernels,
            plans: HashMap::new(),
            memory: None,
            generation: 0,
            in_flight: None,
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

    #[cfg(test)]
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn run_chunk(
        &mut self,
        id: PlanId,
        rows: &Range<usize>,
        inputs: &[&[f32]],
        output: &mut [f32],
        started: Instant,
    ) -> Result<(), ExecuteError> {
        self.make_room(id, rows.len())?;
        let prepared = &self.plans[&id];
        let memory = self.memory.as_ref().expect("room was made");
        write_upload(&prepared.plan, memory, rows, inputs)?;
        let commands = encode(&self.device, &self.kernels, prepared, memory, rows.len());
        let submission = self.device.queue.submit([commands]);
        let output_bytes = size_of_val(output) as u64;
        memory.readable.request(&memory.readback, wgpu::MapMode::Read, output_bytes);
        memory.uploadable.request(&memory.upload, wgpu::MapMode::Write, memory.upload.size());
        let slots = [&*memory.readable, &*memory.uploadable];
        if let Err(error) = self.device.wait(&submission, &slots, started, self.timeout) {
            if matches!(error, ExecuteError::Timeout { .. }) {
                self.in_flight = Some(submission);
            }
            return Err(error);
        }
        {
            let view = memory.readback.get_mapped_range(..output_bytes).map_err(|error| refused(&error))?;
            bytemuck::cast_slice_mut(output).copy_from_slice(&view);
        }
        memory.readback.unmap();
        Ok(())
    }

    /// Capacity, shared memory and bind groups for a chunk; does nothing at steady state.
    fn make_room(&mut self, id: PlanId, rows: usize) -> Result<(), ExecuteError> {
        let prepared = self.plans.get_mut(&id).expect("a plan is loaded before it is run");
        let capacity_rows = prepared.capacity_rows(rows);
        let need = prepared.need(capacity_rows);
        if !self.memory.as_ref().is_some_and(|memory| memory.holds(need)) {
            let need = self.memory.as_ref().map_or(need, |memory: &Memory| -> Need { memory.grown(need) });
            // The old buffers go first: both together may not fit.
            self.memory = None;
            self.generation += 1;
            self.memory = Some(Memory::new(&self.device, need, self.generation)?);
        }
        let memory = self.memory.as_ref().expect("made above");
        prepared.bind(&self.device, &self.kernels, memory, capacity_rows)
    }

    /// Waits for a submission that was given up on, and takes its staging buffers back.
    fn drain(&mut self, started: Instant) -> Result<(), ExecuteError> {
        let (Some(submission), Some(memory)) = (&self.in_flight, &self.memory) else {
            return Ok(());
        };
        self.device.wait(submission, &[&memory.readable, &memory.uploadable], started, self.timeout)?;
        memory.readback.unmap();
        self.in_flight = None;
        Ok(())
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
        let Self { device, plans, .. } = self;
        device.guard(|| {
            if let Entry::Vacant(place) = plans.entry(plan.id) {
                place.insert(Prepared::new(device, plan)?);
            }
            Ok(())
        })
    }

    fn unload(&mut self, plan: PlanId) {
        self.plans.remove(&plan);
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

        self.load(plan)?;
        let started = Instant::now();
        let device = self.device.clone();
        let result = device.guard(|| {
            self.drain(started)?;
            for chunk in layout::chunks(rows, self.plans[&plan.id].chunk_rows_max) {
                let cells = chunk.start * output_width..chunk.end * output_width;
                self.run_chunk(plan.id, &chunk, inputs, &mut output[cells], started)?;
            }
            Ok(())
        });
        if result.is_err() && self.in_flight.is_none() {
            // Which staging buffer is mapped is not known any more; the next run makes new ones.
            self.memory = None;
        }
        result
    }
}

impl Drop for GpuExecutor {
    fn drop(&mut self) {
        if let Some(submission) = self.in_flight.take() {
            let device = &self.device;
            let done = device.guard(|| device.wait(&submission, &[], Instant::now(), FAREWELL));
            if matches!(done, Err(ExecuteError::Timeout { .. })) {
                tracing::error!(device = %self.label, "device hangs, leaking it");
                device.abandon();
            }
        }
    }
}

/// The batch parameters and the rows of every input, one after the other.
fn write_upload(
    plan: &Plan,
    memory: &Memory,
    rows: &Range<usize>,
    inputs: &[&[f32]],
) -> Result<(), ExecuteError> {
    {
        let mut view = memory.upload.get_mapped_range_mut(..).map_err(|error| refused(&error))?;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            view.slice(at..at + bytes.len()).copy_from_slice(bytes);
            at += bytes.len();
        };
        let row_count = u32::try_from(rows.len()).expect("a chunk is short");
        put(bytemuck::bytes_of(&BatchParams { row_count, ..BatchParams::default() }));
        for (input, buffer) in inputs.iter().zip(&plan.inputs) {
            let width = plan.width(*buffer);
            put(bytemuck::cast_slice(&input[rows.start * width..rows.end * width]));
        }
    }
    memory.upload.unmap();
    Ok(())
}

/// Upload, one dispatch a command, read-back.
fn encode(
    device: &Device,
    kernels: &Kernels,
    prepared: &Prepared,
    memory: &Memory,
    rows: usize,
) -> wgpu::CommandBuffer {
    let plan = &prepared.plan;
    let (layout, groups) = prepared.bound();
    let place = |buffer| {
        let (offset, len) = (layout.base(buffer), rows * plan.width(buffer));
        ((offset * size_of::<f32>()) as u64, (len * size_of::<f32>()) as u64)
    };
    let mut encoder =
        device.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("batch") });
    encoder.copy_buffer_to_buffer(&memory.upload, 0, &memory.batch, 0, BATCH_BYTES);
    let mut at = BATCH_BYTES;
    for buffer in &plan.inputs {
        let (offset, bytes) = place(*buffer);
        encoder.copy_buffer_to_buffer(&memory.upload, at, &memory.arena, offset, bytes);
        at += bytes;
    }
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (command, group) in plan.commands.iter().zip(groups) {
            let (pipeline, [columns, rows]) = kernels.of(command, rows);
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(columns, rows, 1);
        }
    }
    let (offset, bytes) = place(plan.output);
    encoder.copy_buffer_to_buffer(&memory.arena, offset, &memory.readback, 0, bytes);
    encoder.finish()
}

fn refused(error: &wgpu::MapRangeError) -> ExecuteError {
    ExecuteError::Refused(format!("staging buffer: {error}"))
}

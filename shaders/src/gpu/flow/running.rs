//! A flow on its device: pipelines, weights, and the words that results travel by.

use super::{Flow, GROUP_ROWS, ROWS_MAX};
use crate::gpu::compiler::Source;
use crate::gpu::device::Device;
use crate::gpu::kernels::Kernels;
use crate::gpu::layout::Layout;
use crate::gpu::memory::Memory;
use crate::gpu::params::BatchParams;
use crate::gpu::weights;
use crate::{ExecuteError, Plan, Precision};

/// A flow on its device.
pub(in crate::gpu) struct Running {
    flow: Flow,
    /// In the order of [`GROUP_ROWS`].
    pipelines: [wgpu::ComputePipeline; 2],
    weights: wgpu::Buffer,
    places: wgpu::Buffer,
    results: wgpu::Buffer,
    bound: Option<Bound>,
    /// Which set of words the next run fills, and what the run before left in the other.
    set: u32,
    rows_before: usize,
}

/// For one capacity and one arena.
struct Bound {
    generation: u64,
    capacity_rows: usize,
    group: wgpu::BindGroup,
}

impl Running {
    pub(in crate::gpu) fn new(device: &Device, kernels: &Kernels, flow: Flow) -> Result<Self, ExecuteError> {
        use wgpu::BufferUsages as Usage;
        let packed = flow.pack();
        let results_bytes = 2 * ROWS_MAX * flow.words * size_of::<u32>();
        let sources =
            GROUP_ROWS.map(|rows| Source { name: "flow", wgsl: flow.wgsl(rows), bindings: &kernels.flow });
        let pipelines = device.compiler.pipelines(device, sources)?;
        let (weights, places, results) = device.create(|raw| {
            let buffer = |label, bytes: usize, usage, mapped_at_creation| {
                let size = bytes.max(16) as u64;
                raw.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size,
                    usage,
                    mapped_at_creation,
                })
            };
            (
                buffer(
                    "flow weights",
                    size_of_val(packed.as_slice()),
                    Usage::STORAGE | Usage::COPY_DST,
                    true,
                ),
                buffer("flow places", flow.input_starts.len() * 16, Usage::UNIFORM | Usage::COPY_DST, false),
                buffer("flow results", results_bytes, Usage::STORAGE, true),
            )
        })?;
        let fill = |buffer: &wgpu::Buffer, bytes: &[u8]| {
            {
                let mut view = buffer
                    .get_mapped_range_mut(..)
                    .map_err(|error| ExecuteError::Refused(format!("a flow was not mapped: {error}")))?;
                view.slice(..bytes.len()).copy_from_slice(bytes);
            }
            buffer.unmap();
            Ok::<(), ExecuteError>(())
        };
        fill(&weights, bytemuck::cast_slice(&packed))?;
        fill(&results, &vec![0xff; results_bytes])?;
        Ok(Self { flow, pipelines, weights, places, results, bound: None, set: 0, rows_before: 0 })
    }

    /// Bytes that it takes on the device.
    pub(in crate::gpu) fn bytes(&self) -> u64 {
        [&self.weights, &self.places, &self.results].map(wgpu::Buffer::size).iter().sum()
    }

    /// Flips bits of the weights that the device holds: a fault.
    pub(in crate::gpu) fn damage(&self, queue: &wgpu::Queue) {
        let mut packed = self.flow.pack();
        weights::damage(bytemuck::cast_slice_mut(&mut packed), Precision::F32);
        queue.write_buffer(&self.weights, 0, bytemuck::cast_slice(&packed));
    }

    /// Makes the bind group, unless it is there already.
    pub(in crate::gpu) fn bind(
        &mut self,
        device: &Device,
        kernels: &Kernels,
        plan: &Plan,
        layout: &Layout,
        capacity_rows: usize,
        memory: &Memory,
    ) -> Result<(), ExecuteError> {
        let fits =
            |bound: &Bound| bound.generation == memory.generation && bound.capacity_rows == capacity_rows;
        if self.bound.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let narrow = |count: usize| u32::try_from(count).expect("counts inside the arena fit u32");
        let places: Vec<[u32; 4]> = plan
            .inputs
            .iter()
            .map(|input| [narrow(layout.base(*input)), narrow(layout.stride(*input)), 0, 0])
            .collect();
        device.queue.write_buffer(&self.places, 0, bytemuck::cast_slice(&places));
        let buffers = [
            memory.arena.buffer(),
            &self.places,
            &memory.batch.buffer,
            &self.weights,
            &memory.readback.buffer,
            &self.results,
            &memory.failed.buffer,
        ];
        let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = device.create(|raw| {
            raw.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("flow"),
                layout: &kernels.flow,
                entries: &entries,
            })
        })?;
        self.bound = Some(Bound { generation: memory.generation, capacity_rows, group });
        Ok(())
    }

    /// The parameters of the next run, which is told of by this.
    pub(in crate::gpu) fn next(&mut self, rows: usize, sink_stride: usize) -> BatchParams {
        let narrow = |count: usize| u32::try_from(count).expect("a small batch");
        let (set, rows_before) = (self.set, self.rows_before);
        self.set = 1 - set;
        self.rows_before = rows;
        BatchParams {
            row_count: narrow(rows),
            words_set: set,
            rows_before: narrow(rows_before),
            sink_stride: narrow(sink_stride),
        }
    }

    pub(in crate::gpu) fn record(&self, pass: &mut wgpu::ComputePass<'_>, rows: usize) {
        let (kernel, [workgroups, groups]) = self.flow.dispatch(rows);
        pass.set_pipeline(&self.pipelines[kernel]);
        pass.set_bind_group(0, &self.bound.as_ref().expect("a flow is bound before it is run").group, &[]);
        pass.dispatch_workgroups(workgroups, groups, 1);
    }
}

//! A loaded plan: its weights on the device, and its bind groups over the arena of the day.

use std::sync::Arc;

use super::device::{Device, Flows};
use super::executor::LANES;
use super::flow::{self, Flow, Form, Running};
use super::halved::{self, Halved};
use super::kernels::{Kernels, workgroups};
use super::layout::{self, Layout};
use super::memory::{Memory, Need};
use super::narrow;
use super::params::{self, PARAM_BYTES};
use super::recurrent::{self, Grouping};
use super::resident::Resident;
use super::variants::Layer;
use super::weights::{self, WeightMap};
use crate::{Command, ExecuteError, Init, Linear, Plan, Precision};

/// llvmpipe ends all loops of a kernel once they have turned so often together.
const SOFTWARE_TURNS_MAX: usize = 65_535;

pub(super) struct Prepared {
    pub(super) plan: Arc<Plan>,
    /// Longest chunk that the device can hold.
    pub(super) chunk_rows_max: usize,
    /// Whether the last layer stores the plan's output where the host reads it.
    pub(super) sinks: bool,
    /// By command: what lies in the arena as halves, in batches for which the kernels have that.
    pub(super) halved: Vec<Halved>,
    map: WeightMap,
    weights: wgpu::Buffer,
    params: wgpu::Buffer,
    param_stride: usize,
    /// For small batches, in the first lane; `None` for good once a run failed.
    pub(super) flow: Option<Running>,
    /// For small batches before all else; owns its queue, its weights and its words.
    pub(super) resident: Option<Arc<Resident>>,
    /// When it was run last, counted in runs of the device.
    pub(super) run_at: u64,
    /// By lane.
    bound: [Option<Bound>; LANES],
}

/// Bind groups, one a command, for one capacity and the arena of one lane.
struct Bound {
    capacity_rows: usize,
    generation: u64,
    layout: Layout,
    groups: Vec<wgpu::BindGroup>,
    /// One an input, for those that cross as halves.
    widening: Vec<wgpu::BindGroup>,
}

/// What a plan takes on a device.
pub(super) struct Fit {
    chunk_rows_max: usize,
    map: WeightMap,
    param_stride: usize,
    param_bytes: u64,
}

impl Fit {
    /// Refuses what no batch could ever run. The plans of the device have `budget` bytes in all: a lane's arena may take an
    /// eighth of it.
    pub(super) fn of(device: &Device, plan: &Plan, budget: Option<u64>) -> Result<Self, ExecuteError> {
        let limits = &device.limits;
        let unfit = |what: &str| ExecuteError::Unfit(format!("plan `{}`: {what}", plan.name));
        let binding_bytes_max = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let arena_bytes_max = budget.map_or(binding_bytes_max, |budget| binding_bytes_max.min(budget / 8));
        let [binding_bytes_max, arena_bytes_max] =
            [binding_bytes_max, arena_bytes_max].map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let chunk_rows_max = layout::chunk_rows_max(plan, arena_bytes_max).ok_or_else(|| {
            unfit("the buffers of one row exceed a binding, or an eighth of what plans may take")
        })?;
        let groups_max = limits.max_compute_workgroups_per_dimension as usize;
        let fits = |rows| {
            let mut all = plan.commands.iter().flat_map(|command| workgroups(command, rows));
            all.all(|count| count <= groups_max)
        };
        if !fits(1) {
            return Err(unfit("a layer is wider than a dispatch"));
        }
        let chunk_rows_max = std::iter::successors(Some(chunk_rows_max), |rows| Some(rows / 2))
            .find(|&rows| fits(rows))
            .unwrap_or(1);
        let too_wide = |command: &Command| match command {
            Command::Recurrent(layer) => layer.units().max(layer.out_width()) > Grouping::ALL[0].width_max,
            _ => false,
        };
        if plan.commands.iter().any(too_wide) {
            return Err(unfit("a recurrent layer is wider than workgroup memory"));
        }
        if device.is_software() && plan.commands.iter().any(|command| turns(command) >= SOFTWARE_TURNS_MAX) {
            return Err(unfit("a layer takes more turns of a loop than a software device makes"));
        }
        let map = WeightMap::new(plan, limits.min_storage_buffer_offset_alignment as usize);
        if map.owners.iter().any(|(_, span)| span.bytes > binding_bytes_max) {
            return Err(unfit("a matrix exceeds a binding"));
        }
        if map.bytes as u64 > limits.max_buffer_size {
            return Err(unfit("the weights exceed a buffer"));
        }
        let param_stride = PARAM_BYTES.next_multiple_of(limits.min_uniform_buffer_offset_alignment as usize);
        let param_bytes = (LANES * blocks(plan).max(1) * param_stride) as u64;
        Ok(Self { chunk_rows_max, map, param_stride, param_bytes })
    }

    /// Bytes of the weights and parameters.
    pub(super) fn bytes(&self) -> u64 {
        self.weight_bytes() + self.param_bytes
    }

    fn weight_bytes(&self) -> u64 {
        self.map.bytes.max(16) as u64
    }
}

impl Prepared {
    /// Uploads the weights.
    pub(super) fn new(
        device: &Device,
        kernels: &Kernels,
        plan: &Arc<Plan>,
        fit: &Fit,
    ) -> Result<Self, ExecuteError> {
        let (weights, params) = device.create(|raw| {
            let weights = raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("weights"),
                size: fit.weight_bytes(),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: true,
            });
            let params = raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("params"),
                size: fit.param_bytes,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            (weights, params)
        })?;
        fill(&weights, &fit.map, plan)?;
        let plan = Arc::clone(plan);
        let sinks = sinks(&plan) && in_vectors(&plan);
        let halved = halved::sides(&plan);
        let bound = [const { None }; LANES];
        let flow = match device.flows {
            Flows::None => None,
            Flows::Solo => Flow::of(&plan, Form::Once { solo: true }),
            Flows::Parallel => Flow::of(&plan, Form::Once { solo: false }),
        };
        let flow = flow.and_then(|flow| match Running::new(device, kernels, flow) {
            Ok(flow) => Some(flow),
            Err(error) => {
                tracing::warn!(%error, plan = %plan.name, "no single dispatch, one a layer instead");
                None
            }
        });
        let Fit { chunk_rows_max, param_stride, .. } = *fit;
        Ok(Self {
            plan,
            chunk_rows_max,
            sinks,
            halved,
            map: fit.map.clone(),
            weights,
            params,
            param_stride,
            flow,
            resident: None,
            run_at: 0,
            bound,
        })
    }

    /// Bytes that it takes on the device, batches aside.
    pub(super) fn bytes(&self) -> u64 {
        let flow = self.flow.as_ref().map_or(0, Running::bytes);
        let resident = self.resident.as_ref().map_or(0, |resident| resident.bytes());
        self.weights.size() + self.params.size() + flow + resident
    }

    /// Flips bits of the weights that the device holds: a fault.
    pub(super) fn damage(&self, queue: &wgpu::Queue) {
        for (index, span) in &self.map.owners {
            let mut packed = weights::pack(&self.plan.commands[*index], self.plan.precision);
            weights::damage(&mut packed, self.plan.precision);
            queue.write_buffer(&self.weights, span.byte_offset as u64, bytemuck::cast_slice(&packed));
        }
        if let Some(flow) = &self.flow {
            flow.damage(queue);
        }
    }

    /// Rows that the arena must hold for a chunk of `rows`; never shrinks.
    pub(super) fn capacity_rows(&self, lane: usize, rows: usize) -> usize {
        let bound_rows = self.bound[lane].as_ref().map_or(0, |bound| bound.capacity_rows);
        layout::capacity_rows(rows, self.chunk_rows_max).max(bound_rows)
    }

    pub(super) fn need(&self, kernels: &Kernels, capacity_rows: usize) -> Need {
        let bytes = |floats: usize| (floats * size_of::<f32>()) as u64;
        let plan = &self.plan;
        let input_floats = plan.inputs.iter().map(|input| layout::stride(plan.width(*input))).sum::<usize>();
        Need {
            arena: bytes(layout::row_floats(plan) * capacity_rows) + layout::SLACK_BYTES as u64,
            upload: bytes(input_floats * capacity_rows),
            readback: bytes(layout::stride(plan.width(plan.output)) * capacity_rows),
            halves: match kernels.widens(plan, capacity_rows) {
                Some(_) => narrow::bytes(plan, capacity_rows) as u64,
                None => 0,
            },
        }
    }

    /// Makes the bind groups for `capacity_rows` over `memory`, unless they are there already.
    pub(super) fn bind(
        &mut self,
        device: &Device,
        kernels: &Kernels,
        lane: usize,
        memory: &Memory,
        capacity_rows: usize,
    ) -> Result<(), ExecuteError> {
        let stale =
            |bound: &Bound| bound.capacity_rows != capacity_rows || bound.generation != memory.generation;
        if self.bound[lane].as_ref().is_some_and(|bound| !stale(bound)) {
            return Ok(());
        }
        let layout = Layout::new(&self.plan, capacity_rows);
        let mut blocks = vec![0; blocks(&self.plan) * self.param_stride];
        let (of_commands, of_inputs) = blocks.split_at_mut(self.plan.commands.len() * self.param_stride);
        let narrow = narrow::params(&self.plan, &layout, capacity_rows);
        for (params, block) in narrow.iter().zip(of_inputs.chunks_exact_mut(self.param_stride)) {
            block[..size_of_val(params)].copy_from_slice(bytemuck::bytes_of(params));
        }
        for (index, block) in of_commands.chunks_exact_mut(self.param_stride).enumerate() {
            let command = &self.plan.commands[index];
            let params = params::block(&self.plan, command, &layout, self.sinks(index));
            block[..PARAM_BYTES].copy_from_slice(&params);
        }
        device.queue.write_buffer(&self.params, (lane * blocks.len()) as u64, &blocks);
        let (groups, widening) = device.create(|raw| {
            let commands = 0..self.plan.commands.len();
            let groups = commands.map(|index| self.group(index, raw, kernels, lane, memory)).collect();
            let inputs = 0..self.plan.inputs.len();
            let widening = inputs.filter_map(|input| self.widening(input, raw, kernels, lane, memory));
            (groups, widening.collect())
        })?;
        if let Some(flow) = self.flow.as_mut().filter(|_| lane == 0) {
            flow.bind(device, kernels, &self.plan, &layout, capacity_rows, memory)?;
        }
        let generation = memory.generation;
        self.bound[lane] = Some(Bound { capacity_rows, generation, layout, groups, widening });
        Ok(())
    }

    /// Whether a chunk goes through one dispatch.
    pub(super) fn flows(&self, lane: usize, rows: usize) -> bool {
        lane == 0 && rows <= flow::ROWS_MAX && self.flow.is_some()
    }

    /// Whether a command writes where the host reads.
    fn sinks(&self, index: usize) -> bool {
        let [dst, _] = self.plan.commands[index].writes();
        self.sinks && dst.is_some_and(|dst| dst.buffer == self.plan.output)
    }

    /// Layout, and bind groups of commands and of inputs that are widened; `bind` has been called.
    pub(super) fn bound(&self, lane: usize) -> (&Layout, [&[wgpu::BindGroup]; 2]) {
        let bound = self.bound[lane].as_ref().expect("a plan is bound before it is run");
        (&bound.layout, [&bound.groups, &bound.widening])
    }

    /// Rows that its arena is laid out for; `bind` has been called.
    pub(super) fn capacity(&self, lane: usize) -> usize {
        self.bound[lane].as_ref().expect("a plan is bound before it is run").capacity_rows
    }

    /// For an input that crosses as halves, where there is room for such.
    fn widening(
        &self,
        input: usize,
        raw: &wgpu::Device,
        kernels: &Kernels,
        lane: usize,
        memory: &Memory,
    ) -> Option<wgpu::BindGroup> {
        let halves = memory.halves.as_ref()?;
        let params = self.params_of(lane, self.plan.commands.len() + input);
        let resources = [
            memory.arena.buffer().as_entire_binding(),
            params,
            memory.batch.buffer.as_entire_binding(),
            halves.buffer.as_entire_binding(),
            memory.nowhere.as_entire_binding(),
        ];
        Some(bind_group(raw, &self.plan.name, &kernels.weighted, resources))
    }

    /// A block of parameters.
    fn params_of(&self, lane: usize, index: usize) -> wgpu::BindingResource<'_> {
        let block = lane * blocks(&self.plan) + index;
        range(&self.params, block * self.param_stride, PARAM_BYTES)
    }

    fn group(
        &self,
        index: usize,
        raw: &wgpu::Device,
        kernels: &Kernels,
        lane: usize,
        memory: &Memory,
    ) -> wgpu::BindGroup {
        let params = self.params_of(lane, index);
        let arena = memory.arena.buffer().as_entire_binding();
        let mut entries = vec![arena, params, memory.batch.buffer.as_entire_binding()];
        let mut layout = &kernels.weightless;
        if let Some(span) = &self.map.spans[index] {
            entries.push(range(&self.weights, span.byte_offset, span.bytes));
            let sink = if self.sinks(index) { &memory.readback.buffer } else { &memory.nowhere };
            entries.push(sink.as_entire_binding());
            layout = &kernels.weighted;
            if has_halves(&self.plan, index) {
                // The same once more, for the bias behind the halves, and for what lies in the arena as halves.
                entries.push(range(&self.weights, span.byte_offset, span.bytes));
                entries.push(memory.arena.buffer().as_entire_binding());
                layout = &kernels.halved;
            }
        }
        bind_group(raw, &self.plan.name, layout, entries)
    }
}

/// Turns that the loops of one invocation take at most, where they may be many: for each step, or pair of steps.
fn turns(command: &Command) -> usize {
    match command {
        Command::Recurrent(layer) => layer.steps * recurrent::turns(layer),
        Command::Attention(attention) => {
            let width = attention.dst.width / (attention.steps * attention.heads);
            attention.steps * (2 + 2 * width)
        }
        _ => 0,
    }
}

/// Blocks of parameters of a plan in one lane: of each command, then of each input.
fn blocks(plan: &Plan) -> usize {
    plan.commands.len() + plan.inputs.len()
}

fn range(buffer: &wgpu::Buffer, offset: usize, bytes: usize) -> wgpu::BindingResource<'_> {
    let size = wgpu::BufferSize::new(bytes as u64);
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: offset as u64, size })
}

/// One binding after the other.
fn bind_group<'a>(
    raw: &wgpu::Device,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    resources: impl IntoIterator<Item = wgpu::BindingResource<'a>>,
) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> =
        (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
    raw.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
}

/// Whether one layer writes all of the output, and nothing reads it: then it need not lie in the arena. It would be
/// slow to be read back through the bus.
pub(super) fn sinks(plan: &Plan) -> bool {
    let is_output = |view: crate::View| view.buffer == plan.output;
    let writer = |command: &&Command| command.writes().into_iter().flatten().any(is_output);
    let read = plan.commands.iter().any(|command| command.reads().into_iter().flatten().any(is_output));
    let mut writers = plan.commands.iter().filter(writer);
    let (only, none) = (writers.next(), writers.next());
    let whole = |linear: &Linear| linear.init == Init::Bias && linear.dst.width == plan.width(plan.output);
    !read && none.is_none() && matches!(only, Some(Command::Linear(linear)) if whole(linear))
}

/// Whether the layers that write the output write whole vectors of four: others would cross the bus number by number, which takes
/// longer than a copy.
fn in_vectors(plan: &Plan) -> bool {
    let mut writers = Layer::all(plan).filter(|layer| layer.linear.dst.buffer == plan.output);
    writers.all(|Layer { linear, .. }| linear.repeat.count == 1 || linear.repeat.dst_step.is_multiple_of(4))
}

/// Whether a command is a layer whose matrix has halves.
fn has_halves(plan: &Plan, index: usize) -> bool {
    plan.precision == Precision::F16 && matches!(plan.commands[index], Command::Linear(_))
}

fn fill(buffer: &wgpu::Buffer, map: &WeightMap, plan: &Plan) -> Result<(), ExecuteError> {
    {
        let mut view = buffer
            .get_mapped_range_mut(..)
            .map_err(|error| ExecuteError::Refused(format!("weights were not mapped: {error}")))?;
        for (index, span) in &map.owners {
            let packed = weights::pack(&plan.commands[*index], plan.precision);
            view.slice(span.byte_offset..span.byte_offset + span.bytes)
                .copy_from_slice(bytemuck::cast_slice(&packed));
        }
    }
    buffer.unmap();
    Ok(())
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Others may hold it; its weights are not needed any more, and its device may go.
        if let Some(resident) = &self.resident {
            resident.stop();
        }
    }
}

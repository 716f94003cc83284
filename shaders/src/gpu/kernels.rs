//! The compiled kernels and their bindings, made once per device.

use super::device::Device;
use super::params::PARAM_BYTES;
use crate::{Command, ExecuteError};

/// Up to this many rows the plain kernel beats the tiled one; both give the same bits.
const FEW_ROWS_MAX: usize = 32;

macro_rules! source {
    ($stem:literal) => {
        concat!(
            include_str!(concat!("../../wgsl/", $stem, ".wgsl")),
            include_str!("../../wgsl/activation.wgsl")
        )
    };
}

/// Every kernel: its stem and its WGSL, the activations appended.
pub(super) const SOURCES: [(&str, &str); 7] = [
    ("linear", source!("linear")),
    ("pool", source!("pool")),
    ("moves", source!("moves")),
    ("affine", source!("affine")),
    ("layer_norm", source!("layer_norm")),
    ("attention", source!("attention")),
    ("recurrent", source!("recurrent")),
];

pub(super) struct Kernels {
    linear: wgpu::ComputePipeline,
    linear_few_rows: wgpu::ComputePipeline,
    pool: wgpu::ComputePipeline,
    moves: wgpu::ComputePipeline,
    affine: wgpu::ComputePipeline,
    layer_norm: wgpu::ComputePipeline,
    attention: wgpu::ComputePipeline,
    recurrent: wgpu::ComputePipeline,
    /// Arena, parameters, batch, weights, and what the host reads.
    pub(super) weighted: wgpu::BindGroupLayout,
    /// Arena, parameters, batch.
    pub(super) weightless: wgpu::BindGroupLayout,
}

impl Kernels {
    pub(super) fn compile(device: &Device) -> Result<Self, ExecuteError> {
        device.guard(|| device.create(Self::make))
    }

    /// Pipeline and workgroups of one command over `rows` rows.
    pub(super) fn of(&self, command: &Command, rows: usize) -> (&wgpu::ComputePipeline, [u32; 2]) {
        let pipeline = match command {
            Command::Linear(linear) if rows * linear.repeat.count <= FEW_ROWS_MAX => &self.linear_few_rows,
            Command::Linear(_) => &self.linear,
            Command::Pool(_) => &self.pool,
            Command::Move(_) => &self.moves,
            Command::Affine(_) => &self.affine,
            Command::LayerNorm(_) => &self.layer_norm,
            Command::Attention(_) => &self.attention,
            Command::Recurrent(_) => &self.recurrent,
        };
        let counts = workgroups(command, rows)
            .map(|count| u32::try_from(count).expect("a plan whose dispatches do not fit is refused"));
        (pipeline, counts)
    }

    fn make(device: &wgpu::Device) -> Self {
        let weighted = bindings(device, true);
        let weightless = bindings(device, false);
        let [linear, pool, moves, affine, layer_norm, attention, recurrent] =
            SOURCES.map(|(stem, source)| module(device, stem, source));
        Self {
            linear: pipeline(device, &linear, "linear", &weighted),
            linear_few_rows: pipeline(device, &linear, "linear_few_rows", &weighted),
            pool: pipeline(device, &pool, "pool", &weightless),
            moves: pipeline(device, &moves, "moves", &weightless),
            affine: pipeline(device, &affine, "affine", &weighted),
            layer_norm: pipeline(device, &layer_norm, "layer_norm", &weighted),
            attention: pipeline(device, &attention, "attention", &weightless),
            recurrent: pipeline(device, &recurrent, "recurrent", &weighted),
            weighted,
            weightless,
        }
    }
}

/// Workgroups along columns and rows; the tile sizes are those of the WGSL.
pub(super) fn workgroups(command: &Command, rows: usize) -> [usize; 2] {
    const LANES: usize = 64;
    match command {
        Command::Linear(linear) => {
            let lines = rows * linear.repeat.count;
            let tile_lines = if lines <= FEW_ROWS_MAX { 4 } else { 64 };
            [linear.weights.out_width.div_ceil(64), lines.div_ceil(tile_lines)]
        }
        Command::Pool(pool) => [pool.dst.width.div_ceil(LANES), rows],
        Command::Move(step) => [(step.counts[0] * step.counts[1]).div_ceil(LANES), rows],
        Command::Affine(affine) => [affine.dst.width.div_ceil(LANES), rows],
        Command::LayerNorm(norm) => [(norm.dst.width / norm.scale.len()).div_ceil(LANES), rows],
        Command::Attention(attention) => [(attention.heads * attention.steps).div_ceil(LANES), rows],
        Command::Recurrent(_) => [1, rows],
    }
}

fn module(device: &wgpu::Device, stem: &str, source: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(stem), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the kernels are ours and validated at build time. Every loop counts up to a bound that is a constant
    // or a width from the parameters; workgroup memory is indexed by local ids, constants, or units that `Prepared`
    // holds below its size; arena and weights are indexed behind guards against the row count and the widths, and no
    // kernel divides by a zero: every count and period is asserted positive by the plan.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

fn pipeline(
    device: &wgpu::Device,
    module: &wgpu::ShaderModule,
    entry_point: &str,
    bindings: &wgpu::BindGroupLayout,
) -> wgpu::ComputePipeline {
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(entry_point),
        bind_group_layouts: &[Some(bindings)],
        immediate_size: 0,
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry_point),
        layout: Some(&layout),
        module,
        entry_point: Some(entry_point),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            // Every cell is written before it is read.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    })
}

fn bindings(device: &wgpu::Device, weighted: bool) -> wgpu::BindGroupLayout {
    let buffer = |binding, ty, bytes_min| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: wgpu::BufferSize::new(bytes_min as u64),
        },
        count: None,
    };
    let mut entries = vec![
        buffer(0, wgpu::BufferBindingType::Storage { read_only: false }, 16),
        buffer(1, wgpu::BufferBindingType::Uniform, PARAM_BYTES),
        buffer(2, wgpu::BufferBindingType::Uniform, 16),
    ];
    if weighted {
        entries.push(buffer(3, wgpu::BufferBindingType::Storage { read_only: true }, 16));
        entries.push(buffer(4, wgpu::BufferBindingType::Storage { read_only: false }, 16));
    }
    let label = if weighted { "weighted" } else { "weightless" };
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}

//! The compiled kernels and their bindings, made once per device.

use super::device::Device;
use crate::{Command, ExecuteError};

/// Up to this many rows the plain kernel beats the tiled one; both give the same bits.
const FEW_ROWS_MAX: usize = 32;
const UNIFORM_BYTES: u64 = 64;

/// Every kernel: its WGSL, its entry point and its stem.
pub(super) const SOURCES: [(&str, &str); 3] = [
    ("linear", include_str!("../../wgsl/linear.wgsl")),
    ("pool", include_str!("../../wgsl/pool.wgsl")),
    ("moves", include_str!("../../wgsl/moves.wgsl")),
];

pub(super) struct Kernels {
    linear: wgpu::ComputePipeline,
    linear_few_rows: wgpu::ComputePipeline,
    pool: wgpu::ComputePipeline,
    moves: wgpu::ComputePipeline,
    /// Arena, parameters, batch, weights.
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
        let workgroups = workgroups(command, rows);
        let pipeline = match command {
            Command::Linear(_) if rows <= FEW_ROWS_MAX => &self.linear_few_rows,
            Command::Linear(_) => &self.linear,
            Command::Pool(_) => &self.pool,
            Command::Move(_) => &self.moves,
        };
        (pipeline, workgroups)
    }

    fn make(device: &wgpu::Device) -> Self {
        let weighted = bindings(device, true);
        let weightless = bindings(device, false);
        let [linear, pool, moves] = SOURCES.map(|(stem, source)| module(device, stem, source));
        Self {
            linear: pipeline(device, &linear, "linear", &weighted),
            linear_few_rows: pipeline(device, &linear, "linear_few_rows", &weighted),
            pool: pipeline(device, &pool, "pool", &weightless),
            moves: pipeline(device, &moves, "moves", &weightless),
            weighted,
            weightless,
        }
    }
}

/// Workgroups along columns and rows; the tile sizes are those of the WGSL.
pub(super) fn workgroups(command: &Command, rows: usize) -> [u32; 2] {
    let (columns, tile_columns, tile_rows) = match command {
        Command::Linear(linear) if rows <= FEW_ROWS_MAX => (linear.dst.width, 64, 4),
        Command::Linear(linear) => (linear.dst.width, 64, 64),
        Command::Pool(pool) => (pool.dst.width, 64, 1),
        Command::Move(step) => (step.dst.width, 64, 1),
    };
    [columns.div_ceil(tile_columns), rows.div_ceil(tile_rows)]
        .map(|count| u32::try_from(count).expect("counts inside the arena fit u32"))
}

fn module(device: &wgpu::Device, stem: &str, source: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(stem), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the kernels are ours and validated at build time. Every loop counts up to a bound that is a constant
    // or a width from the parameters; workgroup memory is indexed by local ids and constants only; arena and weights
    // are indexed behind guards against the row count and the widths, and no kernel divides by a zero: `columns` is
    // asserted positive by the plan.
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
            // Every tile cell is written before it is read.
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
            min_binding_size: wgpu::BufferSize::new(bytes_min),
        },
        count: None,
    };
    let mut entries = vec![
        buffer(0, wgpu::BufferBindingType::Storage { read_only: false }, 4),
        buffer(1, wgpu::BufferBindingType::Uniform, UNIFORM_BYTES),
        buffer(2, wgpu::BufferBindingType::Uniform, 16),
    ];
    if weighted {
        entries.push(buffer(3, wgpu::BufferBindingType::Storage { read_only: true }, 16));
    }
    let label = if weighted { "weighted" } else { "weightless" };
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}

//! The compiled kernels and their bindings, made once per device.

use super::device::{Device, Products};
use super::narrow;
use super::params::PARAM_BYTES;
use super::variants::{self, Arithmetic, Variant, is_plain};
use crate::{Command, ExecuteError, Plan, Precision};

macro_rules! source {
    ($stem:literal) => {
        concat!(
            include_str!(concat!("../../wgsl/", $stem, ".wgsl")),
            include_str!("../../wgsl/activation.wgsl")
        )
    };
}

/// Appended to what is written for a plan as well.
pub(super) const ACTIVATIONS: &str = include_str!("../../wgsl/activation.wgsl");

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
    singles: Weighted,
    /// Made for the first plan that keeps halves.
    halves: Option<Weighted>,
    /// As if this device multiplied matrices of halves.
    #[cfg(test)]
    pub(super) narrows_always: bool,
    /// Used whatever the number of rows.
    #[cfg(test)]
    pub(super) forced: Option<Variant>,
    pool: wgpu::ComputePipeline,
    moves: wgpu::ComputePipeline,
    affine: wgpu::ComputePipeline,
    layer_norm: wgpu::ComputePipeline,
    attention: wgpu::ComputePipeline,
    /// Arena, parameters, batch, weights, and what the host reads.
    pub(super) weighted: wgpu::BindGroupLayout,
    /// The same and the weights once more, of which the halves end where the bias begins.
    pub(super) halved: wgpu::BindGroupLayout,
    /// Arena, parameters, batch.
    pub(super) weightless: wgpu::BindGroupLayout,
    /// Arena, places of the inputs, batch, weights, what the host reads, results on their way, failures.
    pub(super) flow: wgpu::BindGroupLayout,
}

/// Kernels of commands with matrices, for one way to keep these.
struct Weighted {
    arithmetic: Arithmetic,
    plain: Linears,
    /// Made for the first plan that needs them.
    general: Option<Linears>,
    recurrent: wgpu::ComputePipeline,
    /// Widens inputs that cross the bus as halves.
    widen: Option<wgpu::ComputePipeline>,
}

/// In the order of [`Variant::ALL`].
type Linears = [wgpu::ComputePipeline; Variant::ALL.len()];

impl Kernels {
    pub(super) fn compile(device: &Device) -> Result<Self, ExecuteError> {
        device.guard(|| device.create(Self::make))
    }

    /// Compiles what only some plans need.
    pub(super) fn prepare(&mut self, device: &Device, plan: &Plan) -> Result<(), ExecuteError> {
        let (weighted, layout) = match plan.precision {
            Precision::F32 => (&mut self.singles, &self.weighted),
            Precision::F16 => {
                let layout = &self.halved;
                if self.halves.is_none() {
                    let made =
                        device.create(|raw| Weighted::new(raw, layout, &self.weighted, halves_of(device)))?;
                    self.halves = Some(made);
                }
                (self.halves.as_mut().expect("made just now"), layout)
            }
        };
        let needs = |command: &Command| match command {
            Command::Linear(linear) => !is_plain(linear),
            _ => false,
        };
        if weighted.general.is_none() && plan.commands.iter().any(needs) {
            let arithmetic = weighted.arithmetic;
            weighted.general = Some(device.create(|raw| linears(raw, layout, false, arithmetic))?);
        }
        Ok(())
    }

    /// Pipeline and workgroups of one command over `rows` rows.
    pub(super) fn of(
        &self,
        precision: Precision,
        command: &Command,
        rows: usize,
    ) -> (&wgpu::ComputePipeline, [u32; 2]) {
        let weighted = match &self.halves {
            Some(halves) if precision == Precision::F16 => halves,
            _ => &self.singles,
        };
        let mut counts = workgroups(command, rows);
        let pipeline = match command {
            Command::Linear(linear) => {
                let variant = self.variant(linear, rows, weighted.arithmetic);
                counts = variant.workgroups(linear, rows, weighted.arithmetic);
                let all = match &weighted.general {
                    Some(general) if !is_plain(linear) => general,
                    _ => &weighted.plain,
                };
                &all[variant as usize]
            }
            Command::Pool(_) => &self.pool,
            Command::Move(_) => &self.moves,
            Command::Affine(_) => &self.affine,
            Command::LayerNorm(_) => &self.layer_norm,
            Command::Attention(_) => &self.attention,
            Command::Recurrent(_) => &weighted.recurrent,
        };
        let narrow = |count| u32::try_from(count).expect("a plan whose dispatches do not fit is refused");
        (pipeline, counts.map(narrow))
    }

    /// What widens the inputs of a batch that cross the bus as halves; `None`: they cross as they are.
    pub(super) fn widens(&self, plan: &Plan, rows: usize) -> Option<&wgpu::ComputePipeline> {
        let halves = self.halves.as_ref().filter(|_| plan.precision == Precision::F16)?;
        let is_large = match halves.arithmetic {
            Arithmetic::Matrices { .. } => rows > halves.arithmetic.few_lines_max(),
            Arithmetic::Single | Arithmetic::Half => false,
        };
        #[cfg(test)]
        let is_large = is_large || self.narrows_always;
        halves.widen.as_ref().filter(|_| is_large)
    }

    fn variant(&self, linear: &crate::Linear, rows: usize, arithmetic: Arithmetic) -> Variant {
        #[cfg(test)]
        if let Some(forced) = self.forced {
            return forced;
        }
        Variant::choose(linear, rows, arithmetic)
    }

    fn make(device: &wgpu::Device) -> Self {
        let weighted = bindings(device, Bindings::Weighted);
        let weightless = bindings(device, Bindings::Weightless);
        let [_linear, sources @ .., _recurrent] = SOURCES;
        let [pool, moves, affine, layer_norm, attention] =
            sources.map(|(stem, source)| module(device, stem, source));
        Self {
            singles: Weighted::new(device, &weighted, &weighted, Arithmetic::Single),
            halves: None,
            #[cfg(test)]
            narrows_always: false,
            #[cfg(test)]
            forced: None,
            pool: pipeline(device, &pool, "pool", &weightless),
            moves: pipeline(device, &moves, "moves", &weightless),
            affine: pipeline(device, &affine, "affine", &weighted),
            layer_norm: pipeline(device, &layer_norm, "layer_norm", &weighted),
            attention: pipeline(device, &attention, "attention", &weightless),
            weighted,
            halved: bindings(device, Bindings::Halved),
            weightless,
            flow: bindings(device, Bindings::Flow),
        }
    }
}

impl Weighted {
    fn new(
        device: &wgpu::Device,
        of_layers: &wgpu::BindGroupLayout,
        of_recurrent: &wgpu::BindGroupLayout,
        arithmetic: Arithmetic,
    ) -> Self {
        let [.., (stem, source)] = SOURCES;
        let recurrent = module(device, stem, &variants::recurrent(source, arithmetic));
        Self {
            arithmetic,
            plain: linears(device, of_layers, true, arithmetic),
            general: None,
            recurrent: pipeline(device, &recurrent, stem, of_recurrent),
            widen: (arithmetic != Arithmetic::Single).then(|| narrow::pipeline(device, of_recurrent)),
        }
    }
}

/// How this device multiplies halves. A driver that does not compile what it says it can takes the device with it, so
/// that is tried on another one.
fn halves_of(device: &Device) -> Arithmetic {
    let Some(Products { lanes, .. }) = device.products else { return Arithmetic::Half };
    let arithmetic = Arithmetic::Matrices { lanes };
    let tried = device.try_apart(|raw| {
        let layout = bindings(raw, Bindings::Halved);
        [true, false].map(|plain| linears(raw, &layout, plain, arithmetic))
    });
    match tried {
        Ok(_) => arithmetic,
        Err(error) => {
            tracing::warn!(%error, "halves are multiplied in f32: report this driver");
            Arithmetic::Half
        }
    }
}

/// Workgroups along columns and rows; the tile sizes are those of the WGSL.
pub(super) fn workgroups(command: &Command, rows: usize) -> [usize; 2] {
    const LANES: usize = 64;
    match command {
        Command::Linear(linear) => {
            let arithmetic = Arithmetic::Single;
            Variant::choose(linear, rows, arithmetic).workgroups(linear, rows, arithmetic)
        }
        Command::Pool(pool) => [pool.dst.width.div_ceil(LANES), rows],
        Command::Move(step) => [(step.counts[0] * step.counts[1]).div_ceil(LANES), rows],
        Command::Affine(affine) => [affine.dst.width.div_ceil(LANES), rows],
        Command::LayerNorm(norm) => [(norm.dst.width / norm.scale.len()).div_ceil(LANES), rows],
        Command::Attention(attention) => [(attention.heads * attention.steps).div_ceil(LANES), rows],
        Command::Recurrent(_) => [1, rows],
    }
}

fn linears(
    device: &wgpu::Device,
    bindings: &wgpu::BindGroupLayout,
    plain: bool,
    arithmetic: Arithmetic,
) -> Linears {
    Variant::ALL.map(|variant| {
        let entry_point = variant.entry_point(arithmetic);
        let module = module(device, entry_point, &variant.wgsl(plain, arithmetic));
        pipeline(device, &module, entry_point, bindings)
    })
}

pub(super) fn module(device: &wgpu::Device, stem: &str, source: &str) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(stem), source: wgpu::ShaderSource::Wgsl(source.into()) };
    // SAFETY: the kernels are ours, validated when they are built or, where they are written for a plan, by tests. Every loop counts up to a bound that is a constant
    // or a width from the parameters; workgroup memory is indexed by local ids, constants, or units that `Prepared`
    // holds below its size, or slices, of which no layer has more than there is room for; arena and weights are indexed behind guards against the row count and the widths, and no
    // kernel divides by a zero: every count and period is asserted positive by the plan.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

pub(super) fn pipeline(
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bindings {
    Weighted,
    Halved,
    Weightless,
    Flow,
}

fn bindings(device: &wgpu::Device, kind: Bindings) -> wgpu::BindGroupLayout {
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
    if kind != Bindings::Weightless {
        entries.push(buffer(3, wgpu::BufferBindingType::Storage { read_only: true }, 16));
        entries.push(buffer(4, wgpu::BufferBindingType::Storage { read_only: false }, 16));
    }
    if kind == Bindings::Halved {
        entries.push(buffer(5, wgpu::BufferBindingType::Storage { read_only: true }, 16));
    }
    if kind == Bindings::Flow {
        // As long as there are inputs.
        entries[1] = buffer(1, wgpu::BufferBindingType::Uniform, 0);
        entries.push(buffer(5, wgpu::BufferBindingType::Storage { read_only: false }, 4));
        entries.push(buffer(6, wgpu::BufferBindingType::Storage { read_only: false }, 4));
    }
    let label = match kind {
        Bindings::Weighted => "weighted",
        Bindings::Halved => "halved",
        Bindings::Weightless => "weightless",
        Bindings::Flow => "flow",
    };
    device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries })
}

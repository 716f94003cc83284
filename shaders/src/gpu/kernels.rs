//! The compiled kernels and their bindings, made once per device.

use super::choices::Choices;
use super::compiler::Source;
use super::device::{Device, Products};
use super::halved::Halved;
use super::matrices;
use super::narrow;
use super::params::PARAM_BYTES;
use super::recurrent::Grouping;
use super::variants::{self, Arithmetic, Kind, Layer, Variant};
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

/// The WGSL of a kernel.
pub(super) fn source(stem: &str) -> &'static str {
    let (_, wgsl) = SOURCES.iter().find(|(known, _)| *known == stem).expect("a stem is one of the sources");
    wgsl
}

pub(super) struct Kernels {
    singles: Weighted,
    /// Made for the first plan that keeps halves.
    halves: Option<Weighted>,
    /// Which variant of a layer is used.
    pub(super) choices: Choices,
    /// Workgroups of a dispatch along one side at most.
    workgroups_max: usize,
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
    /// The same and the weights once more, of which the halves end where the bias begins, and the arena once more.
    pub(super) halved: wgpu::BindGroupLayout,
    /// Arena, parameters, batch.
    pub(super) weightless: wgpu::BindGroupLayout,
    /// Arena, places of the inputs, batch, weights, what the host reads, results on their way, failures.
    pub(super) flow: wgpu::BindGroupLayout,
}

/// Kernels of commands with matrices, for one way to keep these.
struct Weighted {
    arithmetic: Arithmetic,
    /// By kind; those of other kinds than the plain are made for the first plan that needs them.
    linears: [Option<Linears>; Kind::ALL.len()],
    /// By cooperative matrices, for plain layers with halves in the arena; `None`: nothing is multiplied so.
    halved: Option<Halves>,
    /// In the order of [`Grouping::ALL`]; made for the first plan that needs them.
    recurrent: Option<[wgpu::ComputePipeline; Grouping::ALL.len()]>,
    /// Widens inputs that cross the bus as halves.
    widen: Option<wgpu::ComputePipeline>,
}

/// In the order of [`Variant::ALL`]; `None`: the driver refused it. One is there.
type Linears = [Option<wgpu::ComputePipeline>; Variant::ALL.len()];

/// In the order of [`Halved::ALL`], each by small tiles and by large ones.
type Halves = [wgpu::ComputePipeline; 2 * Halved::ALL.len()];
const HALVES_TILES: [matrices::Tile; 2] = [matrices::SMALL, matrices::LARGE];

impl Kernels {
    pub(super) fn compile(device: &Device) -> Result<Self, ExecuteError> {
        device.guard(|| Self::make(device))
    }

    /// Compiles what only some plans need.
    pub(super) fn prepare(&mut self, device: &Device, plan: &Plan) -> Result<(), ExecuteError> {
        let (weighted, layout) = match plan.precision {
            Precision::F32 | Precision::Int8 => (&mut self.singles, &self.weighted),
            Precision::F16 => {
                let layout = &self.halved;
                if self.halves.is_none() {
                    let arithmetic = halves_of(device);
                    self.halves = Some(Weighted::new(device, layout, &self.weighted, arithmetic)?);
                }
                (self.halves.as_mut().expect("made just now"), layout)
            }
        };
        let is_recurrent = |command: &Command| matches!(command, Command::Recurrent(_));
        if weighted.recurrent.is_none() && plan.commands.iter().any(is_recurrent) {
            let arithmetic = weighted.arithmetic;
            let sources = Grouping::ALL.map(|each| Source {
                name: "recurrent",
                wgsl: each.wgsl(arithmetic),
                bindings: &self.weighted,
            });
            weighted.recurrent = Some(device.compiler.pipelines(device, sources)?);
        }
        for Layer { kind, .. } in Layer::all(plan) {
            if weighted.linears[kind as usize].is_none() {
                weighted.linears[kind as usize] = Some(linears(device, layout, kind, weighted.arithmetic)?);
            }
        }
        Ok(())
    }

    /// Pipeline and workgroups of one command of a plan over `rows` rows. What is halved is only so where [`halves`](Self::halves) says it.
    pub(super) fn of(
        &self,
        plan: &Plan,
        command: &Command,
        halved: Halved,
        rows: usize,
    ) -> (&wgpu::ComputePipeline, [u32; 2]) {
        let weighted = self.weighted(plan.precision);
        let counts = workgroups(command, rows);
        let pipeline = match command {
            Command::Linear(linear) => {
                let layer = Layer::of(plan, linear);
                return match (halved.index(), &weighted.halved) {
                    (Some(index), Some(kernels)) => {
                        self.halved_linear(weighted, &kernels[2 * index..], layer, rows)
                    }
                    _ => self.linear(weighted, layer, rows),
                };
            }
            Command::Pool(_) => &self.pool,
            Command::Move(_) => &self.moves,
            Command::Affine(_) => &self.affine,
            Command::LayerNorm(_) => &self.layer_norm,
            Command::Attention(_) => &self.attention,
            Command::Recurrent(layer) => {
                let kernels = weighted.recurrent.as_ref().expect("made for the first plan that needs them");
                let index = Grouping::guess(layer.units().max(layer.out_width()), rows);
                return (&kernels[index], [1, narrow(Grouping::ALL[index].workgroups(rows))]);
            }
        };
        (pipeline, counts.map(narrow))
    }

    /// The same by one variant. `None`: the driver refused it, or a dispatch has not as many workgroups.
    pub(super) fn by(
        &self,
        precision: Precision,
        layer: Layer<'_>,
        rows: usize,
        variant: Variant,
    ) -> Option<(&wgpu::ComputePipeline, [u32; 2])> {
        self.variant(self.weighted(precision), layer, rows, variant)
    }

    /// How matrices that are kept so are multiplied, once a plan with such has been prepared.
    pub(super) fn arithmetic(&self, precision: Precision) -> Arithmetic {
        self.weighted(precision).arithmetic
    }

    /// Whether plain layers over so many rows are multiplied by cooperative matrices, and their sides may be halves.
    pub(super) fn halves(&self, precision: Precision, rows: usize) -> bool {
        let weighted = self.weighted(precision);
        weighted.halved.is_some() && rows > weighted.arithmetic.few_lines_max()
    }

    /// Variants of layers that the driver refused.
    pub(super) fn refused(&self) -> usize {
        let weighted = [Some(&self.singles), self.halves.as_ref()].into_iter().flatten();
        let all = weighted.flat_map(|weighted| weighted.linears.iter().flatten());
        all.flatten().filter(|pipeline| pipeline.is_none()).count()
    }

    fn weighted(&self, precision: Precision) -> &Weighted {
        match &self.halves {
            Some(halves) if precision == Precision::F16 => halves,
            _ => &self.singles,
        }
    }

    /// By the best variant that is there.
    fn linear<'a>(
        &'a self,
        weighted: &'a Weighted,
        layer: Layer<'_>,
        rows: usize,
    ) -> (&'a wgpu::ComputePipeline, [u32; 2]) {
        #[cfg(test)]
        if let Some(forced) = self.forced {
            return self.variant(weighted, layer, rows, forced).expect("a variant that is there is forced");
        }
        let mut best = self.choices.of(layer, rows, weighted.arithmetic);
        let fits = best.find_map(|variant| self.variant(weighted, layer, rows, variant));
        fits.expect("a plan whose dispatches do not fit is refused")
    }

    /// By the first two of `kernels`.
    fn halved_linear<'a>(
        &self,
        weighted: &Weighted,
        kernels: &'a [wgpu::ComputePipeline],
        layer: Layer<'_>,
        rows: usize,
    ) -> (&'a wgpu::ComputePipeline, [u32; 2]) {
        let variant = match self.choices.of(layer, rows, weighted.arithmetic).next() {
            Some(Variant::LargeTile) => Variant::LargeTile,
            _ => Variant::SmallTile,
        };
        let counts = variant.workgroups(layer.widths()[1], layer.lines(rows), weighted.arithmetic);
        (&kernels[usize::from(variant == Variant::LargeTile)], counts.map(narrow))
    }

    fn variant<'a>(
        &'a self,
        weighted: &'a Weighted,
        layer: Layer<'_>,
        rows: usize,
        variant: Variant,
    ) -> Option<(&'a wgpu::ComputePipeline, [u32; 2])> {
        let counts = variant.workgroups(layer.widths()[1], layer.lines(rows), weighted.arithmetic);
        let all = weighted.linears[layer.kind as usize].as_ref()?;
        let fits = counts.iter().all(|count| *count <= self.workgroups_max);
        all[variant as usize].as_ref().filter(|_| fits).map(|pipeline| (pipeline, counts.map(narrow)))
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

    fn make(device: &Device) -> Result<Self, ExecuteError> {
        let kinds = [Bindings::Weighted, Bindings::Halved, Bindings::Weightless, Bindings::Flow];
        let [weighted, halved, weightless, flow] =
            device.create(|raw| kinds.map(|kind| bindings(raw, kind)))?;
        let [_linear, sources @ .., _recurrent] = SOURCES;
        let sources = sources.map(|(name, wgsl)| {
            let bindings = if has_weights(name) { &weighted } else { &weightless };
            Source { name, wgsl: wgsl.to_owned(), bindings }
        });
        let [pool, moves, affine, layer_norm, attention] = device.compiler.pipelines(device, sources)?;
        Ok(Self {
            singles: Weighted::new(device, &weighted, &weighted, Arithmetic::Single)?,
            halves: None,
            choices: device.compiler.choices(),
            workgroups_max: device.limits.max_compute_workgroups_per_dimension as usize,
            #[cfg(test)]
            narrows_always: false,
            #[cfg(test)]
            forced: None,
            pool,
            moves,
            affine,
            layer_norm,
            attention,
            weighted,
            halved,
            weightless,
            flow,
        })
    }
}

impl Weighted {
    fn new(
        device: &Device,
        of_layers: &wgpu::BindGroupLayout,
        of_others: &wgpu::BindGroupLayout,
        arithmetic: Arithmetic,
    ) -> Result<Self, ExecuteError> {
        let widen = match arithmetic {
            Arithmetic::Single => None,
            Arithmetic::Half | Arithmetic::Matrices { .. } => Some(narrow::pipeline(device, of_others)?),
        };
        let plain = linears(device, of_layers, Kind::Plain, arithmetic)?;
        let halved = match arithmetic {
            Arithmetic::Single | Arithmetic::Half => None,
            Arithmetic::Matrices { lanes } => Some(halves(device, of_layers, lanes)?),
        };
        Ok(Self { arithmetic, linears: [Some(plain), None, None], halved, recurrent: None, widen })
    }
}

/// How this device multiplies halves. A driver that does not compile what it says it can takes the device with it, so
/// that is tried on another one.
fn halves_of(device: &Device) -> Arithmetic {
    let Some(Products { lanes, .. }) = device.products else { return Arithmetic::Half };
    let arithmetic = Arithmetic::Matrices { lanes };
    let tried = device.try_apart(|apart| {
        let layout = apart.create(|raw| bindings(raw, Bindings::Halved))?;
        Kind::ALL.into_iter().try_for_each(|kind| {
            // One that is refused here may have taken the device with it.
            each_linear(apart, &layout, kind, arithmetic).into_iter().try_for_each(|made| made.map(drop))
        })?;
        halves(apart, &layout, lanes).map(drop)
    });
    match tried {
        Ok(_) => arithmetic,
        Err(error) => {
            tracing::warn!(%error, "halves are multiplied in f32: report this driver");
            Arithmetic::Half
        }
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("a plan whose dispatches do not fit is refused")
}

/// Workgroups along columns and rows; the tile sizes are those of the WGSL.
pub(super) fn workgroups(command: &Command, rows: usize) -> [usize; 2] {
    const LANES: usize = 64;
    match command {
        Command::Linear(linear) => {
            let arithmetic = Arithmetic::Single;
            let lines = rows * linear.repeat.count;
            let widths = [linear.weights.in_width, linear.weights.out_width];
            Variant::guess(widths, lines, arithmetic).workgroups(widths[1], lines, arithmetic)
        }
        Command::Pool(pool) => [pool.dst.width.div_ceil(LANES), rows],
        Command::Move(step) => [(step.counts[0] * step.counts[1]).div_ceil(LANES), rows],
        Command::Affine(affine) => [affine.dst.width.div_ceil(4 * LANES), rows],
        Command::LayerNorm(norm) => [1, (rows * (norm.dst.width / norm.scale.len())).div_ceil(LANES / 8)],
        Command::Attention(attention) => [(attention.heads * attention.steps).div_ceil(LANES), rows],
        Command::Recurrent(_) => [1, rows],
    }
}

/// Whether a kernel reads constants, of those that are made once.
fn has_weights(stem: &str) -> bool {
    matches!(stem, "affine" | "layer_norm")
}

/// A variant that the driver refuses is lost, and nothing else is.
fn linears(
    device: &Device,
    bindings: &wgpu::BindGroupLayout,
    kind: Kind,
    arithmetic: Arithmetic,
) -> Result<Linears, ExecuteError> {
    let mut refusal = None;
    let made = each_linear(device, bindings, kind, arithmetic);
    let mut at = 0;
    let there = made.map(|made| {
        let variant = Variant::ALL[at];
        at += 1;
        made.inspect_err(|error| {
            let (variant, arithmetic, kind) = (variant.name(), arithmetic.name(), kind.name());
            tracing::warn!(%error, variant, arithmetic, kind, "a kernel is refused, others do its work: report this driver");
        })
        .map_err(|error| refusal = Some(error))
        .ok()
    });
    device.check_lost()?;
    match refusal {
        Some(error) if there.iter().all(Option::is_none) => Err(error),
        _ => Ok(there),
    }
}

/// In the order of [`Variant::ALL`].
fn each_linear(
    device: &Device,
    bindings: &wgpu::BindGroupLayout,
    kind: Kind,
    arithmetic: Arithmetic,
) -> [Result<wgpu::ComputePipeline, ExecuteError>; Variant::ALL.len()] {
    let workgroup_bytes = device.limits.max_compute_workgroup_storage_size as usize;
    let sources = Variant::ALL.map(|variant| Source {
        name: variant.entry_point(arithmetic),
        wgsl: variant.wgsl(kind, arithmetic, workgroup_bytes),
        bindings,
    });
    device.compiler.each(device, sources)
}

fn halves(device: &Device, bindings: &wgpu::BindGroupLayout, lanes: usize) -> Result<Halves, ExecuteError> {
    let sources = std::array::from_fn(|at| {
        let (name, wgsl) = variants::of_halves(HALVES_TILES[at % 2], lanes, Halved::ALL[at / 2]);
        Source { name, wgsl, bindings }
    });
    device.compiler.pipelines(device, sources)
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
        entries.push(buffer(6, wgpu::BufferBindingType::Storage { read_only: false }, 16));
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

//! What a kernel is told about one command, laid out as its WGSL struct of the same name; a test compares offsets.

use bytemuck::{Pod, Zeroable};

use super::layout::Layout;
use super::variants::{self, Layer};
use super::weights;
use crate::{
    Activation, Affine, Attention, Cell, Command, Init, LayerNorm, Move, Plan, Pool, PoolMode, Precision,
    Recurrent, View,
};

/// `Linear` in linear.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct LinearParams {
    pub(super) src_base: u32,
    pub(super) src_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) mask_base: u32,
    pub(super) mask_stride: u32,
    pub(super) in_width: u32,
    pub(super) in_padded: u32,
    pub(super) out_width: u32,
    pub(super) out_vec4s: u32,
    pub(super) has_mask: u32,
    pub(super) accumulates: u32,
    pub(super) activation: u32,
    pub(super) slope: f32,
    pub(super) place_count: u32,
    pub(super) src_step: u32,
    pub(super) dst_step: u32,
    pub(super) sinks: u32,
    pub(super) slice_len: u32,
    pub(super) row_lines: u32,
}

/// `Pool` in pool.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct PoolParams {
    pub(super) src_base: u32,
    pub(super) src_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) dst_width: u32,
    pub(super) step_count: u32,
    pub(super) columns: u32,
    pub(super) window: u32,
    pub(super) takes_mean: u32,
    pub(super) pad_0: u32,
    pub(super) pad_1: u32,
    pub(super) pad_2: u32,
}

/// `Moves` in moves.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct MovesParams {
    pub(super) src_base: u32,
    pub(super) src_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) outer: u32,
    pub(super) inner: u32,
    pub(super) start: u32,
    pub(super) src_outer: i32,
    pub(super) src_inner: i32,
    pub(super) dst_outer: u32,
    pub(super) dst_inner: u32,
    pub(super) pad_0: u32,
}

/// `Affine` in affine.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct AffineParams {
    pub(super) src_base: u32,
    pub(super) src_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) add_base: u32,
    pub(super) add_stride: u32,
    pub(super) has_add: u32,
    pub(super) width: u32,
    pub(super) period: u32,
    pub(super) activation: u32,
    pub(super) slope: f32,
    pub(super) pad_0: u32,
}

/// `LayerNorm` in layer_norm.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct LayerNormParams {
    pub(super) src_base: u32,
    pub(super) src_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) group_count: u32,
    pub(super) group_width: u32,
    pub(super) epsilon: f32,
    pub(super) pad_0: u32,
}

/// `Attention` in attention.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct AttentionParams {
    pub(super) qkv_base: u32,
    pub(super) qkv_stride: u32,
    pub(super) previous_base: u32,
    pub(super) previous_stride: u32,
    pub(super) scores_base: u32,
    pub(super) scores_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) has_previous: u32,
    pub(super) head_count: u32,
    pub(super) step_count: u32,
    pub(super) head_width: u32,
}

/// `Recurrent` in recurrent.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct RecurrentParams {
    pub(super) gates_base: u32,
    pub(super) gates_stride: u32,
    pub(super) state_base: u32,
    pub(super) state_stride: u32,
    pub(super) dst_base: u32,
    pub(super) dst_stride: u32,
    pub(super) step_count: u32,
    pub(super) unit_count: u32,
    pub(super) out_width: u32,
    pub(super) is_gru: u32,
    pub(super) resumes: u32,
    pub(super) has_projection: u32,
}

/// `Batch` in every kernel: the only thing that changes from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct BatchParams {
    pub(super) row_count: u32,
    /// Which set of words a flow fills, …
    pub(super) words_set: u32,
    /// … rows of the run that filled the other one, …
    pub(super) rows_before: u32,
    /// … and floats from one row of its output to the next. Kernels of one layer read none of the three.
    pub(super) sink_stride: u32,
}

/// Every block is bound as this many bytes, the largest of them.
pub(super) const PARAM_BYTES: usize = size_of::<LinearParams>();

const _: () = assert!(size_of::<LinearParams>() == 80);
const _: () = assert!(size_of::<PoolParams>() == 48);
const _: () = assert!(size_of::<MovesParams>() == 48);
const _: () = assert!(size_of::<AffineParams>() == 48);
const _: () = assert!(size_of::<LayerNormParams>() == 32);
const _: () = assert!(size_of::<AttentionParams>() == 48);
const _: () = assert!(size_of::<RecurrentParams>() == 48);
const _: () = assert!(size_of::<BatchParams>() == 16);

/// The block of a command, padded with zeros. A layer that sinks writes its destination where the host reads it.
pub(super) fn block(plan: &Plan, command: &Command, layout: &Layout, sinks: bool) -> [u8; PARAM_BYTES] {
    let mut block = [0; PARAM_BYTES];
    let mut put = |bytes: &[u8]| block[..bytes.len()].copy_from_slice(bytes);
    match command {
        Command::Linear(linear) => {
            let layer = Layer::of(plan, linear);
            put(bytemuck::bytes_of(&self::linear(layer, plan.precision, layout, sinks)));
        }
        Command::Pool(command) => put(bytemuck::bytes_of(&pool(command, layout))),
        Command::Move(command) => put(bytemuck::bytes_of(&moves(command, layout))),
        Command::Affine(command) => put(bytemuck::bytes_of(&affine(command, layout))),
        Command::LayerNorm(command) => put(bytemuck::bytes_of(&layer_norm(command, layout))),
        Command::Attention(command) => put(bytemuck::bytes_of(&attention(command, layout))),
        Command::Recurrent(command) => put(bytemuck::bytes_of(&recurrent(command, layout))),
    }
    block
}

fn linear(layer: Layer<'_>, precision: Precision, layout: &Layout, sinks: bool) -> LinearParams {
    let linear = layer.linear;
    let (src_base, mut src_stride) = layout.place(linear.src);
    let (dst_base, mut dst_stride) = layout.place(linear.dst);
    let (mask_base, mask_stride) = linear.mask.map_or((0, 0), |mask| layout.place(mask));
    let (activation, slope) = activation(linear.activation);
    let (in_padded, out_vec4s) = weights::padded(&linear.weights, precision);
    let dst_base = if sinks { 0 } else { dst_base };
    let [src_step, dst_step] = [linear.repeat.src_step, linear.repeat.dst_step].map(narrow);
    let row_lines = narrow(linear.repeat.count);
    let mut place_count = row_lines;
    if layer.even && place_count > 1 {
        // From line to line, whether a new row begins there or not.
        (place_count, src_stride, dst_stride) = (1, src_step, dst_step);
    }
    LinearParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        mask_base,
        mask_stride,
        in_width: narrow(linear.weights.in_width),
        in_padded: narrow(in_padded),
        out_width: narrow(linear.weights.out_width),
        out_vec4s: narrow(out_vec4s),
        has_mask: u32::from(linear.mask.is_some()),
        accumulates: u32::from(linear.init == Init::Accumulate),
        activation,
        slope,
        place_count,
        src_step,
        dst_step,
        sinks: u32::from(sinks),
        slice_len: narrow(variants::slice_len(linear.weights.in_width)),
        row_lines,
    }
}

fn pool(pool: &Pool, layout: &Layout) -> PoolParams {
    let (src_base, src_stride) = layout.place(pool.src);
    let (dst_base, dst_stride) = layout.place(pool.dst);
    let step_count = pool.src.width / pool.columns;
    PoolParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        dst_width: narrow(pool.dst.width),
        step_count: narrow(step_count),
        columns: narrow(pool.columns),
        // A window longer than the series is the whole series.
        window: narrow(pool.kernel.min(step_count)),
        takes_mean: u32::from(pool.mode == PoolMode::Mean),
        ..PoolParams::default()
    }
}

fn moves(step: &Move, layout: &Layout) -> MovesParams {
    let (src_base, src_stride) = layout.place(step.src);
    let (dst_base, dst_stride) = layout.place(step.dst);
    MovesParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        outer: narrow(step.counts[0]),
        inner: narrow(step.counts[1]),
        start: narrow(step.start),
        src_outer: step.src_steps[0],
        src_inner: step.src_steps[1],
        dst_outer: narrow(step.dst_steps[0]),
        dst_inner: narrow(step.dst_steps[1]),
        ..MovesParams::default()
    }
}

fn affine(affine: &Affine, layout: &Layout) -> AffineParams {
    let (src_base, src_stride) = layout.place(affine.src);
    let (dst_base, dst_stride) = layout.place(affine.dst);
    let (add_base, add_stride) = affine.add.map_or((0, 0), |add| layout.place(add));
    let (activation, slope) = activation(affine.activation);
    AffineParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        add_base,
        add_stride,
        has_add: u32::from(affine.add.is_some()),
        width: narrow(affine.dst.width),
        period: narrow(affine.scale.len()),
        activation,
        slope,
        ..AffineParams::default()
    }
}

fn layer_norm(norm: &LayerNorm, layout: &Layout) -> LayerNormParams {
    let (src_base, src_stride) = layout.place(norm.src);
    let (dst_base, dst_stride) = layout.place(norm.dst);
    LayerNormParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        group_count: narrow(norm.dst.width / norm.scale.len()),
        group_width: narrow(norm.scale.len()),
        epsilon: norm.epsilon,
        ..LayerNormParams::default()
    }
}

fn attention(attention: &Attention, layout: &Layout) -> AttentionParams {
    let (qkv_base, qkv_stride) = layout.place(attention.qkv);
    let (previous_base, previous_stride) = attention.previous.map_or((0, 0), |view| layout.place(view));
    let (scores_base, scores_stride) = layout.place(attention.scores);
    let (dst_base, dst_stride) = layout.place(attention.dst);
    AttentionParams {
        qkv_base,
        qkv_stride,
        previous_base,
        previous_stride,
        scores_base,
        scores_stride,
        dst_base,
        dst_stride,
        has_previous: u32::from(attention.previous.is_some()),
        head_count: narrow(attention.heads),
        step_count: narrow(attention.steps),
        head_width: narrow(attention.dst.width / (attention.steps * attention.heads)),
    }
}

fn recurrent(layer: &Recurrent, layout: &Layout) -> RecurrentParams {
    let (gates_base, gates_stride) = layout.place(layer.gates);
    let (state_base, state_stride) = layout.place(layer.state);
    let (dst_base, dst_stride) = layout.place(layer.dst);
    RecurrentParams {
        gates_base,
        gates_stride,
        state_base,
        state_stride,
        dst_base,
        dst_stride,
        step_count: narrow(layer.steps),
        unit_count: narrow(layer.units()),
        out_width: narrow(layer.out_width()),
        is_gru: u32::from(layer.cell == Cell::Gru),
        resumes: u32::from(layer.resumes),
        has_projection: u32::from(layer.projection.is_some()),
    }
}

pub(super) fn activation(activation: Activation) -> (u32, f32) {
    match activation {
        Activation::Identity => (0, 0.0),
        Activation::Relu => (1, 0.0),
        Activation::Softplus => (2, 0.0),
        Activation::Tanh => (3, 0.0),
        Activation::Selu => (4, 0.0),
        Activation::Leaky(slope) => (5, slope),
        Activation::Sigmoid => (6, 0.0),
        Activation::Gelu => (7, 0.0),
    }
}

impl Layout {
    /// First float and row stride of a view.
    pub(super) fn place(&self, view: View) -> (u32, u32) {
        (narrow(self.base(view.buffer) + view.offset), narrow(self.stride(view.buffer)))
    }
}

/// Every count here is below the arena's budget, which [`super::layout`] keeps far below `u32::MAX`.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("counts inside the arena fit u32")
}

//! What a kernel is told about one command, laid out as its WGSL struct of the same name; a test compares offsets.

use bytemuck::{Pod, Zeroable};

use super::layout::Layout;
use super::weights::Span;
use crate::{Activation, Init, Linear, Move, Pool, PoolMode, View};

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
    pub(super) pad_0: u32,
    pub(super) pad_1: u32,
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
    pub(super) dst_width: u32,
    pub(super) start: u32,
    pub(super) step: i32,
    pub(super) pad_0: u32,
}

/// `Batch` in every kernel: the only thing that changes from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub(super) struct BatchParams {
    pub(super) row_count: u32,
    pub(super) pad_0: u32,
    pub(super) pad_1: u32,
    pub(super) pad_2: u32,
}

const _: () = assert!(size_of::<LinearParams>() == 64);
const _: () = assert!(size_of::<PoolParams>() == 48);
const _: () = assert!(size_of::<MovesParams>() == 32);
const _: () = assert!(size_of::<BatchParams>() == 16);

pub(super) fn linear(linear: &Linear, layout: &Layout, span: &Span) -> LinearParams {
    let (src_base, src_stride) = layout.place(linear.src);
    let (dst_base, dst_stride) = layout.place(linear.dst);
    let (mask_base, mask_stride) = linear.mask.map_or((0, 0), |mask| layout.place(mask));
    let (activation, slope) = activation(linear.activation);
    LinearParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        mask_base,
        mask_stride,
        in_width: narrow(linear.src.width),
        in_padded: narrow(span.in_padded),
        out_width: narrow(linear.dst.width),
        out_vec4s: narrow(span.out_vec4s),
        has_mask: u32::from(linear.mask.is_some()),
        accumulates: u32::from(linear.init == Init::Accumulate),
        activation,
        slope,
        ..LinearParams::default()
    }
}

pub(super) fn pool(pool: &Pool, layout: &Layout) -> PoolParams {
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

pub(super) fn moves(step: &Move, layout: &Layout) -> MovesParams {
    let (src_base, src_stride) = layout.place(step.src);
    let (dst_base, dst_stride) = layout.place(step.dst);
    MovesParams {
        src_base,
        src_stride,
        dst_base,
        dst_stride,
        dst_width: narrow(step.dst.width),
        start: narrow(step.start),
        step: step.step,
        ..MovesParams::default()
    }
}

fn activation(activation: Activation) -> (u32, f32) {
    match activation {
        Activation::Identity => (0, 0.0),
        Activation::Relu => (1, 0.0),
        Activation::Softplus => (2, 0.0),
        Activation::Tanh => (3, 0.0),
        Activation::Selu => (4, 0.0),
        Activation::Leaky(slope) => (5, slope),
        Activation::Sigmoid => (6, 0.0),
    }
}

impl Layout {
    /// First float and row stride of a view.
    fn place(&self, view: View) -> (u32, u32) {
        (narrow(self.base(view.buffer) + view.offset), narrow(self.width(view.buffer)))
    }
}

/// Every count here is below the arena's budget, which [`super::layout`] keeps far below `u32::MAX`.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).expect("counts inside the arena fit u32")
}

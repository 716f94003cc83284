//! `linear`: fully connected layers over a tile of rows, with init, activation and mask fused.
//!
//! Every output cell is one chain of fused multiply-adds in rising order of the input column, whatever the block
//! it falls into, so results do not depend on the vector width, the number of rows or the place in the batch. Adding
//! `+0` at the end makes `−0` into `+0`; therefore the one-row kernel may leave out inputs that are zero, which
//! after a ReLU are about half, and with them half of the weights that would have to be fetched. Where weights are whole
//! numbers the chain starts at zero, and one more multiply-add at the end of each pass scales it and adds what is there.

use half::f16;

use super::activation;
use super::pack::Packed;
use super::rows::Rows;
#[cfg(target_arch = "x86_64")]
use super::simd::x86;
use super::simd::{Lanes, Plain, Simd};
use super::weight::Weight;
use crate::{Activation, Precision};

/// Input columns in one pass over a panel: a panel of this height stays in the second-level cache.
const PASS_COLUMNS: usize = 1024;
/// Panels that a kernel takes at once, at most.
const PANELS_MAX: usize = 4;
/// Rows of a kernel, at most.
const ROWS_MAX: usize = 12;
/// How many inputs ahead the one-row kernel asks for weights.
const PREFETCH_INPUTS: usize = 12;
const EDGE_FLOATS: usize = ROWS_MAX * PANELS_MAX * 32;

/// One layer over `rows` rows.
///
/// Invariant (of whoever builds one): row `r` of `src`, `dst` and `mask` is `in_width`, `out_width` and `out_width`
/// floats at `ptr + r · stride`; `dst` may be written and overlaps neither of the others.
pub(crate) struct Layer<'p> {
    pub(crate) packed: &'p Packed,
    pub(crate) rows: usize,
    pub(crate) src: Rows<*const f32>,
    pub(crate) dst: Rows<*mut f32>,
    pub(crate) mask: Option<Rows<*const f32>>,
    pub(crate) accumulate: bool,
    pub(crate) activation: Activation,
}

/// Memory that kernels need besides the layer's own.
pub(crate) struct Scratch {
    terms: Vec<Term>,
    edge: Vec<f32>,
    edge_mask: Vec<f32>,
}

/// An input that is not zero.
#[derive(Clone, Copy, Default)]
struct Term {
    /// Of its weights in a panel.
    offset: u32,
    value: f32,
}

impl Scratch {
    /// For layers of up to `in_width` inputs.
    pub(crate) fn reserve(&mut self, in_width: usize) {
        let len = in_width.min(PASS_COLUMNS) + PREFETCH_INPUTS;
        if self.terms.len() < len {
            self.terms.resize(len, Term::default());
        }
    }

    /// The same block with a home for whole panels, `stride` wide, where only `columns` exist.
    ///
    /// # Safety
    /// `block` has `rows` rows of `columns` columns.
    unsafe fn enter_edge<W: Weight>(
        &mut self,
        block: Block<W>,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Block<W> {
        assert!(rows * stride <= EDGE_FLOATS && columns <= stride, "the edge fits its scratch");
        let (dst, mask) = (self.edge.as_mut_ptr(), self.edge_mask.as_mut_ptr());
        for row in 0..rows {
            // SAFETY: the caller's row has `columns` floats, and so has a row of the scratch.
            unsafe {
                dst.add(row * stride).copy_from_nonoverlapping(block.dst.at(row, 0).ptr, columns);
                if let Some(from) = block.mask {
                    mask.add(row * stride).copy_from_nonoverlapping(from.at(row, 0).ptr, columns);
                }
            }
        }
        let mask = block.mask.map(|_| Rows { ptr: mask.cast_const(), stride });
        Block { dst: Rows { ptr: dst, stride }, mask, ..block }
    }

    /// Brings home what `enter_edge` lent out.
    ///
    /// # Safety
    /// As there.
    unsafe fn leave_edge<W: Weight>(&self, block: Block<W>, rows: usize, columns: usize, stride: usize) {
        for row in 0..rows {
            // SAFETY: the caller's row has `columns` floats, and so has a row of the scratch.
            unsafe {
                let from = self.edge.as_ptr().add(row * stride);
                block.dst.at(row, 0).ptr.copy_from_nonoverlapping(from, columns);
            }
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self { terms: Vec::new(), edge: vec![0.0; EDGE_FLOATS], edge_mask: vec![0.0; EDGE_FLOATS] }
    }
}

/// Runs `layer`; `scratch` must have been reserved for its width.
///
/// # Safety
/// `layer` keeps its invariant, its weights are packed for `simd`, and this machine has `simd`.
pub(crate) unsafe fn run(simd: Simd, layer: &Layer<'_>, scratch: &mut Scratch) {
    debug_assert_eq!(layer.packed.panel_width, simd.panel_width());
    // SAFETY: handed on to the caller.
    unsafe {
        match layer.packed.precision {
            Precision::F32 => run_kept::<f32>(simd, layer, scratch),
            Precision::F16 => run_kept::<f16>(simd, layer, scratch),
            Precision::Int8 => run_kept::<i8>(simd, layer, scratch),
        }
    }
}

unsafe fn run_kept<W: Weight>(simd: Simd, layer: &Layer<'_>, scratch: &mut Scratch) {
    // SAFETY: handed on to the caller.
    unsafe {
        match simd {
            Simd::Portable => run_level::<Plain, W>(simd, layer, scratch),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx2 => run_avx2::<W>(layer, scratch),
            #[cfg(target_arch = "x86_64")]
            Simd::Avx512 => run_avx512::<W>(layer, scratch),
            #[cfg(not(target_arch = "x86_64"))]
            Simd::Avx2 | Simd::Avx512 => unreachable!("not a level of this machine"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<W: Weight>(layer: &Layer<'_>, scratch: &mut Scratch) {
    // SAFETY: handed on to the caller.
    unsafe { run_level::<x86::Avx2, W>(Simd::Avx2, layer, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn run_avx512<W: Weight>(layer: &Layer<'_>, scratch: &mut Scratch) {
    // SAFETY: handed on to the caller.
    unsafe { run_level::<x86::Avx512, W>(Simd::Avx512, layer, scratch) }
}

/// What a sum starts from.
#[derive(Clone, Copy)]
enum Start {
    Bias,
    BiasAndDst,
    /// The sum so far lies in the destination.
    Resume,
}

/// What happens to a finished sum inside the kernel.
#[derive(Clone, Copy)]
enum Finish {
    /// It is not finished.
    Pause,
    Identity,
    Relu,
    Leaky(f32),
}

/// A block of rows × panels: pointers to its first cells.
#[derive(Clone, Copy)]
struct Block<W> {
    inputs: usize,
    src: Rows<*const f32>,
    dst: Rows<*mut f32>,
    mask: Option<Rows<*const f32>>,
    panels: Rows<*const W>,
    bias: *const f32,
    /// Read only where weights are scaled.
    scales: *const f32,
    start: Start,
    finish: Finish,
}

#[inline(always)]
unsafe fn run_level<V: Lanes, W: Weight>(simd: Simd, layer: &Layer<'_>, scratch: &mut Scratch) {
    let packed = layer.packed;
    let (in_kernel, after) = match layer.activation {
        Activation::Identity => (Finish::Identity, None),
        Activation::Relu => (Finish::Relu, None),
        Activation::Leaky(slope) => (Finish::Leaky(slope), None),
        other => (Finish::Identity, Some(other)),
    };
    let block_count = layer.rows.div_ceil(simd.block_rows());
    let rows_most = layer.rows.div_ceil(block_count);
    let group_count = packed.panel_count.div_ceil(panels_at_once::<V>(rows_most));
    for first_input in (0..packed.in_width).step_by(PASS_COLUMNS) {
        let inputs = PASS_COLUMNS.min(packed.in_width - first_input);
        let is_last = first_input + inputs == packed.in_width;
        let start = match (first_input, layer.accumulate) {
            (0, false) => Start::Bias,
            (0, true) => Start::BiasAndDst,
            _ => Start::Resume,
        };
        let finish = if is_last { in_kernel } else { Finish::Pause };
        // SAFETY: ranges of rows and columns below lie inside the layer.
        unsafe {
            let src = layer.src.at(0, first_input);
            let terms = if layer.rows == 1 { gather::<V>(packed, src.ptr, inputs, scratch) } else { 0 };
            let mut panel = 0;
            for group in 0..group_count {
                let panel_count = even_share(packed.panel_count, group_count, group);
                let column = panel * packed.panel_width;
                let panel_stride = packed.in_width * packed.panel_width;
                let panels = packed
                    .panels::<W>()
                    .as_ptr()
                    .add(panel * panel_stride + first_input * packed.panel_width);
                let mut row = 0;
                for index in 0..block_count {
                    let rows = even_share(layer.rows, block_count, index);
                    let block = Block {
                        inputs,
                        src: src.at(row, 0),
                        dst: layer.dst.at(row, column),
                        mask: if after.is_none() {
                            layer.mask.map(|mask| mask.at(row, column))
                        } else {
                            None
                        },
                        panels: Rows { ptr: panels, stride: panel_stride },
                        bias: packed.bias().as_ptr().add(column),
                        scales: packed.scales().as_ptr().wrapping_add(column),
                        start,
                        finish,
                    };
                    let columns = packed.out_width - column;
                    let stride = panel_count * packed.panel_width;
                    let is_edge = columns < stride;
                    let inside =
                        if is_edge { scratch.enter_edge(block, rows, columns, stride) } else { block };
                    // One call for both: the kernels are inlined here.
                    kernel::<V, W>(rows, panel_count, &inside, &scratch.terms, terms);
                    if is_edge {
                        scratch.leave_edge(block, rows, columns, stride);
                    }
                    row += rows;
                }
                panel += panel_count;
            }
        }
    }
    if let Some(activation) = after {
        for row in 0..layer.rows {
            // SAFETY: the layer's rows, of which only `dst` is written.
            unsafe {
                let values = std::slice::from_raw_parts_mut(layer.dst.at(row, 0).ptr, packed.out_width);
                let mask = layer.mask.map(|m| std::slice::from_raw_parts(m.at(row, 0).ptr, packed.out_width));
                activation::apply(activation, values, mask);
            }
        }
    }
}

/// Size of part `index` when `total` is cut into `parts` that differ by one at most.
#[inline(always)]
const fn even_share(total: usize, parts: usize, index: usize) -> usize {
    total / parts + (index < total % parts) as usize
}

/// Panels that fit the registers beside each other: enough sums in flight to hide the latency of one.
#[inline(always)]
const fn panels_at_once<V: Lanes>(rows: usize) -> usize {
    match (V::LEN, rows) {
        (_, 1) => 4,
        (16, 2) => 4,
        (16, 3) => 3,
        (16, 4..=6) => 2,
        (_, 2) => 3,
        (_, 3) => 2,
        _ => 1,
    }
}

/// Lists the inputs that matter, each with the place of its weights. Returns how many; the list goes on with what
/// the next group of panels will need first, for the prefetch.
#[inline(always)]
unsafe fn gather<V: Lanes>(packed: &Packed, src: *const f32, inputs: usize, scratch: &mut Scratch) -> usize {
    let terms = &mut scratch.terms[..inputs + PREFETCH_INPUTS];
    let mut count = 0;
    for i in 0..inputs {
        // SAFETY: `inputs` floats can be read at `src`.
        let value = unsafe { *src.add(i) };
        terms[count] = Term { offset: (i * 2 * V::LEN) as u32, value };
        count += usize::from(value != 0.0 || !packed.finite);
    }
    for i in 0..PREFETCH_INPUTS {
        let offset = if i < count { terms[i].offset } else { 0 };
        terms[count + i] =
            Term { offset: offset + (PANELS_MAX * packed.in_width * 2 * V::LEN) as u32, value: 0.0 };
    }
    count
}

/// Picks the kernel made for this number of rows and panels.
#[inline(always)]
unsafe fn kernel<V: Lanes, W: Weight>(
    rows: usize,
    panels: usize,
    block: &Block<W>,
    terms: &[Term],
    count: usize,
) {
    // SAFETY: handed on to the caller.
    unsafe {
        match (rows, panels) {
            (1, 1) if count > 0 => one_row::<V, W, 1>(block, terms, count),
            (1, 2) if count > 0 => one_row::<V, W, 2>(block, terms, count),
            (1, 3) if count > 0 => one_row::<V, W, 3>(block, terms, count),
            (1, 4) if count > 0 => one_row::<V, W, 4>(block, terms, count),
            (1, 1) => many_rows::<V, W, 1, 1>(block),
            (1, 2) => many_rows::<V, W, 1, 2>(block),
            (1, 3) => many_rows::<V, W, 1, 3>(block),
            (1, 4) => many_rows::<V, W, 1, 4>(block),
            (2, 1) => many_rows::<V, W, 2, 1>(block),
            (2, 2) => many_rows::<V, W, 2, 2>(block),
            (2, 3) => many_rows::<V, W, 2, 3>(block),
            (2, 4) if V::LEN == 16 => many_rows::<V, W, 2, 4>(block),
            (3, 1) => many_rows::<V, W, 3, 1>(block),
            (3, 2) => many_rows::<V, W, 3, 2>(block),
            (3, 3) if V::LEN == 16 => many_rows::<V, W, 3, 3>(block),
            (4, 1) => many_rows::<V, W, 4, 1>(block),
            (4, 2) if V::LEN == 16 => many_rows::<V, W, 4, 2>(block),
            (5, 1) => many_rows::<V, W, 5, 1>(block),
            (5, 2) if V::LEN == 16 => many_rows::<V, W, 5, 2>(block),
            (6, 1) => many_rows::<V, W, 6, 1>(block),
            (6, 2) if V::LEN == 16 => many_rows::<V, W, 6, 2>(block),
            (7, 1) if V::LEN == 16 => many_rows::<V, W, 7, 1>(block),
            (8, 1) if V::LEN == 16 => many_rows::<V, W, 8, 1>(block),
            (9, 1) if V::LEN == 16 => many_rows::<V, W, 9, 1>(block),
            (10, 1) if V::LEN == 16 => many_rows::<V, W, 10, 1>(block),
            (11, 1) if V::LEN == 16 => many_rows::<V, W, 11, 1>(block),
            (12, 1) if V::LEN == 16 => many_rows::<V, W, 12, 1>(block),
            _ => unreachable!("no kernel for {rows} rows × {panels} panels"),
        }
    }
}

type Sums<V, const M: usize, const P: usize> = [[[V; 2]; P]; M];

/// Sums of `M` rows × `P` panels, all in registers.
#[inline(always)]
unsafe fn many_rows<V: Lanes, W: Weight, const M: usize, const P: usize>(block: &Block<W>) {
    // SAFETY: the block's ranges, and instructions that the caller enabled.
    unsafe {
        let mut sums = begin::<V, W, M, P>(block);
        let mut weights_at = block.panels.ptr;
        for i in 0..block.inputs {
            let mut weights = [[V::splat(0.0); 2]; P];
            for (p, pair) in weights.iter_mut().enumerate() {
                for (v, vector) in pair.iter_mut().enumerate() {
                    *vector = W::load(weights_at.add(p * block.panels.stride + v * V::LEN));
                }
            }
            for (m, row) in sums.iter_mut().enumerate() {
                let input = V::splat(*block.src.ptr.add(m * block.src.stride + i));
                for (pair, weights) in row.iter_mut().zip(&weights) {
                    for (sum, weight) in pair.iter_mut().zip(weights) {
                        *sum = weight.mul_add(input, *sum);
                    }
                }
            }
            weights_at = weights_at.add(2 * V::LEN);
        }
        end(block, sums);
    }
}

/// Sums of one row × `P` panels over the inputs that are not zero.
#[inline(always)]
unsafe fn one_row<V: Lanes, W: Weight, const P: usize>(block: &Block<W>, terms: &[Term], count: usize) {
    let terms = &terms[..count + PREFETCH_INPUTS];
    // SAFETY: the block's ranges, and instructions that the caller enabled; a prefetch may go anywhere.
    unsafe {
        let mut sums = begin::<V, W, 1, P>(block);
        for t in 0..count {
            let term = *terms.get_unchecked(t);
            let ahead = terms.get_unchecked(t + PREFETCH_INPUTS).offset as usize;
            let weights = block.panels.ptr.add(term.offset as usize);
            let input = V::splat(term.value);
            for (p, pair) in sums[0].iter_mut().enumerate() {
                let panel = p * block.panels.stride;
                V::prefetch(block.panels.ptr.wrapping_add(panel + ahead).cast());
                for (v, sum) in pair.iter_mut().enumerate() {
                    *sum = W::load::<V>(weights.add(panel + v * V::LEN)).mul_add(input, *sum);
                }
            }
        }
        end(block, sums);
    }
}

#[inline(always)]
unsafe fn begin<V: Lanes, W: Weight, const M: usize, const P: usize>(block: &Block<W>) -> Sums<V, M, P> {
    // SAFETY: the block's ranges, and instructions that the caller enabled.
    unsafe {
        let mut sums = [[[V::splat(0.0); 2]; P]; M];
        if !W::SCALED {
            for_each(&mut sums, |sum, row, column| *sum = base(block, row, column));
        }
        sums
    }
}

/// What a sum is added to.
#[inline(always)]
unsafe fn base<V: Lanes, W: Weight>(block: &Block<W>, row: usize, column: usize) -> V {
    // SAFETY: the block's ranges, and instructions that the caller enabled.
    unsafe {
        let bias = block.bias.add(column);
        let dst = block.dst.ptr.add(row * block.dst.stride + column);
        match block.start {
            Start::Bias => V::load(bias),
            Start::BiasAndDst => V::load(dst).add(V::load(bias)),
            Start::Resume => V::load(dst),
        }
    }
}

#[inline(always)]
unsafe fn end<V: Lanes, W: Weight, const M: usize, const P: usize>(
    block: &Block<W>,
    mut sums: Sums<V, M, P>,
) {
    // SAFETY: the block's ranges, and instructions that the caller enabled.
    unsafe {
        if W::SCALED {
            for_each(&mut sums, |sum, row, column| {
                *sum = sum.mul_add(V::load(block.scales.add(column)), base(block, row, column));
            });
        }
        match block.finish {
            Finish::Pause => {}
            Finish::Identity => for_each(&mut sums, |sum, _, _| *sum = sum.add(V::splat(0.0))),
            Finish::Relu => for_each(&mut sums, |sum, _, _| *sum = sum.add(V::splat(0.0)).relu()),
            Finish::Leaky(slope) => {
                for_each(&mut sums, |sum, _, _| *sum = sum.add(V::splat(0.0)).leaky(V::splat(slope)));
            }
        }
        let is_finished = !matches!(block.finish, Finish::Pause);
        for_each(&mut sums, |sum, row, column| {
            let value = match block.mask {
                Some(mask) if is_finished => sum.mul(V::load(mask.ptr.add(row * mask.stride + column))),
                _ => *sum,
            };
            value.store(block.dst.ptr.add(row * block.dst.stride + column));
        });
    }
}

/// Calls `f` with each vector of sums and its row and first column in the block.
#[inline(always)]
fn for_each<V: Lanes, const M: usize, const P: usize>(
    sums: &mut Sums<V, M, P>,
    mut f: impl FnMut(&mut V, usize, usize),
) {
    for (m, row) in sums.iter_mut().enumerate() {
        for (p, pair) in row.iter_mut().enumerate() {
            for (v, sum) in pair.iter_mut().enumerate() {
                f(sum, m, (2 * p + v) * V::LEN);
            }
        }
    }
}

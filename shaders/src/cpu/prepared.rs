//! A plan made ready: weights packed, buffers placed, every shape checked once so that a run need not.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::{Layout, Place, touched};
use super::linear::{self, Layer, Rows};
use super::pack::{Aligned, Packed};
use super::simd::Simd;
use super::{moves, pool};
use crate::{Command, Init, Plan, View, Weights};

/// Bytes of activations that a tile of rows may take: half of a common second-level cache.
const TILE_BYTES: usize = 256 << 10;
const TILE_ROWS_MAX: usize = 96;
const TILE_BLOCKS_MIN: usize = 2;

/// A plan, ready to run tile by tile.
pub(crate) struct Prepared {
    plan: Arc<Plan>,
    /// One for each command; `None` where the command has no weights.
    layers: Vec<Option<Arc<Packed>>>,
    layout: Layout,
    simd: Simd,
    in_width_max: usize,
    pub(crate) tile_rows: usize,
    pub(crate) row_macs: usize,
}

/// What one thread needs to run tiles; kept between runs.
#[derive(Default)]
pub(crate) struct Workspace {
    arena: Aligned,
    scratch: linear::Scratch,
}

impl Prepared {
    /// # Panics
    /// When the plan contradicts itself (it was not made by `PlanBuilder`).
    pub(crate) fn new(plan: &Arc<Plan>, simd: Simd) -> Self {
        assert_shapes(plan);
        let layout = Layout::of(plan);
        let mut packed: HashMap<*const Weights, Arc<Packed>> = HashMap::new();
        let layers: Vec<_> = plan
            .commands
            .iter()
            .map(|command| match command {
                Command::Linear(linear) => {
                    let pack = || Arc::new(Packed::new(&linear.weights, simd.panel_width()));
                    Some(Arc::clone(packed.entry(Arc::as_ptr(&linear.weights)).or_insert_with(pack)))
                }
                Command::Pool(_) | Command::Move(_) => None,
            })
            .collect();
        let in_width_max = layers.iter().flatten().map(|layer| layer.in_width).max().unwrap_or(0);
        let ends: usize = plan.inputs.iter().map(|input| plan.width(*input)).sum();
        let row_bytes = (layout.arena_width + ends + plan.width(plan.output)) * size_of::<f32>();
        let block = simd.block_rows();
        let fitting = (TILE_BYTES / row_bytes).clamp(TILE_BLOCKS_MIN * block, TILE_ROWS_MAX);
        let tile_rows = fitting / block * block;
        let row_macs = plan.row_macs();
        Self { plan: Arc::clone(plan), layers, layout, simd, in_width_max, tile_rows, row_macs }
    }

    /// Runs the rows `first_row ..` of `inputs`, as many as `output` holds.
    pub(crate) fn run_tile(
        &self,
        workspace: &mut Workspace,
        first_row: usize,
        inputs: &[&[f32]],
        output: &mut [f32],
    ) {
        let plan = self.plan.as_ref();
        let out_width = plan.width(plan.output);
        let rows = output.len() / out_width;
        assert!(rows * out_width == output.len(), "whole rows");
        for (input, buffer) in inputs.iter().zip(&plan.inputs) {
            assert!((first_row + rows) * plan.width(*buffer) <= input.len(), "rows of an input");
        }
        workspace.arena.reserve(self.layout.arena_width * rows);
        workspace.scratch.reserve(self.in_width_max);
        let tile = Tile {
            prepared: self,
            rows,
            first_row,
            inputs,
            output: output.as_mut_ptr(),
            arena: workspace.arena.as_mut_slice().as_mut_ptr(),
        };
        tile.copy_in();
        for (command, layer) in plan.commands.iter().zip(&self.layers) {
            tile.run(command, layer.as_deref(), &mut workspace.scratch);
        }
        tile.copy_out();
    }
}

/// Some rows of all buffers. Invariant: `output` and `arena` are exclusively ours and as long as the layout asks
/// for `rows` rows.
struct Tile<'a> {
    prepared: &'a Prepared,
    rows: usize,
    first_row: usize,
    inputs: &'a [&'a [f32]],
    output: *mut f32,
    arena: *mut f32,
}

impl Tile<'_> {
    /// Where a view's rows can be read.
    fn source(&self, view: View) -> Rows<*const f32> {
        match self.prepared.layout.places[view.buffer.0] {
            Place::Input(index) => {
                let stride = self.prepared.plan.width(view.buffer);
                let cells =
                    &self.inputs[index][self.first_row * stride..(self.first_row + self.rows) * stride];
                Rows { ptr: cells[view.offset..].as_ptr(), stride }
            }
            _ => {
                let Rows { ptr, stride } = self.destination(view);
                Rows { ptr: ptr.cast_const(), stride }
            }
        }
    }

    /// Where a view's rows can be written.
    fn destination(&self, view: View) -> Rows<*mut f32> {
        let (base, stride) = match self.prepared.layout.places[view.buffer.0] {
            Place::Output => (self.output, self.prepared.plan.width(view.buffer)),
            // SAFETY: the arena has `arena_width` floats for each row, and the layout keeps inside that.
            Place::Arena { offset, stride } => (unsafe { self.arena.add(offset * self.rows) }, stride),
            Place::Input(_) | Place::Nowhere => unreachable!("the layout gives written buffers a home"),
        };
        // SAFETY: the view lies inside its buffer.
        Rows { ptr: unsafe { base.add(view.offset) }, stride }
    }

    /// Calls `f` with a row of the source and the same row of the destination, for each row.
    fn each_row(&self, src: View, dst: View, f: impl Fn(&[f32], &mut [f32])) {
        let (from, to) = (self.source(src), self.destination(dst));
        for row in 0..self.rows {
            // SAFETY: both rows lie inside their buffers; the buffers differ and are alive at this command, so the
            // layout has put them apart.
            unsafe {
                let from = std::slice::from_raw_parts(from.ptr.add(row * from.stride), src.width);
                let to = std::slice::from_raw_parts_mut(to.ptr.add(row * to.stride), dst.width);
                f(from, to);
            }
        }
    }

    fn run(&self, command: &Command, layer: Option<&Packed>, scratch: &mut linear::Scratch) {
        match command {
            Command::Linear(linear) => {
                let layer = Layer {
                    packed: layer.expect("a linear has packed weights"),
                    rows: self.rows,
                    src: self.source(linear.src),
                    dst: self.destination(linear.dst),
                    mask: linear.mask.map(|mask| self.source(mask)),
                    accumulate: linear.init == Init::Accumulate,
                    activation: linear.activation,
                };
                // SAFETY: shapes were checked when the plan was prepared, the layout keeps live buffers apart, the
                // weights were packed for this level, and the executor offers only levels of this machine.
                unsafe { linear::run(self.prepared.simd, &layer, scratch) }
            }
            Command::Pool(step) => self.each_row(step.src, step.dst, |src, dst| {
                pool::pool(src, dst, step.columns, step.kernel, step.mode);
            }),
            Command::Move(step) => self.each_row(step.src, step.dst, |src, dst| {
                moves::move_columns(src, dst, step.start, step.step);
            }),
        }
    }

    /// Inputs that commands write to are copied first: the caller's slices are only read.
    fn copy_in(&self) {
        let plan = &self.prepared.plan;
        for (buffer, input) in plan.inputs.iter().zip(self.inputs) {
            if let Place::Arena { .. } = self.prepared.layout.places[buffer.0] {
                let width = plan.width(*buffer);
                let to = self.destination(View { buffer: *buffer, offset: 0, width });
                for row in 0..self.rows {
                    let from = &input[(self.first_row + row) * width..][..width];
                    // SAFETY: a row of the arena, which no slice of the caller's overlaps.
                    unsafe { to.ptr.add(row * to.stride).copy_from_nonoverlapping(from.as_ptr(), width) };
                }
            }
        }
    }

    /// An output that is also an input lives in the arena until here.
    fn copy_out(&self) {
        let plan = &self.prepared.plan;
        if let Place::Arena { .. } = self.prepared.layout.places[plan.output.0] {
            let width = plan.width(plan.output);
            let from = self.source(View { buffer: plan.output, offset: 0, width });
            for row in 0..self.rows {
                // SAFETY: rows of the arena and of the caller's output.
                unsafe {
                    let to = self.output.add(row * width);
                    to.copy_from_nonoverlapping(from.ptr.add(row * from.stride), width);
                }
            }
        }
    }
}

/// What the kernels rely on. `PlanBuilder` makes only such plans, but a plan's fields are open.
fn assert_shapes(plan: &Plan) {
    for buffer in plan.inputs.iter().chain([&plan.output]) {
        assert!(buffer.0 < plan.buffer_widths.len(), "unknown buffer");
    }
    assert!(plan.width(plan.output) > 0, "an output has columns");
    for command in &plan.commands {
        let (reads, write) = touched(command);
        for view in reads.into_iter().flatten().chain([write]) {
            let end = view.offset.checked_add(view.width).expect("a view ends");
            assert!(view.width > 0 && end <= plan.width(view.buffer), "a view inside its buffer");
        }
        for read in reads.into_iter().flatten() {
            let apart = read.offset + read.width <= write.offset || write.offset + write.width <= read.offset;
            assert!(read.buffer != write.buffer || apart, "a command in place");
        }
        match command {
            Command::Linear(linear) => {
                let weights = &linear.weights;
                assert!(
                    linear.src.width == weights.in_width && linear.dst.width == weights.out_width,
                    "linear"
                );
                assert!(linear.mask.is_none_or(|mask| mask.width == weights.out_width), "linear mask");
            }
            Command::Pool(pool) => {
                assert!(pool.columns > 0 && pool.kernel > 0, "pool window");
                assert!(pool.src.width.is_multiple_of(pool.columns), "pool source");
                let windows = (pool.src.width / pool.columns).div_ceil(pool.kernel);
                assert_eq!(pool.dst.width, windows * pool.columns, "pool destination");
            }
            Command::Move(step) => {
                let last = step.start as i64 + i64::from(step.step) * (step.dst.width as i64 - 1);
                assert!(
                    step.start < step.src.width && (0..step.src.width as i64).contains(&last),
                    "move source"
                );
            }
        }
    }
}

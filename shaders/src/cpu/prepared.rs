//! A plan made ready: weights packed, buffers placed, every shape checked once so that a run need not.

use std::collections::HashMap;
use std::sync::Arc;

use super::affine::AffineRow;
use super::attention::AttentionRow;
use super::layer_norm::LayerNormRow;
use super::layout::{Layout, Place};
use super::linear::{self, Layer};
use super::pack::{Aligned, Packed};
use super::rows::Rows;
use super::simd::Simd;
use super::{moves, pool, recurrent};
use crate::{Command, Init, Linear, Plan, Recurrent, View, Weights};

/// Bytes of activations that a tile of rows may take: half of a common second-level cache.
const TILE_BYTES: usize = 256 << 10;
const TILE_ROWS_MAX: usize = 96;
const TILE_BLOCKS_MIN: usize = 2;

/// A plan, ready to run tile by tile.
pub(crate) struct Prepared {
    plan: Arc<Plan>,
    /// For each command its matrices, in the order of `Command::weights`.
    layers: Vec<Vec<Arc<Packed>>>,
    layout: Layout,
    simd: Simd,
    in_width_max: usize,
    pub(crate) tile_rows: usize,
    pub(crate) row_macs: usize,
    /// Of all matrices and biases as they are packed.
    pub(crate) bytes: usize,
}

/// What one thread needs to run tiles; kept between runs.
#[derive(Default)]
pub(crate) struct Workspace {
    arena: Aligned,
    linear: linear::Scratch,
    recurrent: recurrent::Scratch,
    /// For one row of attention.
    shares: Vec<f32>,
}

impl Workspace {
    pub(crate) fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }
}

impl Prepared {
    /// # Panics
    /// When the plan contradicts itself (it was not made by `PlanBuilder`).
    pub(crate) fn new(plan: &Arc<Plan>, simd: Simd) -> Self {
        assert_valid(plan);
        let layout = Layout::of(plan);
        let mut packed: HashMap<*const Weights, Arc<Packed>> = HashMap::new();
        let layers: Vec<Vec<_>> = plan
            .commands
            .iter()
            .map(|command| {
                let pack = |weights: &Arc<Weights>| {
                    let pack = || Arc::new(Packed::new(weights, simd.panel_width(), plan.precision));
                    Arc::clone(packed.entry(Arc::as_ptr(weights)).or_insert_with(pack))
                };
                command.weights().map(pack).collect()
            })
            .collect();
        let bytes = packed.values().map(|packed| packed.bytes()).sum();
        let in_width_max =
            layers.iter().flatten().map(|layer: &Arc<Packed>| layer.in_width).max().unwrap_or(0);
        let ends: usize = plan.inputs.iter().map(|input| plan.width(*input)).sum();
        let row_bytes = (layout.arena_width + ends + plan.width(plan.output)) * size_of::<f32>();
        let block = simd.block_rows();
        let fitting = (TILE_BYTES / row_bytes).clamp(TILE_BLOCKS_MIN * block, TILE_ROWS_MAX);
        let tile_rows = fitting / block * block;
        let row_macs = plan.row_macs();
        Self { plan: Arc::clone(plan), layers, layout, simd, in_width_max, tile_rows, row_macs, bytes }
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
        workspace.linear.reserve(self.in_width_max);
        let tile = Tile {
            prepared: self,
            rows,
            first_row,
            inputs,
            output: output.as_mut_ptr(),
            arena: workspace.arena.cells_mut().as_mut_ptr(),
        };
        tile.copy_in();
        for (command, layers) in plan.commands.iter().zip(&self.layers) {
            tile.run(command, layers, workspace);
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

    /// Calls `f` for each row with what `command` reads there (empty where it reads one view only) and writes.
    fn each_row(&self, command: &Command, mut f: impl FnMut([&[f32]; 2], [&mut [f32]; 2])) {
        let sources = command.reads().map(|view| view.map(|view| (self.source(view), view.width)));
        let destinations = command.writes().map(|view| view.map(|view| (self.destination(view), view.width)));
        for row in 0..self.rows {
            // SAFETY: the views lie inside their buffers; all of a command's written buffers differ from each other
            // and from those it reads, and they are alive at this command, so the layout has put them apart.
            let reads = sources.map(|at| unsafe {
                at.map_or(&[][..], |(rows, width)| {
                    std::slice::from_raw_parts(rows.ptr.add(row * rows.stride), width)
                })
            });
            // SAFETY: as above.
            let writes = destinations.map(|at| unsafe {
                at.map_or(&mut [][..], |(rows, width)| {
                    std::slice::from_raw_parts_mut(rows.ptr.add(row * rows.stride), width)
                })
            });
            f(reads, writes);
        }
    }

    fn run(&self, command: &Command, layers: &[Arc<Packed>], workspace: &mut Workspace) {
        let simd = self.prepared.simd;
        match command {
            Command::Linear(linear) => self.run_linear(linear, &layers[0], &mut workspace.linear),
            Command::Recurrent(layer) => self.run_recurrent(layer, layers, workspace),
            Command::Pool(step) => self.each_row(command, |[src, _], [dst, _]| {
                pool::pool(src, dst, step.columns, step.kernel, step.mode);
            }),
            Command::Move(step) => {
                self.each_row(command, |[src, _], [dst, _]| moves::move_columns(step, src, dst));
            }
            Command::Affine(affine) => self.each_row(command, |[src, add], [dst, _]| {
                simd.run(AffineRow { command: affine, src, add: affine.add.map(|_| add), dst });
            }),
            Command::LayerNorm(norm) => self.each_row(command, |[src, _], [dst, _]| {
                simd.run(LayerNormRow { command: norm, src, dst });
            }),
            Command::Attention(attention) => {
                let shares = &mut workspace.shares;
                shares.resize(shares.len().max(attention.steps), 0.0);
                self.each_row(command, |[qkv, previous], [dst, scores]| {
                    let previous = attention.previous.map(|_| previous);
                    simd.run(AttentionRow { command: attention, qkv, previous, scores, dst, shares });
                });
            }
        }
    }

    fn run_linear(&self, linear: &Linear, packed: &Packed, scratch: &mut linear::Scratch) {
        let (src, dst) = (self.source(linear.src), self.destination(linear.dst));
        let layer = |rows, src, dst| Layer {
            packed,
            rows,
            src,
            dst,
            mask: linear.mask.map(|mask| self.source(mask)),
            accumulate: linear.init == Init::Accumulate,
            activation: linear.activation,
        };
        let repeat = linear.repeat;
        // SAFETY: as in `run`; a place of the repeat is a row of columns inside the views.
        unsafe {
            if repeat.count == 1 {
                linear::run(self.prepared.simd, &layer(self.rows, src, dst), scratch);
                return;
            }
            for row in 0..self.rows {
                let from = Rows { stride: repeat.src_step, ..src.at(row, 0) };
                let to = Rows { stride: repeat.dst_step, ..dst.at(row, 0) };
                linear::run(self.prepared.simd, &layer(repeat.count, from, to), scratch);
            }
        }
    }

    fn run_recurrent(&self, command: &Recurrent, layers: &[Arc<Packed>], workspace: &mut Workspace) {
        let layer = recurrent::Layer {
            command,
            recurrent: &layers[0],
            projection: layers.get(1).map(Arc::as_ref),
            rows: self.rows,
            gates: self.source(command.gates),
            state: self.destination(command.state),
            dst: self.destination(command.dst),
        };
        // SAFETY: as in `run`.
        unsafe {
            recurrent::run(self.prepared.simd, &layer, &mut workspace.recurrent, &mut workspace.linear);
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
fn assert_valid(plan: &Plan) {
    for buffer in plan.inputs.iter().chain([&plan.output]) {
        assert!(buffer.0 < plan.buffer_widths.len(), "unknown buffer");
    }
    assert!(plan.width(plan.output) > 0, "an output has columns");
    for command in &plan.commands {
        for view in command.reads().into_iter().chain(command.writes()).flatten() {
            let end = view.offset.checked_add(view.width).expect("a view ends");
            assert!(view.width > 0 && end <= plan.width(view.buffer), "a view inside its buffer");
        }
        command.assert_valid();
    }
}

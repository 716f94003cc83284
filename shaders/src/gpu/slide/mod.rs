//! The kernel of a window that slides: between two steps it does all that the newest step does not decide.
//!
//! A window of `T` steps begins at a state of zero, so that each new step makes `T` windows longer by one: the one that
//! is complete with it, which is asked for, and those that will be complete with the next ones. The kernel keeps the
//! states of all of them, in a ring of `T` rows. When a step comes it first takes the row that is due through the layers,
//! one after the other, as a data-flow between workgroups (see [`flow`](super::flow)), and answers. Only then, while the
//! host is busy with the answer, it takes the other rows through the same layers, all at once; and multiplies the state of
//! the row that is due next by the recurrent matrices, so that the next step finds nothing left to do but its own part.
//!
//! Every sum is of the same numbers as in the ordinary path, over the same `T` steps and from zero: nothing drifts.
//!
//! Each workgroup has some units of every layer. LSTM and GRU have four sums a unit: `i, f, g, o`; `r, z` and the two
//! parts of `n`, which the reset gate keeps apart.

mod slider;
mod wgsl;

pub use slider::Slider;

use super::cells::{INVOCATIONS, Part, SUMS, Units};
use crate::{ExecuteError, SlidingStack, Weights};

/// Columns of a matrix that are in workgroup memory at a time.
const TILE: usize = 32;
/// Vectors of four rows: with more, a tile of all rows does not fit workgroup memory.
const ROWS4_MAX: usize = 32;
/// Numbers of a forecast: an invocation each.
const OUTPUTS_MAX: usize = 16;
/// Workgroups of one stack: all must run at once, beside others.
const WORKGROUPS_MAX: usize = 128;
/// Every layer is code of its own.
const LAYERS_MAX: usize = 8;
/// Weights that an invocation may have in registers before a step comes.
const EARLY_MAX: usize = 112;
/// As in [`stays`](super::flow::stays), but where a processor plays the device: its loops end early.
const TURNS_MAX_SOLO: u32 = 32;

/// Sizes of a kernel, and where its weights lie.
pub(super) struct Slide<'s> {
    stack: &'s SlidingStack,
    /// Vectors of four rows.
    rows4: usize,
    /// Units of each layer in a workgroup.
    units_here: usize,
    /// Slices of a row of a matrix, an invocation each.
    slices: usize,
    workgroups: usize,
    solo: bool,
    layers: Vec<Places>,
    /// First float of the head's weights: `[workgroup][output][unit here]`.
    head_at: usize,
    floats: usize,
}

/// Vectors in front of a layer's weights.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// By slices, for one row: `[workgroup][vector of a slice][invocation]`.
    input_rows: usize,
    recurrent_rows: usize,
    /// By columns, for all rows: `[workgroup][column][unit here]`. The first layer's input is the same for all.
    input_columns: Option<usize>,
    recurrent_columns: usize,
    /// `[workgroup][unit here]`.
    bias: usize,
}

impl<'s> Slide<'s> {
    pub(super) fn of(stack: &'s SlidingStack, solo: bool) -> Result<Self, ExecuteError> {
        let refused =
            |what: &str| Err(ExecuteError::Refused(format!("`{}` does not slide: {what}", stack.name)));
        let (units, rows4) = (stack.units(), stack.steps.div_ceil(4));
        if stack.layers.is_empty() || stack.layers.len() > LAYERS_MAX {
            return refused("one to eight layers can");
        }
        if stack.outputs() > OUTPUTS_MAX || rows4 > ROWS4_MAX || stack.steps == 0 {
            return refused("too many outputs, or no steps or too many");
        }
        let most = (INVOCATIONS / rows4).min(INVOCATIONS / SUMS);
        let units_here = units.div_ceil(units.div_ceil(most));
        let workgroups = units.div_ceil(units_here);
        if workgroups > if solo { 1 } else { WORKGROUPS_MAX } {
            return refused("too many units for workgroups that run at once");
        }
        let slices = INVOCATIONS / (SUMS * units_here);
        let mut next = 0;
        let mut take = |vec4s: usize| {
            next += vec4s;
            next - vec4s
        };
        let of_layer = Units { cell: stack.cell, count: units, here: units_here, slices };
        let rows = |width: usize| of_layer.matrix_vec4s(width);
        let columns = workgroups * units.next_multiple_of(TILE) * units_here;
        let layers = (0..stack.layers.len())
            .map(|number| Places {
                input_rows: take(rows(if number == 0 { stack.in_width() } else { units })),
                recurrent_rows: take(rows(units)),
                input_columns: (number > 0).then(|| take(columns)),
                recurrent_columns: take(columns),
                bias: take(workgroups * units_here),
            })
            .collect();
        let head_at = next * 4;
        let floats = (head_at + workgroups * stack.outputs() * units_here).next_multiple_of(4);
        Ok(Self { stack, rows4, units_here, slices, workgroups, solo, layers, head_at, floats })
    }

    /// Words of a request: its step, and the states that one layer hands to the next.
    fn words(&self) -> usize {
        self.stack.in_width() + (self.stack.layers.len() - 1) * self.stack.units()
    }

    /// Vectors of the states of all rows: `h` twice, for what is read and what is written, then what the cell keeps.
    fn state_vec4s(&self) -> usize {
        3 * self.stack.layers.len() * self.stack.units() * self.rows4
    }

    /// Each workgroup's part of each output.
    fn partials(&self) -> usize {
        self.workgroups * self.stack.outputs()
    }

    fn units(&self) -> Units {
        let Self { stack, units_here, slices, .. } = *self;
        Units { cell: stack.cell, count: stack.units(), here: units_here, slices }
    }

    /// All weights as the kernel wants them.
    fn pack(&self) -> Vec<f32> {
        let mut packed = vec![0.0; self.floats];
        let of_layer = self.units();
        for (layer, places) in self.stack.layers.iter().zip(&self.layers) {
            for (weights, rows, columns, part) in [
                (&layer.input, places.input_rows, places.input_columns, Part::Input),
                (&layer.recurrent, places.recurrent_rows, Some(places.recurrent_columns), Part::Recurrent),
            ] {
                of_layer.pack_matrix(&mut packed, weights, rows, part);
                if let Some(columns) = columns {
                    self.pack_columns(&mut packed, weights, columns, part);
                }
                for (sum, unit, gate) in of_layer.sums(part) {
                    let at = places.bias + unit;
                    packed[at * 4 + sum] += weights.bias[gate * of_layer.count + unit];
                }
            }
        }
        let (units, outputs) = (self.stack.units(), self.stack.outputs());
        for (output, row) in self.stack.head.matrix().chunks_exact(units).enumerate() {
            for (unit, value) in row.iter().enumerate() {
                let (workgroup, here) = (unit / self.units_here, unit % self.units_here);
                packed[self.head_at + (workgroup * outputs + output) * self.units_here + here] = *value;
            }
        }
        packed
    }

    /// Puts a matrix, by columns, behind `at` vectors.
    fn pack_columns(&self, packed: &mut [f32], weights: &Weights, at: usize, part: Part) {
        let (units, here, width) = (self.stack.units(), self.units_here, weights.in_width);
        let columns = units.next_multiple_of(TILE);
        let matrix = weights.matrix();
        for (sum, unit, gate) in self.units().sums(part) {
            let (workgroup, place) = (unit / here, unit % here);
            for (k, value) in matrix[(gate * units + unit) * width..][..width].iter().enumerate() {
                packed[(at + (workgroup * columns + k) * here + place) * 4 + sum] = *value;
            }
        }
    }
}

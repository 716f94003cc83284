//! The kernel of whole windows: recurrent layers over all steps of a window, and layers around them, by workgroups that
//! stay.
//!
//! A persistent recurrence (Diamos et al. 2016): each workgroup has some units of a layer, their recurrent weights in
//! registers for all steps. It takes a few steps of the layer's input at once, a small matrix product for its own units,
//! and then goes through these steps one by one. What it hands on is `h` of its units, a word each and without a barrier
//! (see [`flow`](super::flow)): to the other workgroups of its layer for the next step, and to the next layer. Where a device
//! has room for all layers side by side, each has workgroups of its own: the next layer then follows a few steps
//! behind, and a window takes hardly longer than its longest layer. Where it has not, all workgroups go through one layer
//! after the other.
//!
//! Layers without a recurrence, at one place of a row or at many, are cut into their places. Moves are no steps at all.

mod pack;
mod stages;
#[cfg(test)]
mod tests;
mod wgsl;

use self::stages::Stage;
use super::cells::{SUMS, slice_len, stride};
use super::flow::{Columns, stays};
use super::resident::Extent;
use crate::{Command, Plan};

/// Workgroups of one kernel: all must run at once, beside others.
const WORKGROUPS_MAX: usize = 128;
/// Units of a workgroup: a subgroup of 32 has one for each four invocations and eight slices. More workgroups poll more.
const UNITS_HERE: usize = 8;
/// Steps of a layer's input that are taken at once. What follows a layer waits for as many of its steps.
const CHUNK_MAX: usize = 8;
/// Bytes of workgroup memory for those steps.
const CHUNK_BYTES_MAX: usize = 26 << 10;
/// Bytes of workgroup memory in all.
const STAGED_BYTES_MAX: usize = 44 << 10;
/// The same where a processor plays the device.
const STAGED_BYTES_MAX_SOLO: usize = 30 << 10;
/// Every stage is code of its own.
const STAGES_MAX: usize = 24;
/// Words of a request: what a float counts exactly, and far from what a device has.
const WORDS_MAX: usize = 1 << 22;
/// Turns of loops for one request, at most, where a processor plays the device and ends them early.
const LOOPS_MAX_SOLO: usize = 25_000;

/// A plan that goes this way, and how.
pub(super) struct Walk {
    stages: Vec<Stage>,
    /// Words of a request: its inputs, then all results.
    words: usize,
    workgroups: usize,
    out_width: usize,
    solo: bool,
    /// Invocations of a subgroup.
    lanes: usize,
    floats: usize,
}

impl Walk {
    /// `None` for a plan with other commands, or too large for it.
    pub(super) fn of(plan: &Plan, solo: bool, lanes: usize) -> Option<Self> {
        let mut stages = stages::of(plan, solo, lanes)?;
        if stages.list.is_empty() || stages.list.len() > STAGES_MAX {
            return None;
        }
        let recurrent = || stages.list.iter().filter_map(Stage::recurrent);
        let side_by_side = recurrent().map(|layer| layer.units.workgroups()).sum::<usize>();
        let widest = recurrent().map(|layer| layer.units.workgroups()).max()?;
        let workgroups = if solo {
            1
        } else if side_by_side <= WORKGROUPS_MAX {
            let mut next = 0;
            for layer in stages.list.iter_mut().filter_map(Stage::recurrent_mut) {
                layer.first_workgroup = next;
                next += layer.units.workgroups();
            }
            side_by_side
        } else {
            widest
        };
        let most = if solo { 1 } else { WORKGROUPS_MAX };
        if widest > most {
            return None;
        }
        if stages.words > WORDS_MAX || !stages::all_bound(&stages.list) {
            return None;
        }
        let floats = pack::place(&mut stages.list);
        let walk = Self {
            stages: stages.list,
            words: stages.words,
            workgroups,
            out_width: plan.width(plan.output),
            solo,
            lanes,
            floats,
        };
        let bytes = if solo { STAGED_BYTES_MAX_SOLO } else { STAGED_BYTES_MAX };
        let fits = walk.staged_bytes() <= bytes && (!solo || walk.loops() <= LOOPS_MAX_SOLO);
        fits.then_some(walk)
    }

    pub(super) fn workgroups(&self) -> [u32; 2] {
        [u32::try_from(self.workgroups).expect("a handful"), 1]
    }

    pub(super) fn extent(&self, plan: &Plan) -> Extent {
        let mut next = 0;
        let inputs = plan.inputs.iter().map(|input| {
            next += plan.width(*input);
            next - plan.width(*input)..next
        });
        let inputs = inputs.collect();
        Extent {
            rows_max: 1,
            row_words: self.words,
            inputs,
            out_width: self.out_width,
            turns_max: self.turns_max(),
        }
    }

    fn turns_max(&self) -> u32 {
        match self.solo {
            // A stop, a request, and some more.
            true => u32::try_from(2 * LOOPS_MAX_SOLO / self.loops().max(1)).expect("few").clamp(2, 64),
            false => stays::TURNS_MAX,
        }
    }

    /// Vectors of workgroup memory for the input of some steps or of one place.
    fn input_vec4s(&self) -> usize {
        self.stages.iter().map(Stage::input_vec4s).max().unwrap_or(1)
    }

    /// The same for the state before a step; two of them take turns.
    fn state_vec4s(&self) -> usize {
        let layers = self.stages.iter().filter_map(Stage::recurrent);
        layers.map(|layer| layer.recurrent_slices.vec4s()).max().unwrap_or(1)
    }

    /// Sums of the input of some steps.
    fn given(&self) -> usize {
        let layers = self.stages.iter().filter_map(Stage::recurrent);
        layers.map(|layer| layer.chunk * layer.rows()).max().unwrap_or(1)
    }

    fn staged_bytes(&self) -> usize {
        16 * (self.input_vec4s() + 2 * self.state_vec4s()) + 4 * self.given()
    }
}

/// How a row of inputs lies in workgroup memory.
#[derive(Clone, Copy, Debug)]
struct Slices {
    width: usize,
    count: usize,
}

impl Slices {
    fn len(self) -> usize {
        slice_len(self.width, self.count)
    }

    /// Floats, with those that fill the last slices.
    fn floats(self) -> usize {
        self.len() * self.count
    }

    fn stride(self) -> usize {
        stride(self.len())
    }

    fn vec4s(self) -> usize {
        self.stride() * self.count
    }
}

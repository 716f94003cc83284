//! Small batches in one dispatch: a kernel written for one plan, in which results find their readers by themselves.
//!
//! A layer of a few rows is over in a microsecond, and each dispatch costs more than that. Here workgroups that all run
//! at once go through the layers together. Every result has a word of its own, empty until it is written; who needs it
//! polls it, its weights already in registers. There is no barrier between workgroups and none is needed: a word is
//! its own signal. Moves and pools are no steps at all, their readers look where the numbers come from.
//!
//! Two sets of words take turns; a run clears what the run before it left in the other one. Every poll is bounded: when
//! workgroups do not run at once the run fails, says so, and the plan goes back to a dispatch a layer for good.
//! Sums have the order of linear.wgsl, bit for bit.

mod columns;
mod once;
mod running;
pub(super) mod stays;
mod wgsl;

pub(super) use columns::{Columns, Source};
pub(super) use running::Running;
pub(super) use wgsl::{POLLS_MAX, WORDS};

use std::ops::Range;

use self::columns::Segment;
use super::prepared;
use super::variants::slice_len;
use super::weights::TILE_DEPTH;
use crate::{Command, Init, Linear, Plan};

/// Rows of the largest batch that goes this way.
pub(super) const ROWS_MAX: usize = 32;
/// Rows of one group of workgroups: the numbers of a layer for all of them must fit workgroup memory.
const GROUP_ROWS: [usize; 2] = [1, 4];
const INVOCATIONS: usize = 256;
/// All workgroups of all groups must run at once, two a multiprocessor of a large device.
const WORKGROUPS_MAX: usize = 32;
const ROUNDS_MAX: usize = 4;
/// Every layer is code of its own.
const LAYERS_MAX: usize = 24;
/// Vectors of workgroup memory for one layer's input.
const INPUT_BYTES_MAX: usize = 40 << 10;
/// The same for two layers that take turns.
const STAGED_BYTES_MAX: usize = 44 << 10;

/// A plan that can go this way, and how.
pub(super) struct Flow {
    layers: Vec<Layer>,
    /// Columns of each input, one input after the other; results follow.
    input_starts: Vec<usize>,
    /// Sources from here on are words; those before it lie in the arena.
    first_word: usize,
    /// Words of one row.
    words: usize,
    workgroups: usize,
    form: Form,
}

/// Which kernel a flow becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It runs once for a batch.
    Once {
        /// One workgroup, for devices that run one after the other: to try the kernel, not to be fast.
        solo: bool,
    },
    /// It stays on the device and takes its inputs as words, too: see [`stays`].
    Stays {
        /// The same.
        solo: bool,
        /// Invocations of a subgroup.
        lanes: usize,
        /// Rows of the largest request.
        rows_max: usize,
    },
}

impl Form {
    fn solo(self) -> bool {
        match self {
            Self::Once { solo } | Self::Stays { solo, .. } => solo,
        }
    }

    fn stays(self) -> bool {
        matches!(self, Self::Stays { .. })
    }

    /// Rows of one group of workgroups, at most.
    fn group_rows(self) -> usize {
        match self {
            Self::Once { .. } => GROUP_ROWS[1],
            Self::Stays { rows_max, .. } => stays::shape(rows_max).0,
        }
    }
}

struct Layer {
    linear: Linear,
    src: Vec<Segment>,
    before: Option<Vec<Segment>>,
    mask: Option<Vec<Segment>>,
    /// First word of the results; `None` when they are the plan's output.
    words: Option<usize>,
    /// Neighbouring columns that an invocation sums, and how many such slices there are.
    len: usize,
    slices: usize,
    /// Outputs that a workgroup sums at a time, and how often.
    outputs: usize,
    rounds: usize,
    /// Vectors in front of its weights, and floats in front of its bias.
    weights_at: usize,
    bias_at: usize,
}

impl Flow {
    /// `None` for a plan with other commands, or too large to be worth it.
    pub(super) fn of(plan: &Plan, form: Form) -> Option<Self> {
        let solo = form.solo();
        if !prepared::sinks(plan) {
            return None;
        }
        let mut columns = Columns::of(plan);
        let first_word = if form.stays() { 0 } else { columns.next };
        let items = |linear: &Linear| linear.weights.out_width * slices(linear);
        let most = plan.commands.iter().filter_map(|command| match command {
            Command::Linear(linear) => Some(items(linear)),
            _ => None,
        });
        let workgroups = match form {
            _ if solo => 1,
            Form::Once { .. } => most.max()?.div_ceil(INVOCATIONS).min(WORKGROUPS_MAX),
            Form::Stays { rows_max, .. } => {
                let widths = plan.commands.iter().filter_map(|command| match command {
                    Command::Linear(linear) => Some(linear.weights.out_width),
                    _ => None,
                });
                stays::workgroups(widths.max()?, rows_max)
            }
        };
        let mut layers = Vec::new();
        let (mut weights_at, mut bias_at) = (0, 0);
        for command in &plan.commands {
            match command {
                Command::Linear(linear) if linear.repeat.count == 1 => {
                    let width = linear.weights.out_width;
                    let [len, slices, outputs] = match form {
                        Form::Once { .. } => {
                            let slices = slices(linear);
                            [slice_len(linear.weights.in_width), slices, INVOCATIONS / slices]
                        }
                        Form::Stays { .. } => {
                            stays::slices(linear, width.div_ceil(workgroups), form.group_rows())
                        }
                    };
                    let rounds = width.div_ceil(workgroups).div_ceil(outputs);
                    let sinks = linear.dst.buffer == plan.output;
                    let layer = Layer {
                        src: columns.segments(linear.src)?,
                        before: match linear.init {
                            Init::Bias => None,
                            Init::Accumulate => Some(columns.segments(linear.dst)?),
                        },
                        mask: match linear.mask {
                            None => None,
                            Some(mask) => Some(columns.segments(mask)?),
                        },
                        words: (!sinks).then_some(columns.next - first_word),
                        linear: linear.clone(),
                        len,
                        slices,
                        outputs,
                        rounds,
                        weights_at,
                        bias_at,
                    };
                    weights_at += layer.vec4s(workgroups);
                    bias_at += width;
                    let too_large = !solo && rounds > ROUNDS_MAX
                        || layer.input_bytes(form.group_rows()) > INPUT_BYTES_MAX;
                    if too_large {
                        return None;
                    }
                    layers.push(layer);
                    if !sinks {
                        columns.define(linear.dst);
                    }
                }
                Command::Pool(pool) => columns.pool(pool)?,
                Command::Move(step) => columns.shift(step),
                _ => return None,
            }
        }
        let words = columns.next - first_word;
        let input_starts = columns.input_starts;
        let flow = Self { layers, input_starts, first_word, words: words.max(1), workgroups, form };
        let staged = flow.staged_vec4s().iter().sum::<usize>() * form.group_rows() * 16;
        if flow.layers.len() > LAYERS_MAX || form.stays() && staged > STAGED_BYTES_MAX {
            return None;
        }
        Some(flow)
    }

    /// Which kernel, and how many workgroups of how many groups, for a batch.
    fn dispatch(&self, rows: usize) -> (usize, [u32; 2]) {
        let kernel = usize::from(rows > GROUP_ROWS[0]);
        let counts = [self.workgroups, rows.div_ceil(GROUP_ROWS[kernel])];
        (kernel, counts.map(|count| u32::try_from(count).expect("a handful")))
    }

    /// Vectors of one row of the widest input, of the layers with an even number and of the others.
    fn staged_vec4s(&self) -> [usize; 2] {
        [0, 1].map(|odd| {
            let layers = self.layers.iter().skip(odd).step_by(2);
            layers.map(Layer::input_vec4s).max().unwrap_or(0)
        })
    }

    /// Columns of each of the plan's inputs, one after the other.
    pub(super) fn input_places(&self, plan: &Plan) -> Vec<Range<usize>> {
        let widths = plan.inputs.iter().map(|input| plan.width(*input));
        self.input_starts.iter().zip(widths).map(|(start, width)| *start..start + width).collect()
    }

    /// Words of one row, the inputs first where the kernel stays.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Workgroups of how many groups answer up to `rows_max` rows, and rows of one group, where the kernel stays.
    pub(super) fn groups(&self, rows_max: usize) -> ([u32; 2], usize) {
        let rows = self.form.group_rows();
        let counts = [self.workgroups, rows_max.div_ceil(rows)];
        (counts.map(|count| u32::try_from(count).expect("a handful")), rows)
    }

    /// Columns of the plan's output, which one layer makes.
    pub(super) fn out_width(&self) -> usize {
        let sinks = self.layers.iter().find(|layer| layer.words.is_none());
        sinks.expect("one layer writes the output").linear.weights.out_width
    }

    /// Weights in the order in which invocations want them, then all biases.
    pub(super) fn pack(&self) -> Vec<f32> {
        let vec4s = self.layers.iter().map(|layer| layer.vec4s(self.workgroups)).sum::<usize>();
        let biases = self.layers.iter().map(|layer| layer.linear.weights.out_width).sum::<usize>();
        let mut packed = vec![0.0; vec4s * 4 + biases.next_multiple_of(4)];
        for layer in &self.layers {
            let weights = &layer.linear.weights;
            let len = layer.len;
            for (output, row) in weights.matrix().chunks_exact(weights.in_width).enumerate() {
                let here = layer.outputs_here(self.workgroups);
                let (workgroup, of_round) = (output / here, output % here);
                let (round, place) = (of_round / layer.outputs, of_round % layer.outputs);
                for (k, value) in row.iter().enumerate() {
                    let invocation = place * layer.slices + k / len;
                    let vec4 = (round * self.workgroups + workgroup) * (len / 4) + k % len / 4;
                    let at = layer.weights_at + vec4 * INVOCATIONS + invocation;
                    packed[at * 4 + k % 4] = *value;
                }
            }
            let bias = vec4s * 4 + layer.bias_at;
            packed[bias..bias + weights.out_width].copy_from_slice(&weights.bias);
        }
        packed
    }
}

impl Layer {
    /// Outputs of a workgroup, neighbours: a line of the second level cache is then written by few.
    fn outputs_here(&self, workgroups: usize) -> usize {
        self.linear.weights.out_width.div_ceil(workgroups)
    }

    /// Vectors of its packed weights.
    fn vec4s(&self, workgroups: usize) -> usize {
        self.rounds * workgroups * self.len / 4 * INVOCATIONS
    }

    /// Vectors from one slice of its input to the next: odd, so that those who read different slices read different
    /// banks.
    fn slice_vec4s(&self) -> usize {
        (self.len / 4) | 1
    }

    /// Vectors of one row of its input.
    fn input_vec4s(&self) -> usize {
        self.slices * self.slice_vec4s()
    }

    fn input_bytes(&self, rows: usize) -> usize {
        rows * self.input_vec4s() * 16
    }
}

fn slices(linear: &Linear) -> usize {
    let in_width = linear.weights.in_width;
    in_width.next_multiple_of(TILE_DEPTH).div_ceil(slice_len(in_width))
}

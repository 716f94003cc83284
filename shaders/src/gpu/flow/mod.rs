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

mod once;
mod running;
pub(super) mod stays;
mod wgsl;

pub(super) use running::Running;
pub(super) use wgsl::{POLLS_MAX, WORDS};

use std::ops::Range;

use super::prepared;
use super::variants::slice_len;
use super::weights::TILE_DEPTH;
use crate::{Command, Init, Linear, Plan, PoolMode, View};

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

/// Where the number of a column comes from: `count` addresses `step` apart, pooled when there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    at: usize,
    step: usize,
    count: usize,
    mean: bool,
}

/// Neighbouring columns whose sources are `apart` from each other.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: usize,
    len: usize,
    source: Source,
    apart: usize,
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
        let mut columns: Vec<Vec<Option<Source>>> =
            plan.buffer_widths.iter().map(|width| vec![None; *width]).collect();
        let plain = |at| Some(Source { at, step: 0, count: 1, mean: false });
        let mut next = 0;
        let mut input_starts = Vec::new();
        for input in &plan.inputs {
            input_starts.push(next);
            for column in &mut columns[input.0] {
                *column = plain(next);
                next += 1;
            }
        }
        let input_columns = next;
        let first_word = if form.stays() { 0 } else { input_columns };
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
            let read = |columns: &[Vec<Option<Source>>], view: View, column: usize| {
                columns[view.buffer.0][view.offset + column]
            };
            match command {
                Command::Linear(linear) if linear.repeat.count == 1 => {
                    let segments = |view: View| {
                        let sources: Option<Vec<Source>> =
                            (0..view.width).map(|column| read(&columns, view, column)).collect();
                        sources.map(|sources| segments(&sources, &input_starts, input_columns))
                    };
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
                        src: segments(linear.src)?,
                        before: match linear.init {
                            Init::Bias => None,
                            Init::Accumulate => Some(segments(linear.dst)?),
                        },
                        mask: match linear.mask {
                            None => None,
                            Some(mask) => Some(segments(mask)?),
                        },
                        words: (!sinks).then_some(next - first_word),
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
                        for column in 0..width {
                            columns[linear.dst.buffer.0][linear.dst.offset + column] = plain(next);
                            next += 1;
                        }
                    }
                }
                Command::Pool(pool) => {
                    let steps = pool.src.width / pool.columns;
                    for column in 0..pool.dst.width {
                        let first = column / pool.columns * pool.kernel;
                        let count = pool.kernel.min(steps - first);
                        let at = |step: usize| {
                            let column = (first + step) * pool.columns + column % pool.columns;
                            read(&columns, pool.src, column).filter(|source| source.count == 1)
                        };
                        let mut source = at(0)?;
                        source.count = count;
                        source.mean = pool.mode == PoolMode::Mean;
                        if count > 1 {
                            source.step = at(1)?.at.checked_sub(source.at)?;
                        }
                        for step in 1..count {
                            if at(step)?.at != source.at + step * source.step {
                                return None;
                            }
                        }
                        columns[pool.dst.buffer.0][pool.dst.offset + column] = Some(source);
                    }
                }
                Command::Move(step) => {
                    let [outer, inner] = step.counts;
                    for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
                        let steps = step.src_steps.map(|step| step as isize);
                        let column = step.start as isize + i as isize * steps[0] + j as isize * steps[1];
                        let source = read(&columns, step.src, column.unsigned_abs());
                        let at = step.dst.offset + i * step.dst_steps[0] + j * step.dst_steps[1];
                        columns[step.dst.buffer.0][at] = source;
                    }
                }
                _ => return None,
            }
        }
        let words = next - first_word;
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
            for (output, row) in weights.matrix.chunks_exact(weights.in_width).enumerate() {
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

/// Runs of columns whose sources look alike; none crosses from one input to another.
fn segments(sources: &[Source], input_starts: &[usize], input_columns: usize) -> Vec<Segment> {
    let area = |at: usize| match at < input_columns {
        true => input_starts.partition_point(|start| *start <= at),
        false => usize::MAX,
    };
    let mut found: Vec<Segment> = Vec::new();
    for (column, source) in sources.iter().enumerate() {
        if let Some(last) = found.last_mut() {
            let alike = Source { at: last.source.at, ..*source } == last.source
                && area(source.at) == area(last.source.at);
            if let Some(offset) = source.at.checked_sub(last.source.at).filter(|_| alike) {
                if last.len == 1 {
                    last.apart = offset;
                }
                if offset == last.len * last.apart {
                    last.len += 1;
                    continue;
                }
            }
        }
        found.push(Segment { first: column, len: 1, source: *source, apart: 0 });
    }
    found
}

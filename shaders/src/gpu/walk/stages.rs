//! What a plan is made of, for workgroups that walk over its steps.

use std::ops::Range;
use std::sync::Arc;

use super::{CHUNK_BYTES_MAX, CHUNK_MAX, Columns, Command, Plan, SUMS, Slices, UNITS_HERE};
use crate::gpu::cells::{INVOCATIONS, Units};
use crate::gpu::prepared;
use crate::{Activation, Init, Linear, Recurrent, View, Weights};

/// A layer, whose results are words.
pub(super) enum Stage {
    Recurrent(Layer),
    Linear(Places),
}

/// A recurrent layer with the product of its input.
pub(super) struct Layer {
    pub(super) units: Units,
    pub(super) steps: usize,
    /// Steps of its input that are taken at once.
    pub(super) chunk: usize,
    /// Its units begin with this workgroup.
    pub(super) first_workgroup: usize,
    pub(super) src: Words,
    pub(super) input: Arc<Weights>,
    pub(super) recurrent: Arc<Weights>,
    pub(super) input_slices: Slices,
    pub(super) recurrent_slices: Slices,
    /// Its first word: `[steps, units]`.
    pub(super) word: usize,
    /// Vectors in front of its matrices, floats in front of its biases, `[workgroup][row]`.
    pub(super) input_at: usize,
    pub(super) recurrent_at: usize,
    pub(super) bias_at: usize,
}

/// A layer at some places of a row.
pub(super) struct Places {
    pub(super) linear: Linear,
    pub(super) src: Words,
    pub(super) slices: Slices,
    /// Its first word, `[places, out]`; `None` when they are the plan's output.
    pub(super) word: Option<usize>,
    /// Vectors in front of its weights, `[block][vector of a slice][invocation]`, and floats in front of its bias.
    pub(super) weights_at: usize,
    pub(super) bias_at: usize,
}

/// The words of a layer's input: column `c` is word `first + c`, or the table says which.
#[derive(Clone, Debug)]
pub(super) struct Words {
    /// Columns from one step or place to the next.
    pub(super) step: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Run(usize),
    /// Words of all columns, and floats in front of them among the weights.
    Table {
        words: Vec<usize>,
        at: usize,
    },
}

pub(super) struct Stages {
    pub(super) list: Vec<Stage>,
    pub(super) words: usize,
}

/// `None` where a command is not understood, or something is read of a recurrence that is no word.
pub(super) fn of(plan: &Plan, solo: bool, lanes: usize) -> Option<Stages> {
    if lanes < SUMS || !prepared::sinks(plan) {
        return None;
    }
    let mut columns = Columns::of(plan);
    let mut list = Vec::new();
    let mut commands = plan.commands.iter().peekable();
    while let Some(command) = commands.next() {
        match command {
            Command::Linear(linear) => {
                let follows = match commands.peek() {
                    Some(Command::Recurrent(layer)) if feeds(linear, layer) => Some(layer),
                    _ => None,
                };
                if let Some(layer) = follows {
                    let src = words(&columns, linear)?;
                    let word = columns.define(layer.dst);
                    list.push(Stage::Recurrent(Layer::new(linear, layer, src, word, solo, lanes)?));
                    commands.next();
                } else {
                    list.push(Stage::Linear(Places::new(plan, &mut columns, linear, lanes)?));
                }
            }
            Command::Move(step) => columns.shift(step),
            _ => return None,
        }
    }
    Some(Stages { list, words: columns.next })
}

/// Whether a layer on every step makes the gates of a recurrent layer, and does nothing else.
fn feeds(linear: &Linear, layer: &Recurrent) -> bool {
    let Linear { weights, repeat, .. } = linear;
    let whole = linear.dst == layer.gates && repeat.count == layer.steps;
    let dense = repeat.count == 1 || repeat.dst_step == weights.out_width;
    let plain =
        linear.init == Init::Bias && linear.activation == Activation::Identity && linear.mask.is_none();
    whole && dense && plain && !layer.resumes && layer.projection.is_none()
}

/// `None` for what is pooled, or not there.
fn words(columns: &Columns, linear: &Linear) -> Option<Words> {
    let sources = columns.sources(linear.src)?;
    let words: Vec<usize> =
        sources.iter().filter(|source| source.count == 1).map(|source| source.at).collect();
    let first = *words.first().filter(|_| words.len() == sources.len())?;
    let runs = words.iter().enumerate().all(|(column, word)| *word == first + column);
    let kind = if runs { Kind::Run(first) } else { Kind::Table { words, at: 0 } };
    Some(Words { step: linear.repeat.src_step, kind })
}

/// Whether every workgroup has a part in the answer, so that none can be a request behind (see
/// [`stays`](crate::gpu::flow::stays)): the last step of every recurrence is read, which all units have a part in, and so
/// is every other layer.
pub(super) fn all_bound(stages: &[Stage]) -> bool {
    (0..stages.len()).all(|index| {
        let made = match &stages[index] {
            // After one step only, each unit has a part in itself.
            Stage::Recurrent(layer) if layer.steps < 2 => return false,
            Stage::Recurrent(layer) => {
                let first = layer.word + (layer.steps - 1) * layer.units.count;
                first..first + layer.units.count
            }
            Stage::Linear(Places { word: Some(first), linear, .. }) => {
                *first..first + linear.repeat.count * linear.weights.out_width
            }
            Stage::Linear(_) => return true,
        };
        stages[index + 1..].iter().any(|stage| stage.reads(&made))
    })
}

impl Layer {
    fn new(
        linear: &Linear,
        layer: &Recurrent,
        src: Words,
        word: usize,
        solo: bool,
        lanes: usize,
    ) -> Option<Self> {
        let (count, in_width) = (layer.units(), linear.weights.in_width);
        let here = if solo { count } else { UNITS_HERE.max(count.div_ceil(super::WORKGROUPS_MAX)) };
        // The four sums of a unit meet within a subgroup.
        let fits = INVOCATIONS.checked_div(SUMS * here).filter(|slices| *slices > 0)?;
        let slices = (1 << fits.ilog2()).min(lanes / SUMS);
        let sliced = |width| Slices { width, count: slices };
        let chunk = (CHUNK_BYTES_MAX / (16 * sliced(in_width).vec4s())).clamp(1, CHUNK_MAX).min(layer.steps);
        Some(Self {
            units: Units { cell: layer.cell, count, here: here.min(count), slices },
            steps: layer.steps,
            chunk,
            first_workgroup: 0,
            src,
            input: Arc::clone(&linear.weights),
            recurrent: Arc::clone(&layer.recurrent),
            input_slices: sliced(in_width),
            recurrent_slices: sliced(count),
            word,
            input_at: 0,
            recurrent_at: 0,
            bias_at: 0,
        })
    }

    /// Rows of a matrix that a workgroup has invocations for.
    pub(super) fn rows(&self) -> usize {
        INVOCATIONS / self.units.slices
    }
}

impl Places {
    fn new(plan: &Plan, columns: &mut Columns, linear: &Linear, lanes: usize) -> Option<Self> {
        if linear.init != Init::Bias || linear.mask.is_some() {
            return None;
        }
        let src = words(columns, linear)?;
        let width = linear.weights.out_width;
        let slices = (INVOCATIONS / width.next_power_of_two().min(INVOCATIONS)).clamp(lanes.min(8), lanes);
        let word = if linear.dst.buffer == plan.output {
            None
        } else {
            let first = columns.next;
            for place in 0..linear.repeat.count {
                let View { buffer, offset, .. } = linear.dst;
                columns.define(View { buffer, offset: offset + place * linear.repeat.dst_step, width });
            }
            Some(first)
        };
        let slices = Slices { width: linear.weights.in_width, count: slices };
        Some(Self { linear: linear.clone(), src, slices, word, weights_at: 0, bias_at: 0 })
    }

    /// Outputs of a workgroup at a time.
    pub(super) fn outputs(&self) -> usize {
        INVOCATIONS / self.slices.count
    }

    /// How often all outputs of a place need a workgroup.
    pub(super) fn blocks(&self) -> usize {
        self.linear.weights.out_width.div_ceil(self.outputs())
    }
}

impl Stage {
    pub(super) fn recurrent(&self) -> Option<&Layer> {
        match self {
            Self::Recurrent(layer) => Some(layer),
            Self::Linear(_) => None,
        }
    }

    pub(super) fn recurrent_mut(&mut self) -> Option<&mut Layer> {
        match self {
            Self::Recurrent(layer) => Some(layer),
            Self::Linear(_) => None,
        }
    }

    /// Whether any of these words is part of its input.
    fn reads(&self, made: &Range<usize>) -> bool {
        let (src, len) = match self {
            Self::Recurrent(Layer { src, steps, input, .. }) => {
                (src, (steps - 1) * src.step + input.in_width)
            }
            Self::Linear(Places { src, linear, .. }) => (src, linear.src.width),
        };
        match &src.kind {
            Kind::Run(first) => *first < made.end && made.start < first + len,
            Kind::Table { words, .. } => words.iter().any(|word| made.contains(word)),
        }
    }

    /// Vectors of what is staged of its input at a time.
    pub(super) fn input_vec4s(&self) -> usize {
        match self {
            Self::Recurrent(layer) => layer.chunk * layer.input_slices.vec4s(),
            Self::Linear(places) => places.slices.vec4s(),
        }
    }
}

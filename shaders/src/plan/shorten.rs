//! Takes layers out of the longest chain of a plan: what waits for one layer less is answered sooner.
//!
//! A layer without an activation whose results only other layers read is multiplied into those, in f64:
//! `F · (r + B · h + b) + c = [F, F · B] · [r; h] + F · b + c`. So the backcast of a doubly residual stack vanishes where
//! the next stack reads the residual as it is. In large batches this saves nothing, the multiplications being as many or
//! more; it is for a kernel in which every layer that waits for another costs a trip through the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{BufferId, Command, Init, Linear, Move, Plan, Precision, Repeat, View, Weights};
use crate::Activation;

/// Multiply-adds of one fold, at most.
const FOLD_WORK_MAX: usize = 1 << 30;
/// A plan's weights may become more by one of so many parts.
const GROWTH_PARTS: usize = 4;

impl Plan {
    /// Layers of the longest chain: how many wait for each other.
    pub(crate) fn chain_len(&self) -> usize {
        let mut lens: Vec<Vec<usize>> = self.buffer_widths.iter().map(|width| vec![0; *width]).collect();
        for command in &self.commands {
            let longest = |view: View| lens[view.buffer.0][view.offset..][..view.width].iter().max().copied();
            let accumulates = matches!(command, Command::Linear(linear) if linear.init == Init::Accumulate);
            let before = command.writes()[0].filter(|_| accumulates);
            let read = command.reads().into_iter().chain([before]).flatten().filter_map(longest).max();
            let step = usize::from(!matches!(command, Command::Move(_) | Command::Pool(_)));
            for write in command.writes().into_iter().flatten() {
                let cells = &mut lens[write.buffer.0][write.offset..][..write.width];
                let len = read.unwrap_or(0) + step;
                // A move may leave some as they were.
                cells.iter_mut().for_each(|cell| *cell = (*cell).max(len));
            }
        }
        lens[self.output.0].iter().max().copied().unwrap_or(0)
    }

    /// The same with a shorter chain, under the same id; `None` where no layer can be saved, or it would take too much.
    pub(crate) fn shortened(&self) -> Option<Self> {
        let mut folds = Folds {
            plan: self,
            layers: BTreeMap::new(),
            dropped: vec![false; self.commands.len()],
            room: self.row_macs() / GROWTH_PARTS,
        };
        for index in (0..self.commands.len()).rev() {
            folds.fold(index);
        }
        let shorter = folds.plan();
        (shorter.chain_len() < self.chain_len()).then_some(shorter)
    }
}

/// A plan in which some layers have been multiplied into others.
struct Folds<'p> {
    plan: &'p Plan,
    /// Layers that are not what they were, by the place of their command.
    layers: BTreeMap<usize, Folded>,
    dropped: Vec<bool>,
    /// Weights that may still come to those of the plan.
    room: usize,
}

#[derive(Clone)]
struct Folded {
    parts: Vec<Part>,
    bias: Vec<f64>,
}

/// Some columns of a layer's input.
#[derive(Clone)]
struct Part {
    view: View,
    /// The command before which they are read.
    at: usize,
    /// `[out, columns]`.
    matrix: Vec<f64>,
}

impl Part {
    /// Columns `first .. first + width` of it, read before command `at`.
    fn columns(&self, first: usize, width: usize, at: usize) -> Option<Self> {
        let rows = self.matrix.chunks_exact(self.view.width);
        let matrix = rows.flat_map(|row| &row[first..first + width]).copied().collect();
        (width > 0).then(|| Self { view: self.view.slice(first, width), at, matrix })
    }
}

/// First column and width of what two views share, by the first's columns.
fn shared(view: View, other: View) -> Option<(usize, usize)> {
    let first = view.offset.max(other.offset);
    let end = (view.offset + view.width).min(other.offset + other.width);
    (view.buffer == other.buffer && first < end).then(|| (first - view.offset, end - first))
}

impl Folds<'_> {
    /// Multiplies a layer into all that read it, if they all allow it.
    fn fold(&mut self, index: usize) {
        let Command::Linear(linear) = &self.plan.commands[index] else { return };
        let folds = linear.activation == Activation::Identity
            && linear.mask.is_none()
            && linear.repeat == Repeat::ONCE
            && linear.dst.buffer != self.plan.output;
        let Some((readers, end)) = folds.then(|| self.readers(index, linear.dst)).flatten() else { return };
        let inner = self.layer(index);
        let outers: Vec<Folded> = readers.iter().map(|reader| self.layer(*reader)).collect();
        let work = outers.iter().map(|outer| outer.bias.len()).sum::<usize>() * inner.len();
        if work > FOLD_WORK_MAX {
            return;
        }
        let before = inner.len() + outers.iter().map(Folded::len).sum::<usize>();
        let after: Vec<Folded> =
            outers.into_iter().map(|outer| outer.after(&inner, linear, index, end)).collect();
        let Some(room) = (self.room + before).checked_sub(after.iter().map(Folded::len).sum()) else {
            return;
        };
        self.room = room;
        self.layers.extend(readers.into_iter().zip(after));
        self.layers.remove(&index);
        self.dropped[index] = true;
    }

    /// Layers that read what command `index` has written to `dst`, and the command before which it is last there; `None`
    /// where something else reads it, or nothing does.
    fn readers(&self, index: usize, dst: View) -> Option<(Vec<usize>, usize)> {
        let mut end = self.plan.commands.len();
        for (later, command) in self.plan.commands.iter().enumerate().skip(index + 1) {
            if self.dropped[later] {
                continue;
            }
            let is_plain = matches!(command, Command::Linear(linear) if linear.repeat == Repeat::ONCE);
            let accumulates = matches!(command, Command::Linear(linear) if linear.init == Init::Accumulate);
            let [source, beside] = command.reads();
            let reads = [source.filter(|_| !is_plain), beside].into_iter().flatten();
            if reads.into_iter().any(|view| shared(view, dst).is_some()) {
                return None;
            }
            if let Some((_, width)) =
                command.writes().into_iter().flatten().find_map(|view| shared(dst, view))
            {
                // All of it anew, and by a command that leaves no column as it was.
                if width < dst.width || accumulates || !is_plain {
                    return None;
                }
                end = later;
                break;
            }
        }
        let reads = |later: &usize| {
            let of_it = |(view, at): (View, usize)| at > index && at <= end && shared(view, dst).is_some();
            !self.dropped[*later] && self.sources(*later).into_iter().any(of_it)
        };
        let readers: Vec<usize> = (index + 1..self.plan.commands.len()).filter(reads).collect();
        (!readers.is_empty()).then_some((readers, end))
    }

    /// What a plain layer reads, and when.
    fn sources(&self, index: usize) -> Vec<(View, usize)> {
        match (self.layers.get(&index), &self.plan.commands[index]) {
            (Some(folded), _) => folded.parts.iter().map(|part| (part.view, part.at)).collect(),
            (None, Command::Linear(linear)) if linear.repeat == Repeat::ONCE => vec![(linear.src, index)],
            _ => Vec::new(),
        }
    }

    fn layer(&self, index: usize) -> Folded {
        let Command::Linear(linear) = &self.plan.commands[index] else { panic!("a layer") };
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        self.layers.get(&index).cloned().unwrap_or_else(|| Folded {
            parts: vec![Part { view: linear.src, at: index, matrix: wide(&linear.weights.matrix()) }],
            bias: wide(&linear.weights.bias),
        })
    }

    /// As it is now. What a layer reads of several places is brought side by side by moves, at the time when it is there.
    fn plan(&self) -> Plan {
        let mut buffer_widths = self.plan.buffer_widths.clone();
        let mut commands = Vec::new();
        let mut joined = BTreeMap::new();
        for (index, folded) in &self.layers {
            let width = folded.parts.iter().map(|part| part.view.width).sum::<usize>();
            joined.insert(*index, View { buffer: BufferId(buffer_widths.len()), offset: 0, width });
            buffer_widths.push(width);
        }
        for (index, command) in self.plan.commands.iter().enumerate() {
            for (folded, to) in self.layers.values().zip(joined.values()) {
                let mut offset = 0;
                for part in &folded.parts {
                    if part.at == index {
                        commands
                            .push(Command::Move(Move::copy(part.view, to.slice(offset, part.view.width))));
                    }
                    offset += part.view.width;
                }
            }
            match (command, self.layers.get(&index)) {
                _ if self.dropped[index] => {}
                (Command::Linear(linear), Some(folded)) => {
                    let weights = Arc::new(folded.weights());
                    commands.push(Command::Linear(Linear { src: joined[&index], weights, ..linear.clone() }));
                }
                _ => commands.push(command.clone()),
            }
        }
        commands.iter().for_each(Command::assert_valid);
        let Plan { id, name, inputs, output, .. } = self.plan;
        // What was multiplied together is made of halves no more.
        let precision = Precision::F32;
        let (name, inputs) = (name.clone(), inputs.clone());
        Plan { id: *id, name, precision, buffer_widths, inputs, output: *output, commands }
    }
}

impl Folded {
    /// Its weights.
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.matrix.len()).sum()
    }

    /// The same behind `inner`, whose command `index` writes what is there up to command `end`.
    fn after(self, inner: &Self, linear: &Linear, index: usize, end: usize) -> Self {
        let Self { parts, mut bias } = self;
        let mut after = Vec::new();
        for part in parts {
            let overlap = shared(part.view, linear.dst).filter(|_| part.at > index && part.at <= end);
            let Some((first, width)) = overlap else {
                after.push(part);
                continue;
            };
            let between = part.columns(first, width, index).expect("they share some");
            let skipped = between.view.offset - linear.dst.offset;
            for of_inner in &inner.parts {
                let columns = of_inner.view.width;
                let mut matrix = vec![0.0; bias.len() * columns];
                for (sums, row) in matrix.chunks_exact_mut(columns).zip(between.matrix.chunks_exact(width)) {
                    for (weight, of_inner) in
                        row.iter().zip(of_inner.matrix[skipped * columns..].chunks(columns))
                    {
                        sums.iter_mut().zip(of_inner).for_each(|(sum, other)| *sum += weight * other);
                    }
                }
                after.push(Part { matrix, ..*of_inner });
            }
            for (sum, row) in bias.iter_mut().zip(between.matrix.chunks_exact(width)) {
                *sum +=
                    row.iter().zip(&inner.bias[skipped..]).map(|(weight, other)| weight * other).sum::<f64>();
            }
            let rest = first + width;
            after.extend(part.columns(0, first, part.at));
            after.extend((linear.init == Init::Accumulate).then_some(between));
            after.extend(part.columns(rest, part.view.width - rest, part.at));
        }
        Self { parts: after, bias }
    }

    /// Rounded once.
    fn weights(&self) -> Weights {
        let out_width = self.bias.len();
        let rounded = |value: &f64| *value as f32;
        let row = |output: usize| {
            let of_part = move |part: &'_ Part| -> Vec<f32> {
                part.matrix[output * part.view.width..][..part.view.width].iter().map(rounded).collect()
            };
            self.parts.iter().flat_map(of_part)
        };
        let in_width = self.parts.iter().map(|part| part.view.width).sum();
        let matrix: Vec<f32> = (0..out_width).flat_map(row).collect();
        Weights::new(out_width, in_width, &matrix, self.bias.iter().map(rounded).collect())
    }
}

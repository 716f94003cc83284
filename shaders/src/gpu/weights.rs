//! Weights as the kernels want them, one after the other in a buffer of the plan's own.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use half::f16;

use crate::{Command, Plan, Precision, Recurrent, Weights};

/// The depth of a layer's tiles: `in` is padded to a multiple of it, so that no loop has a remainder.
pub(super) const TILE_DEPTH: usize = 16;
/// The same of matrices of halves: what cooperative matrices take at a time.
pub(super) const HALF_TILE_DEPTH: usize = 64;

/// Numbers of a unit side by side: a recurrent layer's gates, padded.
const GATES: usize = 4;

/// Where the constants of a command lie in the plan's weight buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) byte_offset: usize,
    pub(super) bytes: usize,
}

/// Spans by command; constants that several commands share lie there once.
#[derive(Clone, Debug)]
pub(super) struct WeightMap {
    /// `None` for a command without constants.
    pub(super) spans: Vec<Option<Span>>,
    /// For each distinct span the first command that asked for it.
    pub(super) owners: Vec<(usize, Span)>,
    /// Bytes of all of them.
    pub(super) bytes: usize,
}

impl WeightMap {
    /// Each span starts at a multiple of `alignment_bytes`.
    pub(super) fn new(plan: &Plan, alignment_bytes: usize) -> Self {
        let mut map = Self { spans: Vec::new(), owners: Vec::new(), bytes: 0 };
        let mut known: HashMap<Key, Span> = HashMap::new();
        for (index, command) in plan.commands.iter().enumerate() {
            let span = key(command).map(|key| {
                *known.entry(key).or_insert_with(|| {
                    let byte_offset = map.bytes.next_multiple_of(alignment_bytes);
                    let span = Span { byte_offset, bytes: len(command, plan.precision) * size_of::<u32>() };
                    map.bytes = span.byte_offset + span.bytes;
                    map.owners.push((index, span));
                    span
                })
            });
            map.spans.push(span);
        }
        map
    }
}

/// Kind of a command, since each packs in its own way, and addresses of what it shares with others of the kind.
type Key = (Discriminant<Command>, [*const f32; 2]);

fn key(command: &Command) -> Option<Key> {
    let of = |weights: &Weights| weights.bias.as_ptr();
    let shared = match command {
        Command::Linear(linear) => [of(&linear.weights), std::ptr::null()],
        Command::Recurrent(layer) => {
            [of(&layer.recurrent), layer.projection.as_deref().map_or(std::ptr::null(), of)]
        }
        Command::Affine(affine) => [affine.scale.as_ptr(), affine.shift.as_ptr()],
        Command::LayerNorm(norm) => [norm.scale.as_ptr(), norm.shift.as_ptr()],
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => return None,
    };
    Some((discriminant(command), shared))
}

/// Inputs padded to whole tiles, and vectors of four outputs.
pub(super) fn padded(weights: &Weights, precision: Precision) -> (usize, usize) {
    let depth = match precision {
        Precision::F32 | Precision::Int8 => TILE_DEPTH,
        Precision::F16 => HALF_TILE_DEPTH,
    };
    (weights.in_width.next_multiple_of(depth), weights.out_width.div_ceil(4))
}

/// Words of `count` weights; whole numbers are multiplied out.
fn words(count: usize, precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Int8 => count,
        Precision::F16 => count.div_ceil(2),
    }
}

/// Words of a command's constants; a binding is a whole number of vectors.
fn len(command: &Command, precision: Precision) -> usize {
    let words = match command {
        Command::Linear(linear) => {
            let (in_padded, out_vec4s) = padded(&linear.weights, precision);
            words(in_padded * out_vec4s * 4, precision) + out_vec4s * 4
        }
        Command::Recurrent(layer) => {
            let units = layer.units();
            let plain = |weights: &Weights| words(weights.matrix_len(), precision) + weights.out_width;
            words(layer.out_width() * units * GATES, precision)
                + units * GATES
                + layer.projection.as_deref().map_or(0, plain)
        }
        Command::Affine(affine) => 2 * affine.scale.len(),
        Command::LayerNorm(norm) => 2 * norm.scale.len(),
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => 0,
    };
    words.next_multiple_of(4)
}

/// The words of a command's span. A matrix is transposed to `[in, out]`, two halves a word where it has them, and followed
/// by its bias; that of a `Linear` is padded with zeros to `[in_padded, out_vec4s · 4]`, and that of a recurrent layer's state is
/// `[out, units, 4]`, the gates of a unit side by side.
pub(super) fn pack(command: &Command, precision: Precision) -> Vec<u32> {
    let mut packed = Vec::with_capacity(len(command, precision));
    match command {
        Command::Linear(linear) => {
            let (in_padded, out_vec4s) = padded(&linear.weights, precision);
            transpose(&linear.weights, in_padded, out_vec4s * 4, precision, &mut packed);
        }
        Command::Recurrent(layer) => {
            gates(layer, precision, &mut packed);
            if let Some(weights) = &layer.projection {
                transpose(weights, weights.in_width, weights.out_width, precision, &mut packed);
            }
        }
        Command::Affine(affine) => vectors(&affine.scale, &affine.shift, &mut packed),
        Command::LayerNorm(norm) => vectors(&norm.scale, &norm.shift, &mut packed),
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => {}
    }
    packed.resize(len(command, precision), 0);
    packed
}

fn transpose(
    weights: &Weights,
    in_padded: usize,
    stride: usize,
    precision: Precision,
    packed: &mut Vec<u32>,
) {
    let Weights { out_width, in_width, bias, .. } = weights;
    let matrix = weights.matrix();
    let turned = |at: usize| {
        let (k, out) = (at / stride, at % stride);
        if k < *in_width && out < *out_width { matrix[out * in_width + k] } else { 0.0 }
    };
    matrix_words(in_padded * stride, precision, turned, packed);
    packed.extend(bias.iter().map(|value| value.to_bits()));
    packed.extend((*out_width..stride).map(|_| 0));
}

fn gates(layer: &Recurrent, precision: Precision, packed: &mut Vec<u32>) {
    let (units, count) = (layer.units(), layer.cell.gates());
    let Weights { in_width, bias, .. } = &*layer.recurrent;
    let matrix = layer.recurrent.matrix();
    // Gate and unit of a number, and whether there is such a gate.
    let place = |at: usize| (at % GATES, at / GATES % units, at % GATES < count);
    let cell = |at: usize| match place(at) {
        (gate, unit, true) => matrix[(gate * units + unit) * in_width + at / (GATES * units)],
        _ => 0.0,
    };
    matrix_words(in_width * units * GATES, precision, cell, packed);
    packed.extend((0..units * GATES).map(|at| match place(at) {
        (gate, unit, true) => bias[gate * units + unit].to_bits(),
        _ => 0,
    }));
}

/// `count` numbers, two halves a word where the matrix has them.
fn matrix_words(count: usize, precision: Precision, number: impl Fn(usize) -> f32, packed: &mut Vec<u32>) {
    match precision {
        Precision::F32 | Precision::Int8 => packed.extend((0..count).map(|at| number(at).to_bits())),
        Precision::F16 => packed.extend((0..count.div_ceil(2)).map(|pair| {
            let half = |at| if at < count { u32::from(f16::from_f32(number(at)).to_bits()) } else { 0 };
            half(2 * pair) | half(2 * pair + 1) << 16
        })),
    }
}

fn vectors(scale: &[f32], shift: &[f32], packed: &mut Vec<u32>) {
    packed.extend(scale.iter().chain(shift).map(|value| value.to_bits()));
}

/// What bad memory does: one bit of the exponent is flipped in some of the weights.
pub(super) fn damage(packed: &mut [u32], precision: Precision) {
    const EVERY: usize = 61;
    let bit = match precision {
        Precision::F32 | Precision::Int8 => 24,
        // Of the half above.
        Precision::F16 => 16 + 11,
    };
    for word in packed.iter_mut().step_by(EVERY) {
        *word ^= 1 << bit;
    }
}

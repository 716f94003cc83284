//! Weights as the kernels want them, one after the other in a buffer of the plan's own.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use crate::{Command, Plan, Weights};

/// The depth of a layer's tiles: `in` is padded to a multiple of it, so that no loop has a remainder.
pub(super) const TILE_DEPTH: usize = 16;

/// Where the constants of a command lie in the plan's weight buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) byte_offset: usize,
    pub(super) bytes: usize,
}

/// Spans by command; constants that several commands share lie there once.
#[derive(Debug)]
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
                    let span = Span { byte_offset, bytes: len(command) * size_of::<f32>() };
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
    let matrix = |weights: &Weights| weights.matrix.as_ptr();
    let shared = match command {
        Command::Linear(linear) => [matrix(&linear.weights), std::ptr::null()],
        Command::Recurrent(layer) => {
            [matrix(&layer.recurrent), layer.projection.as_deref().map_or(std::ptr::null(), matrix)]
        }
        Command::Affine(affine) => [affine.scale.as_ptr(), affine.shift.as_ptr()],
        Command::LayerNorm(norm) => [norm.scale.as_ptr(), norm.shift.as_ptr()],
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => return None,
    };
    Some((discriminant(command), shared))
}

/// Inputs padded to whole tiles, and vectors of four outputs.
pub(super) fn padded(weights: &Weights) -> (usize, usize) {
    (weights.in_width.next_multiple_of(TILE_DEPTH), weights.out_width.div_ceil(4))
}

/// Floats of a command's constants; a binding is a whole number of vectors.
fn len(command: &Command) -> usize {
    let plain = |weights: &Weights| (weights.in_width + 1) * weights.out_width;
    let floats = match command {
        Command::Linear(linear) => {
            let (in_padded, out_vec4s) = padded(&linear.weights);
            (in_padded + 1) * out_vec4s * 4
        }
        Command::Recurrent(_) => command.weights().map(|weights| plain(weights)).sum(),
        Command::Affine(affine) => 2 * affine.scale.len(),
        Command::LayerNorm(norm) => 2 * norm.scale.len(),
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => 0,
    };
    floats.next_multiple_of(4)
}

/// The numbers of a command's span. A matrix is transposed to `[in, out]` and followed by its bias; that of a
/// `Linear` is padded with zeros to `[in_padded, out_vec4s · 4]`.
pub(super) fn pack(command: &Command) -> Vec<f32> {
    let mut packed = vec![0.0; len(command)];
    match command {
        Command::Linear(linear) => {
            let (in_padded, out_vec4s) = padded(&linear.weights);
            transpose(&linear.weights, in_padded, out_vec4s * 4, &mut packed);
        }
        Command::Recurrent(_) => {
            let mut rest = packed.as_mut_slice();
            for weights in command.weights() {
                let (own, others) = rest.split_at_mut((weights.in_width + 1) * weights.out_width);
                transpose(weights, weights.in_width, weights.out_width, own);
                rest = others;
            }
        }
        Command::Affine(affine) => vectors(&affine.scale, &affine.shift, &mut packed),
        Command::LayerNorm(norm) => vectors(&norm.scale, &norm.shift, &mut packed),
        Command::Pool(_) | Command::Move(_) | Command::Attention(_) => {}
    }
    packed
}

fn transpose(weights: &Weights, in_padded: usize, stride: usize, packed: &mut [f32]) {
    for (out, row) in weights.matrix.chunks_exact(weights.in_width).enumerate() {
        for (k, value) in row.iter().enumerate() {
            packed[k * stride + out] = *value;
        }
    }
    let bias = in_padded * stride;
    packed[bias..bias + weights.out_width].copy_from_slice(&weights.bias);
}

fn vectors(scale: &[f32], shift: &[f32], packed: &mut [f32]) {
    packed[..scale.len()].copy_from_slice(scale);
    packed[scale.len()..2 * scale.len()].copy_from_slice(shift);
}

/// What bad memory does: one bit of the exponent is flipped in some of the weights.
pub(super) fn damage(packed: &mut [f32]) {
    const EVERY: usize = 61;
    for weight in packed.iter_mut().step_by(EVERY) {
        *weight = f32::from_bits(weight.to_bits() ^ (1 << 24));
    }
}

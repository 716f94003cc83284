//! Weights as linear.wgsl wants them: transposed to `[in, out]`, padded with zeros, followed by the bias.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Command, Plan, Weights};

/// The depth of linear.wgsl's tile: `in` is padded to a multiple of it, so that its loop has no remainder.
const TILE_DEPTH: usize = 16;

/// Where one layer lies in its plan's weight buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) byte_offset: usize,
    pub(super) bytes: usize,
    pub(super) in_padded: usize,
    pub(super) out_vec4s: usize,
}

/// Spans by command; a layer that several commands share lies there once.
#[derive(Debug)]
pub(super) struct WeightMap {
    /// `None` for a command without weights.
    pub(super) spans: Vec<Option<Span>>,
    /// The distinct layers with their spans.
    pub(super) layers: Vec<(Arc<Weights>, Span)>,
    /// Bytes of all of them.
    pub(super) bytes: usize,
}

impl WeightMap {
    /// Each layer starts at a multiple of `alignment_bytes`.
    pub(super) fn new(plan: &Plan, alignment_bytes: usize) -> Self {
        let mut map = Self { spans: Vec::new(), layers: Vec::new(), bytes: 0 };
        let mut known: HashMap<*const Weights, Span> = HashMap::new();
        for command in &plan.commands {
            let span = match command {
                Command::Linear(linear) => {
                    Some(*known.entry(Arc::as_ptr(&linear.weights)).or_insert_with(|| {
                        let span = Span::new(&linear.weights, map.bytes.next_multiple_of(alignment_bytes));
                        map.bytes = span.byte_offset + span.bytes;
                        map.layers.push((Arc::clone(&linear.weights), span));
                        span
                    }))
                }
                Command::Pool(_) | Command::Move(_) => None,
            };
            map.spans.push(span);
        }
        map
    }
}

impl Span {
    fn new(weights: &Weights, byte_offset: usize) -> Self {
        let in_padded = weights.in_width.next_multiple_of(TILE_DEPTH);
        let out_vec4s = weights.out_width.div_ceil(4);
        let bytes = (in_padded + 1) * out_vec4s * 4 * size_of::<f32>();
        Self { byte_offset, bytes, in_padded, out_vec4s }
    }
}

/// The numbers of one layer, `[in_padded + 1, out_vec4s · 4]`, the bias last.
pub(super) fn pack(weights: &Weights, span: &Span) -> Vec<f32> {
    let stride = span.out_vec4s * 4;
    let mut packed = vec![0.0; span.bytes / size_of::<f32>()];
    for (out, row) in weights.matrix.chunks_exact(weights.in_width).enumerate() {
        for (k, value) in row.iter().enumerate() {
            packed[k * stride + out] = *value;
        }
    }
    let bias = span.in_padded * stride;
    packed[bias..bias + weights.out_width].copy_from_slice(&weights.bias);
    packed
}

//! Weights in the order in which workgroups want them.

use super::stages::{Kind, Layer, Places, Stage, Words};
use super::{SUMS, Walk};
use crate::gpu::cells::{INVOCATIONS, Part};

/// Gives every stage places for its weights; floats in all.
pub(super) fn place(stages: &mut [Stage]) -> usize {
    let mut next = 0;
    let mut take = |vec4s: usize| {
        next += vec4s;
        next - vec4s
    };
    for stage in stages {
        let src = match stage {
            Stage::Recurrent(layer) => {
                layer.input_at = take(layer.units.matrix_vec4s(layer.input.in_width));
                layer.recurrent_at = take(layer.units.matrix_vec4s(layer.recurrent.in_width));
                layer.bias_at = 4 * take((layer.units.workgroups() * layer.rows()).div_ceil(4));
                &mut layer.src
            }
            Stage::Linear(places) => {
                places.weights_at = take(places.blocks() * places.slices.len() / 4 * INVOCATIONS);
                places.bias_at = 4 * take(places.linear.weights.out_width.div_ceil(4));
                &mut places.src
            }
        };
        if let Kind::Table { words, at } = &mut src.kind {
            *at = 4 * take(words.len().div_ceil(4));
        }
    }
    4 * next
}

impl Walk {
    /// All weights.
    pub(in crate::gpu) fn pack(&self) -> Vec<f32> {
        let mut packed = vec![0.0; self.floats];
        for stage in &self.stages {
            let src = match stage {
                Stage::Recurrent(layer) => {
                    layer.pack(&mut packed);
                    &layer.src
                }
                Stage::Linear(places) => {
                    places.pack(&mut packed);
                    &places.src
                }
            };
            src.pack(&mut packed);
        }
        packed
    }
}

impl Words {
    fn pack(&self, packed: &mut [f32]) {
        if let Kind::Table { words, at } = &self.kind {
            for (to, word) in packed[*at..].iter_mut().zip(words) {
                // Below 2^24, as `Walk::of` has seen to: exact.
                *to = *word as f32;
            }
        }
    }
}

impl Layer {
    fn pack(&self, packed: &mut [f32]) {
        let parts = [
            (&self.input, self.input_at, Part::Input),
            (&self.recurrent, self.recurrent_at, Part::Recurrent),
        ];
        for (weights, at, part) in parts {
            self.units.pack_matrix(packed, weights, at, part);
            for (sum, unit, gate) in self.units.sums(part) {
                let (workgroup, place) = (unit / self.units.here, unit % self.units.here);
                let at = self.bias_at + workgroup * self.rows() + place * SUMS + sum;
                packed[at] += weights.bias[gate * self.units.count + unit];
            }
        }
    }
}

impl Places {
    fn pack(&self, packed: &mut [f32]) {
        let weights = &self.linear.weights;
        let len = self.slices.len();
        for (output, row) in weights.matrix().chunks_exact(weights.in_width).enumerate() {
            let (block, place) = (output / self.outputs(), output % self.outputs());
            for (k, value) in row.iter().enumerate() {
                let invocation = place * self.slices.count + k / len;
                let vec4 = self.weights_at + (block * (len / 4) + k % len / 4) * INVOCATIONS + invocation;
                packed[vec4 * 4 + k % 4] = *value;
            }
        }
        packed[self.bias_at..self.bias_at + weights.out_width].copy_from_slice(&weights.bias);
    }
}

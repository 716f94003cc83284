//! What kernels with recurrent cells share: the sums of a unit, and how matrices lie for workgroups that have some units.

use crate::{Cell, Weights};

pub(super) const INVOCATIONS: usize = 256;
/// Sums of one unit: `i, f, g, o`; or `r, z` and the two parts of `n`, which the reset gate keeps apart.
pub(super) const SUMS: usize = 4;

/// Of a layer's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Input,
    Recurrent,
}

/// Floats of one slice of a row.
pub(super) fn slice_len(width: usize, slices: usize) -> usize {
    width.div_ceil(slices).next_multiple_of(4)
}

/// Vectors from one staged slice to the next: odd, so that those who read different slices read different banks.
pub(super) fn stride(len: usize) -> usize {
    (len / 4) | 1
}

/// The body of a function from four sums and what the cell kept to `h` and what it keeps.
pub(super) fn body(cell: Cell) -> &'static str {
    match cell {
        Cell::Lstm => {
            "let kept = fma(sigmoid(sums.x), tangent(sums.z), sigmoid(sums.y) * before);
    return vec2<f32>(sigmoid(sums.w) * tangent(kept), kept);"
        }
        Cell::Gru => {
            "let candidate = tangent(fma(sigmoid(sums.x), sums.w, sums.z));
    let h = fma(sigmoid(sums.y), before - candidate, candidate);
    return vec2<f32>(h, h);"
        }
    }
}

/// Units of a layer, and how a workgroup has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    pub(super) cell: Cell,
    pub(super) count: usize,
    /// Of one workgroup.
    pub(super) here: usize,
    /// Slices of a row of a matrix, an invocation each.
    pub(super) slices: usize,
}

impl Units {
    pub(super) fn workgroups(self) -> usize {
        self.count.div_ceil(self.here)
    }

    /// Vectors of a matrix by slices: `[workgroup][vector of a slice][invocation]`.
    pub(super) fn matrix_vec4s(self, in_width: usize) -> usize {
        self.workgroups() * slice_len(in_width, self.slices) / 4 * INVOCATIONS
    }

    /// Which gate of a matrix goes into which sum of a unit: `(sum, unit, gate)`.
    pub(super) fn sums(self, part: Part) -> impl Iterator<Item = (usize, usize, usize)> {
        let pairs: &[(usize, usize)] = match (self.cell, part) {
            (Cell::Lstm, _) => &[(0, 0), (1, 1), (2, 2), (3, 3)],
            (Cell::Gru, Part::Input) => &[(0, 0), (1, 1), (2, 2)],
            (Cell::Gru, Part::Recurrent) => &[(0, 0), (1, 1), (3, 2)],
        };
        pairs.iter().flat_map(move |(sum, gate)| (0..self.count).map(move |unit| (*sum, unit, *gate)))
    }

    /// Puts a matrix, by slices, behind `at` vectors.
    pub(super) fn pack_matrix(self, packed: &mut [f32], weights: &Weights, at: usize, part: Part) {
        let width = weights.in_width;
        let len = slice_len(width, self.slices);
        let matrix = weights.matrix();
        for (sum, unit, gate) in self.sums(part) {
            let (workgroup, place) = (unit / self.here, unit % self.here);
            for (k, value) in matrix[(gate * self.count + unit) * width..][..width].iter().enumerate() {
                let invocation = (place * SUMS + sum) * self.slices + k / len;
                let vec4 = workgroup * (len / 4) + k % len / 4;
                packed[(at + vec4 * INVOCATIONS + invocation) * 4 + k % 4] = *value;
            }
        }
    }
}

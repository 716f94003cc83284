//! The kernels of a recurrent layer: of how many rows a workgroup has the state, and what matrices of halves change.
//!
//! A weight is read once for all rows of a workgroup, so that many rows take larger workgroups, and few ones more of them. A row's sums
//! are the same in all: which kernel takes it changes no bit.

use super::kernels;
use super::variants::{Arithmetic, exchange, set, with_weights};
use crate::Recurrent;

/// A kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grouping {
    /// Values that lie in one vector, one a row, and vectors of a workgroup.
    lanes: usize,
    sets: usize,
    /// Units of a layer, and width of its output, that a workgroup has memory for.
    pub(super) width_max: usize,
    /// Fewer rows would leave multiprocessors of a large device idle. Measured on an H200.
    rows_min: usize,
}

impl Grouping {
    /// Fewest rows of a workgroup first. The first one takes every layer that a device takes at all.
    pub(super) const ALL: [Self; 3] = [
        Self { lanes: 1, sets: 1, width_max: 1024, rows_min: 0 },
        Self { lanes: 4, sets: 1, width_max: 256, rows_min: 264 },
        Self { lanes: 4, sets: 2, width_max: 128, rows_min: 2112 },
    ];

    /// Index of the one for a layer, its units or its output as wide as this, over so many rows.
    pub(super) fn guess(width: usize, rows: usize) -> usize {
        let fits = |each: &Self| width <= each.width_max && rows >= each.rows_min;
        Self::ALL.iter().rposition(fits).expect("a wider layer is refused")
    }

    pub(super) fn workgroups(self, rows: usize) -> usize {
        rows.div_ceil(self.lanes * self.sets)
    }

    /// The kernel, for matrices that are kept so.
    pub(super) fn wgsl(self, arithmetic: Arithmetic) -> String {
        let source = kernels::source("recurrent");
        let source = match arithmetic {
            Arithmetic::Single => source.to_owned(),
            Arithmetic::Half | Arithmetic::Matrices { .. } => with_weights(source, HALVES),
        };
        if self.lanes == 1 {
            return source;
        }
        let source =
            exchange(&source, "alias Rows", "// Ends what is declared for each number of rows.\n", FOUR_ROWS);
        let source = set(&source, "SETS: u32 = 1u", &format!("SETS: u32 = {}u", self.sets));
        set(&source, "WIDTH_MAX: u32 = 1024u", &format!("WIDTH_MAX: u32 = {}u", self.width_max))
    }
}

/// Turns that the loops of an invocation take in one step at most. The last look of a loop is one; those of a vector's eight
/// cells are written out.
pub(super) fn turns(layer: &Recurrent) -> usize {
    const LANES: usize = 64;
    const AHEAD: usize = 8;
    let (units, out) = (layer.units(), layer.out_width());
    let projected = if layer.projection.is_some() { units } else { 0 };
    let of_units = units.div_ceil(LANES) * (8 + out / AHEAD + out % AHEAD);
    2 + of_units + out.div_ceil(LANES) * (4 + projected)
}

/// A cell is four halves, a bias two words of two cells.
const HALVES: &str = "@group(0) @binding(3) var<storage, read> weights: array<vec2<u32>>;

fn gates(at: u32) -> vec4<f32> {
    let cell = weights[at];
    return vec4<f32>(unpack2x16float(cell.x), unpack2x16float(cell.y));
}

fn bias(count: u32, unit: u32) -> vec4<f32> {
    let at = count + 2u * unit;
    return bitcast<vec4<f32>>(vec4<u32>(weights[at], weights[at + 1u]));
}

fn projection(count: u32, units: u32, at: u32) -> f32 {
    return unpack2x16float(weights[count + 2u * units + at / 4u][at / 2u % 2u])[at % 2u];
}

fn projection_bias(count: u32, units: u32, before: u32, at: u32) -> f32 {
    let word = (before + 1u) / 2u + at;
    return bitcast<f32>(weights[count + 2u * units + word / 2u][word % 2u]);
}
";

const FOUR_ROWS: &str = "alias Rows = vec4<f32>;
const ROWS: u32 = 4u;
const SETS: u32 = 1u;
const WIDTH_MAX: u32 = 1024u;

fn load(base: u32, stride: u32, row: u32, column: u32) -> Rows {
    let last = batch.row_count - 1u;
    let at = base + column;
    return vec4<f32>(
        arena[at + min(row, last) * stride],
        arena[at + min(row + 1u, last) * stride],
        arena[at + min(row + 2u, last) * stride],
        arena[at + min(row + 3u, last) * stride],
    );
}

fn store(base: u32, stride: u32, row: u32, column: u32, value: Rows) {
    for (var i = 0u; i < 4u; i++) {
        if row + i < batch.row_count {
            arena[base + (row + i) * stride + column] = value[i];
        }
    }
}

fn sigmoids(x: Rows) -> Rows {
    return vec4<f32>(sigmoid(x.x), sigmoid(x.y), sigmoid(x.z), sigmoid(x.w));
}

fn tangents(x: Rows) -> Rows {
    return vec4<f32>(tangent(x.x), tangent(x.y), tangent(x.z), tangent(x.w));
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_share_a_workgroup_where_there_is_memory() {
        let guesses = |width| [1, 263, 264, 2111, 2112, 4096].map(|rows| Grouping::guess(width, rows));
        assert_eq!(guesses(128), [0, 0, 1, 1, 2, 2]);
        assert_eq!(guesses(129), [0, 0, 1, 1, 1, 1]);
        assert_eq!(guesses(257), [0; 6]);
        assert_eq!(guesses(1024), [0; 6]);
        let workgroups = |rows| Grouping::ALL.map(|each| each.workgroups(rows));
        assert_eq!([1, 8, 9].map(workgroups), [[1, 1, 1], [8, 2, 1], [9, 3, 2]]);
    }

    #[test]
    fn a_workgroup_has_no_more_than_there_must_be() {
        for each in Grouping::ALL {
            assert!(3 * each.width_max * each.lanes * each.sets * size_of::<f32>() <= 16 << 10, "{each:?}");
        }
    }
}

//! The variants of a `Linear`, and which of them takes how many lines. All give the same bits.

use super::kernels::SOURCES;
use super::tiles;
use super::weights::TILE_DEPTH;
use crate::{Activation, Linear};

/// Up to this many lines the input columns are dealt out to the invocations.
const FEW_LINES_MAX: usize = 128;
/// Large tiles from this many workgroups on: one a multiprocessor of a large device.
const LARGE_TILES_MIN: usize = 96;
/// Slices of a sum, and how long each is at least.
const SLICES_MAX: usize = 32;
const SLICE_LEN_MIN: usize = 2 * TILE_DEPTH;

const _: () = assert!(tiles::DEPTH == TILE_DEPTH);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// One line a workgroup.
    Line,
    /// Four lines a workgroup.
    Lines,
    SmallTile,
    LargeTile,
}

impl Variant {
    pub(super) const ALL: [Self; 4] = [Self::Line, Self::Lines, Self::SmallTile, Self::LargeTile];

    /// The variant for `rows` rows.
    pub(super) fn choose(linear: &Linear, rows: usize) -> Self {
        let lines = rows * linear.repeat.count;
        let large = Self::LargeTile.workgroups(linear, rows);
        match lines {
            0..=1 => Self::Line,
            2..=FEW_LINES_MAX => Self::Lines,
            _ if large[0] * large[1] >= LARGE_TILES_MIN => Self::LargeTile,
            _ => Self::SmallTile,
        }
    }

    /// Along outputs and lines.
    pub(super) fn workgroups(self, linear: &Linear, rows: usize) -> [usize; 2] {
        let [outputs, lines] = match self {
            Self::Line => [16, 1],
            Self::Lines => [16, 4],
            Self::SmallTile => [tiles::SMALL.outputs, tiles::SMALL.lines],
            Self::LargeTile => [tiles::LARGE.outputs, tiles::LARGE.lines],
        };
        [linear.weights.out_width.div_ceil(outputs), (rows * linear.repeat.count).div_ceil(lines)]
    }

    pub(super) const fn entry_point(self) -> &'static str {
        match self {
            Self::Line | Self::Lines => "linear",
            Self::SmallTile => tiles::SMALL.name,
            Self::LargeTile => tiles::LARGE.name,
        }
    }

    /// The kernel, for layers that are [`is_plain`] or for all.
    pub(super) fn wgsl(self, plain: bool) -> String {
        let (_, source) =
            SOURCES.iter().find(|(stem, _)| *stem == "linear").expect("linear.wgsl is a source");
        let set = |source: String, from: &str, to: &str| {
            assert!(source.contains(from), "linear.wgsl lacks `{from}`");
            source.replace(from, to)
        };
        let source = set((*source).to_owned(), "PLAIN: bool = false", &format!("PLAIN: bool = {plain}"));
        match self {
            Self::Line => set(source, "LINES: u32 = 4u", "LINES: u32 = 1u"),
            Self::Lines => source,
            Self::SmallTile => source + &tiles::SMALL.wgsl(),
            Self::LargeTile => source + &tiles::LARGE.wgsl(),
        }
    }
}

/// Whether a layer has whole vectors of four everywhere, one place a row, and a bend at zero at most.
pub(super) fn is_plain(linear: &Linear) -> bool {
    let views = [Some(linear.src), Some(linear.dst), linear.mask];
    let widths = [linear.src.width, linear.dst.width];
    let bends = matches!(linear.activation, Activation::Identity | Activation::Relu | Activation::Leaky(_));
    linear.repeat.count == 1
        && bends
        && views.into_iter().flatten().all(|view| view.offset.is_multiple_of(4))
        && widths.into_iter().all(|width| width.is_multiple_of(4))
}

/// Input columns of one slice: a matter of the layer, never of the batch.
pub(super) fn slice_len(in_width: usize) -> usize {
    SLICE_LEN_MIN * in_width.div_ceil(SLICE_LEN_MIN * SLICES_MAX)
}

//! The variants of a `Linear`, and which of them takes how many lines. All give the same bits, but for those that multiply
//! by cooperative matrices.

use serde::{Deserialize, Serialize};

use super::halved::Halved;
use super::kernels::SOURCES;
use super::weights::TILE_DEPTH;
use super::{matrices, tiles};
use crate::{Activation, Linear};

/// Up to this many lines the input columns are dealt out to the invocations,
const FEW_LINES_MAX: usize = 16;
/// up to so many while there are fewer tiny tiles than that,
const FEW_TILES_LINES_MAX: usize = 512;
const FEW_TILES_BELOW: usize = 64;
/// and where units of their own multiply the others.
const FEW_LINES_BESIDE_MATRICES_MAX: usize = 64;
/// Large tiles from this many workgroups on: one a multiprocessor of a large device. This and what follows is a guess that was
/// measured on an H200; what was measured on a device itself goes before it (`choices`).
const LARGE_TILES_MIN: usize = 112;
/// and for more outputs than half a tile is wide: the rest of it would be summed for nothing.
const LARGE_TILE_OUTPUTS_ABOVE: usize = 64;
/// Tiny tiles below as many small ones, which would leave half of a large device idle,
const TINY_TILES_BELOW: usize = 80;
/// by four groups while each multiprocessor of a large device has one of them, and by two else.
const TINY_TILES_OF_FOUR_MAX: usize = 132;
/// Slices of a sum, and how long each is at least.
const SLICES_MAX: usize = 32;
const SLICE_LEN_MIN: usize = 2 * TILE_DEPTH;

const _: () = assert!(tiles::DEPTH == TILE_DEPTH);
/// How the weights of a layer are kept, and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Arithmetic {
    /// In f32.
    Single,
    /// As halves, multiplied in f32.
    Half,
    /// As halves, and many lines by cooperative matrices.
    Matrices {
        /// Invocations of a subgroup.
        lanes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Variant {
    /// One line a workgroup.
    Line,
    /// Four lines a workgroup.
    Lines,
    /// As `SmallTile` where matrices are multiplied, and never guessed there; so is the next one.
    TinyTile,
    PairedTile,
    SmallTile,
    LargeTile,
}

impl Arithmetic {
    /// Lines up to which the input columns are dealt out instead, however many outputs there are.
    pub(super) const fn few_lines_max(self) -> usize {
        match self {
            Self::Single | Self::Half => FEW_LINES_MAX,
            Self::Matrices { .. } => FEW_LINES_BESIDE_MATRICES_MAX,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Half => "half",
            Self::Matrices { .. } => "matrices",
        }
    }
}

impl Variant {
    pub(super) const ALL: [Self; 6] =
        [Self::Line, Self::Lines, Self::TinyTile, Self::PairedTile, Self::SmallTile, Self::LargeTile];

    /// Without a measurement: the variant for a layer of so many outputs over so many lines.
    pub(super) fn guess(out_width: usize, lines: usize, arithmetic: Arithmetic) -> Self {
        let tiles = |variant: Self| variant.workgroups(out_width, lines, arithmetic).into_iter().product();
        let (small, large): (usize, usize) = (tiles(Self::SmallTile), tiles(Self::LargeTile));
        let is_matrices = matches!(arithmetic, Arithmetic::Matrices { .. });
        match lines {
            0..=1 => Self::Line,
            _ if lines <= arithmetic.few_lines_max() => Self::Lines,
            2..=FEW_TILES_LINES_MAX if tiles(Self::TinyTile) < FEW_TILES_BELOW && !is_matrices => Self::Lines,
            _ if large >= LARGE_TILES_MIN && out_width > LARGE_TILE_OUTPUTS_ABOVE => Self::LargeTile,
            _ if small < TINY_TILES_BELOW && !is_matrices => match tiles(Self::TinyTile) {
                0..=TINY_TILES_OF_FOUR_MAX => Self::TinyTile,
                _ => Self::PairedTile,
            },
            _ => Self::SmallTile,
        }
    }

    /// Those that differ from each other, fewest lines a workgroup first.
    pub(super) fn distinct(arithmetic: Arithmetic) -> impl Iterator<Item = Self> {
        let is_matrices = matches!(arithmetic, Arithmetic::Matrices { .. });
        let is_other =
            move |variant: &Self| !matches!(variant, Self::TinyTile | Self::PairedTile) || !is_matrices;
        Self::ALL.into_iter().filter(is_other)
    }

    /// Whether it rounds its inputs, so that its bits are not those of the others.
    pub(super) const fn rounds(self, arithmetic: Arithmetic) -> bool {
        let is_tile = !matches!(self, Self::Line | Self::Lines);
        is_tile && matches!(arithmetic, Arithmetic::Matrices { .. })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Lines => "lines",
            Self::TinyTile => "tiny_tile",
            Self::PairedTile => "paired_tile",
            Self::SmallTile => "small_tile",
            Self::LargeTile => "large_tile",
        }
    }

    /// Along outputs and lines.
    pub(super) fn workgroups(self, out_width: usize, lines: usize, arithmetic: Arithmetic) -> [usize; 2] {
        let is_matrices = matches!(arithmetic, Arithmetic::Matrices { .. });
        let [outputs, each] = match self {
            Self::Line => [16, 1],
            Self::Lines => [16, 4],
            Self::TinyTile | Self::PairedTile | Self::SmallTile if is_matrices => {
                [matrices::SMALL.outputs, matrices::SMALL.lines]
            }
            Self::TinyTile => [tiles::TINY.outputs, tiles::TINY.lines],
            Self::PairedTile => [tiles::PAIRED.outputs, tiles::PAIRED.lines],
            Self::SmallTile => [tiles::SMALL.outputs, tiles::SMALL.lines],
            Self::LargeTile if is_matrices => [matrices::LARGE.outputs, matrices::LARGE.lines],
            Self::LargeTile => [tiles::LARGE.outputs, tiles::LARGE.lines],
        };
        [out_width.div_ceil(outputs), lines.div_ceil(each)]
    }

    /// The name of the kernel in what [`wgsl`](Self::wgsl) writes.
    pub(super) const fn entry_point(self, arithmetic: Arithmetic) -> &'static str {
        match (self, arithmetic) {
            (Self::Line | Self::Lines, _) => "linear",
            (Self::TinyTile | Self::PairedTile | Self::SmallTile, Arithmetic::Matrices { .. }) => {
                matrices::SMALL.name
            }
            (Self::TinyTile, _) => tiles::TINY.name,
            (Self::PairedTile, _) => tiles::PAIRED.name,
            (Self::SmallTile, _) => tiles::SMALL.name,
            (Self::LargeTile, Arithmetic::Matrices { .. }) => matrices::LARGE.name,
            (Self::LargeTile, _) => tiles::LARGE.name,
        }
    }

    /// The kernel, for layers that are [`is_plain`] or for all, where a workgroup has `workgroup_bytes` of memory.
    pub(super) fn wgsl(self, plain: bool, arithmetic: Arithmetic, workgroup_bytes: usize) -> String {
        let source = source(plain);
        match (self, arithmetic) {
            (Self::Line, _) => set(&keeping(&source, arithmetic), "LINES: u32 = 4u", "LINES: u32 = 1u"),
            (Self::Lines, _) => keeping(&source, arithmetic),
            (Self::TinyTile | Self::PairedTile | Self::SmallTile, Arithmetic::Matrices { lanes }) => {
                keeping(&source, arithmetic) + &matrices::SMALL.wgsl(lanes, Halved::default())
            }
            (Self::TinyTile, _) => keeping(&source, arithmetic) + &tiles::TINY.within(workgroup_bytes).wgsl(),
            (Self::PairedTile, _) => {
                keeping(&source, arithmetic) + &tiles::PAIRED.within(workgroup_bytes).wgsl()
            }
            (Self::SmallTile, _) => keeping(&source, arithmetic) + &tiles::SMALL.wgsl(),
            (Self::LargeTile, Arithmetic::Matrices { lanes }) => {
                keeping(&source, arithmetic) + &matrices::LARGE.wgsl(lanes, Halved::default())
            }
            (Self::LargeTile, _) => keeping(&source, arithmetic) + &tiles::LARGE.wgsl(),
        }
    }
}

/// Entry point and text of a plain layer by a tile of cooperative matrices, some sides of which are halves in the arena.
pub(super) fn of_halves(tile: matrices::Tile, lanes: usize, halved: Halved) -> (&'static str, String) {
    (tile.name, keeping(&source(true), Arithmetic::Matrices { lanes }) + &tile.wgsl(lanes, halved))
}

/// Of all kernels between which there is a choice, as they are for a large device.
pub(super) fn texts() -> impl Iterator<Item = String> {
    let arithmetics = [Arithmetic::Single, Arithmetic::Half, Arithmetic::Matrices { lanes: 32 }];
    let each = move |variant: Variant| arithmetics.map(|arithmetic| variant.wgsl(true, arithmetic, 48 << 10));
    Variant::ALL.into_iter().flat_map(each)
}

/// linear.wgsl, for layers that are [`is_plain`] or for all.
fn source(plain: bool) -> String {
    let (_, source) = SOURCES.iter().find(|(stem, _)| *stem == "linear").expect("linear.wgsl is a source");
    set(source, "PLAIN: bool = false", &format!("PLAIN: bool = {plain}"))
}

/// linear.wgsl with its weights declared for an arithmetic.
fn keeping(source: &str, arithmetic: Arithmetic) -> String {
    const BEGINS: &str = "@group(0) @binding(3)";
    const ENDS: &str = "// Ends what is declared for each kind of weights.\n";
    let (enable, cells, number) = match arithmetic {
        Arithmetic::Single => return source.to_owned(),
        Arithmetic::Half => {
            ("", "vec2<u32>", "vec4<f32>(unpack2x16float(weights[at].x), unpack2x16float(weights[at].y))")
        }
        Arithmetic::Matrices { .. } => (matrices::ENABLE, "vec4<f16>", "vec4<f32>(weights[at])"),
    };
    let (before, rest) = source.split_once(BEGINS).expect("linear.wgsl declares its weights");
    let (_, after) = rest.split_once(ENDS).expect("linear.wgsl says where that ends");
    format!(
        "{enable}{before}@group(0) @binding(3) var<storage, read> weights: array<{cells}>;
// The same bytes once more.
@group(0) @binding(5) var<storage, read> biases: array<vec4<f32>>;

fn weight(at: u32) -> vec4<f32> {{
    return {number};
}}

fn bias(out_vec4: u32) -> vec4<f32> {{
    return biases[linear_params.in_padded * linear_params.out_vec4s / 2u + out_vec4];
}}
{after}"
    )
}

fn set(source: &str, from: &str, to: &str) -> String {
    assert!(source.contains(from), "a kernel lacks `{from}`");
    source.replace(from, to)
}

/// recurrent.wgsl for matrices that are kept so.
pub(super) fn recurrent(source: &str, arithmetic: Arithmetic) -> String {
    match arithmetic {
        Arithmetic::Single => source.to_owned(),
        Arithmetic::Half | Arithmetic::Matrices { .. } => {
            set(source, "HALF: bool = false", "HALF: bool = true")
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

//! The variants of a `Linear`, and which of them takes how many lines. All give the same bits, but for those that multiply
//! by cooperative matrices.

use serde::{Deserialize, Serialize};

use super::halved::Halved;
use super::kernels;
use super::layout::stride;
use super::weights::TILE_DEPTH;
use super::{matrices, tiles};
use crate::{Activation, Command, Linear, Plan, Repeat, View};

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
/// Sums of so few inputs are short: two groups share a tile's, and four or large tiles only wait for each other,
const SHORT_INPUTS_MAX: usize = 64;
/// up to so many such tiles.
const SHORT_TILES_MAX: usize = 264;
/// A vector of outputs an invocation with hardly any inputs, or where so many lines have so few outputs of short sums.
const BARE_INPUTS_MAX: usize = 8;
const THIN_OUTPUTS_MAX: usize = 32;
const THIN_LINES_MIN: usize = 12_288;
/// Invocations of a workgroup of that kernel, and lines of each of them.
const EACH: usize = 128;
const EACH_LINES: usize = 4;
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

/// What a kernel may take for granted of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Whole vectors of four everywhere, lines at even steps, and a bend at zero at most.
    Plain,
    /// Whole vectors of four everywhere.
    Whole,
    /// Nothing.
    General,
}

/// A layer as a kernel sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer<'a> {
    pub(super) linear: &'a Linear,
    pub(super) kind: Kind,
    /// Whether the lines of all rows lie at even steps.
    pub(super) even: bool,
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
    /// One vector of outputs an invocation. The last one: it takes the least time of many lines, whatever it takes of few.
    Each,
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

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Whole, Self::General];

    fn of(linear: &Linear, even: bool) -> Self {
        let Repeat { count, src_step, dst_step } = linear.repeat;
        let views = [Some(linear.src), Some(linear.dst), linear.mask];
        let offsets = views.into_iter().flatten().map(|view| view.offset);
        let widths = [linear.weights.in_width, linear.weights.out_width];
        let steps = if count == 1 { [0; 2] } else { [src_step, dst_step] };
        let bends =
            matches!(linear.activation, Activation::Identity | Activation::Relu | Activation::Leaky(_));
        match offsets.chain(widths).chain(steps).all(|columns| columns.is_multiple_of(4)) {
            true if even && bends => Self::Plain,
            true => Self::Whole,
            false => Self::General,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Whole => "whole",
            Self::General => "general",
        }
    }
}

impl<'a> Layer<'a> {
    pub(super) fn of(plan: &Plan, linear: &'a Linear) -> Self {
        let Repeat { count, src_step, dst_step } = linear.repeat;
        let follows = |view: View, step: usize| stride(plan.width(view.buffer)) == count * step;
        let even = count == 1 || follows(linear.src, src_step) && follows(linear.dst, dst_step);
        Self { linear, kind: Kind::of(linear, even), even }
    }

    /// Those of a plan.
    pub(super) fn all(plan: &'a Plan) -> impl Iterator<Item = Self> {
        plan.commands.iter().filter_map(|command| match command {
            Command::Linear(linear) => Some(Self::of(plan, linear)),
            _ => None,
        })
    }

    pub(super) fn widths(self) -> [usize; 2] {
        [self.linear.weights.in_width, self.linear.weights.out_width]
    }

    /// Each place of a row is one.
    pub(super) fn lines(self, rows: usize) -> usize {
        rows * self.linear.repeat.count
    }
}

impl Variant {
    pub(super) const ALL: [Self; 7] = [
        Self::Line,
        Self::Lines,
        Self::TinyTile,
        Self::PairedTile,
        Self::SmallTile,
        Self::LargeTile,
        Self::Each,
    ];

    /// Without a measurement: the variant for a layer of so many inputs and outputs over so many lines.
    pub(super) fn guess(widths: [usize; 2], lines: usize, arithmetic: Arithmetic) -> Self {
        let [in_width, out_width] = widths;
        let tiles = |variant: Self| variant.workgroups(out_width, lines, arithmetic).into_iter().product();
        let (small, large): (usize, usize) = (tiles(Self::SmallTile), tiles(Self::LargeTile));
        let is_matrices = matches!(arithmetic, Arithmetic::Matrices { .. });
        let is_short = in_width <= SHORT_INPUTS_MAX;
        let is_thin = in_width <= BARE_INPUTS_MAX
            || is_short && out_width <= THIN_OUTPUTS_MAX && lines >= THIN_LINES_MIN;
        let is_wide = out_width > LARGE_TILE_OUTPUTS_ABOVE && (is_matrices || !is_short);
        match lines {
            0..=1 => Self::Line,
            _ if lines <= arithmetic.few_lines_max() => Self::Lines,
            _ if is_thin => Self::Each,
            _ if is_short && !is_matrices && tiles(Self::PairedTile) <= SHORT_TILES_MAX => Self::PairedTile,
            2..=FEW_TILES_LINES_MAX if tiles(Self::TinyTile) < FEW_TILES_BELOW && !is_matrices => Self::Lines,
            _ if large >= LARGE_TILES_MIN && is_wide => Self::LargeTile,
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
        let is_tile = !matches!(self, Self::Line | Self::Lines | Self::Each);
        is_tile && matches!(arithmetic, Arithmetic::Matrices { .. })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Lines => "lines",
            Self::Each => "each",
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
            Self::Each => {
                let across = out_width.div_ceil(4).min(EACH);
                [4 * across, EACH / across * EACH_LINES]
            }
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
            (Self::Each, _) => "linear_each",
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

    /// The kernel for layers of a kind, where a workgroup has `workgroup_bytes` of memory.
    pub(super) fn wgsl(self, kind: Kind, arithmetic: Arithmetic, workgroup_bytes: usize) -> String {
        let source = source(kind);
        match (self, arithmetic) {
            (Self::Line, _) => set(&keeping(&source, arithmetic), "LINES: u32 = 4u", "LINES: u32 = 1u"),
            (Self::Lines | Self::Each, _) => keeping(&source, arithmetic),
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
    (tile.name, keeping(&source(Kind::Plain), Arithmetic::Matrices { lanes }) + &tile.wgsl(lanes, halved))
}

/// Of all kernels between which there is a choice, as they are for a large device.
pub(super) fn texts() -> impl Iterator<Item = String> {
    let arithmetics = [Arithmetic::Single, Arithmetic::Half, Arithmetic::Matrices { lanes: 32 }];
    let each =
        move |variant: Variant| arithmetics.map(|arithmetic| variant.wgsl(Kind::Plain, arithmetic, 48 << 10));
    Variant::ALL.into_iter().flat_map(each)
}

/// linear.wgsl for layers of a kind.
fn source(kind: Kind) -> String {
    let told = [("PLAIN", kind == Kind::Plain), ("WHOLE", kind <= Kind::Whole)];
    told.into_iter().fold(kernels::source("linear").to_owned(), |source, (what, is)| {
        set(&source, &format!("{what}: bool = false"), &format!("{what}: bool = {is}"))
    })
}

/// linear.wgsl with its weights declared for an arithmetic.
fn keeping(source: &str, arithmetic: Arithmetic) -> String {
    let (enable, cells, number) = match arithmetic {
        Arithmetic::Single => return source.to_owned(),
        Arithmetic::Half => {
            ("", "vec2<u32>", "vec4<f32>(unpack2x16float(weights[at].x), unpack2x16float(weights[at].y))")
        }
        Arithmetic::Matrices { .. } => (matrices::ENABLE, "vec4<f16>", "vec4<f32>(weights[at])"),
    };
    let declared = format!(
        "@group(0) @binding(3) var<storage, read> weights: array<{cells}>;
// The same bytes once more.
@group(0) @binding(5) var<storage, read> biases: array<vec4<f32>>;

fn weight(at: u32) -> vec4<f32> {{
    return {number};
}}

fn bias(out_vec4: u32) -> vec4<f32> {{
    return biases[linear_params.in_padded * linear_params.out_vec4s / 2u + out_vec4];
}}
"
    );
    format!("{enable}{}", with_weights(source, &declared))
}

/// A kernel with its weights declared in another way.
pub(super) fn with_weights(source: &str, declared: &str) -> String {
    const ENDS: &str = "// Ends what is declared for each kind of weights.\n";
    exchange(source, "@group(0) @binding(3)", ENDS, declared)
}

/// Everything from `begins` to behind `ends` becomes something else.
pub(super) fn exchange(source: &str, begins: &str, ends: &str, by: &str) -> String {
    let (before, rest) = source.split_once(begins).expect("the kernel says where it begins");
    let (_, after) = rest.split_once(ends).expect("and where it ends");
    format!("{before}{by}{after}")
}

pub(super) fn set(source: &str, from: &str, to: &str) -> String {
    assert!(source.contains(from), "a kernel lacks `{from}`");
    source.replace(from, to)
}

/// Input columns of one slice: a matter of the layer, never of the batch.
pub(super) fn slice_len(in_width: usize) -> usize {
    SLICE_LEN_MIN * in_width.div_ceil(SLICE_LEN_MIN * SLICES_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Move, PlanBuilder, Weights};

    /// A layer of 8 inputs and 12 outputs between buffers of such widths.
    #[track_caller]
    fn check(
        widths: [usize; 2],
        offsets: [usize; 2],
        repeat: Repeat,
        activation: Activation,
        expected: Kind,
    ) {
        let mut plan = PlanBuilder::new("one layer");
        let (src, dst) = (plan.input(widths[0]), plan.buffer(widths[1]));
        let last = repeat.count - 1;
        let weights = Weights::new(12, 8, &[0.0; 8 * 12], vec![0.0; 12]);
        let src = src.slice(offsets[0], last * repeat.src_step + 8);
        let dst = dst.slice(offsets[1], last * repeat.dst_step + 12);
        plan.linear(Linear { repeat, ..Linear::plain(src, dst, Arc::new(weights), activation) });
        let output = plan.buffer(1);
        plan.move_columns(Move::copy(dst.slice(0, 1), output));
        let plan = plan.finish(output);
        let kinds: Vec<Kind> = Layer::all(&plan).map(|layer| layer.kind).collect();
        assert_eq!(kinds, [expected]);
    }

    const STEPS: Repeat = Repeat { count: 5, src_step: 8, dst_step: 12 };

    #[test]
    fn a_layer_is_plain_where_its_lines_follow_each_other_evenly() {
        use Activation::{Gelu, Relu};
        check([8, 12], [0, 0], Repeat::ONCE, Relu, Kind::Plain);
        check([20, 24], [4, 8], Repeat::ONCE, Relu, Kind::Plain);
        check([40, 60], [0, 0], STEPS, Relu, Kind::Plain);
        // A row's padding is part of its last line.
        check([38 + 1, 60], [0, 0], Repeat { count: 5, src_step: 7, ..STEPS }, Relu, Kind::General);
        // Patches of twice their step, in a row that has one more of these.
        check([4 * 5 + 4, 60], [0, 0], Repeat { src_step: 4, ..STEPS }, Relu, Kind::Whole);
        check([80, 80], [4, 4], Repeat { src_step: 16, dst_step: 16, ..STEPS }, Relu, Kind::Plain);
        check([48, 60], [8, 0], STEPS, Relu, Kind::Whole);
        check([40, 72], [0, 12], STEPS, Relu, Kind::Whole);
        check([40, 60], [0, 0], STEPS, Gelu, Kind::Whole);
        check([42, 60], [2, 0], STEPS, Relu, Kind::General);
        check([9, 12], [1, 0], Repeat::ONCE, Relu, Kind::General);
    }
}

//! The vocabulary of plans: what one kernel call computes, exactly.

use std::sync::Arc;

use super::{View, Weights};

/// Applied to each output of a `Linear` or an `Affine`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `x` for `x > 20`, else `ln(1 + exp x)`
    Softplus,
    /// `tanh x`
    Tanh,
    /// `1.0507009873554805 · (x > 0 ? x : 1.6732632423543772 · (exp x − 1))`
    Selu,
    /// `x > 0 ? x : slope · x` (leaky: 0.01; parametric: from the weights)
    Leaky(f32),
    /// `1 / (1 + exp −x)`
    Sigmoid,
    /// `x · ½ (1 + erf(x / √2))`
    Gelu,
}

/// What a `Linear` starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// `bias`
    Bias,
    /// `dst + bias`
    Accumulate,
}

/// The same layer at several places of a row: place `i` reads from column `i · src_step` of the source and writes
/// from column `i · dst_step` of the destination. Sources may overlap (patches), destinations may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Places, at least 1.
    pub count: usize,
    /// Columns from one source to the next.
    pub src_step: usize,
    /// Columns from one destination to the next.
    pub dst_step: usize,
}

impl Repeat {
    /// One place.
    pub const ONCE: Self = Self { count: 1, src_step: 0, dst_step: 0 };
}

/// `dst = activation(init + src · Wᵀ) · mask` at every place of `repeat`, the sum taken in rising order of the input
/// column.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `(count − 1) · src_step + in_width` columns.
    pub src: View,
    /// `(count − 1) · dst_step + out_width` columns; those between two places stay as they are.
    pub dst: View,
    /// The layer.
    pub weights: Arc<Weights>,
    /// What the sum is added to.
    pub init: Init,
    /// Applied to the sum.
    pub activation: Activation,
    /// `out_width` columns that multiply the result, after the activation. Only with [`Repeat::ONCE`].
    pub mask: Option<View>,
    /// Where in the row.
    pub repeat: Repeat,
}

/// How a pooling window becomes one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Maximum.
    Max,
    /// Mean over the elements that exist.
    Mean,
}

/// Pools `[steps, columns]` (step-major, flattened) along time in windows `[0,k), [k,2k), …`; the last may be short.
#[derive(Clone, Debug)]
pub struct Pool {
    /// `steps · columns` wide.
    pub src: View,
    /// `ceil(steps / kernel) · columns` wide.
    pub dst: View,
    /// Columns per step.
    pub columns: usize,
    /// Window and stride, at least 1.
    pub kernel: usize,
    /// Maximum or mean.
    pub mode: PoolMode,
}

/// `dst[i · dst_steps[0] + j · dst_steps[1]] = src[start + i · src_steps[0] + j · src_steps[1]]` for all `i, j` below
/// `counts`: copies, reversals, broadcasts, transposes, and columns woven into steps.
#[derive(Clone, Debug)]
pub struct Move {
    /// Source columns.
    pub src: View,
    /// Destination columns; those that no `(i, j)` reaches stay as they are.
    pub dst: View,
    /// How many of each.
    pub counts: [usize; 2],
    /// Source column of `(0, 0)`.
    pub start: usize,
    /// Distances in the source.
    pub src_steps: [i32; 2],
    /// Distances in the destination; no column is written twice.
    pub dst_steps: [usize; 2],
}

impl Move {
    /// `dst[j] = src[start + j · step]`, for reversal (`step = −1`), copies (`1`) and broadcasts (`0`).
    #[must_use]
    pub fn strided(src: View, dst: View, start: usize, step: i32) -> Self {
        Self { src, dst, counts: [1, dst.width], start, src_steps: [0, step], dst_steps: [0, 1] }
    }

    /// All of `src`, from its first column on.
    #[must_use]
    pub fn copy(src: View, dst: View) -> Self {
        Self::strided(src, dst, 0, 1)
    }

    /// `[steps, columns]` to `[columns, steps]`.
    ///
    /// # Panics
    /// When `columns` does not divide the source.
    #[must_use]
    pub fn transpose(src: View, dst: View, columns: usize) -> Self {
        assert_eq!(src.width % columns, 0, "a transpose of whole steps");
        let steps = src.width / columns;
        let step = i32::try_from(columns).expect("a row fits i32");
        Self { src, dst, counts: [columns, steps], start: 0, src_steps: [1, step], dst_steps: [steps, 1] }
    }
}

/// `dst[j] = activation(src[j] · scale[j mod P] + shift[j mod P]) + add[j]`, with `P` the length of both vectors:
/// batch norms at rest, sums of branches, activations that follow a sum of several layers.
#[derive(Clone, Debug)]
pub struct Affine {
    /// As wide as `dst`.
    pub src: View,
    /// A multiple of `P` columns.
    pub dst: View,
    /// `P` factors.
    pub scale: Arc<[f32]>,
    /// `P` shifts.
    pub shift: Arc<[f32]>,
    /// Applied before `add`.
    pub activation: Activation,
    /// As wide as `dst`.
    pub add: Option<View>,
}

/// Layer normalization of each group of `scale.len()` columns (Ba et al. 2016):
/// `(x − mean) / sqrt(variance + epsilon) · scale + shift`, the variance divided by the size.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// A multiple of the group.
    pub src: View,
    /// As wide as `src`.
    pub dst: View,
    /// One factor for each column of a group.
    pub scale: Arc<[f32]>,
    /// One shift for each column of a group.
    pub shift: Arc<[f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Scaled dot-product attention inside each row (Vaswani et al. 2017), with the scores handed on (He et al. 2021):
/// per head `S = Q · Kᵀ (+ previous)`, `dst = softmax(S) · V`. The factor of the scores is part of the query's
/// weights.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[steps, 3 · heads · head_width]`: per step query, key and value, each head-major.
    pub qkv: View,
    /// `[heads, steps, steps]`: scores of an earlier attention, added before the softmax.
    pub previous: Option<View>,
    /// `[heads, steps, steps]`: gets the scores as the softmax sees them.
    pub scores: View,
    /// `[steps, heads · head_width]`.
    pub dst: View,
    /// Number of heads.
    pub heads: usize,
    /// Number of steps.
    pub steps: usize,
}

/// A recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Gates `i, f, g, o`: `c = σ(f) · c + σ(i) · tanh g`, `h = σ(o) · tanh c` (Hochreiter & Schmidhuber 1997).
    Lstm,
    /// Gates `r, z, n`: `h = (1 − z) · tanh(n + r · (W h)_n) + z · h` with `r, z` after `σ` (Cho et al. 2014).
    Gru,
}

impl Cell {
    /// Gates per unit.
    #[must_use]
    pub const fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// A recurrent layer over the steps of each row. The input's part of the gates comes ready (a repeated [`Linear`]);
/// here the state's part is added step by step.
#[derive(Clone, Debug)]
pub struct Recurrent {
    /// What the gates do.
    pub cell: Cell,
    /// Number of steps.
    pub steps: usize,
    /// `[steps, gates · units]`: `W_ih · x + b_ih`.
    pub gates: View,
    /// `[gates · units, out]`: `W_hh`, with `b_hh` for its bias.
    pub recurrent: Arc<Weights>,
    /// `[out, units]`, LSTM only: `h = P · h`, and this is output and recurrent input (Sak et al. 2014).
    pub projection: Option<Arc<Weights>>,
    /// `out + units` columns for an LSTM (`h`, then `c`), `out` for a GRU. Gets the state after the last step.
    pub state: View,
    /// Whether the first step goes on from `state`; it starts at zero otherwise.
    pub resumes: bool,
    /// `[steps, out]`: `h` after every step.
    pub dst: View,
}

impl Recurrent {
    /// Units of the cell.
    #[must_use]
    pub fn units(&self) -> usize {
        self.recurrent.out_width / self.cell.gates()
    }

    /// Width of `h`.
    #[must_use]
    #[allow(clippy::misnamed_getters, reason = "what goes out is what the state's matrix takes in")]
    pub fn out_width(&self) -> usize {
        self.recurrent.in_width
    }
}

/// One kernel call.
#[derive(Clone, Debug)]
pub enum Command {
    /// Fully connected layer with its epilogue.
    Linear(Linear),
    /// Pooling along time.
    Pool(Pool),
    /// Strided move of columns.
    Move(Move),
    /// Scale, shift, activation, sum.
    Affine(Affine),
    /// Layer normalization.
    LayerNorm(LayerNorm),
    /// Attention inside a row.
    Attention(Attention),
    /// Recurrent layer.
    Recurrent(Recurrent),
}

impl Command {
    /// What it reads and does not write.
    #[must_use]
    pub fn reads(&self) -> [Option<View>; 2] {
        match self {
            Self::Linear(linear) => [Some(linear.src), linear.mask],
            Self::Pool(pool) => [Some(pool.src), None],
            Self::Move(step) => [Some(step.src), None],
            Self::Affine(affine) => [Some(affine.src), affine.add],
            Self::LayerNorm(norm) => [Some(norm.src), None],
            Self::Attention(attention) => [Some(attention.qkv), attention.previous],
            Self::Recurrent(layer) => [Some(layer.gates), None],
        }
    }

    /// What it writes, some of it perhaps read before.
    #[must_use]
    pub fn writes(&self) -> [Option<View>; 2] {
        match self {
            Self::Linear(linear) => [Some(linear.dst), None],
            Self::Pool(pool) => [Some(pool.dst), None],
            Self::Move(step) => [Some(step.dst), None],
            Self::Affine(affine) => [Some(affine.dst), None],
            Self::LayerNorm(norm) => [Some(norm.dst), None],
            Self::Attention(attention) => [Some(attention.dst), Some(attention.scores)],
            Self::Recurrent(layer) => [Some(layer.dst), Some(layer.state)],
        }
    }

    /// Its matrices.
    pub fn weights(&self) -> impl Iterator<Item = &Arc<Weights>> {
        let pair = match self {
            Self::Linear(linear) => [Some(&linear.weights), None],
            Self::Recurrent(layer) => [Some(&layer.recurrent), layer.projection.as_ref()],
            Self::Pool(_) | Self::Move(_) | Self::Affine(_) | Self::LayerNorm(_) | Self::Attention(_) => {
                [None, None]
            }
        };
        pair.into_iter().flatten()
    }

    /// Multiply-adds of one row.
    pub(super) fn row_macs(&self) -> usize {
        match self {
            Self::Linear(linear) => linear.repeat.count * linear.weights.matrix_len(),
            Self::Recurrent(layer) => {
                layer.steps * self.weights().map(|weights| weights.matrix_len()).sum::<usize>()
            }
            Self::Attention(attention) => 2 * attention.steps * attention.dst.width,
            Self::Pool(_) | Self::Move(_) | Self::Affine(_) | Self::LayerNorm(_) => 0,
        }
    }

    /// # Panics
    /// When shapes disagree, or it would write what it reads.
    pub(crate) fn assert_valid(&self) {
        let [reads, writes] = [self.reads(), self.writes()];
        for write in writes.into_iter().flatten() {
            assert!(reads.iter().flatten().all(|read| read.buffer != write.buffer), "a command in place");
        }
        if let [Some(first), Some(second)] = writes {
            assert_ne!(first.buffer, second.buffer, "two results in one buffer");
        }
        match self {
            Self::Linear(linear) => linear.assert_shapes(),
            Self::Pool(pool) => pool.assert_shapes(),
            Self::Move(step) => step.assert_shapes(),
            Self::Affine(affine) => affine.assert_shapes(),
            Self::LayerNorm(norm) => norm.assert_shapes(),
            Self::Attention(attention) => attention.assert_shapes(),
            Self::Recurrent(layer) => layer.assert_shapes(),
        }
    }
}

impl Linear {
    /// `dst = activation(bias + src · Wᵀ)`, once.
    #[must_use]
    pub const fn plain(src: View, dst: View, weights: Arc<Weights>, activation: Activation) -> Self {
        Self { src, dst, weights, init: Init::Bias, activation, mask: None, repeat: Repeat::ONCE }
    }

    fn assert_shapes(&self) {
        let Self { weights, repeat, .. } = self;
        let last = repeat.count.checked_sub(1).expect("a layer has at least one place");
        assert_eq!(self.src.width, last * repeat.src_step + weights.in_width, "linear input");
        assert_eq!(self.dst.width, last * repeat.dst_step + weights.out_width, "linear output");
        assert!(repeat.count == 1 || repeat.dst_step >= weights.out_width, "linear places overlap");
        let mask_fits = self.mask.is_none_or(|mask| mask.width == weights.out_width && repeat.count == 1);
        assert!(mask_fits, "linear mask");
    }
}

impl Pool {
    fn assert_shapes(&self) {
        assert!(self.kernel > 0 && self.columns > 0, "pool window");
        assert_eq!(self.src.width % self.columns, 0, "pool source");
        let steps = self.src.width / self.columns;
        assert_eq!(self.dst.width, steps.div_ceil(self.kernel) * self.columns, "pool destination");
    }
}

impl Move {
    fn assert_shapes(&self) {
        let [outer, inner] = self.counts;
        assert!(outer > 0 && inner > 0, "a move of something");
        // The range that the corners span holds every column between.
        for i in [0, outer - 1] {
            for j in [0, inner - 1] {
                let dst = i * self.dst_steps[0] + j * self.dst_steps[1];
                let src = self.start as i64
                    + i as i64 * i64::from(self.src_steps[0])
                    + j as i64 * i64::from(self.src_steps[1]);
                assert!((0..self.src.width as i64).contains(&src), "move source");
                assert!(dst < self.dst.width, "move destination");
            }
        }
        let apart = |a: usize, a_count: usize, b: usize| (a_count - 1) * a < b;
        let [step_outer, step_inner] = self.dst_steps;
        let once = outer == 1
            || inner == 1 && step_outer > 0
            || apart(step_inner, inner, step_outer)
            || apart(step_outer, outer, step_inner);
        assert!(
            once && (inner == 1 || step_inner > 0) && (outer == 1 || step_outer > 0),
            "move writes twice"
        );
    }
}

impl Affine {
    fn assert_shapes(&self) {
        let period = self.scale.len();
        assert!(period > 0 && self.shift.len() == period, "affine vectors");
        assert!(self.dst.width.is_multiple_of(period) && self.src.width == self.dst.width, "affine width");
        assert!(self.add.is_none_or(|add| add.width == self.dst.width), "affine sum");
    }
}

impl LayerNorm {
    fn assert_shapes(&self) {
        let group = self.scale.len();
        assert!(group > 0 && self.shift.len() == group, "layer norm vectors");
        assert!(self.src.width.is_multiple_of(group) && self.src.width == self.dst.width, "layer norm width");
    }
}

impl Attention {
    fn assert_shapes(&self) {
        let Self { heads, steps, .. } = *self;
        assert!(heads > 0 && steps > 0, "attention to something");
        assert!(self.dst.width.is_multiple_of(heads * steps), "attention heads");
        assert_eq!(self.qkv.width, 3 * self.dst.width, "attention input");
        let fits = |scores: View| scores.width == heads * steps * steps;
        assert!(fits(self.scores) && self.previous.is_none_or(fits), "attention scores");
    }
}

impl Recurrent {
    fn assert_shapes(&self) {
        let (units, out, gates) = (self.units(), self.out_width(), self.recurrent.out_width);
        assert!(self.steps > 0 && gates == units * self.cell.gates(), "recurrent gates");
        assert_eq!(self.gates.width, self.steps * gates, "recurrent input");
        assert_eq!(self.dst.width, self.steps * out, "recurrent output");
        let state = match self.cell {
            Cell::Lstm => out + units,
            Cell::Gru => out,
        };
        assert_eq!(self.state.width, state, "recurrent state");
        match &self.projection {
            Some(projection) => {
                let fits = projection.in_width == units && projection.out_width == out;
                assert!(fits && self.cell == Cell::Lstm, "recurrent projection");
            }
            None => assert_eq!(out, units, "recurrent width"),
        }
    }
}

//! Doubly residual stacks, shared by NHITS and NBEATS: takes blocks, records the plan with the fewest multiply-adds.
//!
//! Every block leaves one slice of `features_out`: its last hidden layer, or its forecast coefficients where the
//! way through them is cheaper. One last layer maps all slices to the forecast. The last block's backcast is never
//! computed; the level is the caller's ([`Anchor::Level`]).

use std::collections::HashMap;
use std::ops::Range;

use crate::loader::LoadError;
use crate::{Activation, Init, Linear, ModelSpec, Move, PlanBuilder, Pool, PoolMode, View};

use super::dense::{Budget, Dense, Sparse};
use super::network::{Anchor, Layout, Network, Order};
use super::stack_weights::BlockLayers;

/// Numbers that a device reads at once.
const VECTOR: usize = 4;

/// One block as it is stored.
pub(super) struct Block<'a> {
    pub(super) kernel: usize,
    pub(super) pool: PoolMode,
    pub(super) backcast: Projection,
    pub(super) forecast: Projection,
    /// Its layers, taken when it is recorded: in f64 there is one block at a time.
    pub(super) layers: Box<dyn FnOnce() -> Result<BlockLayers, LoadError> + 'a>,
}

/// `basis · (theta · hidden)` of some outputs of a block's theta.
pub(super) struct Projection {
    pub(super) outputs: Range<usize>,
    /// Of theta.
    pub(super) in_width: usize,
    /// `None`: theta itself is the result.
    pub(super) basis: Option<Sparse>,
}

/// Width of a block's input: everything pooled along time, statics as they are.
pub(super) fn input_width(spec: &ModelSpec, kernel: usize) -> usize {
    let span = spec.window + spec.horizon;
    spec.window.div_ceil(kernel) * (1 + spec.hist_exog.len())
        + span.div_ceil(kernel) * spec.futr_exog.len()
        + spec.stat_exog.len()
}

impl Projection {
    /// Whether the joined buffer gets this block's theta; its last hidden layer otherwise.
    fn through_theta(&self) -> bool {
        self.basis.as_ref().is_some_and(|basis| !basis.folds_into(self.outputs.len(), self.in_width))
    }

    /// Of theta as many columns as are whole vectors: this slice and those behind it then begin with one, which a device
    /// needs for its fast kernels. What is added is zero and has no effect.
    fn joined_width(&self) -> usize {
        if self.through_theta() { self.outputs.len().next_multiple_of(VECTOR) } else { self.in_width }
    }

    /// One layer, or two where that is cheaper.
    fn layers(self, theta: &Dense, budget: &mut Budget) -> Result<Vec<Dense>, LoadError> {
        let Self { outputs, basis, .. } = self;
        let theta = theta.outputs(outputs.start, outputs.end);
        let Some(basis) = basis else {
            budget.spend(theta.out_width, theta.in_width)?;
            return Ok(vec![theta]);
        };
        if basis.folds_into(theta.out_width, theta.in_width) {
            budget.spend(basis.out_width(), theta.in_width)?;
            return Ok(vec![basis.folded(&theta)]);
        }
        budget.spend(theta.out_width, theta.in_width + basis.out_width())?;
        Ok(vec![theta, basis.dense()])
    }
}

/// Folds layer 0 into layer 1; what is left alternates layer and activation.
fn folded_layers(
    mut layers: Vec<Dense>,
    activation: Activation,
    budget: &mut Budget,
) -> Result<Vec<(Dense, Activation)>, LoadError> {
    let mut first = Activation::Identity;
    if let Some(folded) = layers.get(1).and_then(|second| second.after(&layers[0])) {
        layers.splice(..2, [folded]);
        first = activation;
    }
    for layer in &layers {
        budget.spend(layer.out_width, layer.in_width)?;
    }
    let activations = std::iter::once(first).chain(std::iter::repeat(activation));
    Ok(layers.into_iter().zip(activations).collect())
}

/// Records all blocks. `budget` goes on from what the bases took.
pub(super) fn record(
    spec: &ModelSpec,
    blocks: Vec<Block<'_>>,
    mut budget: Budget,
) -> Result<Network, LoadError> {
    let out_width = spec.horizon * spec.head.network_width();
    let mut stack = Stack::new(spec, &blocks);
    let last = blocks.len() - 1;
    let mut slices: Vec<(View, Dense)> = Vec::new();
    let joined_width: usize = blocks.iter().map(|block| block.forecast.joined_width()).sum();
    let joined = stack.plan.buffer(joined_width);
    let mut offset = 0;

    for (index, block) in blocks.into_iter().enumerate() {
        let name = format!("blocks.{index}");
        let width = block.forecast.joined_width();
        let slice = joined.slice(offset, width);
        offset += width;
        let through_theta = block.forecast.through_theta();
        let BlockLayers { hidden, theta, activation } = (block.layers)()?;
        let layers = folded_layers(hidden, activation, &mut budget)?;
        let source = stack.block_input(index == 0, block.kernel, block.pool);
        let hidden = stack.mlp(&name, source, &layers, (!through_theta).then_some(slice))?;
        let mut forecast = block.forecast.layers(&theta, &mut budget)?;
        if through_theta {
            let theta = forecast.remove(0).with_outputs(width);
            stack.linear(&name, hidden, slice, &theta, Epilogue::Plain(Activation::Identity))?;
        }
        slices.push((slice, forecast.remove(0).with_inputs(width)));
        if index < last {
            stack.backcast(&name, hidden, &block.backcast.layers(&theta, &mut budget)?)?;
        }
    }
    let output = stack.plan.buffer(out_width);
    stack.linear(
        "forecast",
        joined,
        output,
        &side_by_side(out_width, &slices),
        Epilogue::Plain(Activation::Identity),
    )?;
    Ok(Network {
        masked: stack.mask.is_some(),
        plan: stack.plan.finish(output),
        order: Order::NewestFirst,
        anchor: Anchor::Level,
    })
}

/// The layer that sums all slices: their matrices next to each other, their biases added up.
fn side_by_side(out_width: usize, slices: &[(View, Dense)]) -> Dense {
    let in_width: usize = slices.iter().map(|(view, _)| view.width).sum();
    let mut matrix = Vec::with_capacity(out_width * in_width);
    for output in 0..out_width {
        for (_, part) in slices {
            matrix.extend_from_slice(&part.matrix[output * part.in_width..(output + 1) * part.in_width]);
        }
    }
    let bias = (0..out_width).map(|output| slices.iter().map(|(_, part)| part.bias[output]).sum()).collect();
    Dense { out_width, in_width, matrix, bias }
}

#[derive(Clone, Copy)]
enum Epilogue {
    Plain(Activation),
    /// Added to the destination, times the mask.
    Residual,
}

/// The plan under construction and the buffers that blocks share.
struct Stack {
    plan: PlanBuilder,
    layout: Layout,
    hist_columns: usize,
    futr_columns: usize,
    features: View,
    /// What blocks have left unexplained, `y` first; the exogenous columns follow where a later block reads them
    /// unpooled. `None` with a single block.
    residual: Option<View>,
    mask: Option<View>,
    /// Pooled inputs by kernel: the exogenous part is pooled once.
    pooled: HashMap<usize, View>,
    /// Reused between blocks, by place in the block and width.
    scratch: HashMap<(usize, usize), View>,
}

impl Stack {
    fn new(spec: &ModelSpec, blocks: &[Block<'_>]) -> Self {
        let mut plan = PlanBuilder::new(&spec.name);
        let layout = Layout::of(spec);
        let features = plan.input(layout.width());
        let several = blocks.len() > 1;
        let mask = several.then(|| plan.input(spec.window));
        let unpooled = blocks.iter().skip(1).any(|block| block.kernel == 1);
        let residual = several.then(|| {
            let residual = plan.buffer(if unpooled { layout.width() } else { layout.y });
            let src = features.slice(0, residual.width);
            plan.move_columns(Move::copy(src, residual));
            residual
        });
        Self {
            plan,
            layout,
            hist_columns: spec.hist_exog.len(),
            futr_columns: spec.futr_exog.len(),
            features,
            residual,
            mask,
            pooled: HashMap::new(),
            scratch: HashMap::new(),
        }
    }

    /// The block's input: the residual as it lies, or pooled.
    fn block_input(&mut self, first: bool, kernel: usize, mode: PoolMode) -> View {
        let residual = if first { self.features } else { self.residual.unwrap_or(self.features) };
        if kernel == 1 {
            return residual;
        }
        let y_width = self.layout.y.div_ceil(kernel);
        let pooled = match self.pooled.get(&kernel) {
            Some(&pooled) => pooled,
            None => self.pool_exogenous(kernel, mode),
        };
        let (src, dst) = (residual.slice(0, self.layout.y), pooled.slice(0, y_width));
        self.plan.pool(Pool { src, dst, columns: 1, kernel, mode });
        pooled
    }

    fn pool_exogenous(&mut self, kernel: usize, mode: PoolMode) -> View {
        let Layout { y, hist, futr, stat } = self.layout;
        let mut parts = Vec::new();
        let mut width = y.div_ceil(kernel);
        for (start, len, columns) in [(y, hist, self.hist_columns), (y + hist, futr, self.futr_columns)] {
            if len > 0 {
                let pooled_len = (len / columns).div_ceil(kernel) * columns;
                parts.push((self.features.slice(start, len), width, pooled_len, columns));
                width += pooled_len;
            }
        }
        let pooled = self.plan.buffer(width + stat);
        for (src, offset, len, columns) in parts {
            self.plan.pool(Pool { src, dst: pooled.slice(offset, len), columns, kernel, mode });
        }
        if stat > 0 {
            let src = self.features.slice(y + hist + futr, stat);
            self.plan.move_columns(Move::copy(src, pooled.slice(width, stat)));
        }
        self.pooled.insert(kernel, pooled);
        pooled
    }

    /// Records the block's layers; the last one writes to `into`, or to scratch.
    fn mlp(
        &mut self,
        name: &str,
        source: View,
        layers: &[(Dense, Activation)],
        into: Option<View>,
    ) -> Result<View, LoadError> {
        let mut src = source;
        for (place, (layer, activation)) in layers.iter().enumerate() {
            let is_last = place + 1 == layers.len();
            let dst = match into.filter(|_| is_last) {
                Some(into) => into,
                None => self.scratch(place, layer.out_width),
            };
            self.linear(name, src, dst, layer, Epilogue::Plain(*activation))?;
            src = dst;
        }
        Ok(src)
    }

    /// Takes off the residual what the block explains.
    fn backcast(&mut self, name: &str, hidden: View, layers: &[Dense]) -> Result<(), LoadError> {
        const THETA: usize = usize::MAX;
        let residual = self.residual.unwrap_or(self.features).slice(0, self.layout.y);
        let mut src = hidden;
        let (last, before) = match layers.split_last() {
            Some(split) => split,
            None => return Ok(()),
        };
        for layer in before {
            let dst = self.scratch(THETA, layer.out_width);
            self.linear(name, src, dst, layer, Epilogue::Plain(Activation::Identity))?;
            src = dst;
        }
        self.linear(name, src, residual, &last.clone().negated(), Epilogue::Residual)
    }

    fn linear(
        &mut self,
        name: &str,
        src: View,
        dst: View,
        layer: &Dense,
        epilogue: Epilogue,
    ) -> Result<(), LoadError> {
        let weights = layer.weights(name)?;
        let (init, activation, mask) = match epilogue {
            Epilogue::Plain(activation) => (Init::Bias, activation, None),
            Epilogue::Residual => (Init::Accumulate, Activation::Identity, self.mask),
        };
        self.plan.linear(Linear { init, mask, ..Linear::plain(src, dst, weights, activation) });
        Ok(())
    }

    fn scratch(&mut self, place: usize, width: usize) -> View {
        *self.scratch.entry((place, width)).or_insert_with(|| self.plan.buffer(width))
    }
}

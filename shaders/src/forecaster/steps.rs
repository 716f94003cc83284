//! What the families that walk along time share: the input of a step, and layers applied step by step.
//!
//! All buffers here are `[steps, columns]`, step-major.

use std::sync::Arc;

use crate::loader::{Archive, Hparams, LoadError};
use crate::{Activation, Family, Linear, ModelSpec, Move, PlanBuilder, Repeat, View, Weights};

use super::dense::{Budget, Dense};
use super::network::Layout;
use super::stack_weights;

/// Bound of the layers that are stacked on each other.
pub(super) const LAYERS_MAX: usize = 64;

/// Columns that are woven into steps: `columns` of `src` for each step, `distance` from one step to the next; a
/// distance of zero repeats them.
#[derive(Clone, Copy)]
pub(super) struct Strand {
    pub(super) src: View,
    pub(super) columns: usize,
    pub(super) distance: usize,
}

impl Strand {
    /// Steps that lie one after the other.
    pub(super) const fn steps(src: View, columns: usize) -> Self {
        Self { src, columns, distance: columns }
    }
}

/// The strands side by side, `[steps, sum of columns]`; a lone one that is already so stays where it is.
pub(super) fn weave(plan: &mut PlanBuilder, steps: usize, strands: &[Strand]) -> View {
    match strands {
        [only] if only.distance == only.columns => only.src.slice(0, steps * only.columns),
        _ => {
            let width: usize = strands.iter().map(|strand| strand.columns).sum();
            let woven = plan.buffer(steps * width);
            weave_into(plan, woven, steps, strands);
            woven
        }
    }
}

fn weave_into(plan: &mut PlanBuilder, woven: View, steps: usize, strands: &[Strand]) {
    let width = woven.width / steps;
    let mut first = 0;
    for &Strand { src, columns, distance } in strands {
        plan.move_columns(Move {
            src,
            dst: woven.slice(first, woven.width - first),
            counts: [steps, columns],
            start: 0,
            src_steps: [i32::try_from(distance).expect("a row fits i32"), 1],
            dst_steps: [width, 1],
        });
        first += columns;
    }
}

/// Columns of the `features` input, by their part in a step.
#[derive(Clone, Copy)]
pub(super) struct StepInput {
    window: usize,
    /// Rows that the future columns are ahead of `y`.
    futr_lead: usize,
    y: Strand,
    hist: Option<Strand>,
    stat: Option<Strand>,
    futr: Option<Strand>,
    futr_before_stat: bool,
}

impl StepInput {
    /// In a recursive model a step carries the future columns of the step it forecasts: the library shifts them, so
    /// that the last of the horizon's rows is used as well.
    pub(super) fn of(spec: &ModelSpec, features: View, recursive: bool) -> Self {
        let layout = Layout::of(spec);
        let part = |first: usize, width: usize, columns: usize, distance: usize| {
            (columns > 0).then(|| Strand { src: features.slice(first, width), columns, distance })
        };
        let (hist, futr, stat) = (spec.hist_exog.len(), spec.futr_exog.len(), spec.stat_exog.len());
        let (hist_first, futr_first) = (layout.y, layout.y + layout.hist);
        Self {
            window: spec.window,
            futr_lead: usize::from(recursive),
            y: Strand::steps(features.slice(0, layout.y), 1),
            hist: part(hist_first, layout.hist, hist, hist),
            futr: part(futr_first, layout.futr, futr, futr),
            stat: part(futr_first + layout.futr, layout.stat, stat, 0),
            // The library's DeepAR alone puts the future columns before the static ones.
            futr_before_stat: spec.family == Family::Deepar,
        }
    }

    /// Columns of one step.
    pub(super) fn width(&self) -> usize {
        self.window_strands().iter().map(|strand| strand.columns).sum()
    }

    /// The steps of the window.
    pub(super) fn window(&self, plan: &mut PlanBuilder) -> View {
        weave(plan, self.window, &self.window_strands())
    }

    /// The step `ahead` steps behind the window's last, with `value` for its `y`, written to `dst`.
    pub(super) fn ahead(&self, plan: &mut PlanBuilder, ahead: usize, value: View, dst: View) {
        let futr = self.futr_from(self.window - 1 + ahead + self.futr_lead);
        let strands = self.ordered(Strand::steps(value, 1), None, futr);
        weave_into(plan, dst, 1, &strands);
    }

    /// The horizon's future columns.
    pub(super) fn futr_of_horizon(&self) -> Option<Strand> {
        self.futr_from(self.window)
    }

    fn futr_from(&self, row: usize) -> Option<Strand> {
        let Strand { src, columns, .. } = self.futr?;
        Some(Strand::steps(src.slice(row * columns, src.width - row * columns), columns))
    }

    fn window_strands(&self) -> Vec<Strand> {
        self.ordered(self.y, self.hist, self.futr_from(self.futr_lead))
    }

    fn ordered(&self, y: Strand, hist: Option<Strand>, futr: Option<Strand>) -> Vec<Strand> {
        let known = if self.futr_before_stat { [futr, self.stat] } else { [self.stat, futr] };
        [Some(y), hist].into_iter().chain(known).flatten().collect()
    }
}

/// A small perceptron that sees one step at a time.
pub(super) struct Decoder {
    layers: Vec<(Arc<Weights>, Activation)>,
}

impl Decoder {
    /// `NAME.layers.0`, `.3`, … of these widths, input first.
    pub(super) fn take(
        archive: &Archive,
        budget: &mut Budget,
        name: &str,
        widths: &[usize],
        activation: Activation,
    ) -> Result<Self, LoadError> {
        let mut layers = Vec::new();
        for (number, pair) in widths.windows(2).enumerate() {
            let name = format!("{name}.layers.{}", 3 * number);
            budget.spend(pair[1], pair[0])?;
            let is_last = number + 2 == widths.len();
            let activation = if is_last { Activation::Identity } else { activation };
            layers.push((Dense::take(archive, &name, pair[1], pair[0])?.weights(&name)?, activation));
        }
        Ok(Self { layers })
    }

    /// Of one layer.
    pub(super) fn single(layer: Arc<Weights>) -> Self {
        Self { layers: vec![(layer, Activation::Identity)] }
    }

    pub(super) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Buffers between the layers, for `steps` steps.
    pub(super) fn hidden(
        &self,
        plan: &mut PlanBuilder,
        budget: &mut Budget,
        steps: usize,
    ) -> Result<Vec<View>, LoadError> {
        let between = &self.layers[..self.layers.len() - 1];
        between.iter().map(|(layer, _)| budget.buffer(plan, steps, layer.out_width)).collect()
    }

    /// From `src`, whose steps lie one after the other, to `dst` by way of `hidden`.
    pub(super) fn record(&self, plan: &mut PlanBuilder, src: View, hidden: &[View], dst: View, steps: usize) {
        let mut from = src;
        for ((layer, activation), to) in self.layers.iter().zip(hidden.iter().copied().chain([dst])) {
            each_step(plan, from, to, layer, *activation, steps);
            from = to;
        }
    }
}

/// One layer on every step.
pub(super) fn each_step(
    plan: &mut PlanBuilder,
    src: View,
    dst: View,
    weights: &Arc<Weights>,
    activation: Activation,
    steps: usize,
) {
    let repeat = Repeat { count: steps, src_step: weights.in_width, dst_step: weights.out_width };
    plan.linear(Linear { repeat, ..Linear::plain(src, dst, Arc::clone(weights), activation) });
}

/// One layer along time on every channel: `[in, channels]` to `[out, channels]`.
pub(super) fn along_time(
    plan: &mut PlanBuilder,
    budget: &mut Budget,
    src: View,
    weights: &Arc<Weights>,
) -> Result<View, LoadError> {
    let (steps_in, steps_out) = (weights.in_width, weights.out_width);
    let channels = src.width / steps_in;
    let by_channel = budget.buffer(plan, channels, steps_in)?;
    plan.move_columns(Move::transpose(src, by_channel, channels));
    let mapped = budget.buffer(plan, channels, steps_out)?;
    each_step(plan, by_channel, mapped, weights, Activation::Identity, channels);
    let by_step = budget.buffer(plan, steps_out, channels)?;
    plan.move_columns(Move::transpose(mapped, by_step, steps_out));
    Ok(by_step)
}

/// Decodes the horizon's steps from `context` (`[h, channels]`), with the known future beside it.
pub(super) fn decode_horizon(
    plan: &mut PlanBuilder,
    budget: &mut Budget,
    spec: &ModelSpec,
    input: &StepInput,
    decoder: &Decoder,
    context: View,
) -> Result<View, LoadError> {
    let h = spec.horizon;
    let mut strands = vec![Strand::steps(context, context.width / h)];
    strands.extend(input.futr_of_horizon());
    budget.spend_row(h, strands.iter().map(|strand| strand.columns).sum())?;
    let src = weave(plan, h, &strands);
    let hidden = decoder.hidden(plan, budget, h)?;
    let output = plan.buffer(h * spec.head.network_width());
    decoder.record(plan, src, &hidden, output, h);
    Ok(output)
}

/// Input, hidden and output widths of `mlp_decoder`.
pub(super) fn decoder_widths(
    hparams: &Hparams,
    in_width: usize,
    out_width: usize,
) -> Result<Vec<usize>, LoadError> {
    let layer_count = layer_count(hparams, "decoder_layers")?;
    let mut widths = vec![in_width];
    if layer_count > 1 {
        widths.extend(std::iter::repeat_n(hparams.size("decoder_hidden_size")?, layer_count - 1));
    }
    widths.push(out_width);
    Ok(widths)
}

/// A hyper-parameter that says how many layers there are.
pub(super) fn layer_count(hparams: &Hparams, name: &'static str) -> Result<usize, LoadError> {
    let len = hparams.size(name)?;
    if len > LAYERS_MAX {
        return Err(LoadError::TooLarge { what: name, len, len_max: LAYERS_MAX });
    }
    Ok(len)
}

/// A hyper-parameter that names an activation without weights; ReLU where the file says nothing.
pub(super) fn activation(hparams: &Hparams, name: &str) -> Result<Activation, LoadError> {
    match hparams.text_if_set(name)? {
        None => Ok(Activation::Relu),
        Some("PReLU") => Err(LoadError::unsupported(format!("`{name}` = PReLU"))),
        Some(other) => stack_weights::activation(other, &[]),
    }
}

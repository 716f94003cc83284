//! Forecasts one step, takes it for the next observation, and goes on: LSTM and GRU on request, DeepAR always.

use crate::loader::LoadError;
use crate::{Family, Head, ModelSpec, NormalizerKind, Plan, PlanBuilder};

use super::dense::Budget;
use super::recurrent::Stack;
use super::steps::{Decoder, StepInput};

/// Commands of one plan; each is a launch on a device.
const COMMANDS_MAX: usize = 1 << 14;

/// Refuses what a recursive forecast leaves open.
pub(super) fn check(spec: &ModelSpec) -> Result<(), LoadError> {
    let class = spec.family.class();
    if !spec.hist_exog.is_empty() {
        let what = format!("past-only exogenous columns in a recursive {class}: their future is unknown");
        return Err(LoadError::unsupported(what));
    }
    // What goes back in is the distribution's mean, scaled again; only where scaling is undone by shift and factor
    // is that the network's own output.
    let is_plain = matches!(
        spec.normalizer,
        NormalizerKind::Identity | NormalizerKind::Standard | NormalizerKind::Robust | NormalizerKind::MinMax
    );
    if matches!(spec.head, Head::StudentT | Head::Normal) && !is_plain {
        let what = format!("this scaler_type with the distribution of a recursive {class}");
        return Err(LoadError::unsupported(what));
    }
    if spec.family == Family::Deepar && matches!(spec.head, Head::Point | Head::Quantiles(_)) {
        return Err(LoadError::unsupported("DeepAR without a distribution"));
    }
    Ok(())
}

/// The column of a step's output that is fed back.
fn feedback_column(head: &Head) -> usize {
    match head {
        // All columns of quantiles hold their mean; see [`averages`].
        Head::Point | Head::Quantiles(_) | Head::Normal => 0,
        Head::StudentT => 1,
    }
}

/// Whether every column of a step becomes the mean over the network's outputs.
pub(super) fn averages(head: &Head) -> bool {
    matches!(head, Head::Quantiles(_))
}

/// The window once, then step after step; `decoder` turns `h` of the top layer into a step's output.
pub(super) fn plan(
    spec: &ModelSpec,
    mut plan: PlanBuilder,
    input: &StepInput,
    stack: &Stack,
    decoder: &Decoder,
    budget: &mut Budget,
) -> Result<Plan, LoadError> {
    let outputs = spec.head.network_width();
    // Gates and cell of each layer, the decoder's layers, and at most three moves into the next input.
    let per_step = 2 * stack.layer_count() + decoder.layer_count() + 3;
    budget_commands(spec.horizon.saturating_mul(per_step))?;

    let output = plan.buffer(spec.horizon * outputs);
    let states = stack.states(&mut plan);
    let hidden = decoder.hidden(&mut plan, budget, 1)?;

    let window = input.window(&mut plan);
    let run = stack.run(&mut plan, budget, spec.window)?;
    stack.record(&mut plan, window, &run, &states, false);
    decoder.record(&mut plan, run.last(1), &hidden, output.slice(0, outputs), 1);
    if spec.horizon == 1 {
        return Ok(plan.finish(output));
    }

    let run = stack.run(&mut plan, budget, 1)?;
    let woven = (input.width() > 1).then(|| plan.buffer(input.width()));
    for step in 1..spec.horizon {
        let value = output.slice((step - 1) * outputs + feedback_column(&spec.head), 1);
        let src = match woven {
            None => value,
            Some(woven) => {
                input.ahead(&mut plan, step, value, woven);
                woven
            }
        };
        stack.record(&mut plan, src, &run, &states, true);
        decoder.record(&mut plan, run.last(1), &hidden, output.slice(step * outputs, outputs), 1);
    }
    Ok(plan.finish(output))
}

fn budget_commands(len: usize) -> Result<(), LoadError> {
    if len <= COMMANDS_MAX {
        return Ok(());
    }
    Err(LoadError::TooLarge { what: "the plan's command count", len, len_max: COMMANDS_MAX })
}

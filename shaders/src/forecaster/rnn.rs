//! LSTM and GRU: recurrent layers, then either a decoder on the last steps or one step after the other.

use std::sync::Arc;

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Cell, Family, ModelSpec, PlanBuilder, Weights};

use super::dense::{Budget, Dense};
use super::network::{Anchor, Layout, Network, Order};
use super::recurrent::StackShape;
use super::recursion;
use super::steps::{self, Decoder, StepInput};

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let recursive = hparams.flag("recurrent")?;
    if recursive {
        recursion::check(spec)?;
    }
    let mut plan = PlanBuilder::new(&spec.name);
    let input = StepInput::of(spec, plan.input(Layout::of(spec).width()), recursive);
    let cell = if spec.family == Family::Gru { Cell::Gru } else { Cell::Lstm };
    let outputs = spec.head.network_width();
    let shape = StackShape {
        cell,
        layer_count: steps::layer_count(hparams, "encoder_n_layers")?,
        in_width: input.width(),
        units: hparams.size("encoder_hidden_size")?,
        projected: (recursive && cell == Cell::Lstm).then_some(outputs),
        biased: hparams.flag_or("encoder_bias", true)?,
    };
    let mut budget = Budget::default();
    let stack = shape.take(archive, &mut budget)?;

    let plan = if recursive {
        let decoder = Decoder::single(step_output(spec, archive, &mut budget, shape)?);
        recursion::plan(spec, plan, &input, &stack, &decoder, &mut budget)?
    } else {
        let activation = steps::activation(hparams, "decoder_activation")?;
        let widths = steps::decoder_widths(hparams, shape.units + spec.futr_exog.len(), outputs)?;
        let decoder = Decoder::take(archive, &mut budget, "mlp_decoder", &widths, activation)?;

        let window = input.window(&mut plan);
        let run = stack.run(&mut plan, &mut budget, spec.window)?;
        let states = stack.states(&mut plan);
        stack.record(&mut plan, window, &run, &states, false);
        let context = if spec.horizon > spec.window {
            const NAME: &str = "upsample_sequence";
            budget.spend(spec.horizon, spec.window)?;
            let upsample = Dense::take(archive, NAME, spec.horizon, spec.window)?.weights(NAME)?;
            steps::along_time(&mut plan, &mut budget, run.last(spec.window), &upsample)?
        } else {
            run.last(spec.horizon)
        };
        let output = steps::decode_horizon(&mut plan, &mut budget, spec, &input, &decoder, context)?;
        plan.finish(output)
    };
    Ok(Network { plan, order: Order::OldestFirst, anchor: Anchor::None, masked: false })
}

/// From `h` to a step's output in a recursive model: the GRU's projection (the LSTM has it inside), and the mean over
/// quantiles, which is what the library feeds back and also what it reports.
fn step_output(
    spec: &ModelSpec,
    archive: &Archive,
    budget: &mut Budget,
    shape: StackShape,
) -> Result<Arc<Weights>, LoadError> {
    const NAME: &str = "proj";
    let outputs = spec.head.network_width();
    budget.spend(outputs, shape.out_width())?;
    let mut layer = match shape.cell {
        Cell::Lstm => Dense::identity(outputs),
        Cell::Gru => Dense::take(archive, NAME, outputs, shape.units)?,
    };
    if recursion::averages(&spec.head) {
        layer = layer.averaged();
    }
    layer.weights(NAME)
}

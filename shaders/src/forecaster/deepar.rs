//! DeepAR: recursive LSTM layers, and a decoder that gives the parameters of a distribution.

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Cell, PlanBuilder};

use super::dense::Budget;
use super::network::{Anchor, Layout, Network, Order};
use super::recurrent::StackShape;
use super::recursion;
use super::steps::{self, Decoder, LAYERS_MAX, StepInput};

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    recursion::check(spec)?;
    let mut plan = PlanBuilder::new(&spec.name);
    let input = StepInput::of(spec, plan.input(Layout::of(spec).width()), true);
    let shape = StackShape {
        cell: Cell::Lstm,
        layer_count: steps::layer_count(hparams, "lstm_n_layers")?,
        in_width: input.width(),
        units: hparams.size("lstm_hidden_size")?,
        projected: None,
        biased: true,
    };
    let mut budget = Budget::default();
    let stack = shape.take(archive, &mut budget)?;

    let hidden_count = hparams.count("decoder_hidden_layers")?;
    if hidden_count >= LAYERS_MAX {
        return Err(LoadError::TooLarge {
            what: "decoder_hidden_layers",
            len: hidden_count,
            len_max: LAYERS_MAX - 1,
        });
    }
    let mut widths = vec![shape.units];
    if hidden_count > 0 {
        widths.extend(std::iter::repeat_n(hparams.size("decoder_hidden_size")?, hidden_count));
    }
    widths.push(spec.head.network_width());
    let activation = steps::activation(hparams, "decoder_activation")?;
    let decoder = Decoder::take(archive, &mut budget, "decoder", &widths, activation)?;

    let plan = recursion::plan(spec, plan, &input, &stack, &decoder, &mut budget)?;
    Ok(Network { plan, order: Order::OldestFirst, anchor: Anchor::None, masked: false })
}

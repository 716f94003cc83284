//! MLP: the flattened window through plain layers.

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Activation, Linear, PlanBuilder};

use super::dense::{Budget, Dense};
use super::network::{Anchor, Layout, Network, Order};

const LAYERS_MAX: usize = 64;

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let layer_count = hparams.size("num_layers")?;
    if layer_count > LAYERS_MAX {
        return Err(LoadError::TooLarge { what: "num_layers", len: layer_count, len_max: LAYERS_MAX });
    }
    let hidden_width = hparams.size("hidden_size")?;
    let out_width = spec.horizon * spec.head.network_width();

    let mut plan = PlanBuilder::new(&spec.name);
    let mut src = plan.input(Layout::of(spec).width());
    let mut budget = Budget::default();
    for number in 0..=layer_count {
        let is_output = number == layer_count;
        let name = if is_output { "out".to_owned() } else { format!("mlp.{number}") };
        let width = if is_output { out_width } else { hidden_width };
        let activation = if is_output { Activation::Identity } else { Activation::Relu };
        budget.spend(width, src.width)?;
        let weights = Dense::take(archive, &name, width, src.width)?.weights(&name)?;
        let dst = plan.buffer(width);
        plan.linear(Linear::plain(src, dst, weights, activation));
        src = dst;
    }
    Ok(Network { plan: plan.finish(src), order: Order::OldestFirst, anchor: Anchor::None, masked: false })
}

//! NLinear: one layer over the differences to the last value.

use crate::loader::{Archive, Blueprint, LoadError};
use crate::{Activation, Linear, ModelSpec, PlanBuilder};

use super::dense::{Budget, Dense};
use super::network::{Anchor, Layout, Network, Order};

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let spec = &blueprint.spec;
    let layer = Dense::take(archive, "linear", spec.horizon * spec.head.network_width(), spec.window)?;
    single_layer(spec, &layer, Anchor::Difference)
}

/// A plan of one layer over `y`.
pub(super) fn single_layer(spec: &ModelSpec, layer: &Dense, anchor: Anchor) -> Result<Network, LoadError> {
    Budget::default().spend(layer.out_width, layer.in_width)?;
    let mut plan = PlanBuilder::new(&spec.name);
    let src = plan.input(Layout::of(spec).width());
    let dst = plan.buffer(layer.out_width);
    let weights = layer.weights("linear")?;
    plan.linear(Linear::plain(src, dst, weights, Activation::Identity));
    Ok(Network { plan: plan.finish(dst), order: Order::OldestFirst, anchor, masked: false })
}

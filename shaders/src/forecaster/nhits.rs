//! NHITS: pooled inputs, few knots per block, interpolated to the horizon.

use crate::PoolMode;
use crate::loader::{Archive, Blueprint, LoadError};

use super::block::{self, Block, Projection};
use super::dense::{Budget, Sparse};
use super::interpolation::Interpolation;
use super::network::Network;
use super::stack_weights::{BlockShape, stack_of_block};

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let (window, horizon, outputs) = (spec.window, spec.horizon, spec.head.network_width());
    let types = hparams.texts("stack_types")?;
    if let Some(other) = types.iter().find(|name| *name != "identity") {
        return Err(LoadError::unsupported(format!("NHITS stack type `{other}`")));
    }
    let kernels = hparams.sizes("n_pool_kernel_size")?;
    let downsamples = hparams.sizes("n_freq_downsample")?;
    if kernels.len() != types.len() || downsamples.len() != types.len() {
        return Err(LoadError::parameter(
            "n_pool_kernel_size",
            "needs one entry per stack, as n_freq_downsample",
        ));
    }
    let pool = match hparams.text("pooling_mode")? {
        "MaxPool1d" => PoolMode::Max,
        "AvgPool1d" => PoolMode::Mean,
        other => return Err(LoadError::unsupported(format!("pooling_mode `{other}`"))),
    };
    let interpolation = Interpolation::parse(hparams.text("interpolation_mode")?)?;
    if interpolation == Interpolation::Cubic && outputs != 1 {
        return Err(LoadError::unsupported("cubic interpolation of more than one output"));
    }
    let shape = BlockShape::read(hparams)?;

    let mut budget = Budget::default();
    let mut blocks = Vec::new();
    for (index, stack) in stack_of_block(hparams, types.len())?.into_iter().enumerate() {
        let kernel = kernels[stack];
        let knots = (horizon / downsamples[stack]).max(1);
        let theta_width = window + outputs * knots;
        budget.spend_terms(horizon * outputs, interpolation.tap_count())?;
        let in_width = shape.theta_in_width();
        let shape = &shape;
        blocks.push(Block {
            kernel,
            pool,
            backcast: Projection { outputs: 0..window, in_width, basis: None },
            forecast: Projection {
                outputs: window..theta_width,
                in_width,
                basis: Some(knots_to_steps(interpolation, knots, horizon, outputs)),
            },
            layers: Box::new(move || {
                shape.take(archive, index, block::input_width(spec, kernel), theta_width)
            }),
        });
    }
    block::record(spec, blocks, budget)
}

/// From knots, output-major, to steps, step-major.
fn knots_to_steps(interpolation: Interpolation, knots: usize, horizon: usize, outputs: usize) -> Sparse {
    let mut rows = Vec::with_capacity(horizon * outputs);
    for taps in interpolation.taps(knots, horizon) {
        for output in 0..outputs {
            rows.push(taps.iter().map(|&(knot, weight)| (output * knots + knot, weight)).collect());
        }
    }
    Sparse { in_width: outputs * knots, rows }
}

//! NBEATS: blocks that expand coefficients in a stored basis.

use crate::PoolMode;
use crate::loader::{Archive, Blueprint, Hparams, LoadError};

use super::block::{self, Block, Projection};
use super::dense::{Budget, Sparse};
use super::network::Network;
use super::stack_weights::{BlockShape, stack_of_block};

pub(super) fn build(blueprint: &Blueprint, archive: &Archive) -> Result<Network, LoadError> {
    let Blueprint { spec, hparams } = blueprint;
    let types = hparams.texts("stack_types")?;
    let shape = BlockShape::read(hparams)?;
    let mut budget = Budget::default();
    let mut blocks = Vec::new();
    for (index, stack) in stack_of_block(hparams, types.len())?.into_iter().enumerate() {
        let expansion = Expansion::read(blueprint, archive, &mut budget, &types[stack], index)?;
        let theta_width = expansion.theta_width();
        let (backcast, forecast) = expansion.split(shape.theta_in_width());
        let shape = &shape;
        blocks.push(Block {
            kernel: 1,
            pool: PoolMode::Max,
            backcast,
            forecast,
            layers: Box::new(move || shape.take(archive, index, spec.window, theta_width)),
        });
    }
    block::record(spec, blocks, budget)
}

/// How a block's theta becomes backcast and forecast.
enum Expansion {
    /// As it is: backcast, then forecast step-major.
    Identity { window: usize, forecast_width: usize },
    /// Sums of the rows of a basis.
    Basis { terms: usize, outputs: usize, backcast: Sparse, forecast: Sparse },
}

impl Expansion {
    fn read(
        blueprint: &Blueprint,
        archive: &Archive,
        budget: &mut Budget,
        stack_type: &str,
        index: usize,
    ) -> Result<Self, LoadError> {
        let Blueprint { spec, hparams } = blueprint;
        let (window, horizon, outputs) = (spec.window, spec.horizon, spec.head.network_width());
        if stack_type == "identity" {
            return Ok(Self::Identity { window, forecast_width: horizon * outputs });
        }
        let name = |side: &str| format!("blocks.{index}.basis.{side}_basis");
        let backcast_name = name("backcast");
        let stored = match archive.shape(&backcast_name) {
            Some(&[terms, _]) => terms,
            Some(other) => return Err(wrong_basis(backcast_name, other, window)),
            None => return Err(LoadError::MissingTensor { name: backcast_name }),
        };
        let terms = match stack_type {
            "trend" => trend_terms(hparams)?,
            "seasonality" => seasonality_terms(hparams, horizon)?,
            other => return Err(LoadError::unsupported(format!("NBEATS stack type `{other}`"))),
        };
        if terms != stored {
            return Err(wrong_basis(backcast_name, &[stored, window], terms));
        }
        budget.spend_terms(window + horizon * outputs, terms)?;
        let backcast_basis = archive.take(&backcast_name, &[terms, window])?;
        let forecast_basis = archive.take(&name("forecast"), &[terms, horizon])?;
        Ok(Self::Basis {
            terms,
            outputs,
            backcast: expand(&backcast_basis, terms, window, 1),
            forecast: expand(&forecast_basis, terms, horizon, outputs),
        })
    }

    fn theta_width(&self) -> usize {
        match self {
            Self::Identity { window, forecast_width } => window + forecast_width,
            Self::Basis { terms, outputs, .. } => terms * (1 + outputs),
        }
    }

    fn split(self, in_width: usize) -> (Projection, Projection) {
        let all = self.theta_width();
        let (first, backcast, forecast) = match self {
            Self::Identity { window, .. } => (window, None, None),
            Self::Basis { terms, backcast, forecast, .. } => (terms, Some(backcast), Some(forecast)),
        };
        (
            Projection { outputs: 0..first, in_width, basis: backcast },
            Projection { outputs: first..all, in_width, basis: forecast },
        )
    }
}

/// `n_polynomials` is the older name and wins where it is set.
fn trend_terms(hparams: &Hparams) -> Result<usize, LoadError> {
    let degree = match hparams.size_if_set("n_polynomials")? {
        Some(degree) => degree,
        None => hparams.size("n_basis")?,
    };
    Ok(degree + 1)
}

/// One cosine and one sine for the constant and for each of `arange(n, n/2·h)`.
fn seasonality_terms(hparams: &Hparams, horizon: usize) -> Result<usize, LoadError> {
    let harmonics = hparams.size("n_harmonics")?;
    let frequencies = (harmonics * horizon).div_ceil(2).saturating_sub(harmonics) + 1;
    Ok(2 * frequencies)
}

/// `out[t, q] = Σ_p theta[p, q] · basis[p, t]`.
fn expand(basis: &[f64], terms: usize, steps: usize, outputs: usize) -> Sparse {
    let mut rows = Vec::with_capacity(steps * outputs);
    for step in 0..steps {
        for output in 0..outputs {
            rows.push((0..terms).map(|p| (p * outputs + output, basis[p * steps + step])).collect());
        }
    }
    Sparse { in_width: terms * outputs, rows }
}

fn wrong_basis(name: String, got: &[usize], terms: usize) -> LoadError {
    LoadError::TensorShape { name, got: got.to_vec(), want: format!("{terms} basis rows") }
}

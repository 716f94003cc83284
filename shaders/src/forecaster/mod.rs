//! A model ready to forecast: its shape, its plan, and the arithmetic around the plan.
//!
//! Immutable and shared; the executor and the scratch are the caller's. The plan sees normalized numbers only:
//! statistics, the level, the head and the way back to raw units are done here, in f64.

mod anchor;
mod block;
mod deepar;
mod dense;
mod dlinear;
mod interpolation;
mod mlp;
mod nbeats;
mod network;
mod nhits;
mod nlinear;
mod norm;
mod patchtst;
mod pipeline;
mod recorder;
mod recurrent;
mod recursion;
mod rnn;
mod stack_weights;
mod steps;
mod tcn;
#[cfg(test)]
mod tests;
mod tide;
mod tsmixer;

use std::path::Path;
use std::sync::Arc;

pub use pipeline::Scratch;

use crate::loader::{self, Archive, Blueprint, LoadError};
use crate::normalizer::Normalizer;
use crate::{ExecuteError, Executor, ModelSpec, NormalizerKind, Plan, Windows};
use network::{Anchor, Network, Order};

/// Spec, plan, normalizer and head of one model.
#[derive(Debug)]
pub struct Forecaster {
    spec: Arc<ModelSpec>,
    plan: Arc<Plan>,
    digest: String,
    normalizer: Normalizer,
    order: Order,
    anchor: Anchor,
    masked: bool,
}

impl Forecaster {
    /// Loads a model folder: `model.json` and `weights.safetensors`, both untrusted.
    ///
    /// # Errors
    /// When a file is malformed, too large or contradicts itself, or asks for something this build cannot do.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let (blueprint, archive) = loader::read_folder(dir)?;
        Self::build(blueprint, &archive)
    }

    /// Loads the library's own `.safetensors`, which carries the hyper-parameters in its header. Untrusted too.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_native(file: &Path) -> Result<Self, LoadError> {
        let (blueprint, archive) = loader::read_native(file)?;
        Self::build(blueprint, &archive)
    }

    pub(crate) fn build(blueprint: Blueprint, archive: &Archive) -> Result<Self, LoadError> {
        let Network { plan, order, anchor, masked } = Network::build(&blueprint, archive)?;
        Ok(Self {
            normalizer: normalizer(&blueprint.spec, archive)?,
            spec: Arc::new(blueprint.spec),
            plan: Arc::new(plan),
            digest: archive.digest().to_owned(),
            order,
            anchor,
            masked,
        })
    }

    /// The same model under another name: in a repository a model is called what its folder is called.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        if self.spec.name != name {
            self.spec = Arc::new(ModelSpec { name: name.to_owned(), ..(*self.spec).clone() });
        }
        self
    }

    /// The shape of its question and answer.
    #[must_use]
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// What executors run. Its inputs are laid out by [`Self::forecast`].
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Hex SHA-256 of the weights file.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Forecasts every row of `windows`, which must have passed [`Windows::check`] against [`Self::spec`]. `out`
    /// becomes `[rows, h, C]`, or `[rows, h, N, C]` with several series. Allocates nothing once `scratch` and `out` have grown to the batch.
    ///
    /// # Errors
    /// What the executor says, or [`ExecuteError::NotFinite`] for the first row whose scaled input or answer leaves
    /// f32.
    ///
    /// # Panics
    /// When `windows` has not been checked: a programmer's error.
    pub fn forecast(
        &self,
        executor: &mut dyn Executor,
        windows: &Windows,
        scratch: &mut Scratch,
        out: &mut Vec<f32>,
    ) -> Result<(), ExecuteError> {
        self.prepare(windows, scratch)?;
        let inputs = [scratch.features.as_slice(), scratch.mask.as_slice()];
        executor.run(&self.plan, windows.rows, &inputs[..1 + usize::from(self.masked)], &mut scratch.raw)?;
        self.finish(windows.rows, scratch, out)
    }
}

fn normalizer(spec: &ModelSpec, archive: &Archive) -> Result<Normalizer, LoadError> {
    let normalizer = Normalizer::new(spec.normalizer);
    if spec.normalizer != NormalizerKind::Revin {
        return Ok(normalizer);
    }
    // Index 0 is y; only it is needed on the way out.
    let first = |name: &str| -> Result<f64, LoadError> {
        let missing = || LoadError::MissingTensor { name: name.to_owned() };
        let shape = archive.shape(name).ok_or_else(missing)?.to_vec();
        let first = archive.take(name, &shape)?.first().copied();
        first.ok_or_else(|| LoadError::TensorShape {
            name: name.to_owned(),
            got: shape,
            want: "at least one number".to_owned(),
        })
    };
    Ok(normalizer.with_affine(first("scaler.revin_weight")?, first("scaler.revin_bias")?))
}

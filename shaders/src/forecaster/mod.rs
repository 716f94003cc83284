//! A model ready to forecast: one trained network, or an ensemble of them.
//!
//! Immutable and shared; the executor and the scratch are the caller's. The plan sees normalized numbers only:
//! statistics, the level, the head and the way back to raw units are done here, in f64.

mod anchor;
mod block;
mod deepar;
mod dense;
mod dlinear;
mod ensemble;
mod interpolation;
mod mlp;
mod nbeats;
mod network;
mod nhits;
mod nlinear;
mod norm;
mod patchtst;
mod pipeline;
mod product;
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
mod trained;
mod tsmixer;

use std::path::Path;
use std::sync::Arc;

pub use pipeline::Scratch;

use crate::loader::{self, Archive, Blueprint, LoadError};
use crate::{ExecuteError, Executor, Files, ModelSpec, PlainFiles, Plan, Precision, Windows};
use ensemble::Ensemble;
use trained::Trained;

/// A model: the shape of its question and answer, and what answers.
#[derive(Debug)]
pub struct Forecaster {
    spec: Arc<ModelSpec>,
    digest: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Trained(Box<Trained>),
    Ensemble(Ensemble),
}

impl Forecaster {
    /// Loads a model folder: `model.json` and `weights.safetensors`, the library's own `native.safetensors`, or
    /// `ensemble.json` and the folders that it names in the same repository. All of it is untrusted.
    ///
    /// # Errors
    /// When a file is malformed, too large or contradicts itself, or asks for something this build cannot do.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        Self::load_from(dir, &PlainFiles)
    }

    /// The same, from wherever the files come.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_from(dir: &Path, files: &dyn Files) -> Result<Self, LoadError> {
        Self::load_choosing(dir, files, &|_| None)
    }

    /// The same, where `version` says of which version an ensemble's member is; without a say, and where there is no such
    /// version or it does not load, the highest that does. A member that names its version is that one.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_choosing(
        dir: &Path,
        files: &dyn Files,
        version: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<Self, LoadError> {
        if loader::is_ensemble(dir) {
            let blueprint = loader::read_ensemble(dir, files)?;
            let (spec, digest, ensemble) = Ensemble::load(blueprint, files, version)?;
            return Ok(Self { spec: Arc::new(spec), digest, kind: Kind::Ensemble(ensemble) });
        }
        Trained::load(dir, files).map(Self::from)
    }

    /// Loads the library's own `.safetensors`, which carries the hyper-parameters in its header. Untrusted too.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_native(file: &Path, files: &dyn Files) -> Result<Self, LoadError> {
        let (blueprint, archive) = loader::read_native(file, files)?;
        Self::build(blueprint, &archive)
    }

    /// The models that the ensemble in `dir` names; none where there is no ensemble.
    ///
    /// # Errors
    /// When `ensemble.json` cannot be read.
    pub fn members(dir: &Path, files: &dyn Files) -> Result<Vec<String>, LoadError> {
        loader::members_of(dir, files)
    }

    pub(crate) fn build(blueprint: Blueprint, archive: &Archive) -> Result<Self, LoadError> {
        Trained::build(blueprint, archive).map(Self::from)
    }

    /// The same model under another name: in a repository a model is called what its folder is called.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        if self.spec.name != name {
            self.spec = Arc::new(ModelSpec { name: name.to_owned(), ..(*self.spec).clone() });
        }
        self
    }

    /// The same model with matrices of halves, which says so behind its digest; `None` when a weight is larger than a half
    /// can be.
    #[must_use]
    pub fn halved(&self) -> Option<Self> {
        self.rounded(Precision::F16)
    }

    /// The same model, as trained, with matrices rounded to what `precision` keeps, which says so behind its digest; `None` when
    /// a weight is larger than that can be.
    #[must_use]
    pub fn rounded(&self, precision: Precision) -> Option<Self> {
        let kind = match &self.kind {
            Kind::Trained(trained) => Kind::Trained(Box::new(trained.rounded(precision)?)),
            Kind::Ensemble(ensemble) => Kind::Ensemble(ensemble.rounded(precision)?),
        };
        Some(Self { spec: Arc::clone(&self.spec), digest: precision.sign(&self.digest), kind })
    }

    /// How exactly its matrices are kept.
    #[must_use]
    pub fn precision(&self) -> Precision {
        Precision::of_digest(&self.digest).1
    }

    /// Whether the network sees normalized numbers only, so that none of its inputs outgrows a half.
    #[must_use]
    pub fn is_normalized(&self) -> bool {
        match &self.kind {
            Kind::Trained(trained) => trained.is_normalized(),
            Kind::Ensemble(ensemble) => ensemble.is_normalized(),
        }
    }

    /// The shape of its question and answer.
    #[must_use]
    pub fn spec(&self) -> &Arc<ModelSpec> {
        &self.spec
    }

    /// What executors run: one plan, or one of each member.
    pub fn plans(&self) -> impl Iterator<Item = &Arc<Plan>> {
        let (one, many) = match &self.kind {
            Kind::Trained(trained) => (Some(&trained.plan), None),
            Kind::Ensemble(ensemble) => (None, Some(ensemble.plans())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Multiply-adds of one row.
    #[must_use]
    pub fn row_macs(&self) -> usize {
        self.plans().map(|plan| plan.row_macs()).sum()
    }

    /// Bytes of all weights as they are kept.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.plans().map(|plan| plan.weight_bytes()).sum()
    }

    /// Hex SHA-256 of the weights file; for an ensemble that of its own file and its members' digests. `+f16` or `+int8`
    /// behind it: the matrices were rounded, so that the same file answers otherwise.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Forecasts every row of `windows`, which must have passed [`Windows::check`] against [`Self::spec`]. `out`
    /// becomes `[rows, h, C]`, or `[rows, h, N, C]` with several series. Allocates nothing once `scratch` and `out`
    /// have grown to the batch.
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
        match &self.kind {
            Kind::Trained(trained) => trained.forecast(executor, windows, scratch, out),
            Kind::Ensemble(ensemble) => ensemble.forecast(&self.spec, executor, windows, scratch, out),
        }
    }
}

impl From<Trained> for Forecaster {
    fn from(trained: Trained) -> Self {
        let (spec, digest) = (Arc::clone(&trained.spec), trained.digest.clone());
        Self { spec, digest, kind: Kind::Trained(Box::new(trained)) }
    }
}

//! One trained network: its shape, its plan, and the arithmetic around the plan (`pipeline.rs`).

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::loader::{self, Archive, Blueprint, LoadError, place};
use crate::normalizer::Normalizer;
use crate::{ExecuteError, Executor, Files, ModelSpec, NormalizerKind, Plan, Precision, Windows};

use super::Scratch;
use super::network::{Anchor, Network, Order};

/// Spec, plan, normalizer and head of one network.
#[derive(Debug)]
pub(super) struct Trained {
    pub(super) spec: Arc<ModelSpec>,
    pub(super) plan: Arc<Plan>,
    pub(super) digest: String,
    pub(super) normalizer: Normalizer,
    pub(super) order: Order,
    pub(super) anchor: Anchor,
    pub(super) masked: bool,
}

impl Trained {
    /// From a folder: of `model.json`, or of the library's own file where there is none.
    pub(super) fn load(dir: &Path, files: &dyn Files) -> Result<Self, LoadError> {
        let native = dir.join(place::NATIVE);
        let is_native = !files.holds(&dir.join(place::MODEL)) && files.holds(&native);
        let (blueprint, archive) =
            if is_native { loader::read_native(&native, files) } else { loader::read_folder(dir, files) }?;
        Self::build(blueprint, &archive)
    }

    pub(super) fn build(blueprint: Blueprint, archive: &Archive) -> Result<Self, LoadError> {
        let (network, digest) = beside(archive.bytes(), || Network::build(&blueprint, archive));
        let Network { plan, order, anchor, masked } = network?;
        Ok(Self {
            normalizer: normalizer(&blueprint.spec, archive)?,
            spec: Arc::new(blueprint.spec),
            plan: Arc::new(plan),
            digest,
            order,
            anchor,
            masked,
        })
    }

    /// See [`super::Forecaster::rounded`].
    pub(super) fn rounded(&self, precision: Precision) -> Option<Self> {
        let plan = Arc::new(self.plan.rounded(precision)?);
        Some(Self {
            spec: Arc::clone(&self.spec),
            plan,
            digest: self.digest.clone(),
            normalizer: self.normalizer,
            order: self.order,
            anchor: self.anchor.clone(),
            masked: self.masked,
        })
    }

    /// See [`super::Forecaster::is_normalized`].
    pub(super) fn is_normalized(&self) -> bool {
        self.spec.normalizer != NormalizerKind::Identity
    }

    /// See [`super::Forecaster::forecast`].
    pub(super) fn forecast(
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

/// What `build` makes, and the digest of `file`: of a large one taken by a thread of its own, if there is one to be had.
fn beside<T>(file: &[u8], build: impl FnOnce() -> T) -> (T, String) {
    /// As many as are hashed in some ten times what starting a thread takes.
    const BYTES_MIN: usize = 1 << 20;
    if file.len() < BYTES_MIN {
        return (build(), loader::digest(file));
    }
    thread::scope(|scope| {
        let digest =
            thread::Builder::new().name("digest".to_owned()).spawn_scoped(scope, || loader::digest(file));
        let built = build();
        let digest = digest
            .map_or_else(|_| loader::digest(file), |digest| digest.join().expect("hashing cannot fail"));
        (built, digest)
    })
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

//! Model files, as untrusted input: every size bounded, every shape checked, nothing guessed.
//!
//! Knows no arithmetic: it hands a checked [`Blueprint`] and an [`Archive`] of tensors to the forecaster's families.

mod archive;
mod blueprint;
mod columns;
mod doubles;
mod ensemble;
mod error;
mod file;
mod folder;
mod hparams;
mod native;
pub mod place;

use std::path::Path;

pub use error::LoadError;
pub use file::{Files, PlainFiles};

pub(crate) use archive::{Archive, digest, hex};
pub(crate) use blueprint::Blueprint;
pub(crate) use ensemble::{Combine, EnsembleBlueprint, members_of, read_ensemble};
pub(crate) use folder::CaseFile;
#[cfg(test)]
pub(crate) use folder::parse as parse_model_json;
pub(crate) use hparams::Hparams;
pub(crate) use place::is_ensemble;

/// A model folder: `model.json` and `weights.safetensors`.
pub(crate) fn read_folder(dir: &Path, files: &dyn Files) -> Result<(Blueprint, Archive), LoadError> {
    let (blueprint, _cases) = folder::read(dir, files)?;
    Ok((blueprint, Archive::open(&dir.join(place::WEIGHTS), files)?))
}

/// The library's own file.
pub(crate) fn read_native(path: &Path, files: &dyn Files) -> Result<(Blueprint, Archive), LoadError> {
    let mut archive = Archive::open(path, files)?;
    let blueprint = native::read(path, &mut archive)?;
    Ok((blueprint, archive))
}

/// The stored cases of a model folder.
pub(crate) fn read_cases(dir: &Path, files: &dyn Files) -> Result<(Vec<CaseFile>, Archive), LoadError> {
    let (_blueprint, cases) = folder::read(dir, files)?;
    Ok((cases, Archive::open(&dir.join(place::CASES), files)?))
}

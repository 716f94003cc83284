//! Where models lie: the files of a model's folder, and the folders of its versions. Reads none of them.

use std::io;
use std::path::{Path, PathBuf};

use super::Files;

/// What is computed with which weights.
pub const MODEL: &str = "model.json";
/// Which models are asked together, instead of weights.
pub const ENSEMBLE: &str = "ensemble.json";
/// The weights that `model.json` describes.
pub const WEIGHTS: &str = "weights.safetensors";
/// The library's own file, which needs no other.
pub const NATIVE: &str = "native.safetensors";
/// Windows with the answers that they must have.
pub const CASES: &str = "cases.safetensors";
/// What a model folder may hold that is read.
pub const PARTS: [&str; 5] = [MODEL, ENSEMBLE, WEIGHTS, NATIVE, CASES];

/// Whether `dir` holds an ensemble.
pub(crate) fn is_ensemble(dir: &Path) -> bool {
    dir.join(ENSEMBLE).is_file()
}

/// Is this the folder of one version? So is one whose file cannot be read because it is a pipe, a folder or a link to
/// nothing: whoever loads it says what is wrong.
#[must_use]
pub fn holds_model(dir: &Path, files: &dyn Files) -> bool {
    let is_there = |path: &Path| files.holds(path) || path.symlink_metadata().is_ok();
    [MODEL, ENSEMBLE, NATIVE].iter().any(|file| is_there(&dir.join(file)))
}

/// The versions of a model in its folder, the lowest first; a folder without numbers is version 1.
///
/// # Errors
/// When the folder cannot be listed.
pub fn versions(dir: &Path, files: &dyn Files) -> io::Result<Vec<(u32, PathBuf)>> {
    if holds_model(dir, files) {
        return Ok(vec![(1, dir.to_owned())]);
    }
    let mut found = Vec::new();
    for below in dir.read_dir()? {
        let below = below?;
        let number = below.file_name().to_str().and_then(version_number);
        found.extend(number.map(|number| (number, below.path())));
    }
    found.retain(|(_, dir)| holds_model(dir, files));
    found.sort();
    Ok(found)
}

/// The version that the folder of this name holds: `7`, not `07` nor `+7`, since two folders must not be one version.
#[must_use]
pub fn version_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == name)
}

//! `ensemble.json`: which models of a repository are asked together, and how their answers are joined.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::{Files, LoadError};

const FILE: &str = "ensemble.json";
const JSON_BYTES_MAX: u64 = 1 << 20;
const MEMBERS_MAX: usize = 32;
/// Beyond it sums lose digits, or become infinite.
const WEIGHTS: std::ops::RangeInclusive<f64> = 1e-6..=1e6;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnsembleFile {
    format: u32,
    name: String,
    combine: Combine,
    members: Vec<MemberFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberFile {
    model: String,
    #[serde(default = "one")]
    weight: f64,
}

/// How answers are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Combine {
    /// Weighted mean.
    Mean,
    /// Median; weights are refused.
    Median,
}

/// As written, names and numbers checked.
#[derive(Debug)]
pub(crate) struct EnsembleBlueprint {
    pub(crate) name: String,
    pub(crate) combine: Combine,
    pub(crate) members: Vec<MemberBlueprint>,
    /// The file's own bytes, for the digest.
    pub(crate) bytes: Vec<u8>,
}

/// One member.
#[derive(Debug)]
pub(crate) struct MemberBlueprint {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Positive.
    pub(crate) weight: f64,
}

fn one() -> f64 {
    1.0
}

/// Whether `dir` holds an ensemble.
pub(crate) fn is_ensemble(dir: &Path) -> bool {
    dir.join(FILE).is_file()
}

/// Reads `dir/ensemble.json`; members lie beside `dir`, in the same repository.
pub(crate) fn read_ensemble(dir: &Path, files: &dyn Files) -> Result<EnsembleBlueprint, LoadError> {
    let path = dir.join(FILE);
    let bytes = files.read(&path, JSON_BYTES_MAX)?;
    let what = || path.display().to_string();
    let written: EnsembleFile =
        serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { what: what(), source })?;
    if written.format != 1 {
        return Err(LoadError::unsupported(format!("ensemble.json format {}", written.format)));
    }
    let count = written.members.len();
    if !(1..=MEMBERS_MAX).contains(&count) {
        return Err(LoadError::parameter("members", format!("are {count}, wanted 1..={MEMBERS_MAX}")));
    }
    let member = |member: MemberFile| -> Result<MemberBlueprint, LoadError> {
        let MemberFile { model, weight } = member;
        if !WEIGHTS.contains(&weight) {
            let [low, high] = [WEIGHTS.start(), WEIGHTS.end()];
            let what = format!("of `{model}` is {weight:e}, wanted {low:e} to {high:e}");
            return Err(LoadError::parameter("weight", what));
        }
        if written.combine == Combine::Median && weight != 1.0 {
            return Err(LoadError::parameter("weight", "means nothing to a median"));
        }
        Ok(MemberBlueprint { dir: beside(dir, &model)?, weight })
    };
    let members = written.members.into_iter().map(member).collect::<Result<_, _>>()?;
    Ok(EnsembleBlueprint { name: written.name, combine: written.combine, members, bytes })
}

/// The folder `model` (`NAME` or `NAME/VERSION`) of the repository that holds `dir`, which is `NAME` or `NAME/VERSION`
/// itself. Nothing outside the repository can be named.
fn beside(dir: &Path, model: &str) -> Result<PathBuf, LoadError> {
    let inside = Path::new(model);
    let parts: Vec<Component<'_>> = inside.components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    if !plain || !(1..=2).contains(&parts.len()) {
        return Err(LoadError::parameter("model", format!("`{model}` is not NAME or NAME/VERSION")));
    }
    let homes = dir.ancestors().skip(1).take(2);
    let found = homes.map(|home| home.join(inside)).find(|member| member.join("model.json").is_file());
    found.ok_or_else(|| LoadError::parameter("model", format!("`{model}` is not in the repository")))
}

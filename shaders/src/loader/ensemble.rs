//! `ensemble.json`: which models of a repository are asked together, and how their answers are joined.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::place::{ENSEMBLE, is_ensemble, version_number, versions};
use super::{Files, LoadError};

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
    version: Option<u32>,
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
    /// As written, the version behind it if one was.
    pub(crate) name: String,
    /// The folders of its versions, of which the first that loads is meant; one at least.
    pub(crate) dirs: Vec<PathBuf>,
    /// Positive.
    pub(crate) weight: f64,
}

fn one() -> f64 {
    1.0
}

/// The models that `dir/ensemble.json` names, without versions; none where `dir` holds no ensemble.
pub(crate) fn members_of(dir: &Path, files: &dyn Files) -> Result<Vec<String>, LoadError> {
    if !is_ensemble(dir) {
        return Ok(Vec::new());
    }
    let (written, _) = parse(dir, files)?;
    let name = |member: MemberFile| member.model.split('/').next().unwrap_or_default().to_owned();
    Ok(written.members.into_iter().map(name).collect())
}

/// Reads `dir/ensemble.json`; members lie beside `dir`, in the same repository.
pub(crate) fn read_ensemble(dir: &Path, files: &dyn Files) -> Result<EnsembleBlueprint, LoadError> {
    let (written, bytes) = parse(dir, files)?;
    let count = written.members.len();
    if !(1..=MEMBERS_MAX).contains(&count) {
        return Err(LoadError::parameter("members", format!("are {count}, wanted 1..={MEMBERS_MAX}")));
    }
    let member = |member: MemberFile| -> Result<MemberBlueprint, LoadError> {
        let MemberFile { model, version, weight } = member;
        if !WEIGHTS.contains(&weight) {
            let [low, high] = [WEIGHTS.start(), WEIGHTS.end()];
            let what = format!("of `{model}` is {weight:e}, wanted {low:e} to {high:e}");
            return Err(LoadError::parameter("weight", what));
        }
        if written.combine == Combine::Median && weight != 1.0 {
            return Err(LoadError::parameter("weight", "means nothing to a median"));
        }
        let (name, version) = named(&model, version)?;
        let dirs = beside(dir, name, version, files)?;
        let name = version.map_or_else(|| name.to_owned(), |version| format!("{name}/{version}"));
        Ok(MemberBlueprint { name, dirs, weight })
    };
    let members = written.members.into_iter().map(member).collect::<Result<_, _>>()?;
    Ok(EnsembleBlueprint { name: written.name, combine: written.combine, members, bytes })
}

fn parse(dir: &Path, files: &dyn Files) -> Result<(EnsembleFile, Vec<u8>), LoadError> {
    let path = dir.join(ENSEMBLE);
    let bytes = files.read(&path, JSON_BYTES_MAX)?;
    let what = || path.display().to_string();
    let written: EnsembleFile =
        serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { what: what(), source })?;
    if written.format != 1 {
        return Err(LoadError::unsupported(format!("ensemble.json format {}", written.format)));
    }
    Ok((written, bytes))
}

/// What `model` (`NAME` or `NAME/VERSION`) and `version` mean together. Nothing outside the repository can be named.
fn named(model: &str, version: Option<u32>) -> Result<(&str, Option<u32>), LoadError> {
    let refuse = |problem: &str| Err(LoadError::parameter("model", format!("`{model}` {problem}")));
    let parts: Vec<Component<'_>> = Path::new(model).components().collect();
    let plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    match *model.split('/').collect::<Vec<_>>() {
        [name] if plain && parts.len() == 1 => Ok((name, version)),
        [name, number] if plain && parts.len() == 2 => match (version_number(number), version) {
            (Some(number), None) => Ok((name, Some(number))),
            (Some(_), Some(_)) => refuse("says its version already"),
            (None, _) => refuse("names no version: that is a number alone, as 2 and not v2 or 02"),
        },
        _ => refuse("is not NAME or NAME/VERSION"),
    }
}

/// The folders of `name` in the repository that holds `dir`, which is `NAME` or `NAME/VERSION` itself: the highest version
/// first, or that of `version` alone.
fn beside(
    dir: &Path,
    name: &str,
    version: Option<u32>,
    files: &dyn Files,
) -> Result<Vec<PathBuf>, LoadError> {
    let refuse = |problem: &str| Err(LoadError::parameter("model", format!("`{name}` {problem}")));
    let homes = || dir.ancestors().skip(1).take(2).map(|home| home.join(name));
    let versions =
        homes().filter_map(|home| versions(&home, files).ok()).find(|versions| !versions.is_empty());
    let Some(versions) = versions else {
        let is_there = homes().any(|home| home.is_dir());
        return refuse(if is_there { "has no model in its folder" } else { "is not in the repository" });
    };
    let wanted = |number: u32| version.is_none_or(|version| version == number);
    let found: Vec<PathBuf> =
        versions.into_iter().rev().filter(|(number, _)| wanted(*number)).map(|(_, dir)| dir).collect();
    match (found.first(), version) {
        (Some(first), _) if is_ensemble(first) => {
            refuse("is an ensemble itself: name the models that it names")
        }
        (None, Some(version)) => refuse(&format!("has no version {version}")),
        _ => Ok(found),
    }
}

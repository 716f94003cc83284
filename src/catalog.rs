//! What lies in the model repositories: folders, names and versions. Reads no weights; the loader does.
//!
//! A repository is a folder of model folders. A model folder holds `model.json`, `ensemble.json` or
//! `native.safetensors`, or numbered sub-folders that do (`3/model.json` is version 3); a folder without numbers is
//! version 1.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use peregrine_shaders::place::{self, version_number};
use peregrine_shaders::{Forecaster, LoadError};

use crate::sealed::Vault;

/// One version of one model on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The model folder's name.
    pub name: String,
    /// The sub-folder's number, or 1.
    pub version: u32,
    /// The folder with the files.
    pub dir: PathBuf,
}

/// A repository cannot be listed; the operator acts.
#[derive(Debug, thiserror::Error)]
#[error("model repository {}: {source}", dir.display())]
pub struct CatalogError {
    dir: PathBuf,
    source: std::io::Error,
}

/// Every model of the repositories, by name and version. A name in several repositories is the first one's.
///
/// # Errors
/// When a folder cannot be listed.
pub fn scan<P: AsRef<Path>>(repositories: &[P]) -> Result<Vec<Entry>, CatalogError> {
    let mut by_name = BTreeMap::<String, Vec<Entry>>::new();
    for repository in repositories {
        for (name, dir) in sub_folders(repository.as_ref())? {
            let versions = versions_of(&name, &dir)?;
            if !versions.is_empty() {
                by_name.entry(name).or_insert(versions);
            }
        }
    }
    Ok(by_name.into_values().flatten().collect())
}

/// Names of models, each once.
#[must_use]
pub fn names(entries: &[Entry]) -> Vec<String> {
    let mut names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    names.dedup(); // versions of one model stand together
    names
}

/// The models of `dir`, which is a model folder or a repository. One that holds more than versions is a repository, in
/// which a model may be called `1`.
///
/// # Errors
/// When a folder cannot be listed.
pub fn find(dir: &Path) -> Result<Vec<Entry>, CatalogError> {
    let real = dir.canonicalize().map_err(|source| CatalogError { dir: dir.to_owned(), source })?;
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let versions = versions_of(&name, &real)?;
    if holds_model(&real) {
        return Ok(versions);
    }
    let all = scan(&[&real])?;
    let are_versions = !versions.is_empty() && all.iter().all(|entry| version_number(&entry.name).is_some());
    Ok(if are_versions { versions } else { all })
}

/// A folder with a model in it that is not served, because of where it lies; the operator moves or renames it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overlooked {
    /// Its parent is a model folder by itself.
    #[error("model folder {} is not served: the files beside it make its parent the only version", .0.display())]
    Beside(PathBuf),
    /// It is no version by its name.
    #[error(
        "model folder {} is not served: the folder of a version is called by its number alone, as 2 and not v2 or 02",
        .0.display()
    )]
    Misnamed(PathBuf),
    /// A link that leads nowhere, or in a circle.
    #[error("model folder {} is not served: the link leads to nothing", .0.display())]
    Nothing(PathBuf),
    /// Nobody could ask for it.
    #[error("model folder {} is not served: its name is not UTF-8", .0.display())]
    Unnamable(PathBuf),
}

/// Folders of the repositories that look like versions and are none, in order.
///
/// # Errors
/// When a folder cannot be listed.
pub fn overlooked<P: AsRef<Path>>(repositories: &[P]) -> Result<Vec<Overlooked>, CatalogError> {
    let mut found = Vec::new();
    for repository in repositories {
        found.extend(unnamable(repository.as_ref())?.into_iter().map(Overlooked::Unnamable));
        found.extend(broken_links(repository.as_ref(), |_| true)?.map(Overlooked::Nothing));
        for (_, dir) in sub_folders(repository.as_ref())? {
            found.extend(broken_links(&dir, |name| version_number(name).is_some())?.map(Overlooked::Nothing));
            let is_only_version = holds_model(&dir);
            for (name, below) in sub_folders(&dir)?.into_iter().filter(|(_, below)| holds_model(below)) {
                if is_only_version {
                    found.push(Overlooked::Beside(below));
                } else if version_number(&name).is_none() {
                    found.push(Overlooked::Misnamed(below));
                }
            }
        }
    }
    Ok(found)
}

/// Loads what `entry` points to, under the folder's name whatever the files call it.
///
/// # Errors
/// What the loader says.
pub fn load(entry: &Entry, vault: &Vault) -> Result<Forecaster, LoadError> {
    load_choosing(entry, vault, &|_| None)
}

/// The same; see [`Forecaster::load_choosing`].
///
/// # Errors
/// What the loader says.
pub(crate) fn load_choosing(
    entry: &Entry,
    vault: &Vault,
    version: &dyn Fn(&str) -> Option<u32>,
) -> Result<Forecaster, LoadError> {
    Ok(Forecaster::load_choosing(&entry.dir, vault, version)?.named(&entry.name))
}

/// The lowest first.
fn versions_of(name: &str, dir: &Path) -> Result<Vec<Entry>, CatalogError> {
    let found = place::versions(dir, &Vault::default());
    let found = found.map_err(|source| CatalogError { dir: dir.to_owned(), source })?;
    let entry = |(version, dir)| Entry { name: name.to_owned(), version, dir };
    Ok(found.into_iter().map(entry).collect())
}

/// Is this the folder of one version, readable or not?
#[must_use]
pub fn holds_model(dir: &Path) -> bool {
    place::holds_model(dir, &Vault::default())
}

/// Model folders, in order, whose names are not UTF-8.
fn unnamable(dir: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let failed = |source| CatalogError { dir: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_unnamable = path.file_name().is_some_and(|name| name.to_str().is_none());
        if is_unnamable && path.is_dir() && !versions_of("", &path)?.is_empty() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Links whose name could be that of a model folder, in order.
fn broken_links(
    dir: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<impl Iterator<Item = PathBuf>, CatalogError> {
    let failed = |source| CatalogError { dir: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'));
        if name.is_some_and(&is_wanted) && path.is_symlink() && path.metadata().is_err() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter())
}

/// Sub-folders by name; hidden ones (an import in progress is one) and names that are not UTF-8 are left out.
fn sub_folders(dir: &Path) -> Result<Vec<(String, PathBuf)>, CatalogError> {
    let failed = |source| CatalogError { dir: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && !name.starts_with('.')
            && path.is_dir()
        {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_numbers_is_version_one() {
        check(&["a/model.json"], &["a:1"]);
    }

    #[test]
    fn numbered_folders_are_versions_in_numeric_order() {
        check(&["a/2/model.json", "a/10/model.json", "a/1/native.safetensors"], &["a:1", "a:2", "a:10"]);
    }

    #[test]
    fn what_is_no_model_is_left_out() {
        check(&["data.csv", "notes/readme.md", ".a/model.json", "b/07/model.json", "b/0/model.json"], &[]);
    }

    #[test]
    fn the_first_repository_wins_a_name() {
        let (first, second) = (tree(&["a/model.json"]), tree(&["a/5/model.json", "b/model.json"]));
        let found = scan(&[first.path(), second.path()]).unwrap();
        assert_eq!(
            found.iter().map(|e| (e.name.as_str(), e.version)).collect::<Vec<_>>(),
            [("a", 1), ("b", 1)]
        );
    }

    #[test]
    fn a_model_folder_is_found_as_itself() {
        let dir = tree(&["a/model.json"]);
        assert_eq!(find(&dir.path().join("a")).unwrap()[0].name, "a");
        assert_eq!(find(dir.path()).unwrap()[0].name, "a");
        assert!(find(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn a_repository_is_one_though_a_model_of_it_is_called_one() {
        let dir = tree(&["1/model.json", "a/model.json", "b/2/model.json"]);
        let names: Vec<String> = find(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["1", "a", "b"]);
        let dir = tree(&["a/1/model.json", "a/2/model.json", "a/notes/readme.md"]);
        let found = find(&dir.path().join("a")).unwrap();
        assert_eq!(
            found.iter().map(|e| (e.name.as_str(), e.version)).collect::<Vec<_>>(),
            [("a", 1), ("a", 2)]
        );
    }

    #[test]
    fn what_looks_like_a_version_and_is_none_is_named() {
        let dir = tree(&[
            "a/model.json",
            "a/2/model.json",
            "b/1/model.json",
            "b/02/model.json",
            "b/v2/model.json",
            "b/notes/readme.md",
            "c/latest/native.safetensors",
        ]);
        let of = |path: &str| dir.path().join(path);
        let misnamed = ["b/02", "b/v2", "c/latest"].map(|path| Overlooked::Misnamed(of(path)));
        let expected = [Overlooked::Beside(of("a/2"))].into_iter().chain(misnamed).collect::<Vec<_>>();
        assert_eq!(overlooked(&[dir.path()]).unwrap(), expected);
    }

    #[test]
    fn links_that_lead_nowhere_are_named() {
        let dir = tree(&["a/1/model.json", "a/2/model.json"]);
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).unwrap();
        let links =
            [("gone", "b"), ("c", "c"), ("gone", "a/3"), ("gone", "a/notes"), ("gone", ".tmp"), ("a", "d")];
        links.into_iter().for_each(|(to, at)| link(to, at));
        let expected = ["b", "c", "a/3", "d/3"].map(|path| Overlooked::Nothing(dir.path().join(path)));
        let found: Vec<Overlooked> = overlooked(&[dir.path()]).unwrap();
        assert_eq!(found, expected);
        let names: Vec<String> = names(&scan(&[dir.path()]).unwrap());
        assert_eq!(names, ["a", "d"]);
    }

    #[test]
    fn a_folder_that_nobody_could_ask_for_is_named() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree(&["a/model.json"]);
        let bad = dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xffname"));
        let nothing = dir.path().join(std::ffi::OsStr::from_bytes(b"notes\xff"));
        [bad.join("2"), nothing].iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        fs::write(bad.join("2/model.json"), "").unwrap();
        assert_eq!(overlooked(&[dir.path()]).unwrap(), [Overlooked::Unnamable(bad)]);
        assert_eq!(scan(&[dir.path()]).unwrap().len(), 1);
    }

    #[test]
    fn a_model_whose_file_is_none_is_one_that_does_not_load() {
        let dir = tree(&["a/model.json/x", "b/2/model.json"]);
        std::os::unix::fs::symlink("nowhere", dir.path().join("b/ensemble.json")).unwrap();
        let found = scan(&[dir.path()]).unwrap();
        let names: Vec<_> = found.iter().map(|entry| (&*entry.name, entry.version)).collect();
        assert_eq!(names, [("a", 1), ("b", 1)]);
        let why = load(&found[0], &Vault::default()).unwrap_err().to_string();
        assert!(why.contains("a/model.json"), "{why}");
    }

    #[track_caller]
    fn check(files: &[&str], want: &[&str]) {
        let dir = tree(files);
        let found: Vec<String> =
            scan(&[dir.path()]).unwrap().iter().map(|e| format!("{}:{}", e.name, e.version)).collect();
        assert_eq!(found, want);
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        dir
    }
}

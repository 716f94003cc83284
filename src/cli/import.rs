//! `peregrine models import`: checks a model, then copies its files into a repository in one step.
//!
//! The copy is made and checked in a hidden folder of the repository and moved, so a node never sees half a model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{CliError, ImportArgs, print_json, resolved};
use crate::catalog::{self, Entry};
use crate::sealed::Vault;

/// What a model folder may hold; nothing else is copied.
const FILES: [&str; 8] = [
    "model.json",
    "weights.safetensors",
    "weights.safetensors.aes",
    "native.safetensors",
    "native.safetensors.aes",
    "cases.safetensors",
    "cases.safetensors.aes",
    "signature.json",
];

/// The model is not imported; the repository is as before.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// It does not load.
    #[error("{}: {reason}", dir.display())]
    Refused { dir: PathBuf, reason: String },
    /// The name is taken.
    #[error("{} exists already; --force replaces it", .0.display())]
    Exists(PathBuf),
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Copy { path: PathBuf, source: io::Error },
}

pub(super) fn run(args: &ImportArgs) -> Result<(), CliError> {
    importable(&args.dir)?;
    let own_name = || catalog::find(&args.dir).ok().and_then(|found| Some(found.first()?.name.clone()));
    let name = args.name.clone().or_else(own_name).unwrap_or_default();
    if !is_plain_name(&name) {
        return Err(CliError::Usage(format!("`{name}` is not a model name: letters, digits, `-`, `_`, `.`")));
    }
    let repository = match &args.to {
        Some(repository) => repository.clone(),
        None => {
            let config = resolved(args.config.clone(), Vec::new())?.config;
            let first = config.models.repositories.into_iter().next();
            first.ok_or_else(|| {
                CliError::Usage("no repository is configured; name one with --to".to_owned())
            })?
        }
    };
    let target = import(&args.dir, &repository, &name, args.force, &super::vault()?)?;
    if args.json {
        print_json(&json!({ "model": name, "dir": target }))?;
    } else {
        println!("{name} is now in {}", target.display());
    }
    Ok(())
}

/// One version of one model with weights of its own?
fn importable(dir: &Path) -> Result<(), CliError> {
    let shown = dir.display();
    let usage = |why: String| Err(CliError::Usage(format!("{shown}: {why}")));
    if dir.join("ensemble.json").is_file() {
        return usage(
            "an ensemble has no weights of its own: import its members under the names that ensemble.json says, then \
             copy this folder beside them"
                .to_owned(),
        );
    }
    if catalog::holds_model(dir) {
        return Ok(());
    }
    match catalog::find(dir).unwrap_or_default().as_slice() {
        [] => usage("neither model.json nor native.safetensors is in it".to_owned()),
        [.., last] => usage(format!(
            "several models or versions of one lie in it: import one folder, such as {}, with --name NAME, or copy the \
             whole into a repository",
            last.dir.display()
        )),
    }
}

fn import(
    dir: &Path,
    repository: &Path,
    name: &str,
    force: bool,
    vault: &Vault,
) -> Result<PathBuf, ImportError> {
    let target = repository.join(name);
    if target.exists() && !force {
        return Err(ImportError::Exists(target));
    }
    let work = repository.join(format!(".import-{}-{name}", std::process::id()));
    let staged = work.join(name);
    let done = fs::create_dir_all(&staged)
        .map_err(at(repository))
        .and_then(|()| stage(dir, &staged, name))
        .and_then(|()| checked(dir, &staged, name, vault))
        .and_then(|()| put_in_place(&staged, &target));
    // Best effort: what failed is reported, and a hidden left-over is no model.
    let _left_over = fs::remove_dir_all(&work);
    done.map(|()| target)
}

/// Copies what a model folder may hold; the copy of `model.json` carries the new name.
fn stage(dir: &Path, staged: &Path, name: &str) -> Result<(), ImportError> {
    for file in FILES {
        let from = dir.join(file);
        if from.is_file() {
            let to = staged.join(file);
            fs::copy(&from, &to).map_err(at(&from))?;
            if file == "model.json" {
                rename(&to, name).map_err(at(&from))?;
            }
            fs::File::open(&to).and_then(|copy| copy.sync_all()).map_err(at(&from))?;
        }
    }
    Ok(())
}

/// Leaves a file alone that has the name already, or that is no JSON object: the loader will say so.
fn rename(file: &Path, name: &str) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut model)) if model.get("name").is_some_and(|old| old != name) => {
            model.insert("name".to_owned(), Value::String(name.to_owned()));
            fs::write(file, format!("{:#}\n", Value::Object(model)))
        }
        _ => Ok(()),
    }
}

fn checked(dir: &Path, staged: &Path, name: &str, vault: &Vault) -> Result<(), ImportError> {
    let entry = Entry { name: name.to_owned(), version: 1, dir: staged.to_owned() };
    match catalog::load(&entry, vault) {
        Ok(_) => Ok(()),
        Err(refused) => {
            // Of the copy, which nobody knows: what is wrong with it is wrong with its source.
            let [copy, source] = [staged, dir].map(|folder| folder.display().to_string());
            Err(ImportError::Refused {
                dir: dir.to_owned(),
                reason: refused.to_string().replace(&copy, &source),
            })
        }
    }
}

fn put_in_place(staged: &Path, target: &Path) -> Result<(), ImportError> {
    if !target.exists() {
        return fs::rename(staged, target).map_err(at(target));
    }
    let old = staged.with_file_name(".replaced");
    fs::rename(target, &old).map_err(at(target))?;
    if let Err(error) = fs::rename(staged, target) {
        fs::rename(&old, target).map_err(at(target))?;
        return Err(at(target)(error));
    }
    Ok(()) // the old one lies in the work folder and goes with it
}

fn at(path: &Path) -> impl Fn(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Copy { path: path.clone(), source }
}

/// One visible path component that is no version number.
fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.len() <= 128 && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: &str = "tests/models/dlinear-vol-point/native.safetensors";

    #[test]
    fn a_model_is_copied_whole_and_never_overwritten_unasked() {
        let repository = tempfile::tempdir().unwrap();
        let source = Path::new("models/nbeats-vol-quantile");
        let target = import(source, repository.path(), "vol", false, &Vault::default()).unwrap();
        assert_eq!(
            fs::read(target.join("weights.safetensors")).unwrap(),
            fs::read(source.join("weights.safetensors")).unwrap()
        );
        assert!(matches!(
            import(source, repository.path(), "vol", false, &Vault::default()),
            Err(ImportError::Exists(_))
        ));
        import(source, repository.path(), "vol", true, &Vault::default()).unwrap();
        let renamed =
            catalog::load(&catalog::scan(&[repository.path()]).unwrap()[0], &Vault::default()).unwrap();
        assert_eq!(renamed.spec().name, "vol");
        assert_eq!(names(repository.path()), ["vol"]);
    }

    #[test]
    fn a_native_file_alone_is_enough() {
        let (repository, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::copy(NATIVE, source.path().join("native.safetensors")).unwrap();
        import(source.path(), repository.path(), "mine", false, &Vault::default()).unwrap();
        let entry = catalog::scan(&[repository.path()]).unwrap().remove(0);
        let forecaster = catalog::load(&entry, &Vault::default()).unwrap();
        assert_eq!((forecaster.spec().name.as_str(), forecaster.spec().window), ("mine", 128));
    }

    #[test]
    fn what_does_not_load_leaves_no_trace() {
        let (repository, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(source.path().join("native.safetensors"), "junk").unwrap();
        let refused = import(source.path(), repository.path(), "junk", false, &Vault::default());
        assert!(matches!(refused, Err(ImportError::Refused { .. })));
        assert!(names(repository.path()).is_empty());
    }

    #[test]
    fn a_refusal_names_the_source_and_not_its_copy() {
        let (repository, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (file, text) in
            [("native.safetensors", &b"junk"[..]), ("model.json", b"{}"), ("model.json", b"\xff")]
        {
            fs::write(source.path().join(file), text).unwrap();
            let refused = import(source.path(), repository.path(), "junk", false, &Vault::default());
            let said = refused.unwrap_err().to_string();
            let named = source.path().join(file).display().to_string();
            assert!(said.contains(&named) && !said.contains(".import"), "{said}");
        }
    }

    #[test]
    fn what_is_not_one_model_is_told_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let said = |folder: &str| importable(&dir.path().join(folder)).unwrap_err().to_string();
        for (folder, file) in
            [("whole", "ensemble.json"), ("fx/1", "model.json"), ("fx/2", "model.json"), ("none", "x")]
        {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(file), "{}").unwrap();
        }
        assert!(said("whole").contains("import its members"), "{}", said("whole"));
        assert!(said("fx").contains("fx/2, with --name NAME"), "{}", said("fx"));
        assert!(said("none").contains("neither model.json"), "{}", said("none"));
        importable(&dir.path().join("fx/2")).unwrap();
    }

    #[test]
    fn names_stay_inside_the_repository() {
        for (name, plain) in [("a-b_c.1", true), ("..", false), ("a/b", false), ("", false), (".a", false)] {
            assert_eq!(is_plain_name(name), plain, "{name}");
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

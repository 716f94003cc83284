//! `peregrine models import`: checks a model, then copies its files into a repository in one step.
//!
//! What the library's own `save` writes is taken as it lies there: a file `NAME_0.safetensors` for each model, beside files
//! of bookkeeping.
//!
//! The copy is made and checked in a hidden folder of the repository and moved, so a node never sees half a model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use peregrine_shaders::place::{ENSEMBLE, MODEL, NATIVE, PARTS};
use serde_json::{Value, json};

use super::options::{ConfigArgs, ModelsArgs, vault};
use super::{CliError, print_json, print_line};
use crate::catalog::{self, Entry};
use crate::sealed::{SIGNATURE, Vault, sealed_name};

/// Files of tensors that are no model by themselves.
const NO_MODELS: [&str; 3] = ["dataset", "weights", "cases"];
/// What the library's `save` writes beside its models.
const BOOKKEEPING: &str = "configuration.json";

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("Configuration file that names the repository")))]
pub(super) struct ImportArgs {
    /// Folder with model.json and weights.safetensors, or what neuralforecast's save wrote: the folder, or a file of it
    #[arg(value_name = "PATH")]
    dir: PathBuf,
    /// Repository to copy into; default: the first configured one
    #[arg(long, value_name = "REPO")]
    to: Option<PathBuf>,
    /// Name in the repository; default: the folder's, or the file's
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Replace a model of that name
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

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
    let source = importable(&args.dir)?;
    let name = args.name.clone().or_else(|| own_name(&source)).unwrap_or_default();
    if !is_plain_name(&name) {
        return Err(CliError::Usage(format!("`{name}` is not a model name: letters, digits, `-`, `_`, `.`")));
    }
    let repository = match &args.to {
        Some(repository) => repository.clone(),
        None => {
            let config = args.config.resolved(&ModelsArgs::default())?.config;
            let first = config.models.repositories.into_iter().next();
            first.ok_or_else(|| {
                CliError::Usage("no repository is configured; name one with --to".to_owned())
            })?
        }
    };
    let target = import(&source, &repository, &name, args.force, &vault()?)?;
    if args.json {
        print_json(&json!({ "model": name, "dir": target }))?;
    } else {
        print_line(format_args!("{name} is now in {}", target.display()))?;
    }
    Ok(())
}

/// A folder's name, or a file's without what stands behind the dot.
fn own_name(source: &Path) -> Option<String> {
    if source.is_file() && !source.ends_with(NATIVE) {
        return Some(source.file_stem()?.to_str()?.to_owned());
    }
    let real = source.canonicalize().ok()?;
    let folder = if real.is_file() { real.parent()? } else { &real };
    Some(catalog::find(folder).ok()?.first()?.name.clone())
}

/// The folder of one version of one model with weights of its own, or one file that the library saved.
fn importable(path: &Path) -> Result<PathBuf, CliError> {
    let shown = path.display();
    let usage = |why: String| Err(CliError::Usage(format!("{shown}: {why}")));
    if path.is_file() {
        unscaled(path)?;
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        return usage("there is no such folder or file".to_owned());
    }
    if path.join(ENSEMBLE).is_file() {
        return usage(
            "an ensemble has no weights of its own: import its members under the names that ensemble.json says, then \
             copy this folder beside them"
                .to_owned(),
        );
    }
    if catalog::holds_model(path) {
        return Ok(path.to_owned());
    }
    match (catalog::find(path).unwrap_or_default().as_slice(), saved(path).as_slice()) {
        ([], []) => usage(
            "it holds no model: neither model.json nor native.safetensors, nor a NAME.safetensors as the library saves it"
                .to_owned(),
        ),
        ([], [only]) => {
            unscaled(only)?;
            Ok(only.clone())
        }
        ([], several @ [first, ..]) => usage(format!(
            "{} models lie in it: import one file after the other, such as {}, with --name NAME if it is to be called otherwise",
            several.len(),
            first.display()
        )),
        ([.., last], _) => usage(format!(
            "several models or versions of one lie in it: import one folder, such as {}, with --name NAME, or copy the \
             whole into a repository",
            last.dir.display()
        )),
    }
}

/// The models that the library has saved in a folder.
fn saved(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_model = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        path.extension().is_some_and(|suffix| suffix == "safetensors")
            && !NO_MODELS.contains(&stem)
            && path.is_file()
    };
    let mut found: Vec<PathBuf> = files.filter(is_model).collect();
    found.sort();
    found
}

/// Refuses a model whose library scales each series before the model sees it: no node would, and its answers were wrong.
fn unscaled(file: &Path) -> Result<(), CliError> {
    let beside = file.with_file_name(BOOKKEEPING);
    let Ok(text) = fs::read_to_string(&beside) else { return Ok(()) };
    let Ok(written) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
    for key in ["local_scaler_type", "local_static_scaler_type"] {
        if let Some(scaler) = written["configuration"][key].as_str() {
            return Err(CliError::Usage(format!(
                "{}: {key} is `{scaler}`: the library scales each series before this model sees it, and no node does; \
                 train it without, with the model's own scaler_type",
                beside.display()
            )));
        }
    }
    Ok(())
}

/// `source` is a model's folder, or one file that the library saved.
fn import(
    source: &Path,
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
        .and_then(|()| stage(source, &staged, name))
        .and_then(|()| checked(source, &staged, name, vault))
        .and_then(|()| put_in_place(&staged, &target));
    // Best effort: what failed is reported, and a hidden left-over is no model.
    let _left_over = fs::remove_dir_all(&work);
    done.map(|()| target)
}

/// Copies what a model folder may hold; the copy of `model.json` carries the new name.
fn stage(source: &Path, staged: &Path, name: &str) -> Result<(), ImportError> {
    if source.is_file() {
        return copy(source, &staged.join(NATIVE), |_| Ok(()));
    }
    for file in copied() {
        let from = source.join(&file);
        if from.is_file() {
            copy(&from, &staged.join(&file), |to| {
                if file == Path::new(MODEL) { rename(to, name) } else { Ok(()) }
            })?;
        }
    }
    Ok(())
}

/// What the folder of a model with weights of its own may hold; nothing else is copied.
fn copied() -> impl Iterator<Item = PathBuf> {
    let parts = PARTS.into_iter().filter(|part| *part != ENSEMBLE).map(PathBuf::from);
    parts.flat_map(|part| [sealed_name(&part), part]).chain([SIGNATURE.into()])
}

/// Copies a file, changes the copy and waits until it is on disk.
fn copy(from: &Path, to: &Path, change: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), ImportError> {
    let synced = || fs::File::open(to).and_then(|copy| copy.sync_all());
    fs::copy(from, to).and_then(|_| change(to)).and_then(|()| synced()).map_err(at(from))
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

fn checked(source: &Path, staged: &Path, name: &str, vault: &Vault) -> Result<(), ImportError> {
    let entry = Entry { name: name.to_owned(), version: 1, dir: staged.to_owned() };
    match catalog::load(&entry, vault) {
        Ok(_) => Ok(()),
        Err(refused) => {
            // Of the copy, which nobody knows: what is wrong with it is wrong with its source.
            let copy = if source.is_file() { staged.join(NATIVE) } else { staged.to_owned() };
            let [copy, shown] = [copy.as_path(), source].map(|path| path.display().to_string());
            Err(ImportError::Refused {
                dir: source.to_owned(),
                reason: refused.to_string().replace(&copy, &shown),
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

    const SAVED: &str = "tests/models/dlinear-vol-point/native.safetensors";

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
        fs::copy(SAVED, source.path().join("native.safetensors")).unwrap();
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
        assert!(said("absent").contains("no such folder or file"), "{}", said("absent"));
        importable(&dir.path().join("fx/2")).unwrap();
    }

    #[test]
    fn what_the_library_saves_is_imported_as_it_lies_there() {
        let (repository, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |file: &str| out.path().join(file);
        let bookkeeping = |scaler: Value| {
            let text = json!({ "nf_format": "2", "configuration": { "local_scaler_type": scaler } });
            fs::write(of(BOOKKEEPING), text.to_string()).unwrap();
        };
        fs::copy(SAVED, of("DLinear_0.safetensors")).unwrap();
        fs::write(of("dataset.safetensors"), "no model").unwrap();
        bookkeeping(Value::Null);
        let import = |source: &Path, name: &str| {
            import(source, repository.path(), name, false, &Vault::default()).map(drop)
        };
        for path in [out.path().to_owned(), of("DLinear_0.safetensors")] {
            let source = importable(&path).unwrap();
            assert_eq!(own_name(&source).as_deref(), Some("DLinear_0"));
            import(&source, if path.is_file() { "by-file" } else { "by-folder" }).unwrap();
        }
        let entries = catalog::scan(&[repository.path()]).unwrap();
        let loaded = entries.iter().map(|entry| catalog::load(entry, &Vault::default()).unwrap());
        let spoken: Vec<_> = loaded.map(|one| (one.spec().name.clone(), one.spec().window)).collect();
        assert_eq!(spoken, [("by-file".to_owned(), 128), ("by-folder".to_owned(), 128)]);

        // Of several one is to be named.
        fs::copy(SAVED, of("x-y_0.safetensors")).unwrap();
        let several = importable(out.path()).unwrap_err().to_string();
        assert!(
            several.contains("2 models lie in it") && several.contains("DLinear_0.safetensors"),
            "{several}"
        );
        importable(&of("x-y_0.safetensors")).unwrap();

        fs::write(of("junk_0.safetensors"), "junk").unwrap();
        let junk = import(&of("junk_0.safetensors"), "junk").unwrap_err().to_string();
        assert!(junk.contains("junk_0.safetensors") && !junk.contains(".import"), "{junk}");

        bookkeeping(json!("standard"));
        let scaled = importable(&of("DLinear_0.safetensors")).unwrap_err().to_string();
        assert!(scaled.contains("local_scaler_type is `standard`"), "{scaled}");
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

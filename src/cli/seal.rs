//! `peregrine models encrypt | sign`.

use std::env;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::options::vault;
use super::{CliError, print_json, print_text};
use crate::catalog::{self, Entry};
use crate::sealed::{self, ModelKey, SIGNING, SealFailure, VARIABLE, signer_of};

#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// Model folder, or folder of model folders
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn encrypt(args: &SealArgs) -> Result<(), CliError> {
    let key = key(VARIABLE)?;
    let Each { done, failed } =
        each(args, |entry| Ok((entry.dir.clone(), sealed::encrypt(&entry.dir, &key)?)))?;
    let idle = |(dir, files): &(PathBuf, Vec<PathBuf>)| files.is_empty().then(|| dir.clone());
    let skipped: Vec<PathBuf> = done.iter().filter_map(idle).collect();
    let files: Vec<PathBuf> = done.into_iter().flat_map(|(_, files)| files).collect();
    Sealed { files, skipped, signer: None, failed }.say(args.json)
}

pub(super) fn sign(args: &SealArgs) -> Result<(), CliError> {
    let (key, vault) = (key(SIGNING)?, vault()?);
    let signer = signer_of(&key).map(|signer| signer.to_string());
    let Each { done, failed } = each(args, |entry| sealed::sign(&entry.dir, &entry.name, &key, &vault))?;
    Sealed { files: done, skipped: Vec::new(), signer, failed }.say(args.json)
}

fn key(variable: &str) -> Result<ModelKey, CliError> {
    let usage =
        |what: &str| CliError::Usage(format!("{variable} {what}; `peregrine keys model` draws a key"));
    let text = env::var_os(variable).ok_or_else(|| usage("is not set"))?;
    text.to_str().and_then(ModelKey::parse).ok_or_else(|| usage("is not 64 hexadecimal digits"))
}

/// What became of each model.
struct Each<T> {
    done: Vec<T>,
    /// Why the others were not.
    failed: Vec<String>,
}

/// Every version of every model of the folders; one that fails keeps none of the others from it.
fn each<T>(args: &SealArgs, work: impl Fn(&Entry) -> Result<T, SealFailure>) -> Result<Each<T>, CliError> {
    // All are looked for before the first is touched.
    let mut found = Vec::new();
    for dir in &args.dirs {
        let models = catalog::find(dir)?;
        if models.is_empty() {
            return Err(CliError::Usage(format!("{}: no model in it", dir.display())));
        }
        found.extend(models);
    }
    let mut each = Each { done: Vec::new(), failed: Vec::new() };
    for entry in found {
        match work(&entry) {
            Ok(one) => each.done.push(one),
            Err(error) => each.failed.push(error.to_string()),
        }
    }
    Ok(each)
}

/// What is said of it.
struct Sealed {
    files: Vec<PathBuf>,
    /// Folders in which there was nothing to do.
    skipped: Vec<PathBuf>,
    signer: Option<String>,
    failed: Vec<String>,
}

impl Sealed {
    /// What was done comes first, whatever failed.
    fn say(self, as_json: bool) -> Result<(), CliError> {
        if as_json {
            print_json(&self.json())?;
        } else {
            print_text(&self.text())?;
        }
        self.outcome()
    }

    fn outcome(&self) -> Result<(), CliError> {
        if self.failed.is_empty() { Ok(()) } else { Err(CliError::Reported(self.failed.join("\n"))) }
    }

    fn json(&self) -> Value {
        let Self { files, skipped, signer, failed } = self;
        json!({ "files": files, "skipped": skipped, "signer": signer, "failed": failed })
    }

    fn text(&self) -> String {
        let files = self.files.iter().map(|file| format!("{}\n", file.display()));
        let skipped = self.skipped.iter();
        let skipped =
            skipped.map(|dir| format!("{}: no weights in the clear, nothing to do\n", dir.display()));
        let signer = self.signer.iter().filter(|_| !self.files.is_empty());
        files.chain(skipped).chain(signer.map(|signer| format!("signed by {signer}\n"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_has_nothing_to_encrypt_keeps_nothing_else_in_the_clear() {
        let repository = tempfile::tempdir().unwrap();
        let put = |model: &str, file: &str| {
            let dir = repository.path().join(model);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), "x").unwrap();
        };
        put("a-ensemble", "ensemble.json");
        for file in ["model.json", "weights.safetensors"] {
            put("b", file);
        }
        let key = ModelKey::parse(&"07".repeat(32)).unwrap();
        let args = SealArgs { dirs: vec![repository.path().to_owned()], json: true };
        let encrypted = || each(&args, |entry| sealed::encrypt(&entry.dir, &key)).unwrap().done.concat();
        let of = |model: &str| {
            [repository.path().canonicalize().unwrap().join(model).join("weights.safetensors.aes")]
        };
        assert_eq!(encrypted(), of("b"));
        // Once more, with a model that came since.
        for file in ["model.json", "weights.safetensors"] {
            put("c", file);
        }
        assert_eq!(encrypted(), of("c"));
        assert!(encrypted().is_empty());
        assert!(!Path::new(&repository.path().join("c/weights.safetensors")).exists());
    }

    #[test]
    fn one_that_fails_is_told_behind_what_was_done() {
        let repository = repository(&["a", "b", "c"]);
        let args = SealArgs { dirs: vec![repository.path().to_owned()], json: true };
        let fails = |entry: &Entry| match entry.name == "b" {
            true => Err(SealFailure::Nothing(entry.dir.clone())),
            false => Ok(entry.dir.join("done")),
        };
        let Each { done, failed } = each(&args, fails).unwrap();
        let sealed = Sealed { files: done, skipped: Vec::new(), signer: None, failed };
        let text = sealed.text();
        let said: Vec<&str> = text.lines().filter_map(|line| line.rsplit('/').nth(1)).collect();
        assert_eq!(said, ["a", "c"], "{text}");
        assert_eq!(sealed.json()["files"].as_array().map(Vec::len), Some(2));
        assert_eq!(sealed.json()["failed"].as_array().map(Vec::len), Some(1));
        let Err(CliError::Reported(told)) = sealed.outcome() else { panic!("it ends with 1") };
        assert!(told.contains("/b") && !told.contains("/a"), "{told}");
    }

    #[test]
    fn a_folder_without_models_is_found_out_before_anything_is_done() {
        let (whole, empty) = (repository(&["a"]), repository(&[]));
        let args = SealArgs { dirs: [whole.path(), empty.path()].map(Path::to_owned).into(), json: true };
        let refused = each(&args, |entry| -> Result<(), SealFailure> { panic!("{entry:?}") });
        assert!(matches!(refused, Err(CliError::Usage(_))));
    }

    fn repository(models: &[&str]) -> tempfile::TempDir {
        let repository = tempfile::tempdir().unwrap();
        for model in models {
            fs::create_dir(repository.path().join(model)).unwrap();
            fs::write(repository.path().join(model).join("model.json"), "{}").unwrap();
        }
        repository
    }
}

//! `peregrine models encrypt | sign`, and the keys for both.

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::{CliError, ModelKeyArgs, SealArgs, print_json};
use crate::catalog;
use crate::sealed::{self, ModelKey, SIGNING, SealFailure, VARIABLE, signer_of};

pub(super) fn encrypt(args: &SealArgs) -> Result<(), CliError> {
    let key = key(VARIABLE)?;
    let done = each(args, |dir| Ok((dir.to_owned(), sealed::encrypt(dir, &key)?)))?;
    let idle = |(dir, files): &(PathBuf, Vec<PathBuf>)| files.is_empty().then(|| dir.clone());
    let done_before: Vec<PathBuf> = done.iter().filter_map(idle).collect();
    let files: Vec<PathBuf> = done.into_iter().flat_map(|(_, files)| files).collect();
    say(args, &files, &done_before, None)
}

pub(super) fn sign(args: &SealArgs) -> Result<(), CliError> {
    let (key, vault) = (key(SIGNING)?, super::vault()?);
    let signer = signer_of(&key).map(|signer| signer.to_string());
    let done = each(args, |dir| sealed::sign(dir, &key, &vault))?;
    say(args, &done, &[], signer.as_deref())
}

pub(super) fn draw(args: &ModelKeyArgs) -> Result<(), CliError> {
    let no_chance = || CliError::Reported("the system has no randomness".to_owned());
    let (key, text) = ModelKey::draw().ok_or_else(no_chance)?;
    let signer = signer_of(&key).ok_or_else(no_chance)?.to_string();
    if args.json {
        print_json(&json!({ "key": text, "signer": signer }))?;
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(out, "# The key, shown this once: {VARIABLE} encrypts and opens models, {SIGNING} signs them.")?;
    writeln!(out, "{text}")?;
    writeln!(out, "# For models.signers, if it signs:")?;
    writeln!(out, "{signer}")?;
    Ok(())
}

fn key(variable: &str) -> Result<ModelKey, CliError> {
    let usage =
        |what: &str| CliError::Usage(format!("{variable} {what}; `peregrine keys model` draws a key"));
    let text = env::var_os(variable).ok_or_else(|| usage("is not set"))?;
    text.to_str().and_then(ModelKey::parse).ok_or_else(|| usage("is not 64 hexadecimal digits"))
}

/// Every version of every model of the folders; one that fails keeps none of the others from it.
fn each<T>(
    args: &SealArgs,
    work: impl Fn(&std::path::Path) -> Result<T, SealFailure>,
) -> Result<Vec<T>, CliError> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for dir in &args.dirs {
        let found = catalog::find(dir)?;
        if found.is_empty() {
            return Err(CliError::Usage(format!("{}: no model in it", dir.display())));
        }
        for entry in found {
            match work(&entry.dir) {
                Ok(one) => done.push(one),
                Err(error) => failed.push(error.to_string()),
            }
        }
    }
    if failed.is_empty() { Ok(done) } else { Err(CliError::Reported(failed.join("\n"))) }
}

/// `skipped`: folders in which there was nothing to do.
fn say(
    args: &SealArgs,
    files: &[PathBuf],
    skipped: &[PathBuf],
    signer: Option<&str>,
) -> Result<(), CliError> {
    if args.json {
        print_json(&json!({ "files": files, "skipped": skipped, "signer": signer }))?;
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    for dir in skipped {
        writeln!(out, "{}: no weights in the clear, nothing to do", dir.display())?;
    }
    if let Some(signer) = signer {
        writeln!(out, "signed by {signer}")?;
    }
    Ok(())
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
        let encrypted = || each(&args, |dir| sealed::encrypt(dir, &key)).unwrap().concat();
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
    fn one_that_fails_is_told_and_the_others_are_done() {
        let repository = tempfile::tempdir().unwrap();
        for model in ["a", "b"] {
            fs::create_dir(repository.path().join(model)).unwrap();
            fs::write(repository.path().join(model).join("model.json"), "{}").unwrap();
        }
        let args = SealArgs { dirs: vec![repository.path().to_owned()], json: true };
        let seen = std::cell::Cell::new(0);
        let failed = each(&args, |dir| {
            seen.set(seen.get() + 1);
            if dir.ends_with("a") { Err(SealFailure::Nothing(dir.to_owned())) } else { Ok(()) }
        });
        assert!(matches!(failed, Err(CliError::Reported(_))));
        assert_eq!(seen.get(), 2);
    }
}

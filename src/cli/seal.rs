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
    let done = each(args, |dir| sealed::encrypt(dir, &key))?;
    say(args, &done.concat(), None)
}

pub(super) fn sign(args: &SealArgs) -> Result<(), CliError> {
    let (key, vault) = (key(SIGNING)?, super::vault()?);
    let signer = signer_of(&key).map(|signer| signer.to_string());
    let done = each(args, |dir| sealed::sign(dir, &key, &vault))?;
    say(args, &done, signer.as_deref())
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

/// Every version of every model of the folders.
fn each<T>(
    args: &SealArgs,
    work: impl Fn(&std::path::Path) -> Result<T, SealFailure>,
) -> Result<Vec<T>, CliError> {
    let mut done = Vec::new();
    for dir in &args.dirs {
        let found = catalog::find(dir)?;
        if found.is_empty() {
            return Err(CliError::Usage(format!("{}: no model in it", dir.display())));
        }
        for entry in found {
            done.push(work(&entry.dir).map_err(|error| CliError::Reported(error.to_string()))?);
        }
    }
    Ok(done)
}

fn say(args: &SealArgs, files: &[PathBuf], signer: Option<&str>) -> Result<(), CliError> {
    if args.json {
        print_json(&json!({ "files": files, "signer": signer }))?;
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for file in files {
        writeln!(out, "{}", file.display())?;
    }
    if let Some(signer) = signer {
        writeln!(out, "signed by {signer}")?;
    }
    Ok(())
}

//! `peregrine keys new | model`: draws a key and shows it once, with what the file of keys, or of signers, needs.

use std::io::{self, Write};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use peregrine_runtime::{Clock as _, SystemClock};
use serde_json::json;

use super::{CliError, print_json};
use crate::config::Scope;
use crate::sealed::{ModelKey, SIGNING, VARIABLE, signer_of};
use crate::security::{NewKey, expiry, is_name, parse_keys};

#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Draw a key: prints it once, and the lines for the file that security.keys names
    New(NewKeyArgs),
    /// Draw a key that encrypts or signs models: prints it once, and the public half of it
    Model(ModelKeyArgs),
}

#[derive(Debug, Args)]
pub(super) struct NewKeyArgs {
    /// Whose key it is: letters, digits, `-`, `_`, `.`
    #[arg(long)]
    name: String,
    /// What its bearer may do; may be repeated
    #[arg(long = "scope", value_enum, required = true, value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// When it ends, e.g. 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ModelKeyArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: &KeysVerb) -> Result<(), CliError> {
    match verb {
        KeysVerb::New(args) => new(args),
        KeysVerb::Model(args) => model(args),
    }
}

/// A key for callers.
fn new(args: &NewKeyArgs) -> Result<(), CliError> {
    if !is_name(&args.name) {
        return Err(CliError::Usage("a name is 1 to 64 letters, digits, `-`, `_` or `.`".to_owned()));
    }
    if let Some(text) = &args.expires {
        check_expiry(text, SystemClock.wall())?;
    }
    let key = NewKey::draw().map_err(|error| CliError::Reported(error.to_string()))?;
    let entry = entry(args, &key.hash().to_string());
    // What the node will not read must not be handed out.
    parse_keys(&entry).map_err(|bad| CliError::Usage(bad.to_string()))?;
    if args.json {
        let scopes: Vec<&str> = args.scopes.iter().map(|scope| scope.name()).collect();
        let hash = key.hash().to_string();
        print_json(
            &json!({ "name": args.name, "key": key.expose(), "hash": hash, "scopes": scopes, "entry": entry }),
        )?;
        return Ok(());
    }
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "# The key, shown this once; callers send it as `Authorization: Bearer KEY` or `x-api-key: KEY`:"
    )?;
    writeln!(out, "# {}", key.expose())?;
    writeln!(out, "# For the file that security.keys names; SIGHUP has a node read it again:")?;
    write!(out, "{entry}")?;
    Ok(())
}

/// A key that has ended already opens nothing: a date that was mistyped.
fn check_expiry(text: &str, now: SystemTime) -> Result<(), CliError> {
    let ends = expiry(text).ok_or_else(|| {
        CliError::Usage(format!(
            "--expires is a time with its offset, such as 2027-01-31T00:00:00Z, not `{text}`"
        ))
    })?;
    if ends <= now {
        return Err(CliError::Usage(format!("--expires is in the past: {text}")));
    }
    Ok(())
}

fn entry(args: &NewKeyArgs, hash: &str) -> String {
    let scopes: Vec<String> =
        args.scopes.iter().copied().map(Scope::name).map(|name| format!("\"{name}\"")).collect();
    let mut entry =
        format!("[[keys]]\nname = \"{}\"\nhash = \"{hash}\"\nscopes = [{}]\n", args.name, scopes.join(", "));
    if let Some(expires) = &args.expires {
        entry.push_str(&format!("expires = {expires}\n"));
    }
    entry
}

/// A key for models.
fn model(args: &ModelKeyArgs) -> Result<(), CliError> {
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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_end_is_a_time_with_its_offset_that_is_still_to_come() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000); // 2027-01-15T08:00:00Z
        let said = |text: &str| check_expiry(text, now).map_err(|refused| refused.to_string());
        assert_eq!(said("2027-01-15T08:00:01Z"), Ok(()));
        assert_eq!(said("2027-01-15T09:00:01+01:00"), Ok(()));
        for past in ["2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"] {
            assert_eq!(said(past), Err(format!("--expires is in the past: {past}")));
        }
        for odd in ["yesterday", "2027-01-31", "2027-01-31T00:00:00", "2027-01-31T00:00:00Z\nburst = 1", ""] {
            let refused = said(odd).expect_err("no time");
            assert!(
                refused.starts_with("--expires is a time with its offset, such as 2027-01-31T00:00:00Z"),
                "{refused}"
            );
        }
    }
}

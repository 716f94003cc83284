//! `peregrine keys new`: draws an API key, shows it once, and prints what the file of keys needs.

use std::io::{self, Write};

use serde_json::json;

use super::{CliError, NewKeyArgs, print_json};
use crate::config::Scope;
use crate::security::{NewKey, is_name, parse_keys};

pub(super) fn new(args: &NewKeyArgs) -> Result<(), CliError> {
    if !is_name(&args.name) {
        return Err(CliError::Usage("a name is 1 to 64 letters, digits, `-`, `_` or `.`".to_owned()));
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

//! `peregrine check`: every mistake of a configuration, or its resolved form with the origin of each value.

use std::io::{self, Write};

use super::{CheckArgs, CliError, print_json, resolved};

pub(super) fn run(args: CheckArgs) -> Result<(), CliError> {
    let resolved = resolved(args.config, Vec::new())?;
    if args.json {
        print_json(&resolved.to_json())?;
    } else {
        io::stdout().write_all(resolved.to_toml().as_bytes())?;
    }
    Ok(())
}

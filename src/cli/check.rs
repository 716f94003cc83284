//! `peregrine check`: every mistake of a configuration, or its resolved form with the origin of each value.

use std::io::{self, Write};

use super::{CheckArgs, CliError, print_json, resolved};
use crate::catalog;
use crate::config::{ConfigError, Resolved};
use crate::series_store::SeriesStore;

pub(super) fn run(args: CheckArgs) -> Result<(), CliError> {
    let resolved = resolved(args.config, Vec::new())?;
    compare(&resolved)?;
    if args.json {
        print_json(&resolved.to_json())?;
    } else {
        io::stdout().write_all(resolved.to_toml().as_bytes())?;
    }
    Ok(())
}

/// With what lies on this machine. In a cluster models may lie on other nodes alone.
fn compare(resolved: &Resolved) -> Result<(), CliError> {
    let config = &resolved.config;
    let mut mistakes = Vec::new();
    if let Some(file) = &config.data.file {
        let data = SeriesStore::load(file).map_err(|error| CliError::Usage(error.to_string()))?;
        mistakes.extend(resolved.unknown_columns(data.columns()));
    }
    if config.cluster.is_none() {
        mistakes
            .extend(resolved.unknown_models(&catalog::names(&catalog::scan(&config.models.repositories)?)));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(ConfigError { mistakes }.into()) }
}

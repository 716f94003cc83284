//! `peregrine check`: every mistake of a configuration, or its resolved form with the origin of each value.

use std::io::{self, Write};

use clap::Args;

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json};
use crate::catalog;
use crate::config::{ConfigError, Resolved};
use crate::series_store::SeriesStore;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: CheckArgs) -> Result<(), CliError> {
    let resolved = args.config.resolved(&ModelsArgs::default())?;
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
    let entries = catalog::scan(&config.models.repositories)?;
    if config.cluster.is_none() {
        mistakes.extend(resolved.unknown_models(&catalog::names(&entries)));
    }
    // One that cannot be read is no mistake of the configuration: `models list` says what is wrong.
    let models: Vec<_> =
        entries.iter().filter_map(|entry| catalog::load(entry, &config.models.vault).ok()).collect();
    mistakes.extend(resolved.too_short(models.iter().map(|model| &**model.spec())));
    if mistakes.is_empty() { Ok(()) } else { Err(ConfigError { mistakes }.into()) }
}

//! `peregrine check`: every mistake of a configuration, or its resolved form with the origin of each value.

use clap::Args;
use peregrine_runtime::{Clock as _, SystemClock};

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, print_json, print_text, say};
use crate::catalog;
use crate::surroundings::{short_series, survey};

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
    let found = survey(&resolved, SystemClock.wall())?;
    for unknown in &found.unknown_models {
        say(format_args!("warning: {unknown}"));
    }
    for unplaced in &found.unplaced {
        say(format_args!("warning: {unplaced}"));
    }
    for overlooked in &found.overlooked {
        say(format_args!("warning: {overlooked}"));
    }
    // One that cannot be read is no mistake of the configuration: `models list` says what is wrong.
    let models: Vec<_> = found
        .entries
        .iter()
        .filter_map(|entry| catalog::load(entry, &resolved.config.models.vault).ok())
        .collect();
    for short in short_series(&resolved, models.iter().map(|model| &**model.spec()))? {
        say(format_args!("warning: {short}"));
    }
    if args.json {
        print_json(&resolved.to_json())?;
    } else {
        print_text(&resolved.to_toml())?;
    }
    Ok(())
}

//! `peregrine models`: its verbs, and `list` of them: what the repositories hold and whether this build can serve it.

use std::path::Path;

use clap::{Args, Subcommand};
use peregrine_shaders::{Forecaster, LoadError};
use serde_json::json;

use super::options::{ConfigArgs, ModelsArgs};
use super::{CliError, import, print_json, print_table, say, score, seal, tune, verify};
use crate::catalog::{self, CatalogError, Entry};

#[derive(Debug, Subcommand)]
pub(super) enum ModelsVerb {
    /// List the models of the configured repositories
    List(ListArgs),
    /// Recompute the cases that come with models on every backend of this machine
    Verify(verify::VerifyArgs),
    /// Measure which kernels are the fastest for the models on this GPU, and keep that for every later start
    Tune(tune::TuneArgs),
    /// Check a model and copy it into a repository
    Import(import::ImportArgs),
    /// Encrypt the weights of models in place, with the key in PEREGRINE_MODEL_KEY
    Encrypt(seal::SealArgs),
    /// Sign models with the key in PEREGRINE_SIGNING_KEY, and print who they are signed by
    Sign(seal::SealArgs),
    /// Forecast the held-out end of every series and rank models beside naive, HAR and the mean of 500 days
    Score(score::ScoreArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: ModelsVerb) -> Result<(), CliError> {
    match verb {
        ModelsVerb::List(args) => list(&args),
        ModelsVerb::Verify(args) => verify::run(&args),
        ModelsVerb::Tune(args) => tune::run(args),
        ModelsVerb::Import(args) => import::run(&args),
        ModelsVerb::Encrypt(args) => seal::encrypt(&args),
        ModelsVerb::Sign(args) => seal::sign(&args),
        ModelsVerb::Score(args) => score::run(&args),
    }
}

/// Says on stderr which folders of these repositories are not read although a model lies in them.
pub(super) fn warn_of_overlooked<P: AsRef<Path>>(repositories: &[P]) -> Result<(), CatalogError> {
    for overlooked in catalog::overlooked(repositories)? {
        say(overlooked);
    }
    Ok(())
}

fn list(args: &ListArgs) -> Result<(), CliError> {
    let config = args.config.resolved(&args.models)?.config;
    let entries = catalog::scan(&config.models.repositories)?;
    warn_of_overlooked(&config.models.repositories)?;
    let loaded: Vec<_> =
        entries.iter().map(|entry| (entry, catalog::load(entry, &config.models.vault))).collect();
    if args.json {
        let rows: Vec<_> = loaded.iter().map(|(entry, forecaster)| row_json(entry, forecaster)).collect();
        print_json(&json!({ "models": rows, "default": config.models.default }))?;
    } else {
        let header = ["model", "version", "family", "window", "horizon", "columns", "state"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(loaded.iter().map(|(entry, forecaster)| row(entry, forecaster)));
        print_table(&rows)?;
    }
    Ok(())
}

fn row(entry: &Entry, loaded: &Result<Forecaster, LoadError>) -> Vec<String> {
    let mut cells = vec![entry.name.clone(), entry.version.to_string()];
    match loaded {
        Ok(forecaster) => {
            let spec = forecaster.spec();
            cells.extend([
                spec.family.class().to_owned(),
                spec.window.to_string(),
                spec.horizon.to_string(),
                spec.columns.join(" "),
                "ok".to_owned(),
            ]);
        }
        Err(LoadError::UnknownFamily { class }) => {
            cells.extend([class, "-", "-", "-", "not known yet"].map(str::to_owned));
        }
        Err(error) => cells.extend(["-", "-", "-", "-", &error.to_string()].map(str::to_owned)),
    }
    cells
}

fn row_json(entry: &Entry, loaded: &Result<Forecaster, LoadError>) -> serde_json::Value {
    let mut row = json!({ "model": entry.name, "version": entry.version, "dir": entry.dir });
    let more = match loaded {
        Ok(forecaster) => {
            let spec = forecaster.spec();
            json!({
                "state": "ok",
                "family": spec.family.class(),
                "window": spec.window,
                "series": spec.series,
                "horizon": spec.horizon,
                "columns": spec.columns,
                "hist_exog": spec.hist_exog,
                "futr_exog": spec.futr_exog,
                "stat_exog": spec.stat_exog,
                "weight_bytes": forecaster.weight_bytes(),
                "digest": forecaster.digest(),
            })
        }
        Err(LoadError::UnknownFamily { class }) => json!({ "state": "not known yet", "family": class }),
        Err(error) => json!({ "state": "refused", "reason": error.to_string() }),
    };
    if let (Some(row), serde_json::Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    row
}

//! `peregrine models list`: what the repositories hold and whether this build can serve it.

use peregrine_shaders::{Forecaster, LoadError};
use serde_json::json;

use super::{CliError, ListArgs, print_json, print_table, resolved};
use crate::catalog::{self, Entry};

pub(super) fn list(args: ListArgs) -> Result<(), CliError> {
    let config = resolved(args.config, args.models)?.config;
    let entries = catalog::scan(&config.models.repositories)?;
    super::warn_of_overlooked(&config.models.repositories)?;
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

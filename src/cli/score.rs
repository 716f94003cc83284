//! `peregrine models score`: models on days that they were not trained on, beside baselines; the arithmetic is
//! [`crate::score`]'s.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use peregrine_shaders::{LoadError, Precision};
use serde_json::{Value, json};

use super::forecast::find;
use super::{CliError, ScoreArgs, print_json, print_table};
use crate::backends;
use crate::catalog;
use crate::score::{self, Board, Candidate, Kind, Panel, PanelError, Row, ScoreError};

const GPU_TIMEOUT: Duration = Duration::from_secs(60);
/// Errors below it are printed with an exponent.
const FIXED_MIN: f64 = 0.01;

/// Why there is no table; the caller acts, or the operator where a device or file fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScoreFailure {
    /// Not readable.
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: io::Error },
    /// The table is wrong.
    #[error("{}: {source}", file.display())]
    Table { file: PathBuf, source: PanelError },
    /// A model is.
    #[error("model `{model}`: {source}")]
    Load { model: String, source: LoadError },
    /// It has no such form.
    #[error("model `{model}`: a weight is larger than {} can be", precision.name())]
    NotRounded { model: String, precision: Precision },
    /// They do not fit.
    #[error("{}: {source}", file.display())]
    Score { file: PathBuf, source: ScoreError },
}

pub(super) fn run(args: &ScoreArgs) -> Result<(), CliError> {
    let candidates = candidates(args)?;
    let mut exogenous = BTreeSet::new();
    for candidate in &candidates {
        let spec = candidate.forecaster.spec();
        exogenous.extend(spec.hist_exog.iter().chain(&spec.futr_exog).chain(&spec.stat_exog).cloned());
    }
    let file = || args.input.clone();
    let input = File::open(&args.input).map_err(|source| ScoreFailure::File { file: file(), source })?;
    let panel = Panel::read(input, &args.column, &Vec::from_iter(exogenous))
        .map_err(|source| ScoreFailure::Table { file: file(), source })?;
    let mut executor = backends::open(args.backend, backends::cores(), GPU_TIMEOUT)?;
    let board = score::score(&panel, args.holdout, &candidates, executor.as_mut())
        .map_err(|source| ScoreFailure::Score { file: file(), source })?;
    if args.json {
        print_json(&board_json(args, &panel, &board))?;
    } else {
        print_table(&table(&board))?;
        for horizon in &board.horizons_without_har {
            eprintln!("HAR cannot be fitted {horizon} steps ahead: its regressors are collinear");
        }
    }
    Ok(())
}

/// Under the folder's name, or as typed where two folders share one.
fn candidates(args: &ScoreArgs) -> Result<Vec<Candidate>, CliError> {
    let mut candidates = Vec::with_capacity(args.names.len());
    let vault = super::vault()?;
    for typed in &args.names {
        let entry = find(typed, args.config.clone(), args.models.clone())?;
        let forecaster = catalog::load(&entry, &vault)
            .map_err(|source| ScoreFailure::Load { model: typed.clone(), source })?;
        candidates.push(Candidate { name: entry.name, forecaster });
    }
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    for (candidate, typed) in candidates.iter_mut().zip(&args.names) {
        if names.iter().filter(|name| **name == candidate.name).count() > 1 {
            candidate.name.clone_from(typed);
        }
    }
    let precisions = args.rounded.precisions();
    let mut all = Vec::with_capacity((1 + precisions.len()) * candidates.len());
    for Candidate { name, forecaster } in candidates {
        let mut more = Vec::with_capacity(precisions.len());
        for &precision in &precisions {
            let rounded = forecaster
                .rounded(precision)
                .ok_or_else(|| ScoreFailure::NotRounded { model: name.clone(), precision })?;
            let kept = if precision == Precision::F16 { "halves" } else { precision.name() };
            more.push(Candidate { name: format!("{name}, {kept}"), forecaster: rounded });
        }
        all.push(Candidate { name, forecaster });
        all.append(&mut more);
    }
    Ok(all)
}

fn table(board: &Board) -> Vec<Vec<String>> {
    let header = ["model", "h", "MAE", "RMSE", "sCRPS", "80 %", "95 %", "MAE vs naive", "t vs first"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(board.rows.iter().map(cells));
    rows
}

fn cells(row: &Row) -> Vec<String> {
    let measures = &row.measures;
    let or_dash = |value: Option<f64>, print: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), print);
    vec![
        row.name.clone(),
        row.horizon.to_string(),
        size(measures.mae),
        size(measures.rmse),
        or_dash(measures.scrps, |value| format!("{value:.4}")),
        or_dash(measures.cover_80, |value| format!("{value:.1}")),
        or_dash(measures.cover_95, |value| format!("{value:.1}")),
        or_dash(row.mae_vs_naive_percent, |value| format!("{value:+.1} %")),
        or_dash(row.t_vs_first, |value| format!("{value:+.1}")),
    ]
}

fn size(value: f64) -> String {
    if value > 0.0 && value < FIXED_MIN { format!("{value:.3e}") } else { format!("{value:.4}") }
}

fn board_json(args: &ScoreArgs, panel: &Panel, board: &Board) -> Value {
    json!({
        "input": args.input.display().to_string(),
        "column": args.column,
        "series": panel.series().len(),
        "holdout": args.holdout,
        "rows": board.rows.iter().map(row_json).collect::<Vec<_>>(),
        "horizons_without_har": board.horizons_without_har,
    })
}

fn row_json(row: &Row) -> Value {
    let measures = &row.measures;
    json!({
        "model": row.name,
        "baseline": row.kind == Kind::Baseline,
        "horizon": row.horizon,
        "origins": measures.mae_by_origin.len(),
        "points": measures.points,
        "mae": measures.mae,
        "rmse": measures.rmse,
        "scrps": measures.scrps,
        "cover_80": measures.cover_80,
        "cover_95": measures.cover_95,
        "mae_vs_naive_percent": row.mae_vs_naive_percent,
        "t_vs_first": row.t_vs_first,
    })
}

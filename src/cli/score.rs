//! `peregrine models score`: models on days that they were not trained on, beside baselines; the arithmetic is
//! [`crate::score`]'s.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use peregrine_shaders::{LoadError, Precision};
use serde_json::{Value, json};

use super::forecast::find;
use super::options::{ConfigArgs, ModelsArgs, vault};
use super::{CliError, print_json, print_table, say};
use crate::backends;
use crate::catalog;
use crate::config::BackendChoice;
use crate::score::{self, Board, Candidate, Gap, Kind, Panel, PanelError, Row, ScoreError};

const GPU_TIMEOUT: Duration = Duration::from_secs(60);
/// Errors below it are printed with an exponent.
const FIXED_MIN: f64 = 0.01;

#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("Configuration file that names the repositories")))]
pub(super) struct ScoreArgs {
    /// Name in a repository, or a model folder; the others are compared with the first
    #[arg(required = true, value_name = "MODEL")]
    names: Vec<String>,
    /// CSV unique_id,ds,column…, plain or gzip, rows of a series in order of time. Rows on both sides of a gap are neighbours:
    /// stderr tells of gaps
    #[arg(long, value_name = "FILE", default_value = "models/fx_vol_daily.csv.gz", verbatim_doc_comment)]
    input: PathBuf,
    /// The column that is forecast
    #[arg(long, default_value = "logrv5")]
    column: String,
    /// Days at the end of every series to forecast: from origins as far apart as the model's horizon is long
    #[arg(long, value_name = "DAYS", default_value = "500")]
    holdout: usize,
    /// Which device computes
    #[arg(long, value_enum, default_value = "cpu")]
    backend: BackendChoice,
    #[command(flatten)]
    rounded: RoundedArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    models: ModelsArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which rounded matrices a model is tried with besides its own.
#[derive(Debug, Args)]
pub(super) struct RoundedArgs {
    /// Each model once more with matrices of halves, as the profiles high_throughput and memory_optimized have them; the same
    /// as --precision f16
    #[arg(long)]
    halves: bool,
    /// Each model once more with matrices rounded so, as models.precision has them; several with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PRECISION")]
    precision: Vec<RoundedTo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoundedTo {
    /// Halves
    F16,
    /// Whole numbers of eight bits
    Int8,
}

impl RoundedArgs {
    /// The most exact first, each once.
    fn precisions(&self) -> Vec<Precision> {
        let mut wanted = Vec::new();
        if self.halves || self.precision.contains(&RoundedTo::F16) {
            wanted.push(Precision::F16);
        }
        if self.precision.contains(&RoundedTo::Int8) {
            wanted.push(Precision::Int8);
        }
        wanted
    }
}

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
    if let Some(warning) = warning_of(panel.gaps()) {
        say(format_args!("{}: {warning}", args.input.display()));
    }
    let mut executor = backends::open(args.backend, backends::cores(), GPU_TIMEOUT)?;
    let board = score::score(&panel, args.holdout, &candidates, executor.as_mut())
        .map_err(|source| ScoreFailure::Score { file: file(), source })?;
    if args.json {
        print_json(&board_json(args, &panel, &board))?;
    } else {
        print_table(&table(&board))?;
        for horizon in &board.horizons_without_har {
            say(format_args!("HAR cannot be fitted {horizon} steps ahead: its regressors are collinear"));
        }
    }
    Ok(())
}

/// The figures of a table with gaps are not those of the market.
fn warning_of(gaps: &[Gap]) -> Option<String> {
    let longest = gaps.iter().max_by(|one, other| one.steps.total_cmp(&other.steps))?;
    let Gap { id, line, steps } = longest;
    Some(format!(
        "gaps: {}, the longest before line {line}, of {steps:.0} usual steps of series `{id}`; rows on both sides of a gap \
         are taken as neighbours",
        gaps.len()
    ))
}

/// Under the folder's name, or as typed where two folders share one.
fn candidates(args: &ScoreArgs) -> Result<Vec<Candidate>, CliError> {
    let mut candidates = Vec::with_capacity(args.names.len());
    let vault = vault()?;
    for typed in &args.names {
        let entry = find(typed, &args.config, &args.models)?;
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
        "gaps": panel.gaps().iter().map(gap_json).collect::<Vec<_>>(),
        "rows": board.rows.iter().map(row_json).collect::<Vec<_>>(),
        "horizons_without_har": board.horizons_without_har,
    })
}

fn gap_json(gap: &Gap) -> Value {
    json!({ "series": gap.id, "line": gap.line, "steps": gap.steps })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_the_longest_is_named() {
        let gap = |id: &str, line, steps| Gap { id: id.to_owned(), line, steps };
        let want = "gaps: 2, the longest before line 9, of 40 usual steps of series `B`; rows on both sides of a gap are taken \
                    as neighbours";
        assert_eq!(warning_of(&[gap("A", 5, 6.0), gap("B", 9, 40.2)]).as_deref(), Some(want));
        assert_eq!(warning_of(&[]), None);
    }
}

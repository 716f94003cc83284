//! Scores models on days that they were not trained on, beside baselines that need no network.
//!
//! Rolling origins over the held-out end of every series; see `origins.rs`. Knows no file, command line or device: a
//! panel, loaded models and an executor come in, a board of figures goes out.

mod baselines;
mod har;
mod measures;
mod origins;
mod panel;

use std::collections::BTreeSet;

use peregrine_actors::scorecard::{levels, quantiles};
use peregrine_shaders::{ExecuteError, Executor, Forecaster, Scratch, Windows, head};

use har::Har;
use measures::{Tally, t_statistic};
use origins::{Origin, Origins};

pub use measures::Measures;
pub use panel::{Gap, Panel, PanelError, Series};

/// Windows per executor call.
const BATCH_ROWS: usize = 256;

/// One model that takes part.
#[derive(Debug)]
pub struct Candidate {
    /// What its row is called.
    pub name: String,
    /// As the catalog loads it.
    pub forecaster: Forecaster,
}

/// What a row is the result of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A candidate.
    Model,
    /// Arithmetic that anyone can redo.
    Baseline,
}

/// One line of the board.
#[derive(Clone, Debug)]
pub struct Row {
    /// The candidate's name, or the baseline's.
    pub name: String,
    /// Which of the two.
    pub kind: Kind,
    /// Steps ahead; a baseline has a row for each horizon among the candidates.
    pub horizon: usize,
    /// The figures.
    pub measures: Measures,
    /// By how many percent the mean absolute error is off the naive forecast's of the same horizon; negative is better.
    /// `None` where the naive forecast makes no error.
    pub mae_vs_naive_percent: Option<f64>,
    /// Student's t of the mean difference, over origins, between this row's absolute error and that of the first
    /// candidate; negative is better than the first. `None` for the first itself, another horizon, fewer than two
    /// origins, or differences that are all alike.
    pub t_vs_first: Option<f64>,
}

/// All rows, best mean absolute error first.
#[derive(Clone, Debug)]
pub struct Board {
    /// Candidates and baselines.
    pub rows: Vec<Row>,
    /// Horizons at which HAR cannot be fitted: its regressors are collinear, as those of constant series are.
    pub horizons_without_har: Vec<usize>,
}

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// A panel says nothing of which series belong together, and in which order.
    #[error("model `{model}` forecasts {series} series together; only models of one series are scored")]
    SeveralSeries {
        /// Which candidate.
        model: String,
        /// How many it reads.
        series: usize,
    },
    /// Its error cannot be measured.
    #[error("model `{model}` has no median: all its quantiles are on one side of it")]
    NoMedian {
        /// Which candidate.
        model: String,
    },
    /// Not one origin fits.
    #[error("model `{model}` forecasts {horizon} steps, and only {holdout} days are held out")]
    ShortHoldout {
        /// Which candidate.
        model: String,
        /// Its steps.
        horizon: usize,
        /// Days to be forecast.
        holdout: usize,
    },
    /// The table lacks an exogenous column.
    #[error("there is no column `{column}`, which model `{model}` reads")]
    NoColumn {
        /// Which candidate.
        model: String,
        /// What it reads.
        column: String,
    },
    /// Too little history.
    #[error(
        "series `{id}` has {got} values where {holdout} held-out days and the history that {reader} reads need {want}"
    )]
    ShortSeries {
        /// Which series.
        id: String,
        /// Its values.
        got: usize,
        /// Values needed.
        want: usize,
        /// Days to be forecast.
        holdout: usize,
        /// Who needs them.
        reader: String,
    },
    /// The network overflows on these values.
    #[error("model `{model}`, series `{id}`: the forecast from value {start} on is not finite")]
    NotFinite {
        /// Which candidate.
        model: String,
        /// Which series.
        id: String,
        /// Position of the first value to be forecast, from 0.
        start: usize,
    },
    /// The device failed.
    #[error("model `{model}`: {source}")]
    Execute {
        /// Which candidate.
        model: String,
        /// What the executor said.
        source: ExecuteError,
    },
}

/// Forecasts every origin of every series with every candidate and the baselines.
///
/// # Errors
/// When a candidate cannot be scored on this panel, or the executor fails; nothing is scored in part.
pub fn score(
    panel: &Panel,
    holdout: usize,
    candidates: &[Candidate],
    executor: &mut dyn Executor,
) -> Result<Board, ScoreError> {
    let plans = candidates
        .iter()
        .map(|candidate| plan(panel, holdout, candidate))
        .collect::<Result<Vec<Origins>, _>>()?;
    let mut board = Board { rows: Vec::new(), horizons_without_har: Vec::new() };
    for (candidate, &origins) in candidates.iter().zip(&plans) {
        let measures = of_model(panel, origins, candidate, executor)?;
        board.rows.push(Row::new(&candidate.name, Kind::Model, origins, measures));
    }
    for origins in plans.iter().copied().collect::<BTreeSet<Origins>>() {
        let mut add = |name, measures| board.rows.push(Row::new(name, Kind::Baseline, origins, measures));
        let naive = baselines::naive(panel, origins);
        let naive_mae = naive.mae;
        add("naive", naive);
        add("mean of 500 days", baselines::long_mean(panel, origins));
        match Har::fit(&panel.training(holdout), origins.horizon()) {
            Ok(har) => add("HAR", baselines::har(panel, origins, &har)),
            Err(har::Collinear) => board.horizons_without_har.push(origins.horizon()),
        }
        for row in board.rows.iter_mut().filter(|row| row.horizon == origins.horizon()) {
            row.mae_vs_naive_percent =
                (naive_mae > 0.0).then(|| 100.0 * (row.measures.mae / naive_mae - 1.0));
        }
    }
    if let Some((first, others)) = board.rows.split_first_mut() {
        for row in others.iter_mut().filter(|row| row.horizon == first.horizon) {
            row.t_vs_first = t_statistic(&row.measures.mae_by_origin, &first.measures.mae_by_origin);
        }
    }
    board.rows.sort_by(|a, b| a.measures.mae.total_cmp(&b.measures.mae));
    Ok(board)
}

impl Row {
    fn new(name: &str, kind: Kind, origins: Origins, measures: Measures) -> Self {
        let horizon = origins.horizon();
        Self { name: name.to_owned(), kind, horizon, measures, mae_vs_naive_percent: None, t_vs_first: None }
    }
}

/// The candidate's origins, once it is sure that all of them can be forecast.
fn plan(panel: &Panel, holdout: usize, candidate: &Candidate) -> Result<Origins, ScoreError> {
    let (model, spec) = (&candidate.name, candidate.forecaster.spec());
    if spec.series != 1 || spec.family.is_multivariate() {
        return Err(ScoreError::SeveralSeries { model: model.clone(), series: spec.series });
    }
    let horizon = spec.horizon;
    let origins = Origins::new(holdout, horizon).ok_or_else(|| ScoreError::ShortHoldout {
        model: model.clone(),
        horizon,
        holdout,
    })?;
    if let Some(column) = spec
        .hist_exog
        .iter()
        .chain(&spec.futr_exog)
        .chain(&spec.stat_exog)
        .find(|name| panel.place(name).is_none())
    {
        return Err(ScoreError::NoColumn { model: model.clone(), column: column.clone() });
    }
    let readers = [
        (spec.window, format!("model `{model}`")),
        (har::training_len_min(horizon), format!("HAR, fitted {horizon} steps ahead,")),
    ];
    for series in panel.series() {
        for (history_len, reader) in &readers {
            let want = holdout.saturating_add(*history_len);
            if series.y().len() < want {
                let (id, reader) = (series.id().to_owned(), reader.clone());
                return Err(ScoreError::ShortSeries { id, got: series.y().len(), want, holdout, reader });
            }
        }
    }
    Ok(origins)
}

fn of_model(
    panel: &Panel,
    origins: Origins,
    candidate: &Candidate,
    executor: &mut dyn Executor,
) -> Result<Measures, ScoreError> {
    let spec = candidate.forecaster.spec();
    let levels = levels(&spec.head);
    let mut tally = Tally::new(&levels, origins.count());
    let (mut scratch, mut out) = (Scratch::default(), Vec::new());
    let all: Vec<Origin<'_>> = origins.of_panel(panel).collect();
    for chunk in all.chunks(BATCH_ROWS) {
        let not_finite = |row: usize| ScoreError::NotFinite {
            model: candidate.name.clone(),
            id: chunk[row].series.id().to_owned(),
            start: chunk[row].start,
        };
        let mut batch = Windows::default();
        for origin in chunk {
            batch.append(&origin.window(panel, spec), spec.y_len());
        }
        candidate.forecaster.forecast(executor, &batch, &mut scratch, &mut out).map_err(
            |error| match error {
                ExecuteError::NotFinite { row } => not_finite(row),
                source => ScoreError::Execute { model: candidate.name.clone(), source },
            },
        )?;
        for (row, (origin, answer)) in chunk.iter().zip(out.chunks_exact(spec.answer_len())).enumerate() {
            let no_median = || ScoreError::NoMedian { model: candidate.name.clone() };
            let medians = head::median(spec, answer).ok_or_else(no_median)?;
            let quantiles = quantiles(spec, answer, &medians).ok_or_else(|| not_finite(row))?;
            for (step, (&truth, &median)) in origin.truth(spec.horizon).iter().zip(&medians).enumerate() {
                let at = step * levels.len()..(step + 1) * levels.len();
                let quantiles = quantiles[at].iter().copied().map(f64::from).collect::<Vec<_>>();
                tally.add(origin.index, f64::from(truth), f64::from(median), &quantiles);
            }
        }
    }
    Ok(tally.measures())
}

#[cfg(test)]
mod tests;

use std::path::Path;

use peregrine_shaders::cpu::CpuExecutor;

use super::*;

const NBEATS: &str = "nbeats-vol-quantile"; // 64 → 20
const NHITS: &str = "nhits-168x24-quantile"; // 168 → 24

#[test]
fn every_horizon_has_its_baselines_and_only_the_firsts_has_a_t() {
    let board = run(&waves(300, 2), 48, &[NBEATS, NHITS]).unwrap();
    let mut rows: Vec<_> =
        board.rows.iter().map(|row| (row.name.as_str(), row.horizon, row.t_vs_first.is_some())).collect();
    rows.sort_unstable();
    let mean = "mean of 500 days";
    let want = [
        ("HAR", 20, true),
        ("HAR", 24, false),
        (mean, 20, true),
        (mean, 24, false),
        ("naive", 20, true),
        ("naive", 24, false),
        (NBEATS, 20, false),
        (NHITS, 24, false),
    ];
    let mut want = want.to_vec();
    want.sort_unstable();
    assert_eq!(rows, want);
    assert!(board.rows.is_sorted_by_key(|row| row.measures.mae));
    let points = |name: &str, h| {
        board.rows.iter().find(|row| row.name == name && row.horizon == h).unwrap().measures.points
    };
    assert_eq!((points(NBEATS, 20), points(NHITS, 24)), (2 * 2 * 20, 2 * 2 * 24));
}

#[test]
fn constant_series_are_scored_without_har_and_without_ratios() {
    let text: String = (0..300).map(|at| format!("A,{at},2\n")).collect();
    let board = run(&format!("unique_id,ds,y\n{text}"), 40, &[NBEATS]).unwrap();
    assert_eq!(board.horizons_without_har, [20]);
    assert!(board.rows.iter().all(|row| row.mae_vs_naive_percent.is_none()), "{board:?}");
    assert!(board.rows.iter().all(|row| row.name != "HAR"));
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    check(
        &waves(300, 1),
        19,
        "model `nbeats-vol-quantile` forecasts 20 steps, and only 19 days are held out",
    );
    check(
        &waves(100, 1),
        40,
        "series `0` has 100 values where 40 held-out days and the history that model `nbeats-vol-quantile` reads need \
         104",
    );
    check(
        &waves(110, 1),
        40,
        "series `0` has 110 values where 40 held-out days and the history that HAR, fitted 20 steps ahead, reads need \
         126",
    );
    check(
        &waves(300, 1),
        usize::MAX,
        &format!(
            "series `0` has 300 values where {max} held-out days and the history that model `nbeats-vol-quantile` \
             reads need {max}",
            max = usize::MAX
        ),
    );
}

#[test]
fn a_forecast_that_overflows_names_model_and_series() {
    let text: String =
        (0..300).map(|at| format!("A,{at},{}e38\n", if at % 2 == 0 { 3 } else { -3 })).collect();
    let error = run(&format!("unique_id,ds,y\n{text}"), 40, &[NBEATS]).unwrap_err();
    let want = "model `nbeats-vol-quantile`, series `A`: the forecast from value 260 on is not finite";
    assert_eq!(error.to_string(), want);
}

#[track_caller]
fn check(table: &str, holdout: usize, want: &str) {
    assert_eq!(run(table, holdout, &[NBEATS]).unwrap_err().to_string(), want);
}

fn run(table: &str, holdout: usize, models: &[&str]) -> Result<Board, ScoreError> {
    let panel = Panel::read(table.as_bytes(), "y", &[]).unwrap();
    let candidates: Vec<Candidate> = models
        .iter()
        .map(|&name| Candidate {
            name: name.to_owned(),
            forecaster: Forecaster::load(&Path::new("models").join(name)).unwrap(),
        })
        .collect();
    score(&panel, holdout, &candidates, &mut CpuExecutor::new(1))
}

/// Series that never repeat, so that no difference is without spread.
fn waves(len: usize, series: usize) -> String {
    let mut text = "unique_id,ds,y\n".to_owned();
    for number in 0..series {
        for at in 0..len {
            let value = (at as f64 * 0.31).sin() + (at as f64 * (0.017 + number as f64 * 0.01)).cos() - 3.0;
            text.push_str(&format!("{number},{at},{value}\n"));
        }
    }
    text
}

//! The accuracy that the reference models were published with is what this build measures.
//!
//! Figures: the tables of the training library's own forecasts, on the same days (27 currencies, 25 origins).

use std::fs::File;
use std::path::Path;

use peregrine::catalog;
use peregrine::score::{Board, Candidate, Panel, Row, score};
use peregrine::sealed::Vault;
use peregrine_shaders::Precision;
use peregrine_shaders::cpu::CpuExecutor;

const TOLERANCE: f64 = 5e-4;
/// Published to a tenth of a percent; a bound that moves by rounding error takes some values with it.
const COVER_TOLERANCE: f64 = 1e-3;

/// Of the shipped ensemble.
const MEMBERS: [&str; 6] = [
    "nbeats-vol-quantile",
    "nhits-vol-quantile",
    "mlp-vol-quantile",
    "tide-vol-quantile",
    "patchtst-vol-point",
    "tcn-vol-point",
];

#[test]
fn published_accuracy_is_reproduced() {
    let panel = File::open("models/fx_vol_daily.csv.gz").unwrap();
    let panel = Panel::read(panel, "logrv5", &[]).unwrap();
    let candidates: Vec<Candidate> =
        ["nbeats-vol-quantile", "nhits-vol-quantile"].map(candidate).into_iter().collect();
    let board = score(&panel, 500, &candidates, &mut CpuExecutor::new(2)).unwrap();

    check(
        &board,
        "nbeats-vol-quantile",
        [Some(0.3435), Some(0.4633), Some(0.0517), Some(0.805), Some(0.950)],
    );
    check(&board, "nhits-vol-quantile", [Some(0.3492), Some(0.4665), Some(0.0517), Some(0.804), Some(0.951)]);
    check(&board, "HAR", [Some(0.3540), Some(0.4734), Some(0.0524), Some(0.786), Some(0.947)]);
    check(&board, "mean of 500 days", [Some(0.4085), Some(0.5406), Some(0.0598), Some(0.791), Some(0.929)]);
    check(&board, "naive", [Some(0.4415), None, None, None, None]);
    assert_eq!(row(&board, "naive").measures.points, 13_500);

    // Published the other way round: NBEATS against HAR −3.7.
    let t = row(&board, "HAR").t_vs_first.unwrap();
    assert!((t - 3.7).abs() < 0.05, "{t}");
}

#[test]
fn the_shipped_ensemble_beats_every_member_and_baseline() {
    let panel = File::open("models/fx_vol_daily.csv.gz").unwrap();
    let panel = Panel::read(panel, "logrv5", &[]).unwrap();
    let candidates: Vec<Candidate> = ["vol-ensemble"].into_iter().chain(MEMBERS).map(candidate).collect();
    let board = score(&panel, 500, &candidates, &mut CpuExecutor::new(2)).unwrap();
    let ensemble = row(&board, "vol-ensemble").measures.mae;
    assert!(ensemble < 0.343, "{ensemble}");
    for other in board.rows.iter().filter(|row| row.name != "vol-ensemble") {
        assert!(ensemble < other.measures.mae, "{} has {}", other.name, other.measures.mae);
    }
}

/// Of the models of the shipped ensemble; what a device's own products of halves add is measured there
/// (`peregrine models score … --halves --backend gpu`).
#[test]
fn rounded_matrices_cost_less_than_a_thousandth_of_the_accuracy() {
    let panel = File::open("models/fx_vol_daily.csv.gz").unwrap();
    let panel = Panel::read(panel, "logrv5", &[]).unwrap();
    let exact: Vec<Candidate> =
        MEMBERS.map(candidate).into_iter().chain([candidate("vol-ensemble")]).collect();
    let precisions = [Precision::F16, Precision::Int8];
    let rounded = precisions.iter().flat_map(|precision| {
        exact.iter().map(|exact| Candidate {
            name: format!("{}, {}", exact.name, precision.name()),
            forecaster: exact.forecaster.rounded(*precision).expect("small weights"),
        })
    });
    let candidates: Vec<Candidate> = rounded.collect::<Vec<_>>().into_iter().chain(exact).collect();
    let board = score(&panel, 500, &candidates, &mut CpuExecutor::new(2)).unwrap();
    for name in MEMBERS.into_iter().chain(["vol-ensemble"]) {
        let exact = row(&board, name).measures.mae;
        for precision in precisions {
            let rounded = row(&board, &format!("{name}, {}", precision.name())).measures.mae;
            assert_ne!(exact, rounded, "{name}: nothing was rounded");
            assert!(rounded < exact * 1.001, "{name}: {rounded} with {}, {exact} without", precision.name());
        }
    }
}

/// Mean absolute error, root mean squared error, sCRPS, shares within 80 % and 95 %.
#[track_caller]
fn check(board: &Board, name: &str, want: [Option<f64>; 5]) {
    let measures = &row(board, name).measures;
    let share = |percent: Option<f64>| percent.map(|percent| percent / 100.0);
    let got = [
        Some(measures.mae),
        Some(measures.rmse),
        measures.scrps,
        share(measures.cover_80),
        share(measures.cover_95),
    ];
    let tolerances = [TOLERANCE, TOLERANCE, TOLERANCE, COVER_TOLERANCE, COVER_TOLERANCE];
    for ((got, want), tolerance) in got.iter().zip(want).zip(tolerances) {
        let Some(want) = want else { continue };
        assert!(got.is_some_and(|got| (got - want).abs() <= tolerance), "{name}: {got:?}, published {want}");
    }
}

fn row<'a>(board: &'a Board, name: &str) -> &'a Row {
    board.rows.iter().find(|row| row.name == name).expect("a row of that name")
}

fn candidate(name: &str) -> Candidate {
    let entry = catalog::find(&Path::new("models").join(name)).expect("a model folder").remove(0);
    Candidate {
        name: name.to_owned(),
        forecaster: catalog::load(&entry, &Vault::default()).expect("a model"),
    }
}

//! Ensembles: what they answer is what their members answer, joined; what contradicts itself is refused.

use std::path::Path;

use serde_json::{Value, json};

use super::folders::folder;
use crate::cpu::CpuExecutor;
use crate::{Forecaster, LoadError, Scratch, Windows};

/// Window 64, five quantiles.
const SHORT: &str = "nbeats-vol-quantile";
/// Window 128, five quantiles.
const LONG: &str = "nhits-vol-quantile";
/// Window 128, a point.
const POINT: &str = "nhits-vol-point";
const MEDIAN: usize = 0;

#[test]
fn quantiles_are_averaged_level_by_level() {
    let [short, long, both] = answers(&[json!({"model": SHORT}), json!({"model": LONG})], "mean");
    for ((a, b), joined) in short.iter().zip(&long).zip(&both) {
        let expected = (f64::from(*a) + f64::from(*b)) / 2.0;
        assert!((f64::from(*joined) - expected).abs() < 1e-6, "{joined} where {expected} is the mean");
    }
}

#[test]
fn weights_weigh() {
    let members = [json!({"model": SHORT, "weight": 3.0}), json!({"model": LONG, "weight": 1.0})];
    let [short, long, both] = answers(&members, "mean");
    for ((a, b), joined) in short.iter().zip(&long).zip(&both) {
        let expected = (3.0 * f64::from(*a) + f64::from(*b)) / 4.0;
        assert!((f64::from(*joined) - expected).abs() < 1e-6);
    }
}

#[test]
fn a_point_moves_the_middle_and_leaves_the_width() {
    let [quantiles, point, both] = answers(&[json!({"model": LONG}), json!({"model": POINT})], "mean");
    for ((own, point), joined) in quantiles.chunks(5).zip(&point).zip(both.chunks(5)) {
        let middle = (f64::from(own[MEDIAN]) + f64::from(*point)) / 2.0;
        for (own_level, joined_level) in own.iter().zip(joined) {
            let expected = middle + f64::from(*own_level) - f64::from(own[MEDIAN]);
            assert!((f64::from(*joined_level) - expected).abs() < 1e-6);
        }
    }
}

#[test]
fn a_median_of_two_is_their_mean_and_of_one_itself() {
    let [short, long, both] = answers(&[json!({"model": SHORT}), json!({"model": LONG})], "median");
    for ((a, b), joined) in short.iter().zip(&long).zip(&both) {
        assert!((f64::from(*joined) - (f64::from(*a) + f64::from(*b)) / 2.0).abs() < 1e-6);
    }
}

#[test]
fn a_row_alone_equals_the_row_among_others() {
    let home = repository(&[SHORT, LONG]);
    let ensemble = load(home.path(), &json!([{"model": SHORT}, {"model": LONG}]), "mean").unwrap();
    let all = windows(9, 128);
    let batch = forecast(&ensemble, &all);
    for row in 0..9 {
        let one =
            Windows { rows: 1, y: all.y[row * 128..][..128].to_vec(), mask: None, ..Windows::default() };
        let mask = all.mask.as_ref().map(|mask| mask[row * 128..][..128].to_vec());
        let alone = forecast(&ensemble, &Windows { mask, ..one });
        assert_eq!(alone, batch[row * alone.len()..][..alone.len()]);
    }
}

#[test]
fn what_cannot_be_joined_is_refused() {
    let home = repository(&[SHORT, LONG, "nhits-ret-quantile", "nhits-gk-exog"]);
    let refused =
        |members: Value, combine: &str| load(home.path(), &members, combine).unwrap_err().to_string();
    let cases = [
        (json!([]), "wanted 1..=32"),
        (json!([{"model": "missing"}]), "not in the repository"),
        (json!([{"model": "../ensemble"}]), "NAME or NAME/VERSION"),
        (json!([{"model": "/etc"}]), "NAME or NAME/VERSION"),
        (json!([{"model": SHORT, "weight": 0.0}]), "is 0e0, wanted 1e-6 to 1e6"),
        (json!([{"model": SHORT, "weight": 1e308}]), "is 1e308, wanted 1e-6 to 1e6"),
        (json!([{"model": SHORT, "weight": 5e-324}]), "is 5e-324, wanted 1e-6 to 1e6"),
        (json!([{"model": SHORT}, {"model": "nhits-ret-quantile"}]), "horizon"),
        (json!([{"model": SHORT}, {"model": "nhits-gk-exog"}]), "exogenous"),
    ];
    for (members, why) in cases {
        let message = refused(members, "mean");
        assert!(message.contains(why), "{message}");
    }
    assert!(refused(json!([{"model": SHORT, "weight": 2.0}]), "median").contains("median"));
    assert!(matches!(load(home.path(), &json!([{"model": SHORT}]), "mode"), Err(LoadError::Json { .. })));
}

/// What each of two members answers alone to its own part of the windows, and what both answer together.
fn answers(members: &[Value], combine: &str) -> [Vec<f32>; 3] {
    let names = members.iter().map(|member| member["model"].as_str().unwrap());
    let names: Vec<&str> = names.collect();
    let home = repository(&names);
    let ensemble = load(home.path(), &json!(members), combine).unwrap();
    let window = ensemble.spec().window;
    let all = windows(7, window);
    let alone = |name: &str| {
        let member = Forecaster::load(&folder(name)).unwrap();
        let own = member.spec().window;
        let newest =
            |values: &[f32]| values.chunks(window).flat_map(|row| row[window - own..].to_vec()).collect();
        let cut = Windows {
            rows: all.rows,
            y: newest(&all.y),
            mask: all.mask.as_deref().map(newest),
            ..Windows::default()
        };
        forecast(&member, &cut)
    };
    [alone(names[0]), alone(names[1]), forecast(&ensemble, &all)]
}

/// Some values are missing.
fn windows(rows: usize, window: usize) -> Windows {
    let y = (0..rows * window).map(|at| ((at * 37 % 101) as f32) * 0.02 - 3.0).collect();
    let mask = (0..rows * window).map(|at| f32::from(u8::from(at % 17 != 3))).collect();
    Windows { rows, y, mask: Some(mask), ..Windows::default() }
}

fn forecast(forecaster: &Forecaster, windows: &Windows) -> Vec<f32> {
    windows.check(forecaster.spec()).unwrap();
    let mut out = Vec::new();
    forecaster.forecast(&mut CpuExecutor::new(1), windows, &mut Scratch::default(), &mut out).unwrap();
    out
}

fn load(home: &Path, members: &Value, combine: &str) -> Result<Forecaster, LoadError> {
    let dir = home.join("ensemble");
    std::fs::create_dir_all(&dir).unwrap();
    let written = json!({"format": 1, "name": "ensemble", "combine": combine, "members": members});
    std::fs::write(dir.join("ensemble.json"), written.to_string()).unwrap();
    Forecaster::load(&dir)
}

/// A repository that holds copies of these models.
fn repository(names: &[&str]) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for name in names {
        let to = home.path().join(name);
        std::fs::create_dir_all(&to).unwrap();
        for file in ["model.json", "weights.safetensors"] {
            std::fs::copy(folder(name).join(file), to.join(file)).unwrap();
        }
    }
    home
}

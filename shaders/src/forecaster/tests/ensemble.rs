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
/// Window 128, five quantiles.
const THIRD: &str = "mlp-vol-quantile";
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
fn members_may_have_their_quantiles_in_any_order() {
    let home = repository(&[SHORT, LONG]);
    // The same network, whose outputs mean other levels.
    let file = home.path().join(SHORT).join("model.json");
    let mut written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for list in ["/loss/quantiles", "/expected_columns"] {
        written.pointer_mut(list).and_then(Value::as_array_mut).unwrap().reverse();
    }
    std::fs::write(&file, written.to_string()).unwrap();
    let member = |dir: &Path| Forecaster::load(dir).unwrap();
    let (turned, straight) = (member(&home.path().join(SHORT)), member(&folder(LONG)));
    let ensemble = load(home.path(), &json!([{"model": LONG}, {"model": SHORT}]), "mean").unwrap();
    assert_eq!(ensemble.spec().columns, straight.spec().columns);
    let all = windows(1, 128);
    let newest = |values: &[f32]| values[64..].to_vec();
    let cut = Windows { y: newest(&all.y), mask: all.mask.as_deref().map(newest), ..all.clone() };
    let (turned, straight, both) =
        (forecast(&turned, &cut), forecast(&straight, &all), forecast(&ensemble, &all));
    for ((a, b), joined) in turned.chunks(5).zip(straight.chunks(5)).zip(both.chunks(5)) {
        for level in 0..5 {
            let expected = (f64::from(a[4 - level]) + f64::from(b[level])) / 2.0;
            assert!((f64::from(joined[level]) - expected).abs() < 1e-6, "{level}: {joined:?}");
        }
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
fn a_median_of_three_is_that_of_each_level() {
    let members = [SHORT, LONG, THIRD].map(|name| json!({"model": name}));
    let [a, b, c, joined] = answers(&members, "median");
    for (((a, b), c), joined) in a.iter().zip(&b).zip(&c).zip(&joined) {
        let mut level = [*a, *b, *c];
        level.sort_unstable_by(f32::total_cmp);
        assert_eq!(*joined, level[1]);
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

#[test]
fn a_member_with_versions_is_its_highest_or_the_one_that_is_named() {
    let home = repository(&[LONG]);
    let put = |from: &str, to: &str| {
        std::fs::create_dir_all(home.path().join(to)).unwrap();
        for file in ["model.json", "weights.safetensors"] {
            std::fs::copy(folder(from).join(file), home.path().join(to).join(file)).unwrap();
        }
    };
    for (from, to) in [(SHORT, "fx/1"), (LONG, "fx/2"), (POINT, "fx/10"), (SHORT, "fx/011")] {
        put(from, to);
    }
    let only = |member: Value| load(home.path(), &json!([member]), "mean");
    let alone = |name: &str| {
        let member = Forecaster::load(&folder(name)).unwrap();
        forecast(&member, &windows(3, member.spec().window))
    };
    for (member, name) in [
        (json!({"model": "fx"}), POINT),
        (json!({"model": "fx", "version": 1}), SHORT),
        (json!({"model": "fx", "version": 2}), LONG),
        (json!({"model": "fx/2"}), LONG),
        (json!({"model": LONG, "version": 1}), LONG),
    ] {
        let ensemble = only(member.clone()).unwrap_or_else(|error| panic!("{member}: {error}"));
        let got = forecast(&ensemble, &windows(3, ensemble.spec().window));
        let want = alone(name);
        assert_eq!(got.len(), want.len(), "{member}");
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{member}");
    }
    // Where another version than the highest answers for the member; one that is named has no other.
    for (written, chosen, name) in [
        (json!({"model": "fx"}), Some(1), SHORT),
        (json!({"model": "fx"}), Some(2), LONG),
        (json!({"model": "fx"}), Some(10), POINT),
        (json!({"model": "fx"}), Some(3), POINT),
        (json!({"model": "fx"}), None, POINT),
        (json!({"model": "fx/2"}), Some(1), LONG),
    ] {
        only(written.clone()).unwrap();
        let version = |member: &str| if member == "fx" { chosen } else { None };
        let ensemble =
            Forecaster::load_choosing(&home.path().join("ensemble"), &crate::PlainFiles, &version).unwrap();
        let got = forecast(&ensemble, &windows(3, ensemble.spec().window));
        let want = alone(name);
        assert_eq!(got.len(), want.len(), "{written} {chosen:?}");
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6), "{written} {chosen:?}");
    }
    // As a node serves version 2 where version 10 is damaged; one that is named has no other.
    std::fs::write(home.path().join("fx/10/weights.safetensors"), "junk").unwrap();
    assert_eq!(only(json!({"model": "fx"})).unwrap().spec().columns.len(), 5);
    let refused = |member: Value| only(member).unwrap_err().to_string();
    for (member, why) in [
        (json!({"model": "fx", "version": 10}), "fx/10/weights.safetensors"),
        (json!({"model": "fx", "version": 3}), "`fx` has no version 3"),
        (json!({"model": LONG, "version": 2}), "has no version 2"),
        (json!({"model": "fx/2", "version": 2}), "says its version already"),
        (json!({"model": "fx/v2"}), "names no version"),
    ] {
        let said = refused(member.clone());
        assert!(said.contains(why), "{member}: {said}");
    }
    std::fs::write(home.path().join("fx/2/weights.safetensors"), "junk").unwrap();
    std::fs::write(home.path().join("fx/1/weights.safetensors"), "junk").unwrap();
    assert!(refused(json!({"model": "fx"})).contains("fx/10/"), "the newest is told of");
}

#[test]
fn a_member_may_be_the_librarys_own_file() {
    let home = repository(&[]);
    let to = home.path().join("mine");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(folder("tcn-vol-point").join("native.safetensors"), to.join("native.safetensors")).unwrap();
    let ensemble = load(home.path(), &json!([{"model": "mine"}]), "mean").unwrap();
    let alone = Forecaster::load(&folder("tcn-vol-point")).unwrap();
    let windows = windows(3, ensemble.spec().window);
    let [got, want] = [&ensemble, &alone].map(|forecaster| forecast(forecaster, &windows));
    assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn why_a_member_is_none_is_said_truly() {
    let home = repository(&[SHORT]);
    load(home.path(), &json!([{"model": SHORT}]), "mean").unwrap();
    std::fs::create_dir_all(home.path().join("empty/notes")).unwrap();
    for (member, why) in [
        ("ensemble", "`ensemble` is an ensemble itself"),
        ("empty", "`empty` has no model in its folder"),
        ("missing", "`missing` is not in the repository"),
    ] {
        let said = load(home.path(), &json!([{"model": member}]), "mean").unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    let other = load(home.path(), &json!([{"model": SHORT}, {"model": "fx", "version": 1}]), "mean");
    assert!(other.is_err_and(|error| error.to_string().contains("`fx`")));
}

#[test]
fn what_an_ensemble_names_is_told_without_its_models() {
    let home = repository(&[]);
    let members = json!([{"model": "gone/3"}, {"model": "fx", "version": 2}, {"model": "a"}]);
    load(home.path(), &members, "mean").unwrap_err();
    let names = Forecaster::members(&home.path().join("ensemble"), &crate::PlainFiles).unwrap();
    assert_eq!(names, ["gone", "fx", "a"]);
    assert!(Forecaster::members(&folder(SHORT), &crate::PlainFiles).unwrap().is_empty());
}

/// What each member answers alone to its own part of the windows, and last what all answer together.
fn answers<const N: usize>(members: &[Value], combine: &str) -> [Vec<f32>; N] {
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
    let answers: Vec<Vec<f32>> =
        names.iter().map(|name| alone(name)).chain([forecast(&ensemble, &all)]).collect();
    answers.try_into().expect("one more than there are members")
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

//! The library's own files: the same model packed the library's way loads to the same plan.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::folders::folder;
use super::{Interpreter, Rng};
use crate::verify::verify;
use crate::{Forecaster, Head, LoadError, PlainFiles, Precision, Scratch, Windows};

/// Repacks a stored folder as the library would save it.
fn native_bytes(name: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    let model: Value =
        serde_json::from_slice(&std::fs::read(folder(name).join("model.json")).unwrap()).unwrap();
    let weights = std::fs::read(folder(name).join("weights.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let mut hparams = model["hparams"].clone();
    hparams["loss"] = json!({"__nf__": "loss", "cls": model["loss"]["type"], "args": {"level": [80, 95]}});
    hparams["valid_loss"] = Value::Null;
    change(&mut hparams);

    let mut shared: HashMap<String, Vec<String>> = HashMap::new();
    let mut kept: Vec<(String, TensorView<'_>)> = Vec::new();
    let mut names = weights.names();
    names.sort_unstable();
    for name in names {
        let view = weights.tensor(name).unwrap();
        match kept.iter().find(|(_, other)| other.data() == view.data() && other.shape() == view.shape()) {
            Some((first, _)) => shared.entry(first.clone()).or_default().push(name.to_owned()),
            None => kept.push((name.to_owned(), view)),
        }
    }
    let levels: Vec<f32> = serde_json::from_value(model["loss"]["quantiles"].clone()).unwrap_or_default();
    let bytes: Vec<u8> = levels.iter().flat_map(|level| level.to_le_bytes()).collect();
    if !levels.is_empty() {
        for name in ["loss.quantiles", "__hparams__.loss.state.quantiles"] {
            kept.push((name.to_owned(), TensorView::new(Dtype::F32, vec![levels.len()], &bytes).unwrap()));
        }
    }
    let header = HashMap::from([
        ("nf_format".to_owned(), "2".to_owned()),
        ("model_class".to_owned(), model["class"].as_str().unwrap().to_owned()),
        ("hyper_parameters".to_owned(), hparams.to_string()),
        ("shared".to_owned(), serde_json::to_string(&shared).unwrap()),
    ]);
    safetensors::serialize(kept, Some(header)).unwrap()
}

fn load(name: &str, bytes: &[u8]) -> Result<Forecaster, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name).join("native.safetensors");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    Forecaster::load_native(&path, &PlainFiles)
}

#[track_caller]
fn check(name: &str) {
    same(name, &load(name, &native_bytes(name, |_| ())).unwrap());
}

#[track_caller]
fn same(name: &str, from_native: &Forecaster) {
    let from_folder = Forecaster::load(&folder(name)).unwrap();
    let (spec, other) = (from_folder.spec(), from_native.spec());
    assert_eq!((&spec.name, spec.family, &spec.head), (&other.name, other.family, &other.head));
    assert_eq!((spec.horizon, spec.window, &spec.columns), (other.horizon, other.window, &other.columns));

    let mut rng = Rng(5);
    let mut random = |len: usize| (0..len).map(|_| rng.number()).collect::<Vec<f32>>();
    let windows = Windows {
        rows: 2,
        y: random(2 * spec.window),
        hist_exog: random(2 * spec.window * spec.hist_exog.len()),
        futr_exog: random(2 * (spec.window + spec.horizon) * spec.futr_exog.len()),
        ..Windows::default()
    };
    let run = |forecaster: &Forecaster| {
        let mut out = Vec::new();
        forecaster.forecast(&mut Interpreter, &windows, &mut Scratch::default(), &mut out).unwrap();
        out
    };
    assert_eq!(run(&from_folder), run(from_native));
}

#[test]
fn native_files_give_the_same_forecaster() {
    for name in [
        "nbeats-vol-quantile",
        "nhits-gk-exog",
        "dlinear-vol-point",
        "nhits-ret-quantile",
        "mlp-vol-quantile",
        "lstm-vol-point",
        "lstm-vol-recursive",
        "gru-ret-quantile",
        "tcn-vol-point",
        "tide-vol-quantile",
        "patchtst-vol-point",
    ] {
        check(name);
    }
}

#[test]
fn files_that_the_library_itself_saved_give_the_same_forecaster() {
    for name in ["deepar-ret", "tcn-vol-point", "dlinear-vol-point", "nhits-gk-exog", "tide-gk-exog"] {
        same(name, &Forecaster::load_native(&folder(name).join("native.safetensors"), &PlainFiles).unwrap());
    }
}

#[test]
fn cases_beside_the_librarys_own_file_are_recomputed() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["native.safetensors", "cases.safetensors"] {
        std::fs::copy(folder("nhits-gk-exog").join(file), dir.path().join(file)).unwrap();
    }
    let report = verify(dir.path(), &PlainFiles, Precision::F32, &mut Interpreter).unwrap();
    let listed = verify(&folder("nhits-gk-exog"), &PlainFiles, Precision::F32, &mut Interpreter).unwrap();
    assert!(report.passed && !report.cases.is_empty());
    assert_eq!((report.cases.len(), report.worst), (listed.cases.len(), listed.worst));

    let archive = std::fs::read(dir.path().join("cases.safetensors")).unwrap();
    std::fs::write(dir.path().join("cases.safetensors"), &archive[..archive.len() - 4]).unwrap();
    assert!(verify(dir.path(), &PlainFiles, Precision::F32, &mut Interpreter).is_err());
}

#[test]
fn a_block_that_the_library_makes_and_never_asks_is_passed_over() {
    // TiDE with future and static columns alone: the projection of past columns has no inputs.
    const NAME: &str = "tide-futr-point";
    let report = verify(&folder(NAME), &PlainFiles, Precision::F32, &mut Interpreter).unwrap();
    assert!(report.passed && report.cases.len() == 3 && report.worst < 1e-6, "{report:?}");

    let bytes = std::fs::read(folder(NAME).join("native.safetensors")).unwrap();
    let text = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
    };
    // Of another width or name it is a network of another kind.
    for (from, to) in [
        ("hist_exog_projection.lin1.weight", "hist_exog_projection.lin9.weight"),
        ("hist_exog_projection.norm.bias", "hist_exog_projection.norm.bide"),
        ("hist_exog_projection.skip.bias", "hist_exog_projection.skip.bide"),
    ] {
        assert!(load("x", &text(from, to)).is_err(), "{to}");
    }
}

#[test]
fn levels_stored_in_f32_come_back_as_the_decimals_that_were_meant() {
    let forecaster = load("x", &native_bytes("nbeats-vol-quantile", |_| ())).unwrap();
    assert_eq!(forecaster.spec().head, Head::Quantiles(vec![0.5, 0.025, 0.1, 0.9, 0.975]));
}

#[test]
fn an_input_size_that_was_left_to_the_library_is_three_horizons() {
    let unset = |name: &str| {
        let bytes = native_bytes(name, |hparams| {
            hparams["input_size"] = json!(-1);
            hparams["inference_input_size"] = Value::Null;
        });
        load("x", &bytes)
    };
    for (name, window) in [("lstm-vol-point", 60), ("lstm-vol-recursive", 61), ("gru-ret-quantile", 36)] {
        assert_eq!(unset(name).unwrap().spec().window, window, "{name}");
    }
    // The weights of these say how long a window is, or the library knows no such default.
    for name in ["tcn-vol-point", "mlp-vol-quantile"] {
        assert!(unset(name).is_err(), "{name}");
    }
}

#[test]
fn hyper_parameters_that_contradict_the_tensors_are_refused() {
    for (name, value) in
        [("h", json!(21)), ("input_size", json!(65)), ("n_basis", json!(2)), ("n_blocks", json!([1, 1, 1]))]
    {
        let result = load("x", &native_bytes("nbeats-vol-quantile", |hparams| hparams[name] = value.clone()));
        assert!(result.is_err(), "{name} = {value} was accepted");
    }
}

#[test]
fn a_weights_file_without_the_header_is_refused() {
    let bytes = std::fs::read(folder("dlinear-vol-point").join("weights.safetensors")).unwrap();
    assert!(matches!(load("x", &bytes), Err(LoadError::Parameter { .. })));
}

//! What is not computed exactly is refused, and the refusal says what it is about.

use serde_json::json;

use super::shapes::{load, mlp, nbeats, nhits};
use super::{Interpreter, Model, Rng};
use crate::{ExecuteError, Scratch};

#[track_caller]
fn check(model: &Model, words: &str) {
    let message = load(model).unwrap_err().to_string();
    assert!(message.contains(words), "`{message}` does not say `{words}`");
}

#[test]
fn an_even_moving_average_is_refused() {
    let hparams = json!({"moving_avg_window": 4});
    check(&Model { hparams, ..Model::new("DLinear", 5, 24) }.randomize(1), "moving_avg_window");
}

#[test]
fn options_without_arithmetic_here_are_refused_by_name() {
    for (name, value, words) in [
        ("cat_exog_list", json!(["a"]), "cat_exog_list"),
        ("exclude_insample_y", json!(true), "exclude_insample_y"),
        ("n_series", json!(3), "n_series"),
        ("recurrent", json!(true), "recurrent"),
        ("activation", json!("GELU"), "GELU"),
        ("pooling_mode", json!("MinPool1d"), "MinPool1d"),
        ("interpolation_mode", json!("spline"), "spline"),
        ("stack_types", json!(["identity", "trend", "identity"]), "trend"),
        ("n_pool_kernel_size", json!([4, 2]), "n_pool_kernel_size"),
        ("n_pool_kernel_size", json!([0, 2, 1]), "n_pool_kernel_size"),
        ("n_blocks", json!([1, 1]), "n_blocks"),
        ("n_blocks", json!([60000, 1, 1]), "blocks"),
        ("mlp_units", json!([]), "mlp_units"),
        ("mlp_units", json!([[20, 24], [16, 16]]), "mlp_units"),
        ("mlp_units", json!([[20, 65536], [65536, 65536]]), "blocks.0.layers.1.weight"),
        ("n_freq_downsample", json!([3, 2, 1]), "blocks.0.layers.5.weight"),
        ("dropout_prob_theta", json!(0.1), "blocks.0.layers.4.weight"),
        ("n_blocks", json!([1, 1, 2]), "blocks.3.layers.0.weight"),
    ] {
        check(&nhits().randomize(1).with(name, value), words);
    }
}

#[test]
fn cubic_interpolation_of_quantiles_is_refused() {
    let model = Model { loss: "MQLoss", ..nhits() }.with("interpolation_mode", json!("cubic"));
    check(&model.randomize(1), "cubic");
}

#[test]
fn unknown_classes_losses_and_scalers_are_refused_by_name() {
    check(&Model { class: "Informer", ..nhits().randomize(1) }, "`Informer`");
    check(&Model { loss: "GMM", ..nhits().randomize(1) }, "`GMM`");
    check(&Model { scaler: "boxcox", ..nhits().randomize(1) }, "`boxcox`");
}

#[test]
fn columns_that_contradict_the_loss_are_refused() {
    let model = Model { loss: "HuberMQLoss", ..mlp() };
    let parsed = |columns: serde_json::Value| {
        let mut json = model.json();
        json["expected_columns"] = columns;
        crate::loader::parse_model_json("model.json", json.to_string().as_bytes())
    };
    assert!(parsed(json!(["median", "lo-95", "lo-80", "hi-80", "hi-95"])).is_ok());
    let swapped = parsed(json!(["median", "hi-95", "lo-80", "hi-80", "lo-95"])).unwrap_err().to_string();
    assert!(swapped.contains("expected_columns") && swapped.contains("`hi-95`"), "{swapped}");
}

#[test]
fn exogenous_columns_of_families_without_them_are_refused() {
    check(&Model { hist: 1, ..nbeats().randomize(1) }, "exogenous");
}

#[test]
fn prelu_slopes_that_differ_are_refused() {
    let mut model = nhits().with("activation", json!("PReLU")).randomize(1);
    model.tensors.insert("blocks.0.layers.2.weight".into(), (vec![1], vec![0.9]));
    check(&model, "PReLU");
}

#[test]
fn weights_that_the_network_has_no_place_for_are_refused() {
    let mut model = nhits().randomize(1);
    model.tensors.insert("embedding.weight".into(), (vec![1], vec![0.9]));
    check(&model, "`embedding.weight` has no place");
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let mut model = nhits().randomize(1);
    model.tensors.get_mut("blocks.1.layers.1.weight").unwrap().1[7] = f32::NAN;
    check(&model, "`blocks.1.layers.1.weight` is not finite at index 7");
}

#[test]
fn overflow_inside_the_network_is_not_answered() {
    let mut model = nhits().randomize(1);
    for name in ["blocks.1.layers.5.bias", "blocks.2.layers.5.bias"] {
        model.tensors.get_mut(name).unwrap().1.fill(f32::MAX);
    }
    let windows = model.windows(&mut Rng(1));
    let mut out = Vec::new();
    let result =
        load(&model).unwrap().forecast(&mut Interpreter, &windows, &mut Scratch::default(), &mut out);
    assert_eq!(result, Err(ExecuteError::NotFinite { row: 0 }));
}

#[test]
fn input_that_leaves_f32_when_scaled_is_refused_with_its_row() {
    let model = Model { futr: 1, ..mlp() }.randomize(1);
    let mut windows = model.windows(&mut Rng(1));
    let span = model.window + model.h;
    windows.futr_exog[2 * span..3 * span].fill(1e-38);
    windows.futr_exog[3 * span - 1] = f32::MAX;
    windows.futr_exog[2 * span] = 2e-38;
    let forecaster = load(&model).unwrap();
    let mut out = Vec::new();
    let result = forecaster.forecast(&mut Interpreter, &windows, &mut Scratch::default(), &mut out);
    assert_eq!(result, Err(ExecuteError::NotFinite { row: 2 }));
}

//! Every option of TiDE, PatchTST and TSMixer on random weights, against the oracle; and what of them is refused.

use serde_json::{Value, json};

use super::options::check;
use super::shapes::{load, patchtst, tide, tsmixer};
use super::{Interpreter, Model, Rng, oracle_forecast};
use crate::cpu::CpuExecutor;
use crate::{Command, Executor, Forecaster, Scratch, Windows};

const SCALERS: [&str; 7] = ["identity", "standard", "robust", "minmax", "minmax1", "invariant", "revin"];

#[test]
fn tide_with_every_kind_of_exogenous_column() {
    for (hist, futr, stat) in [(0, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 4), (2, 3, 4)] {
        for layernorm in [true, false] {
            for loss in ["MAE", "HuberMQLoss"] {
                check(&Model { hist, futr, stat, loss, ..tide() }.with("layernorm", json!(layernorm)));
            }
        }
    }
}

#[test]
fn tide_with_one_to_three_layers() {
    for (encoders, decoders) in [(1, 3), (2, 2), (3, 1)] {
        let layers = Model { futr: 1, ..tide() }.with("num_encoder_layers", json!(encoders));
        let layers = layers.with("num_decoder_layers", json!(decoders));
        check(&layers.clone().with("layernorm", json!(false)));
        check(&layers);
    }
}

#[test]
fn tide_with_every_head_scaler_and_a_single_step() {
    for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
        check(&Model { loss, hist: 1, ..tide() });
        check(&Model { loss, futr: 1, h: 1, ..tide() });
    }
    for scaler in SCALERS {
        check(&Model { scaler, futr: 2, ..tide() });
    }
}

#[test]
fn patchtst_with_every_kind_of_norm_attention_and_activation() {
    for pre_norm in [false, true] {
        for res_attention in [false, true] {
            for activation in ["gelu", "relu"] {
                for layers in [1, 3] {
                    let model = patchtst().with("batch_normalization", json!(pre_norm));
                    let model = model.with("res_attention", json!(res_attention));
                    let model = model.with("activation", json!(activation));
                    check(&model.with("encoder_layers", json!(layers)));
                }
            }
        }
    }
}

#[test]
fn a_scale_of_scores_is_read_only_where_scores_are_handed_on() {
    let answer = |model: &Model| {
        let mut out = Vec::new();
        let windows = model.windows(&mut Rng(3));
        let forecaster = load(model).unwrap();
        forecaster.forecast(&mut Interpreter, &windows, &mut Scratch::default(), &mut out).unwrap();
        out
    };
    let name = |layer: usize| format!("model.backbone.encoder.layers.{layer}.self_attn.sdp_attn.scale");
    for handed_on in [false, true] {
        let model = patchtst().with("res_attention", json!(handed_on)).randomize(1);
        let mut other = model.clone();
        other.tensors.insert(name(1), (vec![], vec![7.5]));
        assert_eq!(answer(&model) != answer(&other), handed_on);
        let mut without = model.clone();
        without.tensors.remove(&name(0)).unwrap();
        match handed_on {
            true => refused(&without, &name(0)),
            false => assert_eq!(answer(&without), answer(&model)),
        }
        other.tensors.insert(name(1), (vec![1], vec![0.5]));
        refused(&other, &name(1));
        other.tensors.insert(name(1), (vec![], vec![f32::NAN]));
        refused(&other, &name(1));
    }
}

#[test]
fn patchtst_with_every_kind_of_instance_norm_and_scaler() {
    for (revin, affine, last) in [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (true, false, true),
        (true, true, true),
    ] {
        let model = patchtst().with("revin", json!(revin)).with("revin_affine", json!(affine));
        let model = model.with("revin_subtract_last", json!(last));
        for scaler in SCALERS {
            check(&Model { scaler, ..model.clone() });
        }
    }
    check(&patchtst().with("revin", json!(false)).with("revin_affine", json!(true)));
}

#[test]
fn patchtst_with_patches_of_every_length_and_stride() {
    for (patch_len, stride) in [(8, 4), (7, 3), (1, 1), (5, 9), (33, 1), (36, 4), (99, 4), (32, 40), (3, 50)]
    {
        let model = patchtst().with("patch_len", json!(patch_len)).with("stride", json!(stride));
        check(&model.clone());
        check(&Model { window: 31, ..model });
    }
    check(&Model { window: 1, ..patchtst() });
}

#[test]
fn patchtst_with_every_head_and_one_wide_head_of_attention() {
    for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
        check(&Model { loss, ..patchtst() });
    }
    for heads in [1, 12] {
        check(&patchtst().with("n_heads", json!(heads)).with("learn_pos_embed", json!(false)));
    }
}

#[test]
fn tsmixer_with_one_or_more_series_quantiles_and_layers() {
    for series in [1, 2, 7] {
        for loss in ["MAE", "MQLoss", "HuberMQLoss"] {
            for revin in [true, false] {
                let model = Model { series, loss, ..tsmixer() }.with("revin", json!(revin));
                check(&model.clone());
                check(&model.with("n_block", json!(1)));
            }
        }
    }
    check(&Model { h: 1, window: 1, ..tsmixer() }.with("ff_dim", json!(1)));
}

#[test]
fn tsmixer_with_every_scaler() {
    for scaler in SCALERS {
        for loss in ["MAE", "MQLoss"] {
            check(&Model { scaler, loss, ..tsmixer() });
        }
    }
}

/// Digits that f32 has no room for once the window is far from zero, or next to it.
#[test]
fn instance_norms_keep_what_is_small_beside_an_offset() {
    for model in [patchtst(), tsmixer(), patchtst().with("revin_subtract_last", json!(true))] {
        let model = model.randomize(5);
        let mut windows = model.windows(&mut Rng(6));
        for (at, y) in windows.y.iter_mut().enumerate() {
            *y = if at % 2 == 0 { 1e6 + *y } else { 1e6 - *y };
        }
        windows.mask.as_mut().unwrap().fill(1.0);
        judge(&model, &windows, 1e-7);
        windows.y.iter_mut().for_each(|y| *y = (*y - 1e6) * 1e-6);
        judge(&model, &windows, 2e-5);
    }
}

#[track_caller]
fn judge(model: &Model, windows: &Windows, tolerance: f64) {
    let forecaster = load(model).unwrap();
    let expected = oracle_forecast(model, windows);
    let got = run(&forecaster, &mut CpuExecutor::new(1), windows);
    let size = expected.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
    for (got, expected) in got.into_iter().zip(expected) {
        assert!((f64::from(got) - expected).abs() <= tolerance * size, "{got} wanted {expected}");
    }
}

fn run(forecaster: &Forecaster, executor: &mut dyn Executor, windows: &Windows) -> Vec<f32> {
    let mut out = Vec::new();
    forecaster.forecast(executor, windows, &mut Scratch::default(), &mut out).unwrap();
    out
}

#[test]
fn a_row_alone_is_the_row_of_its_batch_bit_for_bit() {
    for model in [
        Model { hist: 2, futr: 1, stat: 1, loss: "MQLoss", ..tide() },
        patchtst(),
        Model { loss: "MQLoss", scaler: "robust", ..tsmixer() },
    ] {
        let model = model.randomize(3);
        let forecaster = load(&model).unwrap();
        let windows = model.windows(&mut Rng(4));
        for executor in
            [&mut Interpreter as &mut dyn Executor, &mut CpuExecutor::new(1), &mut CpuExecutor::new(2)]
        {
            let together = run(&forecaster, executor, &windows);
            let answer_len = forecaster.spec().answer_len();
            for row in 0..windows.rows {
                let alone = run(&forecaster, executor, &one(&windows, row));
                assert_eq!(alone, together[row * answer_len..(row + 1) * answer_len], "row {row}");
            }
        }
    }
}

fn one(windows: &Windows, row: usize) -> Windows {
    let part = |values: &Vec<f32>| {
        let width = values.len() / windows.rows;
        values[row * width..(row + 1) * width].to_vec()
    };
    Windows {
        rows: 1,
        y: part(&windows.y),
        mask: windows.mask.as_ref().map(part),
        hist_exog: part(&windows.hist_exog),
        futr_exog: part(&windows.futr_exog),
        stat_exog: part(&windows.stat_exog),
    }
}

#[test]
fn a_missing_mask_of_several_series_is_a_mask_of_ones() {
    let model = Model { scaler: "standard", ..tsmixer() }.randomize(3);
    let forecaster = load(&model).unwrap();
    let mut windows = model.windows(&mut Rng(9));
    windows.mask = Some(vec![1.0; windows.y.len()]);
    let with_ones = run(&forecaster, &mut Interpreter, &windows);
    windows.mask = None;
    assert_eq!(run(&forecaster, &mut Interpreter, &windows), with_ones);
}

#[test]
fn norms_that_follow_each_other_are_one_command() {
    let affines = |model: Model| {
        let forecaster = load(&model.randomize(1)).unwrap();
        let commands = &forecaster.plans().next().unwrap().commands;
        commands.iter().filter(|command| matches!(command, Command::Affine(_))).count()
    };
    // Positions, then two norms for each of two layers: the last goes into the head, …
    assert_eq!(affines(patchtst()), 4);
    // … or the first into the positions.
    assert_eq!(affines(patchtst().with("batch_normalization", json!(true))), 4);
}

#[track_caller]
fn refused(model: &Model, words: &str) {
    let message = load(model).unwrap_err().to_string();
    assert!(message.contains(words), "`{message}` does not say `{words}`");
}

#[test]
fn options_without_arithmetic_here_are_refused_by_name() {
    let cases: [(Model, &str, Value, &str); 21] = [
        (tide(), "num_encoder_layers", json!(65), "num_encoder_layers"),
        (tide(), "num_decoder_layers", json!(0), "num_decoder_layers"),
        (tide(), "num_decoder_layers", json!(2), "dense_decoder.0"),
        (tide(), "hidden_size", json!(21), "tensor `"),
        (tide(), "hidden_size", json!(-1), "hidden_size"),
        (tide(), "layernorm", json!(false), "norm"),
        (tide(), "layernorm", json!("yes"), "layernorm"),
        (tide(), "n_series", json!(3), "n_series"),
        (tide(), "decoder_output_dim", json!(65_536), "row length"),
        (patchtst(), "activation", json!("tanh"), "`tanh`"),
        (patchtst(), "n_heads", json!(5), "n_heads"),
        (patchtst(), "encoder_layers", json!(65), "encoder_layers"),
        (patchtst(), "encoder_layers", json!(1), "layers.1"),
        (patchtst(), "stride", json!(0), "stride"),
        (patchtst(), "stride", json!(3), "W_pos"),
        (patchtst(), "revin_affine", json!(true), "revin_layer.affine_weight"),
        (patchtst(), "linear_hidden_size", json!(65_536), "ff.0.weight"),
        (tsmixer(), "revin", json!(false), "norm.affine"),
        (tsmixer(), "n_block", json!(65), "n_block"),
        (tsmixer(), "n_block", json!(1), "mixing_layers.1"),
        (tsmixer(), "n_series", json!(6), "n_series"),
    ];
    for (model, name, value, words) in cases {
        let model = match name {
            "decoder_output_dim" => Model { h: 60, ..model },
            _ => model,
        };
        refused(&model.randomize(1).with(name, value), words);
    }
}

#[test]
fn families_are_held_to_their_number_of_series() {
    refused(&Model { series: 3, ..tide().randomize(1) }, "n_series");
    refused(&Model { series: 0, ..tsmixer().randomize(1) }, "n_series");
    refused(&Model { series: 6, ..tsmixer().randomize(1) }, "temporal_norm");
    refused(&Model { series: 65_536, ..tsmixer().randomize(1) }, "row");
    refused(&Model { loss: "StudentT", ..tsmixer().randomize(1) }, "distribution");
    let refusal = |model: Model, change: fn(&mut Value)| {
        let mut json = model.json();
        change(&mut json);
        crate::loader::parse_model_json("model.json", json.to_string().as_bytes()).unwrap_err().to_string()
    };
    assert!(refusal(tide(), |json| json["multivariate"] = json!(true)).contains("multivariate"));
    assert!(refusal(tsmixer(), |json| json["multivariate"] = json!(false)).contains("multivariate"));
    assert!(refusal(tsmixer(), |json| json["n_series"] = Value::Null).contains("n_series"));
}

#[test]
fn exogenous_columns_of_families_without_them_are_refused() {
    for model in [patchtst(), tsmixer()] {
        refused(&Model { hist: 1, ..model.clone().randomize(1) }, "exogenous");
        refused(&Model { futr: 1, ..model.clone().randomize(1) }, "exogenous");
        refused(&Model { stat: 1, ..model.randomize(1) }, "exogenous");
    }
}

#[test]
fn a_batch_norm_of_negative_variance_is_refused() {
    let mut model = patchtst().randomize(1);
    model.tensors.get_mut("model.backbone.encoder.layers.1.norm_ffn.1.running_var").unwrap().1[3] = -0.5;
    refused(&model, "running_var");
}

#[test]
fn counters_of_training_steps_are_ignored() {
    let mut model = patchtst().randomize(1);
    let name = "model.backbone.encoder.layers.0.norm_ffn.1.num_batches_tracked";
    model.tensors.insert(name.to_owned(), (vec![], vec![700.0]));
    assert!(load(&model).is_ok());
}

//! Every option of LSTM, GRU, DeepAR and TCN, on random weights, against the oracle; and what they refuse.

use serde_json::{Value, json};

use super::options::check;
use super::shapes::{deepar, load, recursive, rnn, tcn};
use super::{Model, Rng};
use crate::cpu::CpuExecutor;
use crate::loader::parse_model_json;
use crate::{Command, Executor, LoadError, Scratch, Windows};

const ACTIVATIONS: [&str; 6] = ["ReLU", "Softplus", "Tanh", "SELU", "LeakyReLU", "Sigmoid"];

/// No columns, each kind alone, all together.
const EXOGENOUS: [(usize, usize, usize); 5] = [(0, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 2), (2, 3, 1)];

#[test]
fn direct_decoders_with_every_kind_of_exogenous_column() {
    for model in [rnn("LSTM"), rnn("GRU"), tcn()] {
        for (hist, futr, stat) in EXOGENOUS {
            check(&Model { hist, futr, stat, ..model.clone() });
        }
    }
}

#[test]
fn direct_decoders_with_every_head_and_scaler() {
    for model in [rnn("LSTM"), rnn("GRU"), tcn()] {
        for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
            check(&Model { loss, futr: 1, ..model.clone() });
        }
        for scaler in ["identity", "robust", "minmax", "minmax1", "invariant", "revin"] {
            check(&Model { scaler, ..model.clone() });
        }
    }
}

#[test]
fn horizons_up_to_the_window_and_beyond() {
    for model in [rnn("LSTM"), rnn("GRU"), tcn()] {
        for h in [1, 19, 20, 41] {
            for (hist, futr, stat) in [(0, 0, 0), (1, 2, 3)] {
                check(&Model { h, hist, futr, stat, ..model.clone() });
            }
        }
    }
}

#[test]
fn one_to_three_layers_on_either_side() {
    for class in ["LSTM", "GRU"] {
        for encoder in 1..=3 {
            for decoder in 1..=3 {
                let model = rnn(class).with("encoder_n_layers", json!(encoder));
                check(&model.with("decoder_layers", json!(decoder)));
            }
            check(&recursive(class).with("encoder_n_layers", json!(encoder)));
        }
    }
    for decoder in 1..=3 {
        check(&tcn().with("decoder_layers", json!(decoder)));
    }
}

#[test]
fn layers_without_biases() {
    for class in ["LSTM", "GRU"] {
        check(&rnn(class).with("encoder_bias", json!(false)));
        check(&recursive(class).with("encoder_bias", json!(false)));
    }
}

#[test]
fn every_activation_of_decoder_and_convolution() {
    for activation in ACTIVATIONS {
        for model in [rnn("LSTM"), tcn()] {
            check(&model.with("decoder_activation", json!(activation)).with("decoder_layers", json!(3)));
        }
        check(&tcn().with("encoder_activation", json!(activation)));
        let decoder = deepar("StudentT").with("decoder_hidden_layers", json!(1));
        check(&decoder.with("decoder_hidden_size", json!(8)).with("decoder_activation", json!(activation)));
    }
}

#[test]
fn recursive_forecasts_with_every_head() {
    for class in ["LSTM", "GRU"] {
        for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
            check(&Model { loss, ..recursive(class) });
            check(&Model { loss, futr: 2, stat: 3, ..recursive(class) });
        }
    }
}

#[test]
fn recursive_forecasts_with_every_scaler_and_known_columns() {
    for model in [recursive("LSTM"), recursive("GRU")] {
        for scaler in ["identity", "robust", "minmax", "minmax1", "invariant", "revin"] {
            check(&Model { scaler, ..model.clone() });
        }
    }
    for model in [recursive("LSTM"), recursive("GRU"), deepar("StudentT"), deepar("Normal")] {
        for (futr, stat) in [(0, 0), (2, 0), (0, 2), (3, 2)] {
            check(&Model { futr, stat, ..model.clone() });
        }
        for h in [1, 2, 30] {
            check(&Model { h, futr: 1, ..model.clone() });
        }
    }
}

#[test]
fn recursive_quantiles_are_all_their_mean() {
    let model = Model { loss: "MQLoss", ..recursive("GRU") }.randomize(1);
    let answer = run(&model, &model.windows(&mut Rng(2)));
    assert!(answer.chunks(3).all(|step| step[0] == step[1] && step[1] == step[2]));
}

#[test]
fn deepar_with_hidden_layers_in_its_decoder() {
    for loss in ["StudentT", "Normal"] {
        for hidden in 0..=3 {
            let model = deepar(loss).with("decoder_hidden_layers", json!(hidden));
            check(&model.clone().with("decoder_hidden_size", json!(11)));
            check(&model.with("decoder_hidden_size", json!(11)).with("lstm_n_layers", json!(1)));
        }
        for scaler in ["identity", "robust", "minmax"] {
            check(&Model { scaler, ..deepar(loss) });
        }
    }
}

#[test]
fn convolutions_of_every_reach() {
    for kernel in [1, 2, 3, 5] {
        for dilations in [json!([1]), json!([1, 3]), json!([5, 1, 2]), json!([18, 19]), json!([40])] {
            check(&tcn().with("kernel_size", json!(kernel)).with("dilations", dilations));
        }
    }
}

#[test]
fn a_convolution_stored_once_is_found_under_either_name() {
    let whole = tcn().randomize(1);
    let windows = whole.windows(&mut Rng(2));
    let wanted = run(&whole, &windows);
    for twin in [".conv.", ".causalconv."] {
        let mut once = whole.clone();
        once.tensors.retain(|name, _| !name.contains(twin));
        assert_eq!(run(&once, &windows), wanted);
    }
}

#[test]
fn twins_that_differ_are_refused() {
    for kind in ["weight", "bias"] {
        let mut model = tcn().randomize(1);
        model.tensors.get_mut(&format!("hist_encoder.tcn.1.causalconv.0.{kind}")).unwrap().1[3] += 1.0;
        refused(&model, &format!("hist_encoder.tcn.1.conv.{kind}"));
    }
}

#[test]
fn a_row_alone_is_the_row_among_others_bit_for_bit() {
    for model in [
        rnn("LSTM"),
        recursive("GRU"),
        Model { loss: "MQLoss", ..recursive("LSTM") },
        deepar("Normal"),
        tcn(),
    ] {
        let model = Model { futr: 2, stat: 1, ..model }.randomize(4);
        let windows = model.windows(&mut Rng(5));
        let together = run(&model, &windows);
        let row_len = together.len() / windows.rows;
        for row in 0..windows.rows {
            let part = |values: &[f32]| {
                let len = values.len() / windows.rows;
                values[row * len..(row + 1) * len].to_vec()
            };
            let alone = Windows {
                rows: 1,
                y: part(&windows.y),
                mask: windows.mask.as_deref().map(part),
                hist_exog: part(&windows.hist_exog),
                futr_exog: part(&windows.futr_exog),
                stat_exog: part(&windows.stat_exog),
            };
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&run(&model, &alone)), bits(&together[row * row_len..(row + 1) * row_len]));
        }
    }
}

#[test]
fn a_window_without_exogenous_columns_is_not_moved() {
    for model in [rnn("LSTM"), recursive("GRU"), deepar("Normal")] {
        let forecaster = load(&model.randomize(1)).unwrap();
        let moves = forecaster
            .plans()
            .next()
            .unwrap()
            .commands
            .iter()
            .filter(|command| matches!(command, Command::Move(_)));
        assert_eq!(moves.count(), 0);
    }
}

#[test]
fn what_a_recursive_forecast_leaves_open_is_refused() {
    for model in [recursive("LSTM"), recursive("GRU"), deepar("Normal")] {
        refused(&Model { hist: 1, ..model }.randomize(1), "past-only");
    }
    for scaler in ["revin", "minmax1", "invariant"] {
        refused(&Model { scaler, ..deepar("StudentT") }.randomize(1), "scaler_type");
        refused(&Model { scaler, loss: "Normal", ..recursive("GRU") }.randomize(1), "scaler_type");
    }
    refused(&deepar("MAE").randomize(1), "distribution");
    for (model, other) in [(recursive("LSTM"), 19), (recursive("GRU"), 40), (deepar("Normal"), 16)] {
        refused(&model.with("inference_input_size", json!(other)).randomize(1), "inference_input_size");
    }
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    for (model, changes) in [
        (
            rnn("LSTM"),
            &[
                ("encoder_n_layers", json!(0), "encoder_n_layers"),
                ("encoder_n_layers", json!(65), "encoder_n_layers"),
                ("encoder_n_layers", json!(3), "hist_encoder.weight_ih_l2"),
                ("encoder_n_layers", json!(1), "hist_encoder.bias_hh_l1"),
                ("encoder_hidden_size", json!(65536), "plan's weight count"),
                ("encoder_hidden_size", json!(13), "hist_encoder.weight_ih_l0"),
                ("encoder_bias", json!(1), "encoder_bias"),
                ("encoder_bias", json!(false), "hist_encoder.bias_hh_l0"),
                ("decoder_layers", json!(65), "decoder_layers"),
                ("decoder_layers", json!(3), "mlp_decoder.layers.3.weight"),
                ("decoder_hidden_size", json!(10), "mlp_decoder.layers.0.weight"),
                ("decoder_activation", json!("PReLU"), "decoder_activation"),
                ("decoder_activation", json!("Swish"), "Swish"),
                ("recurrent", json!(true), "hist_encoder.weight_hh_l0"),
                ("exclude_insample_y", json!(true), "exclude_insample_y"),
            ][..],
        ),
        (
            deepar("Normal"),
            &[
                ("decoder_hidden_layers", json!(1), "decoder_hidden_size"),
                ("decoder_hidden_layers", json!(64), "decoder_hidden_layers"),
                ("decoder_hidden_layers", json!(-1), "decoder_hidden_layers"),
                ("lstm_n_layers", json!(65), "lstm_n_layers"),
            ][..],
        ),
        (
            tcn(),
            &[
                ("dilations", json!([]), "dilations"),
                ("dilations", json!([0, 1, 2]), "dilations"),
                ("dilations", json!([1, 2]), "hist_encoder.tcn.2"),
                ("dilations", json!(vec![1; 65]), "dilations"),
                ("kernel_size", json!(4), "hist_encoder.tcn.0.conv.weight"),
                ("kernel_size", json!(0), "kernel_size"),
                ("encoder_hidden_size", json!(65536), "plan's row"),
                ("encoder_activation", json!("PReLU"), "encoder_activation"),
                ("recurrent", json!(true), "`recurrent`"),
            ][..],
        ),
    ] {
        let model = model.randomize(1);
        for (name, value, words) in changes {
            refused(&changed(&model, name, value), words);
        }
    }
}

#[test]
fn a_description_that_contradicts_itself_about_recursion_is_refused() {
    for (model, claimed) in [(recursive("LSTM"), false), (rnn("GRU"), true), (deepar("Normal"), false)] {
        let mut json = model.json();
        json["recurrent"] = json!(claimed);
        let error = parse_model_json("model.json", json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("`recurrent`"), "{error}");
    }
}

#[test]
fn the_window_of_a_recursive_model_is_one_longer_than_its_input_size() {
    for (model, more) in [(rnn("LSTM"), 1), (recursive("LSTM"), 0), (deepar("Normal"), 2)] {
        let mut json = model.json();
        json["hparams"]["input_size"] = json!(model.window - 1 + more);
        let parsed = parse_model_json("model.json", json.to_string().as_bytes());
        assert!(parsed.is_err() == (more != usize::from(!model.recursive())), "{}", model.class);
    }
}

#[test]
fn an_inference_window_that_is_the_window_is_taken() {
    for (model, same) in
        [(recursive("LSTM"), 18), (recursive("GRU"), -1), (deepar("Normal"), 17), (rnn("GRU"), 40)]
    {
        load(&model.with("inference_input_size", json!(same)).randomize(1)).unwrap();
    }
}

#[test]
fn a_recursion_of_too_many_commands_is_refused() {
    refused(&Model { h: 9000, ..recursive("LSTM") }.randomize(1), "command count");
    let wide = json!(vec![1; 64]);
    let taps = Model { window: 200, ..tcn().with("dilations", wide).with("kernel_size", json!(199)) };
    refused(&taps, "count of taps");
}

/// Weights as before, another description.
fn changed(model: &Model, name: &str, value: &Value) -> Model {
    model.clone().with(name, value.clone())
}

#[track_caller]
fn refused(model: &Model, words: &str) {
    let message = load(model).map_err(|error: LoadError| error.to_string()).unwrap_err();
    assert!(message.contains(words), "`{message}` does not say `{words}`");
}

fn run(model: &Model, windows: &Windows) -> Vec<f32> {
    let forecaster = load(model).unwrap();
    let mut out = Vec::new();
    let executor: &mut dyn Executor = &mut CpuExecutor::new(1);
    forecaster.forecast(executor, windows, &mut Scratch::default(), &mut out).unwrap();
    out
}

/// A state that is carried on has seen what was before the window; the forecast of a window has not. So a tick costs the
/// whole window, or its newest step where all others were taken before ([`crate::gpu::Slider`]).
#[test]
fn a_state_that_is_carried_into_a_window_gives_another_forecast() {
    for model in [rnn("LSTM"), rnn("GRU"), deepar("Normal")] {
        // No normalizer: the steps of a former window have the numbers that they have in this one.
        let short = Model { scaler: "identity", ..model }.randomize(4);
        let long = Model { window: short.window + 30, ..short.clone() };
        let carried = Windows { mask: None, ..long.windows(&mut Rng(5)) };
        let newest = carried.y.chunks_exact(long.window).flat_map(|row| &row[30..]).copied().collect();
        let newest = Windows { y: newest, ..carried.clone() };
        let answer = |model: &Model, windows: &Windows| {
            let mut answer = Vec::new();
            let forecaster = load(model).expect("it is sound");
            let mut cpu = CpuExecutor::new(1);
            forecaster.forecast(&mut cpu, windows, &mut Scratch::default(), &mut answer).expect("it runs");
            answer
        };
        let (window, carried) = (answer(&short, &newest), answer(&long, &carried));
        let size = window.iter().fold(0.0, |size: f32, value| size.max(value.abs()));
        let off = window.iter().zip(&carried).map(|(a, b)| (a - b).abs() / size).fold(0.0, f32::max);
        assert!(off > 1e-3, "{}: off by {off:e}, where executors agree to 2e-5", short.class);
    }
}

//! Every option that the families know, on random weights, against the oracle.

use serde_json::json;

use super::shapes::{load, mlp, nbeats, nhits};
use super::{Interpreter, Model, Rng, oracle_forecast};
use crate::cpu::CpuExecutor;
use crate::{Command, Executor, Scratch};

/// Sums of some hundred f32 terms through a few layers.
const TOLERANCE: f64 = 2e-5;

#[track_caller]
pub(super) fn check(model: &Model) {
    for seed in 1..=2 {
        let model = model.clone().randomize(seed);
        let windows = model.windows(&mut Rng(seed + 100));
        let forecaster = load(&model).unwrap();
        windows.check(forecaster.spec()).unwrap();
        let expected = oracle_forecast(&model, &windows);
        let row_len = expected.len() / windows.rows;
        // In f64 the folding alone is judged, in f32 what is served.
        for executor in [&mut Interpreter as &mut dyn Executor, &mut CpuExecutor::new(1)] {
            let mut got = Vec::new();
            forecaster.forecast(executor, &windows, &mut Scratch::default(), &mut got).unwrap();
            assert_eq!(got.len(), expected.len());
            for (row, (got, expected)) in got.chunks(row_len).zip(expected.chunks(row_len)).enumerate() {
                let size = expected.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
                for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                    let off = (f64::from(got) - expected).abs() / size;
                    let device = executor.device();
                    assert!(
                        off <= TOLERANCE,
                        "{device} seed {seed} row {row} at {at}: {got} wanted {expected} ({off:e})"
                    );
                }
            }
        }
    }
}

#[test]
fn nhits_with_several_blocks_in_a_stack() {
    check(&nhits().with("n_blocks", json!([3, 1, 2])));
}

#[test]
fn nhits_with_a_single_block() {
    let model = nhits().with("stack_types", json!(["identity"])).with("n_blocks", json!([1]));
    check(&model.clone().with("n_pool_kernel_size", json!([3])).with("n_freq_downsample", json!([4])));
    check(&model.with("n_pool_kernel_size", json!([1])).with("n_freq_downsample", json!([1])));
}

#[test]
fn nhits_pools_a_window_that_the_kernel_does_not_divide() {
    for mode in ["MaxPool1d", "AvgPool1d"] {
        let odd = Model { window: 33, ..nhits() }.with("pooling_mode", json!(mode));
        check(&odd.clone().with("n_pool_kernel_size", json!([7, 2, 5])));
        check(&odd.with("n_pool_kernel_size", json!([50, 33, 1])));
    }
}

#[test]
fn nhits_interpolates_in_every_mode() {
    for mode in ["linear", "nearest", "cubic"] {
        for (h, downsample) in [(12, [6, 5, 1]), (7, [3, 20, 2]), (1, [1, 1, 1])] {
            let model = Model { h, ..nhits() }.with("interpolation_mode", json!(mode));
            check(&model.with("n_freq_downsample", json!(downsample)));
        }
    }
}

#[test]
fn nhits_nearest_rounds_the_quotient_in_f32() {
    use crate::forecaster::interpolation::Interpolation;
    let taps = Interpolation::Nearest.taps(26, 44);
    let differs = (0..44).any(|i| taps[i][0].0 != i * 26 / 44);
    assert!(differs, "h = 44, K = 26 is a pair for which f32 and the exact rational differ");
    for (i, taps) in taps.iter().enumerate() {
        assert_eq!(taps[0].0, ((i as f32 * (26f32 / 44f32)).floor() as usize).min(25));
    }
}

#[test]
fn nhits_with_every_activation() {
    for activation in ["ReLU", "Softplus", "Tanh", "SELU", "LeakyReLU", "PReLU", "Sigmoid"] {
        let model = nhits().with("activation", json!(activation)).with("n_blocks", json!([2, 1, 1]));
        check(&model.clone());
        check(&model.with("dropout_prob_theta", json!(0.2)));
    }
}

#[test]
fn nhits_with_every_scaler() {
    for scaler in ["identity", "standard", "robust", "minmax", "minmax1", "invariant", "revin"] {
        check(&Model { scaler, ..nhits() });
        check(&Model { scaler, hist: 2, futr: 1, ..nhits() });
    }
}

#[test]
fn nhits_with_every_kind_of_exogenous_column() {
    for (hist, futr, stat) in [(2, 0, 0), (0, 3, 0), (0, 0, 4), (2, 3, 4)] {
        let model = Model { hist, futr, stat, window: 31, ..nhits() };
        check(&model.clone());
        check(&model.clone().with("pooling_mode", json!("AvgPool1d")).with("n_blocks", json!([2, 2, 1])));
        check(&model.clone().with("n_pool_kernel_size", json!([1, 3, 1])));
        check(&model.with("n_pool_kernel_size", json!([3, 3, 2])));
    }
}

#[test]
fn nhits_with_every_head() {
    for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
        for scaler in ["robust", "revin"] {
            check(&Model { loss, scaler, ..nhits() });
        }
    }
}

#[test]
fn nbeats_with_every_stack_type_and_head() {
    for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
        check(&Model { loss, ..nbeats() });
        check(&Model { loss, ..nbeats() }.with("stack_types", json!(["trend", "seasonality", "trend"])));
        check(&Model { loss, ..nbeats() }.with("n_blocks", json!([2, 3, 1])));
    }
}

#[test]
fn nbeats_with_a_legendre_basis_and_wide_layers() {
    let model = nbeats().with("basis", json!("legendre")).with("n_basis", json!(5));
    check(&model.with("mlp_units", json!([[64, 64], [64, 96]])));
}

#[test]
fn nbeats_with_odd_harmonics() {
    check(&nbeats().with("n_harmonics", json!(3)));
    check(&Model { h: 9, ..nbeats() }.with("n_harmonics", json!(1)));
}

#[test]
fn mlp_with_exogenous_columns_and_every_head() {
    for loss in ["MAE", "MQLoss", "StudentT", "Normal"] {
        check(&Model { loss, ..mlp() });
        check(&Model { loss, hist: 2, futr: 1, stat: 3, scaler: "robust", ..mlp() });
    }
}

#[test]
fn dlinear_with_windows_of_every_reach() {
    for average in [1, 3, 9, 25, 61] {
        let hparams = json!({"moving_avg_window": average});
        check(&Model { hparams: hparams.clone(), ..Model::new("DLinear", 5, 24) });
        check(&Model { hparams, loss: "MQLoss", scaler: "identity", ..Model::new("DLinear", 5, 25) });
    }
}

#[test]
fn nlinear_with_every_head_and_scaler() {
    for scaler in ["identity", "standard", "robust", "minmax", "minmax1", "invariant", "revin"] {
        for loss in ["MAE", "MQLoss", "StudentT"] {
            check(&Model { loss, scaler, ..Model::new("NLinear", 5, 24) });
        }
    }
}

#[test]
fn linear_families_are_one_command() {
    let hparams = json!({"moving_avg_window": 5});
    for class in ["DLinear", "NLinear"] {
        let model = Model { hparams: hparams.clone(), ..Model::new(class, 5, 24) }.randomize(1);
        assert!(matches!(load(&model).unwrap().plans().next().unwrap().commands[..], [Command::Linear(_)]));
    }
}

#[test]
fn a_missing_mask_is_a_mask_of_ones_and_rows_do_not_touch() {
    let model = Model { hist: 1, ..nhits() }.randomize(3);
    let forecaster = load(&model).unwrap();
    let mut windows = model.windows(&mut Rng(9));
    let mut scratch = Scratch::default();
    let mut run = |windows: &crate::Windows| {
        let mut out = Vec::new();
        forecaster.forecast(&mut Interpreter, windows, &mut scratch, &mut out).unwrap();
        out
    };
    windows.mask = Some(vec![1.0; windows.y.len()]);
    let with_ones = run(&windows);
    windows.mask = None;
    assert_eq!(run(&windows), with_ones);
    let alone = crate::Windows {
        rows: 1,
        y: windows.y[..model.window].to_vec(),
        hist_exog: windows.hist_exog[..model.window].to_vec(),
        ..crate::Windows::default()
    };
    assert_eq!(run(&alone), with_ones[..model.h]);
}

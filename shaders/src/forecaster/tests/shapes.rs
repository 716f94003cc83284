//! Small networks that tests vary from, still without weights.

use serde_json::{Value, json};

use super::Model;
use crate::{Forecaster, LoadError};

/// Writes the model folder and loads it.
pub(super) fn load(model: &Model) -> Result<Forecaster, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    model.write(dir.path());
    Forecaster::load(dir.path())
}

pub(super) fn nhits() -> Model {
    Model {
        hparams: json!({
            "stack_types": ["identity", "identity", "identity"], "n_blocks": [1, 1, 1],
            "mlp_units": [[20, 24], [24, 16]], "n_pool_kernel_size": [4, 2, 1], "n_freq_downsample": [6, 2, 1],
            "pooling_mode": "MaxPool1d", "interpolation_mode": "linear", "dropout_prob_theta": 0.0,
            "activation": "ReLU",
        }),
        ..Model::new("NHITS", 12, 32)
    }
}

pub(super) fn nbeats() -> Model {
    Model {
        hparams: json!({
            "stack_types": ["identity", "trend", "seasonality"], "n_blocks": [1, 1, 1],
            "mlp_units": [[20, 24], [24, 16]], "n_basis": 2, "n_harmonics": 2, "basis": "polynomial",
            "dropout_prob_theta": 0.0, "activation": "ReLU", "shared_weights": false,
        }),
        ..Model::new("NBEATS", 10, 24)
    }
}

pub(super) fn mlp() -> Model {
    Model { hparams: json!({"num_layers": 3, "hidden_size": 24}), ..Model::new("MLP", 6, 20) }
}

pub(super) fn rnn(class: &'static str) -> Model {
    Model {
        hparams: json!({
            "encoder_n_layers": 2, "encoder_hidden_size": 12, "encoder_bias": true, "encoder_dropout": 0.1,
            "decoder_hidden_size": 9, "decoder_layers": 2, "decoder_activation": null, "recurrent": false,
            "inference_input_size": null, "h_train": 1,
        }),
        ..Model::new(class, 7, 19)
    }
}

pub(super) fn recursive(class: &'static str) -> Model {
    rnn(class).with("recurrent", json!(true))
}

pub(super) fn deepar(loss: &'static str) -> Model {
    Model {
        loss,
        hparams: json!({
            "lstm_n_layers": 2, "lstm_hidden_size": 10, "lstm_dropout": 0.1, "decoder_hidden_layers": 0,
            "decoder_hidden_size": 0, "decoder_activation": null, "trajectory_samples": 100,
        }),
        ..Model::new("DeepAR", 6, 17)
    }
}

pub(super) fn tcn() -> Model {
    Model {
        hparams: json!({
            "kernel_size": 3, "dilations": [1, 2, 4], "encoder_hidden_size": 8, "encoder_activation": "ReLU",
            "decoder_hidden_size": 9, "decoder_layers": 2, "decoder_activation": null,
        }),
        ..Model::new("TCN", 7, 19)
    }
}

pub(super) fn tide() -> Model {
    Model {
        hparams: json!({
            "hidden_size": 20, "decoder_output_dim": 5, "temporal_decoder_dim": 7, "layernorm": true,
            "num_encoder_layers": 1, "num_decoder_layers": 1, "temporal_width": 3, "dropout": 0.2,
        }),
        ..Model::new("TiDE", 6, 20)
    }
}

pub(super) fn patchtst() -> Model {
    Model {
        hparams: json!({
            "encoder_layers": 2, "n_heads": 3, "hidden_size": 12, "linear_hidden_size": 20, "patch_len": 8,
            "stride": 4, "revin": true, "revin_affine": false, "revin_subtract_last": false,
            "activation": "gelu", "res_attention": true, "batch_normalization": false, "learn_pos_embed": true,
        }),
        scaler: "identity",
        ..Model::new("PatchTST", 6, 32)
    }
}

pub(super) fn tsmixer() -> Model {
    Model {
        hparams: json!({"n_block": 2, "ff_dim": 9, "dropout": 0.3, "revin": true}),
        scaler: "identity",
        series: 7,
        ..Model::new("TSMixer", 5, 16)
    }
}

impl Model {
    /// With one hyper-parameter changed.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.hparams[name] = value;
        self
    }
}

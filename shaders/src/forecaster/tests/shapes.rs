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

impl Model {
    /// With one hyper-parameter changed.
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.hparams[name] = value;
        self
    }
}

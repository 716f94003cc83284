"""Writes the model folder of a benchmark: a random-weight N-HiTS of 3 stacks × 2 × 512, point head, standard scaler; with a third
argument also windows with their exact forecasts, so that a load generator can check answers.

    make_model.py MODELS_DIR WINDOWxHORIZON [CASES_DIR]

writes MODELS_DIR/serve-WINDOWxHORIZON-point/{model.json,weights.safetensors} and CASES_DIR/{windows,expected}.f32
(little-endian, [1000, WINDOW] and [1000, HORIZON]).
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import nhits

WINDOW, HORIZON = map(int, sys.argv[2].split("x"))
NAME = f"serve-{WINDOW}x{HORIZON}-point"
UNITS, CASES = 512, 1000
POOL, DOWNSAMPLE = [2, 2, 1], [4, 2, 1]


def main() -> None:
    """Weights, card, windows and expected answers."""
    models = Path(sys.argv[1])
    rng = np.random.default_rng(2024)
    weights = {}
    for index, (kernel, down) in enumerate(zip(POOL, DOWNSAMPLE)):
        widths = [-(-WINDOW // kernel), UNITS, UNITS, UNITS, WINDOW + max(HORIZON // down, 1)]
        for number, inputs, outputs in zip([0, 1, 3, 5], widths, widths[1:]):
            # Kaiming's bound keeps the activations' size; the last layer is small, as trained residuals are.
            bound = np.sqrt(6.0 / inputs) * (0.1 if number == 5 else 1.0 if number else 0.7)
            weights[f"blocks.{index}.layers.{number}.weight"] = rng.uniform(
                -bound, bound, (outputs, inputs)).astype(np.float32)
            weights[f"blocks.{index}.layers.{number}.bias"] = rng.uniform(-0.05, 0.05, outputs).astype(np.float32)
    folder = models / NAME
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(card(weights), indent=1) + "\n")

    print(f"{NAME}: {sum(w.size for w in weights.values()):,} weights")
    if len(sys.argv) < 4:
        return
    model, cases = nhits.load(folder), Path(sys.argv[3])
    scales = rng.lognormal(0.0, 1.5, (CASES, 1))
    steps = rng.standard_normal((CASES, WINDOW)) * scales
    # Four decimals: what a price or an indicator looks like as text. The f32 values are the truth.
    windows = np.round(rng.normal(0.0, 20.0, (CASES, 1)) + steps.cumsum(axis=1), 4).astype(np.float32)
    cases.mkdir(parents=True, exist_ok=True)
    (cases / "windows.f32").write_bytes(windows.astype("<f4").tobytes())
    (cases / "expected.f32").write_bytes(nhits.forecast(model, windows).astype("<f4").tobytes())


def card(weights: dict) -> dict:
    """What the library's exporter would say about this network."""
    return {
        "format": 1, "name": NAME, "library": "neuralforecast", "library_version": "3.3.0", "class": "NHITS",
        "h": HORIZON, "window": WINDOW, "n_series": 1, "multivariate": False, "recurrent": False,
        "scaler_type": "standard",
        "loss": {"type": "MAE", "output_size": 1, "output_names": [""], "is_distribution": False},
        "hist_exog": [], "futr_exog": [], "stat_exog": [],
        "hparams": {
            "h": HORIZON, "input_size": WINDOW, "inference_input_size": WINDOW, "scaler_type": "standard",
            "futr_exog_list": None, "hist_exog_list": None, "stat_exog_list": None, "exclude_insample_y": False,
            "stack_types": ["identity"] * 3, "n_blocks": [1, 1, 1], "mlp_units": [[UNITS, UNITS]] * 2,
            "n_pool_kernel_size": POOL, "n_freq_downsample": DOWNSAMPLE, "pooling_mode": "MaxPool1d",
            "interpolation_mode": "linear", "dropout_prob_theta": 0.0, "activation": "ReLU",
        },
        "tensors": {name: list(tensor.shape) for name, tensor in weights.items()},
        "n_parameters": sum(tensor.size for tensor in weights.values()),
        "training": {}, "expected_columns": ["point"], "cases": [], "debug_order": [],
    }


if __name__ == "__main__":
    main()

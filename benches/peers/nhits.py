"""N-HiTS as plain numbers: reads a model folder and runs it in float64, for checking what others compute.

Knows no ONNX and no server. Univariate models without exogenous columns, max pooling, linear interpolation, ReLU:
what the benchmarks use. Anything else is refused.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


@dataclass
class Block:
    """One block: its layers as (weight [out, in], bias [out]), pooling kernel and number of knots."""

    layers: list[tuple[np.ndarray, np.ndarray]]
    kernel: int
    knots: int


@dataclass
class Nhits:
    """A network and the scaler around it."""

    name: str
    window: int
    horizon: int
    outputs: int
    scaler: str
    blocks: list[Block]


def load(folder: Path) -> Nhits:
    """Reads `model.json` and `weights.safetensors`; refuses what the benchmarks do not cover."""
    card = json.loads((folder / "model.json").read_text())
    weights = load_file(folder / "weights.safetensors")
    hparams = card["hparams"]
    for key, want in [("pooling_mode", "MaxPool1d"), ("interpolation_mode", "linear"), ("activation", "ReLU")]:
        if hparams[key] != want:
            raise SystemExit(f"{folder.name}: {key} is {hparams[key]}, only {want} is covered")
    if card["class"] != "NHITS" or card["hist_exog"] or card["futr_exog"] or card["stat_exog"]:
        raise SystemExit(f"{folder.name}: only NHITS without exogenous columns is covered")
    if card["loss"]["is_distribution"] or hparams["dropout_prob_theta"]:
        raise SystemExit(f"{folder.name}: distribution heads and dropout are not covered")
    blocks = []
    for stack, count in enumerate(hparams["n_blocks"]):
        for _ in range(count):
            prefix = f"blocks.{len(blocks)}.layers."
            numbers = sorted(int(k.removeprefix(prefix).split(".")[0]) for k in weights
                             if k.startswith(prefix) and k.endswith(".weight"))
            layers = [(weights[f"{prefix}{n}.weight"], weights[f"{prefix}{n}.bias"]) for n in numbers]
            knots = max(card["h"] // hparams["n_freq_downsample"][stack], 1)
            blocks.append(Block(layers, hparams["n_pool_kernel_size"][stack], knots))
    return Nhits(card["name"], card["window"], card["h"], card["loss"]["output_size"], card["scaler_type"], blocks)


def interpolation(knots: int, horizon: int) -> np.ndarray:
    """Linear interpolation with half-pixel centres as a matrix [horizon, knots]."""
    matrix = np.zeros((horizon, knots))
    for i in range(horizon):
        s = max((i + 0.5) * knots / horizon - 0.5, 0.0)
        j = int(s)
        matrix[i, j] += 1.0 - (s - j)
        matrix[i, min(j + 1, knots - 1)] += s - j
    return matrix


def network(model: Nhits, y: np.ndarray) -> np.ndarray:
    """Scaled windows [B, L] to raw outputs [B, h, Q], in float64."""
    residual = y[:, ::-1].astype(np.float64)
    rows, length = residual.shape
    forecast = np.repeat(residual[:, :1, None], model.horizon, axis=1).repeat(model.outputs, axis=2)
    for block in model.blocks:
        padding = -length % block.kernel
        padded = np.pad(residual, ((0, 0), (0, padding)), constant_values=-np.inf)
        x = padded.reshape(rows, -1, block.kernel).max(axis=2)
        for index, (weight, bias) in enumerate(block.layers):
            x = x @ weight.T.astype(np.float64) + bias
            if 0 < index < len(block.layers) - 1:
                x = np.maximum(x, 0.0)
        residual = residual - x[:, :length]
        knots = x[:, length:].reshape(rows, model.outputs, block.knots)
        forecast = forecast + np.einsum("tk,bqk->btq", interpolation(block.knots, model.horizon), knots)
    return forecast


def statistics(model: Nhits, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale [B, 1] of the standard scaler, in float64."""
    if model.scaler != "standard":
        raise SystemExit(f"{model.name}: only the standard scaler is covered")
    y = y.astype(np.float64)
    shift = y.mean(axis=1, keepdims=True)
    scale = np.sqrt(((y - shift) ** 2).mean(axis=1, keepdims=True))
    return shift, np.where(scale == 0.0, 1.0, scale) + 1e-6


def forecast(model: Nhits, y: np.ndarray) -> np.ndarray:
    """Raw windows [B, L] to forecasts [B, h, Q], in float64."""
    shift, scale = statistics(model, y)
    return network(model, (y - shift) / scale) * scale[..., None] + shift[..., None]

"""N-HiTS and its scaler in torch, eager, module for module as the trainer's library lays it out."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class Block(nn.Module):
    """Pooling, a stack of layers, a backcast and an interpolated forecast."""

    def __init__(self, window: int, horizon: int, units: list[int], kernel: int, knots: int) -> None:
        super().__init__()
        self.window, self.horizon = window, horizon
        self.pool = nn.MaxPool1d(kernel, stride=kernel, ceil_mode=True)
        layers: list[nn.Module] = [nn.Linear(-(-window // kernel), units[0])]
        for inputs, outputs in zip(units, units[1:] + [units[-1]]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        layers.append(nn.Linear(units[-1], window + knots))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        theta = self.layers(self.pool(x.unsqueeze(1)).squeeze(1))
        backcast, knots = theta[:, : self.window], theta[:, self.window :]
        forecast = nn.functional.interpolate(knots.unsqueeze(1), size=self.horizon, mode="linear")
        return backcast, forecast.squeeze(1)


class Nhits(nn.Module):
    """Raw windows `[B, L]` to forecasts `[B, h, 1]`."""

    def __init__(self, card: dict) -> None:
        super().__init__()
        hparams = card["hparams"]
        self.blocks = nn.ModuleList(
            Block(card["window"], card["h"], list(units), kernel, max(card["h"] // down, 1))
            for units, kernel, down in zip(
                [hparams["mlp_units"][0]] * 3, hparams["n_pool_kernel_size"], hparams["n_freq_downsample"]))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        shift = y.mean(dim=1, keepdim=True)
        scale = y.std(dim=1, keepdim=True, correction=0)
        scale = torch.where(scale == 0.0, torch.ones_like(scale), scale) + 1e-6
        residual = ((y - shift) / scale).flip(1)
        forecast = residual[:, :1]
        for block in self.blocks:
            backcast, step = block(residual)
            residual = residual - backcast
            forecast = forecast + step
        return (forecast * scale + shift).unsqueeze(2)


def load(folder: Path) -> Nhits:
    """The network of a model folder, ready to predict."""
    model = Nhits(json.loads((folder / "model.json").read_text()))
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()

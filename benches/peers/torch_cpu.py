"""torch on the CPU as a peer of `peer_cpu`: a child that is told over its input what to do, so that everybody takes turns.

    torch_cpu.py THREADS LAYERS…

Lines in: `check LAYERS ROWS FROM TO` computes raw f32 windows of a file into another one; `time KIND LAYERS ROWS SECONDS` answers
the median of as many runs, in seconds. KIND is `eager`, or `frozen`: traced, frozen and optimized for inference.
"""

import sys
import time

import numpy as np
import torch
from safetensors.torch import load_file


class Folded(torch.nn.Module):
    """The layers that `export.py` leaves, oldest step first."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.tensors = load_file(file)
        self.kernels = self.tensors.pop("kernels").tolist()

    def layer(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """`x · weightᵀ + bias`."""
        return torch.nn.functional.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """[B, L] to [B, steps]."""
        residual, slices = y, []
        for number, kernel in enumerate(self.kernels):
            x = torch.nn.functional.max_pool1d(residual[:, None], kernel)[:, 0] if kernel > 1 else residual
            at = 0
            while f"{number}.hidden.{at}.weight" in self.tensors:
                x = torch.relu(self.layer(x, f"{number}.hidden.{at}"))
                at += 1
            if f"{number}.backcast.weight" in self.tensors:
                residual = residual - self.layer(x, f"{number}.backcast")
            slices.append(self.layer(x, f"{number}.knots") if f"{number}.knots.weight" in self.tensors else x)
        return self.layer(torch.cat(slices, 1), "head") + y[:, -1:]


def main() -> None:
    """Answers until its input ends."""
    torch.set_num_threads(int(sys.argv[1]))
    models = {}
    with torch.inference_mode():
        for file in sys.argv[2:]:
            eager = Folded(file).eval()
            width = eager.tensors["0.backcast.weight"].shape[0]
            frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(eager, torch.zeros(2, width)).eval()))
            models[file] = {"eager": eager, "frozen": frozen, "width": width}
        print(f"ready torch {torch.__version__}", flush=True)
        for line in sys.stdin:
            command, *words = line.split()
            if command == "check":
                file, rows, source, target = words
                model = models[file]
                y = torch.from_numpy(np.fromfile(source, "<f4").reshape(int(rows), model["width"]))
                answers = [model[kind](y).numpy() for kind in ("eager", "frozen")]
                np.concatenate(answers).astype("<f4").tofile(target)
                print("done", flush=True)
                continue
            kind, file, rows, seconds = words
            model = models[file]
            inputs = [torch.randn(int(rows), model["width"]) for _ in range(4)]
            times, started = [], time.perf_counter()
            while len(times) < 5 or time.perf_counter() - started < float(seconds):
                begun = time.perf_counter()
                model[kind](inputs[len(times) % 4])
                times.append(time.perf_counter() - begun)
            print(float(np.median(times[len(times) // 4:])), flush=True)


if __name__ == "__main__":
    main()

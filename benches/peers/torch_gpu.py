"""The models of `shaders/examples/gpu_forecast.rs` in torch, host memory to host memory, and plain matrix products.

N-HiTS with the interpolation folded into the last layer, as ours: eager and one CUDA graph, from pinned input to pinned
output, each after a check against float64. `python torch_gpu.py [seconds a cell]`.
With `lstm` behind the seconds instead the stacks of `shaders/examples/sliding.rs`: a whole window, and its newest step alone
from states that are there already, which a sliding window of torch's would still have to make.
"""

import sys
import time

import torch

BUDGET = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16}


class Nhits(torch.nn.Module):
    """Three stacks, pooled by 2, 2 and 1; the last block has no backcast."""

    def __init__(self, window: int, hidden: int, outputs: int):
        super().__init__()
        self.kernels = (2, 2, 1)
        self.first = torch.nn.ModuleList(torch.nn.Linear(window // k, hidden) for k in self.kernels)
        self.second = torch.nn.ModuleList(torch.nn.Linear(hidden, hidden) for _ in self.kernels)
        self.backcast = torch.nn.ModuleList(torch.nn.Linear(hidden, window) for _ in self.kernels[:-1])
        self.forecast = torch.nn.Linear(3 * hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = []
        for stack, kernel in enumerate(self.kernels):
            pooled = x if kernel == 1 else torch.nn.functional.max_pool1d(x.unsqueeze(1), kernel).squeeze(1)
            hidden = torch.relu(self.second[stack](torch.relu(self.first[stack](pooled))))
            joined.append(hidden)
            if stack < 2:
                x = x - self.backcast[stack](hidden)
        return self.forecast(torch.cat(joined, dim=1))


def percentiles(run) -> tuple[float, float, int]:
    """p50 and p99 in microseconds after a third of the budget."""
    micros = []
    started = time.perf_counter()
    while (now := time.perf_counter()) - started < BUDGET or len(micros) < 5:
        run()
        if now - started > BUDGET / 3:
            micros.append((time.perf_counter() - now) * 1e6)
    micros.sort()
    return micros[len(micros) // 2], micros[int((len(micros) - 1) * 0.99)], len(micros)


def captured(work) -> torch.cuda.CUDAGraph:
    """`work` as a CUDA graph, after three runs on a stream of their own."""
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def cell(model: Nhits, window: int, rows: int, precision: str) -> str:
    """One line of the table: eager and graph."""
    kind = PRECISIONS[precision]
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    on_device = Nhits(window, model.first[0].out_features, model.forecast.out_features)
    on_device.load_state_dict(model.state_dict())
    on_device = on_device.to("cuda", kind).eval()
    host_in = torch.empty(rows, window).pin_memory()
    host_out = torch.empty(rows, model.forecast.out_features).pin_memory()
    device_in = torch.empty(rows, window, device="cuda")

    def step() -> None:
        device_in.copy_(host_in, non_blocking=True)
        host_out.copy_(on_device(device_in.to(kind)).float(), non_blocking=True)

    inputs = [torch.rand(rows, window) * 2 - 1 for _ in range(4)]
    turn = 0

    def timed(work):
        def run() -> None:
            nonlocal turn
            turn += 1
            host_in.copy_(inputs[turn % 4])
            work()
            torch.cuda.synchronize()

        return run

    with torch.inference_mode():
        timed(step)()
        expected = model.double()(inputs[turn % 4].double())
        error = float((host_out - expected).abs().max() / expected.abs().max())
        model.float()
        eager = percentiles(timed(step))
        replayed = percentiles(timed(captured(step).replay))
    return (
        f"  batch {rows:>6} {precision}: eager p50 {eager[0]:9.1f} p99 {eager[1]:9.1f} µs, "
        f"graph p50 {replayed[0]:9.1f} p99 {replayed[1]:9.1f} µs (error {error:.1e})"
    )


def lstm(layers: int, steps: int, inputs: int, units: int) -> str:
    """One stack, batch 1, as a CUDA graph: the newest step, then the whole window."""
    stack = torch.nn.LSTM(inputs, units, layers, batch_first=True).cuda().eval()
    head = torch.nn.Linear(units, 1).cuda().eval()
    state = tuple(torch.zeros(layers, 1, units, device="cuda") for _ in range(2))
    text = f"lstm {layers} x {units}, {steps} steps of {inputs}:"
    for name, length in (("newest step", 1), ("whole window", steps)):
        host_in, host_out = torch.empty(1, length, inputs).pin_memory(), torch.empty(1, 1).pin_memory()
        device_in = torch.empty(1, length, inputs, device="cuda")
        fresh = [torch.rand(1, length, inputs) for _ in range(4)]

        def work() -> None:
            device_in.copy_(host_in, non_blocking=True)
            host_out.copy_(head(stack(device_in, state)[0][:, -1]), non_blocking=True)

        with torch.inference_mode():
            graph = captured(work)

            def run() -> None:
                host_in.copy_(fresh[int(time.perf_counter() * 1e6) % 4])
                graph.replay()
                torch.cuda.synchronize()

            p50, p99, _ = percentiles(run)
        text += f" {name} p50 {p50:.1f} p99 {p99:.1f} µs;"
    return text


def product(m: int, n: int, k: int, precision: str) -> str:
    """Median of back-to-back products in TFLOP/s, on random data."""
    kind = PRECISIONS[precision]
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    a = torch.rand(m, k, device="cuda", dtype=kind) * 2 - 1
    b = torch.rand(k, n, device="cuda", dtype=kind) * 2 - 1
    count = 64 if m < 4096 or k < 4096 else 12

    def products() -> None:
        for _ in range(count):
            a @ b

    graph = captured(products)
    micros = []
    for _ in range(15):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        micros.append(begin.elapsed_time(end) * 1e3 / count)
    middle = sorted(micros)[len(micros) // 2]
    return f"product {m}x{n}x{k} {precision}: {middle:.2f} µs, {2 * m * n * k / middle / 1e6:.1f} TFLOP/s"


def main() -> None:
    print(torch.cuda.get_device_name(), torch.__version__)
    torch.manual_seed(4242)
    if "lstm" in sys.argv:
        for shape in ((2, 64, 128, 96), (3, 96, 192, 160), (4, 128, 512, 736)):
            print(lstm(*shape), flush=True)
        return
    for window, hidden, outputs in ((512, 512, 96), (168, 256, 120)):
        model = Nhits(window, hidden, outputs)
        print(f"nhits {window}→{outputs}, hidden {hidden}")
        for rows in (1, 8, 32, 128, 1024, 16384):
            for precision in PRECISIONS:
                print(cell(model, window, rows, precision), flush=True)
    for shape in ((1024, 512, 512), (1024, 512, 1024), (4096, 512, 512), (4096, 4096, 4096)):
        for precision in PRECISIONS:
            print(product(*shape, precision), flush=True)


main()

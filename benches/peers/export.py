"""Writes an N-HiTS model folder as ONNX, so that ONNX Runtime can be measured on the same network.

    export.py MODEL_DIR OUT_DIR [--folded] [--scaled]

OUT_DIR/NAME.onnx is the graph as the trainer's own exporter lays it out: reverse, then per block pool, Gemm, Gemm + Relu …,
slice, subtract, resize, transpose, add. With --folded, OUT_DIR/NAME.folded.onnx has in addition the algebra that
peregrine does at load (products in float64): the first two layers multiplied, interpolation and transposition in one
last layer for all blocks, the reversal in the weights, the last block's unused backcast left out. Thus a difference to
the folded graph is a difference of kernels, not of algebra. OUT_DIR/NAME.layers.safetensors has that as matrices, for peers that
read no graph.

Input `y` [B, L] scaled, output `forecast` [B, h, Q]; B is free. With --scaled, OUT_DIR/NAME.scaled.onnx is the first graph with
the standard scaler before and behind it: raw windows in, forecasts out, as one exports it for servers in Python, where a
step outside of the graph costs more than inside. Each graph is run and compared with float64.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import nhits

TOLERANCE = 1e-5  # of a row's largest output: sums of up to 512 terms in f32


class Graph:
    """Nodes and constants under unique names."""

    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        """Appends a node and returns the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Adds an initializer."""
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """`x[start:end:step]` along an axis."""
        bounds = [self.constant(np.array([v], np.int64)) for v in (start, end, axis, step)]
        return self.add("Slice", x, *bounds)

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """`x · weightᵀ + bias`, rounded to f32 here."""
        names = [self.constant(v.astype(np.float32)) for v in (weight, bias)]
        return self.add("Gemm", x, *names, transB=1)

    def statistics(self, y: str) -> tuple[str, str]:
        """Shift and scale `[B, 1]` of the standard scaler."""
        shift = self.add("ReduceMean", y, axes=[1])
        off = self.add("Sub", y, shift)
        deviation = self.add("Sqrt", self.add("ReduceMean", self.add("Mul", off, off), axes=[1]))
        zero, one, small = [self.constant(np.array(v, np.float32)) for v in (0.0, 1.0, 1e-6)]
        deviation = self.add("Where", self.add("Equal", deviation, zero), one, deviation)
        return shift, self.add("Add", deviation, small)

    def pool(self, x: str, kernel: int) -> str:
        """Maximum over `kernel` neighbours of `[B, L]`."""
        axis = self.constant(np.array([1], np.int64))
        pooled = self.add("MaxPool", self.add("Unsqueeze", x, axis), kernel_shape=[kernel], strides=[kernel], ceil_mode=1)
        return self.add("Squeeze", pooled, axis)

    def finish(self, model: nhits.Nhits, output: str) -> onnx.ModelProto:
        """A checked model whose result is `output`."""
        self.nodes.append(helper.make_node("Identity", [output], ["forecast"], name="forecast"))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", model.window])
        z = helper.make_tensor_value_info("forecast", TensorProto.FLOAT, ["batch", model.horizon, model.outputs])
        graph = helper.make_graph(self.nodes, model.name, [y], [z], self.constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return proto


def plain(model: nhits.Nhits, scaled: bool = False) -> onnx.ModelProto:
    """The graph as traced: every module of the network is a node or a few."""
    g, length, y = Graph(), model.window, "y"
    last = g.constant(np.array([2], np.int64))
    if scaled:
        shift, scale = g.statistics(y)
        y = g.add("Div", g.add("Sub", y, shift), scale)
    residual = g.slice(y, -1, np.iinfo(np.int64).min, 1, step=-1)
    level = g.slice(y, length - 1, length, 1)
    forecast = g.add("Unsqueeze", level, last)
    for block in model.blocks:
        if model.horizon % block.knots:
            raise SystemExit(f"{model.name}: {block.knots} knots do not divide the horizon")
        x = g.pool(residual, block.kernel)
        for index, (weight, bias) in enumerate(block.layers):
            x = g.linear(x, weight, bias)
            if 0 < index < len(block.layers) - 1:
                x = g.add("Relu", x)
        residual = g.add("Sub", residual, g.slice(x, 0, length, 1))
        theta = g.slice(x, length, length + model.outputs * block.knots, 1)
        shape = g.constant(np.array([-1, model.outputs, block.knots], np.int64))
        scales = g.constant(np.array([1, 1, model.horizon // block.knots], np.float32))
        steps = g.add("Resize", g.add("Reshape", theta, shape), "", scales, mode="linear",
                      coordinate_transformation_mode="half_pixel")
        forecast = g.add("Add", forecast, g.add("Transpose", steps, perm=[0, 2, 1]))
    if scaled:
        forecast = g.add("Mul", forecast, g.add("Unsqueeze", scale, last))
        forecast = g.add("Add", forecast, g.add("Unsqueeze", shift, last))
    return g.finish(model, forecast)


@dataclass
class FoldedBlock:
    """One block after the algebra: its hidden layers, what it takes off the residual, and its knots where the way through them
    is cheaper; each as (weight [out, in], bias [out])."""

    kernel: int
    hidden: list[tuple[np.ndarray, np.ndarray]]
    backcast: tuple[np.ndarray, np.ndarray] | None
    knots: tuple[np.ndarray, np.ndarray] | None


def fold(model: nhits.Nhits) -> tuple[list[FoldedBlock], tuple[np.ndarray, np.ndarray]]:
    """The same function with the fewest multiply-adds, oldest step first: each block leaves its last hidden layer or its knots, and
    one last layer maps all of them to the forecast, to which the newest step is added."""
    length, steps = model.window, model.horizon * model.outputs
    blocks, matrices, biases = [], [], []
    for number, block in enumerate(model.blocks):
        if length % block.kernel:
            raise SystemExit(f"{model.name}: pooling by {block.kernel} does not commute with reversal")
        layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in block.layers]
        (w0, b0), (w1, b1), *middle, (last_weight, last_bias) = layers
        first = ((w1 @ w0)[:, ::-1], w1 @ b0 + b1)
        is_last = number + 1 == len(model.blocks)
        backcast = None if is_last else (last_weight[:length][::-1], last_bias[:length][::-1])
        theta_weight, theta_bias = last_weight[length:], last_bias[length:]
        basis = np.einsum("tk,qr->tqrk", nhits.interpolation(block.knots, model.horizon), np.eye(model.outputs))
        basis = basis.reshape(steps, model.outputs * block.knots)
        knots, units = theta_weight.shape
        through_knots = knots * (units + steps) < steps * units
        blocks.append(FoldedBlock(block.kernel, [first, *middle], backcast,
                                  (theta_weight, theta_bias) if through_knots else None))
        matrices.append(basis if through_knots else basis @ theta_weight)
        biases += [] if through_knots else [basis @ theta_bias]
    return blocks, (np.concatenate(matrices, axis=1), sum(biases, np.zeros(steps)))


def folded(model: nhits.Nhits) -> onnx.ModelProto:
    """What `fold` leaves, as a graph."""
    g, length = Graph(), model.window
    residual, slices = "y", []
    blocks, head = fold(model)
    for block in blocks:
        x = g.pool(residual, block.kernel) if block.kernel > 1 else residual
        for layer in block.hidden:
            x = g.add("Relu", g.linear(x, *layer))
        if block.backcast:
            residual = g.add("Sub", residual, g.linear(x, *block.backcast))
        slices.append(g.linear(x, *block.knots) if block.knots else x)
    forecast = g.linear(g.add("Concat", *slices, axis=1), *head)
    forecast = g.add("Add", forecast, g.slice("y", length - 1, length, 1))
    shape = g.constant(np.array([-1, model.horizon, model.outputs], np.int64))
    return g.finish(model, g.add("Reshape", forecast, shape))


def write_layers(model: nhits.Nhits, file: Path) -> None:
    """What `fold` leaves, as f32 tensors: `BLOCK.hidden.N`, `BLOCK.backcast`, `BLOCK.knots` and `head`, each with `.weight`
    [out, in] and `.bias` [out]; `kernels` [blocks] are those of the pools."""
    blocks, head = fold(model)
    layers = {"head": head}
    for number, block in enumerate(blocks):
        layers |= {f"{number}.hidden.{at}": layer for at, layer in enumerate(block.hidden)}
        layers |= {f"{number}.{name}": layer
                   for name, layer in [("backcast", block.backcast), ("knots", block.knots)] if layer}
    parts = {f"{name}.{part}": np.ascontiguousarray(value, np.float32)
             for name, layer in layers.items() for part, value in zip(("weight", "bias"), layer)}
    save_file(parts | {"kernels": np.array([block.kernel for block in blocks], np.int64)}, file)


def check(model: nhits.Nhits, proto: onnx.ModelProto, label: str) -> None:
    """Compares ONNX Runtime with float64 on fresh walks, at several batch sizes."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, worst = np.random.default_rng(), 0.0
    for rows in (1, 3, 257):
        walk = rng.standard_normal((rows, model.window)).cumsum(axis=1)
        y = ((walk - walk.mean(axis=1, keepdims=True)) / walk.std(axis=1, keepdims=True)).astype(np.float32)
        y, compute = (walk.astype(np.float32), nhits.forecast) if label == "scaled" else (y, nhits.network)
        want, got = compute(model, y), session.run(None, {"y": y})[0]
        worst = max(worst, (np.abs(got - want).max(axis=(1, 2)) / np.abs(want).max(axis=(1, 2))).max())
    print(f"{model.name} {label}: worst relative error against float64 {worst:.1e}, {len(proto.graph.node)} nodes")
    if not worst <= TOLERANCE:
        raise SystemExit(f"{model.name} {label}: beyond {TOLERANCE}")


def main() -> None:
    """One or two graphs of one model folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folded", action="store_true")
    parser.add_argument("--scaled", action="store_true")
    args = parser.parse_args()
    model = nhits.load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    graphs = {"plain": plain(model)} | ({"folded": folded(model)} if args.folded else {})
    graphs |= {"scaled": plain(model, scaled=True)} if args.scaled else {}
    for label, proto in graphs.items():
        check(model, proto, label)
        suffix = ".onnx" if label == "plain" else f".{label}.onnx"
        onnx.save(proto, args.out / f"{model.name}{suffix}")
    if args.folded:
        write_layers(model, args.out / f"{model.name}.layers.safetensors")


if __name__ == "__main__":
    main()

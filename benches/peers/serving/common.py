"""What the peers in Python share: where things are, the Open Inference Protocol in JSON, and ONNX Runtime's session.

The environment says what `run.sh` made: PEERS_BUILD (models and graphs), PEER_PORT, and for tuning PEER_WORKERS,
PEER_BATCH and PEER_THREADS. Each server has its own best settings as defaults.
"""

import os
from pathlib import Path

import numpy as np
import orjson

MODEL = "serve-256x24-point"
WINDOW, HORIZON = 256, 24
ROUTE = f"/v2/models/{MODEL}/infer"
BUILD = Path(os.environ.get("PEERS_BUILD", Path(__file__).parent.parent / "build"))
GRAPH = BUILD / f"{MODEL}.scaled.onnx"
PORT = int(os.environ.get("PEER_PORT", "9201"))


def setting(name: str, default: int) -> int:
    """A number to tune, `PEER_<NAME>`."""
    return int(os.environ.get(f"PEER_{name}", default))


def read(body: bytes) -> np.ndarray:
    """The windows `[B, L]` of a request; ValueError where it is none."""
    return windows(orjson.loads(body))


def windows(request: dict) -> np.ndarray:
    """The same of a body that a framework has parsed."""
    try:
        (tensor,) = request["inputs"]
        if tensor["name"] != "y" or tensor["datatype"] != "FP32" or tensor["shape"][1:] != [WINDOW]:
            raise ValueError("`y` is FP32 [B, 256]")
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a request: {error!r}") from error


def answer(forecast: np.ndarray) -> bytes:
    """The answer's text; `forecast` is `[B, h, 1]`."""
    tensor = {"name": "forecast", "datatype": "FP32", "shape": forecast.shape, "data": forecast.ravel()}
    return orjson.dumps({"model_name": MODEL, "model_version": "1", "outputs": [tensor]},
                        option=orjson.OPT_SERIALIZE_NUMPY)


def open_session():
    """ONNX Runtime on the exported graph, scaler included; one thread unless tuned otherwise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting("THREADS", 1)
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])
    return lambda y: session.run(None, {"y": y})[0]

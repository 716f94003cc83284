"""Triton + ONNX Runtime: what the server's Python backend runs. Requests of one batch are computed together."""

import numpy as np
import triton_python_backend_utils as utils

import common


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict) -> None:
        self.forward = common.open_session()

    def execute(self, requests: list) -> list:
        inputs = [utils.get_input_tensor_by_name(request, "y").as_numpy() for request in requests]
        forecast = self.forward(np.concatenate(inputs) if len(inputs) > 1 else inputs[0])
        outputs = np.split(forecast, np.cumsum([len(y) for y in inputs])[:-1])
        return [utils.InferenceResponse([utils.Tensor("forecast", output)]) for output in outputs]

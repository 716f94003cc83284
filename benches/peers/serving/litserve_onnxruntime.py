"""LitServe + ONNX Runtime: its dynamic batching, and ZeroMQ between HTTP and model processes, as its documentation advises
for more than a hundred requests a second.
"""

import os

import litserve
import numpy as np

import common


class Forecaster(litserve.LitAPI):
    """Decode, batch, predict, unbatch, encode."""

    def setup(self, device: str) -> None:
        self.forward = common.open_session()

    def decode_request(self, request: dict) -> np.ndarray:
        return common.windows(request)

    def batch(self, inputs: list) -> tuple[np.ndarray, list[int]]:
        return np.concatenate(inputs), [len(y) for y in inputs]

    def predict(self, batch):
        if isinstance(batch, np.ndarray):  # a lone request where batching is off
            return self.forward(batch)
        y, rows = batch
        return np.split(self.forward(y), np.cumsum(rows)[:-1])

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: np.ndarray) -> litserve.Response:
        return litserve.Response(common.answer(output), media_type="application/json")


if __name__ == "__main__":
    api = Forecaster(max_batch_size=common.setting("BATCH", 64), batch_timeout=common.setting("WAIT_US", 0) / 1e6,
                     api_path=common.ROUTE)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=common.setting("WORKERS", 1), fast_queue=True,
                                disable_openapi_url=True)
    server.run(host="127.0.0.1", port=common.PORT, num_api_servers=common.setting("API_SERVERS", 2),
               generate_client_file=False, log_level="warning", access_log=False, loop=os.environ.get("PEER_LOOP", "uvloop"), http="httptools",
               backlog=4096)

"""mosec + ONNX Runtime: HTTP and batching in its Rust part, the model in processes of its own.

The part that listens is told its address by `--address` and `--port`.
"""

import numpy as np
from mosec import Server, ValidationError, Worker

import common

BATCH = common.setting("BATCH", 64)


class Forecaster(Worker):
    """Bodies to answers; a list of them where batches are on."""

    resp_mime_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self.network = common.open_session()

    def deserialize(self, data: bytes) -> np.ndarray:
        try:
            return common.read(data)
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def forward(self, data):
        if BATCH == 1:
            return self.network(data)
        forecast = self.network(np.concatenate(data))
        return np.split(forecast, np.cumsum([len(y) for y in data])[:-1])

    def serialize(self, data: np.ndarray) -> bytes:
        return common.answer(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Forecaster, num=common.setting("WORKERS", 1), max_batch_size=BATCH,
                         max_wait_time=common.setting("WAIT_MS", 1), route=common.ROUTE)
    server.run()

"""Ray Serve + ONNX Runtime: one node, one replica, its dynamic batching.

`run.sh` sets RAY_SERVE_ENABLE_HA_PROXY and RAY_SERVE_THROUGHPUT_OPTIMIZED, as its documentation says for high throughput: an
HAProxy of its own sends requests straight to the replica.
"""

import signal

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

import common


@serve.deployment(num_replicas=common.setting("WORKERS", 1), max_ongoing_requests=4096,
                  ray_actor_options={"num_cpus": 1})
class Forecaster:
    """One replica with one session."""

    def __init__(self) -> None:
        self.network = common.open_session()

    @serve.batch(max_batch_size=common.setting("BATCH", 64), batch_wait_timeout_s=common.setting("WAIT_US", 0) / 1e6)
    async def forward(self, inputs: list) -> list:
        forecast = self.network(np.concatenate(inputs))
        return np.split(forecast, np.cumsum([len(y) for y in inputs])[:-1])

    async def __call__(self, request: Request) -> Response:
        try:
            y = common.read(await request.body())
        except ValueError as error:
            return Response(str(error), status_code=400)
        return Response(common.answer(await self.forward(y)), media_type="application/json")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": common.PORT})
    serve.run(Forecaster.bind(), route_prefix=common.ROUTE)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()

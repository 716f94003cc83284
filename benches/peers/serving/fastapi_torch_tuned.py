"""FastAPI + PyTorch, tuned: orjson, uvloop, httptools, one process a core with one torch thread, inference mode, and what
arrives together is computed together.

Eager: a frozen `torch.jit` graph took as long at every batch size, and `torch.compile` as long for one window, after minutes
of compiling.
"""

import os
from contextlib import asynccontextmanager

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

import common
import nhits_torch
from batching import Batcher


def open_model():
    """The network, run once so that its first caller does not pay for it."""
    torch.set_num_threads(common.setting("THREADS", 1))
    model = nhits_torch.load(common.BUILD / "models" / common.MODEL)

    def forward(y: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(y)).numpy()

    forward(np.zeros((2, common.WINDOW), np.float32))
    return forward


@asynccontextmanager
async def lifespan(app: FastAPI):
    """One model for each process."""
    app.state.batcher = Batcher(open_model(), common.setting("BATCH", 64))
    yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.post(common.ROUTE)
async def infer(request: Request) -> Response:
    """One request of the protocol."""
    try:
        y = common.read(await request.body())
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    forecast = await app.state.batcher.run(y)
    return Response(common.answer(forecast), media_type="application/json")


if __name__ == "__main__":
    uvicorn.run("fastapi_torch_tuned:app", host="127.0.0.1", port=common.PORT, loop=os.environ.get("PEER_LOOP", "uvloop"), http="httptools",
                workers=common.setting("WORKERS", 2), access_log=False, log_level="warning", backlog=4096,
                timeout_worker_healthcheck=60)

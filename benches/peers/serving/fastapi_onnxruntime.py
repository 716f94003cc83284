"""FastAPI + ONNX Runtime, tuned: bodies are read and printed by orjson, uvicorn runs on uvloop and httptools in one process
a core, each with a session of one thread; what arrives together is computed together.
"""

import os
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response

import common
from batching import Batcher


@asynccontextmanager
async def lifespan(app: FastAPI):
    """One session for each process."""
    app.state.batcher = Batcher(common.open_session(), common.setting("BATCH", 64))
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
    uvicorn.run("fastapi_onnxruntime:app", host="127.0.0.1", port=common.PORT, loop=os.environ.get("PEER_LOOP", "uvloop"), http="httptools",
                workers=common.setting("WORKERS", 2), access_log=False, log_level="warning", backlog=4096)

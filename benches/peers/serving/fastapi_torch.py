"""FastAPI + PyTorch as one writes it first, which is the architecture that peregrine replaces: `POST /neural/predict`,
bodies checked by pydantic, one eager forward for each request, in the process of one uvicorn. Nothing is tuned.
"""

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

import common
import nhits_torch


class Tensor(BaseModel):
    """A tensor of the protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class PredictRequest(BaseModel):
    """Windows to forecast."""

    inputs: list[Tensor]


class PredictResponse(BaseModel):
    """Their forecasts."""

    model_name: str
    model_version: str
    outputs: list[Tensor]


app = FastAPI()
model = nhits_torch.load(common.BUILD / "models" / common.MODEL)


@app.post("/neural/predict")
async def predict(request: PredictRequest) -> PredictResponse:
    """One forward."""
    y = request.inputs[0]
    with torch.no_grad():
        forecast = model(torch.tensor(y.data, dtype=torch.float32).reshape(y.shape))
    tensor = Tensor(name="forecast", datatype="FP32", shape=list(forecast.shape), data=forecast.flatten().tolist())
    return PredictResponse(model_name=common.MODEL, model_version="1", outputs=[tensor])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=common.PORT)

"""Batches in an asyncio server: what arrives in one turn of the event loop is computed as one batch.

A lone request waits for nobody. While a batch is computed the sockets fill, so that batches grow with the load.
"""

import asyncio

import numpy as np


class Batcher:
    """Collects windows until the loop comes round; `forward` maps `[B, L]` to `[B, h, 1]`."""

    def __init__(self, forward, rows_max: int) -> None:
        self.forward, self.rows_max, self.waiting = forward, rows_max, []

    async def run(self, y: np.ndarray) -> np.ndarray:
        """The forecast of one request's windows."""
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.flush)
        reply = loop.create_future()
        self.waiting.append((y, reply))
        return await reply

    def flush(self) -> None:
        """Computes what waits, at most `rows_max` requests at a time."""
        while self.waiting:
            batch, self.waiting = self.waiting[: self.rows_max], self.waiting[self.rows_max :]
            try:
                forecast = self.forward(np.concatenate([y for y, _ in batch]))
            except Exception as error:  # whatever the library throws is each caller's answer
                for _, reply in batch:
                    if not reply.done():
                        reply.set_exception(RuntimeError(str(error)))
                continue
            start = 0
            for y, reply in batch:
                if not reply.done():
                    reply.set_result(forecast[start : start + len(y)])
                start += len(y)

"""FastAPI with onnxruntime in process and a micro-batcher: ``python -m benchmarks.serve.apps.fastapi_app GRAPH PORT``.

The model runs in one thread; what arrives meanwhile is the next batch. This is as little as a server in Python can do.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.serve.apps.session import open_session, run

Waiting = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


class MicroBatcher:
    """Run what waits, up to 64 requests at a time, in a thread."""

    def __init__(self, graph: str) -> None:
        self.session, self.thread = open_session(graph), ThreadPoolExecutor(1)
        self.waiting: list[Waiting] = []
        self.task: asyncio.Task[None] | None = None

    async def scores(self, x: np.ndarray) -> np.ndarray:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[np.ndarray] = loop.create_future()
        self.waiting.append((x, answer))
        if self.task is None or self.task.done():
            self.task = loop.create_task(self._drain(loop))
        return await answer

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while self.waiting:
            now, self.waiting = self.waiting[:64], self.waiting[64:]
            x = np.concatenate([x for x, _ in now])
            found = (await loop.run_in_executor(self.thread, run, self.session, x))[:, 0]
            edges = np.cumsum([len(x) for x, _ in now])[:-1]
            for (_, answer), part in zip(now, np.split(found, edges), strict=True):
                answer.set_result(part)


def make_app(graph: str) -> FastAPI:
    app, batcher = FastAPI(), MicroBatcher(graph)

    @app.post("/json")
    async def from_json(request: Request) -> Response:
        plain: dict[str, Any] = orjson.loads(await request.body())
        scores = await batcher.scores(np.asarray(plain["features"], np.float32))
        return Response(
            orjson.dumps({"scores": scores}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )

    @app.post("/raw")
    async def from_bytes(request: Request) -> Response:
        scores = await batcher.scores(np.frombuffer(await request.body(), np.float32).reshape(-1, 27))
        return Response(scores.tobytes(), media_type="application/octet-stream")

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)

"""A server with an engine that does what a test asks for: echo, sleep, hang, fail, die, work for long.

``python toy.py '{"workers": 2}'`` starts it; the JSON holds settings.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from serve.errors import ServeError
from serve.messages import Reply, Request
from serve.processes.launch import Context, serve_forever
from serve.processes.metrics import Metrics
from serve.settings import Settings


class Toy:
    def load_beside(self, done: Callable[[], None]) -> None:
        pass

    def answer(self, requests: Sequence[Request], *, mark: Callable[[Sequence[int]], None]) -> list[Reply]:
        return [self._one(request, batch=len(requests)) for request in requests]

    def rest(self) -> None:
        pass

    def begin(self, request: Request) -> Iterator[Reply | None]:
        for _ in range(int(request.options["slices"])):
            time.sleep(float(request.options["seconds"]))
            yield None
        if request.options.get("op") == "bug":
            raise RuntimeError("a bug")
        yield Reply(status=200, body=Path(request.path).read_bytes(), num_events=1)

    def _one(self, request: Request, *, batch: int) -> Reply:
        match request.options.get("op"):
            case "sleep":
                time.sleep(float(request.options["seconds"]))
            case "die_late":
                time.sleep(float(request.options["seconds"]))
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                while True:
                    time.sleep(0.01)
            case "bug":
                raise RuntimeError("a bug")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "grow":
                return Reply(
                    status=200, body=request.body * int(request.options["times"]), headers={"batch": str(batch)}
                )
        headers = {"batch": str(batch), "pid": str(os.getpid()), "crc": str(zlib.crc32(request.body))}
        return Reply(status=200, body=request.body, headers=headers, num_events=1, seconds=1e-4)


def make(settings: Settings, metrics: Metrics) -> Toy:
    return Toy()


def fail(settings: Settings, metrics: Metrics) -> Toy:
    raise RuntimeError("no model can be loaded here")


def install(app: Any, context: Context) -> None:
    from starlette.requests import ClientDisconnect
    from starlette.requests import Request as HttpRequest
    from starlette.responses import JSONResponse, Response

    async def echo(http: HttpRequest) -> Response:
        try:
            body = await http.body()
        except ClientDisconnect:
            return Response()
        options = dict(http.query_params)
        timeout = float(options.pop("timeout", context.settings.timeout))
        request = Request(
            road="toy",
            model="echo",
            version=1,
            options=options,
            body=body,
            path=options.get("path"),
            deadline=time.monotonic() + timeout,
        )
        try:
            reply = await context.pool.submit(request)
        except ServeError as error:
            return JSONResponse(error.to_dict(), error.status, headers=dict(error.headers))
        headers = {**reply.headers, "api": str(os.getpid())}
        return Response(reply.body, reply.status, headers=headers, media_type=reply.content_type)

    async def ready(http: HttpRequest) -> Response:
        return Response(status_code=200 if context.is_ready() else 503)

    async def metrics(http: HttpRequest) -> Response:
        context.metrics.flush()
        return Response(context.metrics.render(), media_type="text/plain")

    async def bare(http: HttpRequest) -> Response:
        return Response(await http.body())

    app.router.add_route("/echo", echo, methods=["POST"])
    app.router.add_route("/bare", bare, methods=["POST"])
    app.router.add_route("/ready", ready)
    app.router.add_route("/metrics", metrics)


def main() -> int:
    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    maker = fail if given.pop("fails", False) else make
    grace = given.pop("grace", 10.0)
    settings = Settings(**{"models": Path(), "port": 0, **given})
    return serve_forever(settings, install=install, make_engine=maker, grace=grace)


if __name__ == "__main__":
    sys.exit(main())

"""Whether the server lives and is ready, what it has counted, and what it takes."""

from __future__ import annotations

import os

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serve.errors import Overloaded
from serve.handler import Handler
from serve.routes.operations import Operation, as_json

TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' own


async def live(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say that this process answers."""
    return as_json({"status": "live"})


async def ready(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Say whether events can be scored."""
    check_ready(handler)
    return as_json({"status": "ready"})


def check_ready(handler: Handler) -> None:
    """Check that a worker can be reached and makes progress, and that models and keys can be read.

    Raises
    ------
    Overloaded, OutOfOrder
        If not, which is a 503.
    """
    if not handler.is_ready():
        raise Overloaded("no model process can be reached, or none makes progress; try again later", code="not_ready")
    # As who the process acts, and with the capabilities that it has; not as who started it.
    if not os.access(handler.settings.models, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise Overloaded("the folder of the models can't be read", code="not_ready")
    if handler.keys is not None:
        handler.keys.check()


async def metrics(handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    """Give the counters of all processes."""
    return Response(await handler.counts(), media_type=TEXT)


_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}

OPERATIONS = (
    Operation(
        method="GET", paths=("/health/live",), answer=live, scope=None, summary="Say that the server lives",
        gives={"application/json": _STATUS},
    ),
    Operation(
        method="GET", paths=("/health/ready",), answer=ready, scope=None, summary="Say whether events can be scored",
        gives={"application/json": _STATUS},
    ),
    Operation(
        method="GET", paths=("/metrics",), answer=metrics, summary="Give Prometheus the counters of all processes",
        gives={"text/plain": {"type": "string"}},
    ),
)  # fmt: skip

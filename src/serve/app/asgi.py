"""The HTTP side of a server: all paths on LitServe's app, and errors of any kind as JSON."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootdata.causes import reason_of
from serve.app.access_log import AccessLog
from serve.app.front import Front
from serve.errors import NoRoom, NotFound, ReadOnly, ServeError
from serve.faults import fault_of
from serve.formats.known import Formats
from serve.handler import Handler
from serve.keys import check_exposure
from serve.page import files
from serve.routes import documents, health, inference, models, predict, tfaas, uploads
from serve.routes.operations import PATH, Operation, Paths, as_json, routes

_log = logging.getLogger("serve")
_HEADERS = ((b"x-content-type-options", b"nosniff"),)


def operations(formats: Formats) -> Sequence[Operation]:
    """List what can be asked of a server that has these formats."""
    # What is asked most comes first: paths are tried one after the other.
    return (
        *predict.operations(formats),
        *inference.OPERATIONS,
        *tfaas.OPERATIONS,
        *health.OPERATIONS,
        *uploads.OPERATIONS,
        *models.OPERATIONS,
    )


def install(app: Any, handler: Handler) -> ASGIApp:
    """Make the application that answers requests: the server's paths, and behind them those of an app.

    Parameters
    ----------
    app : FastAPI's, without any path. Whoever adds paths uses ``app.router``
    handler : of what is asked

    Raises
    ------
    ConfigError
        For a server without keys that other machines can reach.
    """
    settings = handler.settings
    check_exposure(settings.host, settings.keys, is_open=settings.is_open)
    with contextlib.suppress(OSError):  # which whoever asks for the list is told
        handler.repository.cards()  # the processes that are forked from this one need not read all models
    handler.repository.limit_trash()
    asked = operations(handler.formats)
    described = Operation(
        method="GET",
        paths=("/openapi.json",),
        answer=functools.partial(
            _openapi,
            documents.document(asked, has_keys=handler.keys is not None, root_path=settings.root_path),
        ),
        scope=None,
        summary="Describe all this",
    )
    app.router.default = _not_found
    files.install(app, handler)
    # FastAPI's own layers turn some errors into other answers and cost a third of the time of a small request.
    ours = Paths(routes(handler, [*asked, described]), default=app.router)
    log = None if settings.access_log is None else AccessLog(settings.access_log)
    shield = Shield(ours, lifespan=app, count=handler.count_answer, log=log)
    if not (settings.root_path or settings.allow_origin):
        return shield
    return Front(shield, root_path=settings.root_path, origins=settings.allow_origin)


async def _openapi(document: dict[str, Any], handler: Handler, request: HttpRequest) -> Response:  # noqa: ARG001
    return as_json(document)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
    raise NotFound(f"there is no path {scope['path'][:200]!r}; GET /openapi.json tells which there are")


class Shield:
    """Answers in JSON whatever goes wrong inside.

    Parameters
    ----------
    app : that answers requests
    lifespan : that is told of the start and the end
    count : told the path of each answer, as it is documented, and its status
    log : that gets a line for each
    """

    def __init__(
        self, app: ASGIApp, *, lifespan: ASGIApp, count: Callable[[str, int], None], log: AccessLog | None
    ) -> None:
        self._app, self._lifespan, self._count, self._log = app, lifespan, count, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        started, status, size = time.perf_counter(), None, 0

        async def guarded(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
                self._count(scope.get(PATH, ""), message["status"])
            size += len(message.get("body", b""))
            await send(message)

        try:
            _check_path(scope)
            await self._app(scope, receive, guarded)
        except ClientDisconnect:
            return
        except Exception as error:
            if status is not None:
                raise
            await _failed(error, scope)(scope, receive, guarded)
        finally:
            if self._log is not None:
                self._log.write(scope, status=status, seconds=time.perf_counter() - started, size=size)


def _check_path(scope: Scope) -> None:
    """Refuse a slash that was written as ``%2F``: no name has one, and it must not become two segments."""
    if b"%" in scope["raw_path"] and scope["raw_path"].count(b"/") != scope["path"].count("/"):
        raise NotFound("there is no path with an encoded slash; names have none")


def _told(error: Exception, scope: Scope) -> ServeError:
    """Say what is in the way, where the server is to be mended; the rest is for the log."""
    fault = fault_of(error)
    if fault is None:
        _log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
        return ServeError("internal error; the server's log has the rest", code="internal")
    _log.error("%s %s failed: %s", scope["method"], scope["path"], reason_of(error))
    return fault


def _failed(error: Exception, scope: Scope) -> Response:
    if not isinstance(error, ServeError):
        error = _told(error, scope)
    elif isinstance(error, ReadOnly | NoRoom) and (cause := error.__cause__) is not None:  # the log has the folder, too
        reason = cause.message if isinstance(cause, ServeError) else reason_of(cause)
        _log.error("%s %s failed: %s", scope["method"], scope["path"], reason)
    is_protocol = scope["path"].startswith(inference.PREFIX)
    body = {"error": error.message} if is_protocol else error.to_dict()
    return as_json(body, status=error.status, headers=error.headers)

"""What can be asked: a path and a method, who may, what it answers, and what its documentation says."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serve import names
from serve.app.access_log import WHO
from serve.app.bodies import HOLD, header
from serve.app.memory import Hold
from serve.codec import media
from serve.errors import MethodNotAllowed, NotFound
from serve.handler import Handler
from serve.messages import Reply
from serve.parsing import parse_object

Schema = media.Described
Answer = Callable[[Handler, HttpRequest], Awaitable[Response]]

PATH = "serve.path"  # where the scope of a request has the path as it is documented
_PIECE = 1 << 20  # bytes of an answer that are sent at once
_LONG_PATH = 512  # characters from which a path is not remembered
ANY: Schema = {}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Something that can be asked.

    Parameters
    ----------
    paths : that lead to it
    scope : of the key that it needs; None if nobody is asked for one
    summary : one sentence
    query, header : parameters, name to schema
    body : content type of a request to its schema; empty if there is none
    gives : content type of the answer to its schema; empty if it has no body
    status : of a good answer
    needs_body : whether a request without a body is wrong
    """

    method: str
    paths: tuple[str, ...]
    answer: Answer
    scope: str | None = "predict"
    summary: str
    query: Mapping[str, Schema] = dataclasses.field(default_factory=dict)
    header: Mapping[str, Schema] = dataclasses.field(default_factory=dict)
    body: Mapping[str, Schema] = dataclasses.field(default_factory=dict)
    gives: Mapping[str, Schema] = dataclasses.field(default_factory=lambda: {media.JSON: ANY})
    status: int = 200
    needs_body: bool = True


class Endpoint:
    """An ASGI application for one path.

    Parameters
    ----------
    handler : of the server
    operations : by method
    path : as it is documented
    """

    def __init__(self, handler: Handler, operations: Mapping[str, Operation], *, path: str) -> None:
        self._handler, self._path = handler, path
        self._operations = dict(operations)
        if "GET" in operations:
            self._operations.setdefault("HEAD", operations["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = HttpRequest(scope, receive, send)
        scope[PATH] = self._path
        operation = self._operations.get(scope["method"])
        if operation is None:
            raise MethodNotAllowed(self._operations)
        if operation.scope is not None:
            who = self._handler.authorize(functools.partial(header, request), operation.scope)
            if who is not None:
                scope[WHO] = who
        with Hold(self._handler.room, who=scope.get(WHO)) as hold:
            scope[HOLD] = hold
            response = await operation.answer(self._handler, request)
            hold.answer(len(response.body))
            if len(response.body) <= _PIECE:
                await response(scope, receive, send)
            else:  # until the client has taken it, but for the last of it, it counts
                await _in_pieces(response, send)


async def _in_pieces(response: Response, send: Send) -> None:
    """Send a large answer, each piece when there is room for it."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    body = memoryview(response.body)
    for low in range(0, len(body), _PIECE):
        await send({"type": "http.response.body", "body": bytes(body[low : low + _PIECE]), "more_body": True})
    await send({"type": "http.response.body"})


def routes(handler: Handler, operations: Iterable[Operation]) -> list[Route]:
    """Make one route for each path, in the order in which they come first."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        for path in operation.paths:
            by_path.setdefault(path, {})[operation.method] = operation
    return [
        Route(path, Endpoint(handler, methods, path=path), methods=None, name=path) for path, methods in by_path.items()
    ]


class Paths:
    """An ASGI application that asks the endpoint of a path, and knows it from then on: most ask for the same few.

    Parameters
    ----------
    routes : tried one after the other
    default : asked for all other paths
    """

    def __init__(self, routes: Sequence[Route], *, default: ASGIApp) -> None:
        self._routes, self._default = routes, default
        self._known = functools.lru_cache(maxsize=256)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope["path"]
        found = self._known(path) if len(path) <= _LONG_PATH else self._find(path)
        if found is None:
            await self._default(scope, receive, send)
        else:
            endpoint, parts = found
            scope["path_params"] = dict(parts)  # which a request may change for itself
            await endpoint(scope, receive, send)

    def _find(self, path: str) -> tuple[ASGIApp, Mapping[str, Any]] | None:
        for route in self._routes:
            match, found = route.matches({"type": "http", "path": path})
            if match is Match.FULL:
                return found["endpoint"], found["path_params"]
        return None


class FileAnswer(Response):
    """A file as the answer, sent piece by piece.

    Parameters
    ----------
    path : of the file; its size is looked at when it is sent
    media_type : content type
    status : of HTTP
    headers : besides content type and length
    is_temporary : remove it afterwards, whatever happens
    """

    def __init__(
        self,
        path: Path,
        *,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        is_temporary: bool = False,
    ) -> None:
        self._path, self._is_temporary = path, is_temporary
        super().__init__(None, status, headers, media_type)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        try:
            with _opened(self._path) as file:
                self.headers["content-length"] = str(os.fstat(file.fileno()).st_size)
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body"})
        finally:
            if self._is_temporary:
                self._path.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"{path.name} has just been deleted") from error


def answer_of(reply: Reply) -> Response:
    """Turn what a worker replied into a response."""
    if reply.path is None:
        return _ReplyResponse(reply)
    path = Path(reply.path)
    return FileAnswer(
        path, media_type=reply.content_type, status=reply.status, headers=reply.headers, is_temporary=True
    )


class _ReplyResponse(Response):
    """What a worker replied, with headers that are written once for many replies."""

    def __init__(self, reply: Reply) -> None:
        self.status_code, self.body, self.background = reply.status, reply.body, None
        own = _raw_headers(tuple(reply.headers.items()), reply.content_type)
        self.raw_headers = [*own, (b"content-length", b"%d" % len(reply.body))]


@functools.lru_cache(maxsize=256)
def _raw_headers(headers: tuple[tuple[str, str], ...], content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    """Write the headers of answers as Starlette does, but for the length."""
    given = dict(headers)
    made = Response(None, 200, given, None if "Content-Type" in given else content_type)
    return tuple(pair for pair in made.raw_headers if pair[0] != b"content-length")


def as_json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON.

    Parameters
    ----------
    value : anything that orjson writes; keys that are no text become text
    status : of HTTP
    headers : besides content type and length
    """
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, headers, media.JSON)


def nothing() -> Response:
    """Answer that it is done."""
    return Response(status_code=204)


def parsed(body: bytes) -> dict[str, Any]:
    """Parse a small JSON object; no body at all is an empty one."""
    return parse_object(body) if body.strip() else {}


def target(request: HttpRequest) -> tuple[str, str | int | None]:
    """Return the model and the version number or alias that a path names.

    Raises
    ------
    BadRequest
        For what can't be a name.
    """
    parts = request.path_params
    if "version" in parts:
        return names.model(parts["name"]), names.version(parts["version"])
    return names.model(parts["name"]), names.alias(parts["alias"]) if "alias" in parts else None

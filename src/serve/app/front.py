"""What stands between a server and those who ask it: a proxy with a prefix of its own, and pages of other sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_SEEN = b"Content-Length, Link, Location, Retry-After, X-Model, X-Model-Sha256, X-Model-Version, X-Total-Count"
_VARY = (b"vary", b"Origin")  # a cache must not give one site's answer to another
_REMEMBERED = b"600"  # s; a browser asks again after that


class Front:
    """Takes a prefix off paths, and lets pages of some other sites use the server (CORS).

    Parameters
    ----------
    app : that answers
    root_path : prefix under which the server is seen, ``/ml``; requests may have it, or come without. May be empty
    origins : sites, as browsers write them, ``https://cern.ch``; ``*`` means all
    """

    def __init__(self, app: ASGIApp, *, root_path: str, origins: Iterable[str]) -> None:
        self._app = app
        self._root = root_path
        self._origins = {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        welcome = self._welcome(headers.get(b"origin"))

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*map(self._whole, message["headers"]), *welcome]
            await send(message)

        if self._root and scope["path"] == self._root:
            await _answer(told, 308, [(b"location", b"/"), (b"content-length", b"0")])  # what is below is relative
        elif len(welcome) > 1 and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _answer(told, 204, _allowed(headers))
        else:
            await self._app(self._below(scope), receive, told)

    def _welcome(self, origin: bytes | None) -> Headers:
        if not self._origins:
            return []
        if origin is None or not self._origins & {origin, b"*"}:
            return [_VARY]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _SEEN), _VARY]

    def _whole(self, pair: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Put the prefix before the path to which an answer redirects."""
        name, value = pair
        return (name, self._root.encode() + value) if name == b"location" and value.startswith(b"/") else pair

    def _below(self, scope: Scope) -> Scope:
        """Take the prefix off a path, where the proxy has not."""
        start = f"{self._root}/"
        if not self._root or not (scope["path"].startswith(start) and scope["raw_path"].startswith(start.encode())):
            return scope
        size = len(self._root)
        return {**scope, "path": scope["path"][size:], "raw_path": scope["raw_path"][size:]}


def _allowed(headers: Mapping[bytes, bytes]) -> Headers:
    """Say what a page may send, before it does."""
    wanted = headers.get(b"access-control-request-headers")
    return [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _REMEMBERED),
        *([(b"access-control-allow-headers", wanted)] if wanted else []),
    ]


async def _answer(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body"})

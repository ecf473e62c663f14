"""HTTP/1.1 as uvicorn speaks it, with bounds on what comes before a body and errors in the form of all others."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serve.errors import BadRequest, HeadTooLarge, ServeError

MAX_HEAD = 32_768  # bytes of a request line and its headers
_OF_BODIES = (b"content-length", b"transfer-encoding")


class Protocol(HttpToolsProtocol):
    """One connection.

    A request that comes whole costs three calls more than uvicorn's own protocol does.

    Parameters
    ----------
    patience : s that a client may take to send the head of a request, from its first byte
    """

    def __init__(self, *arguments: Any, patience: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._quiet = 0  # bytes of which the parser has not yet made anything
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a client that says nothing the time of a connection that is idle."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._hear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._unset_keepalive_if_required()
        self._quiet += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as if it had not asked for another protocol; the parser leaves out bodies
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServeError) else BadRequest("this is no HTTP/1.1 request"))
            return
        if self._quiet:
            self._wait()

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is too long or the body would be lost."""
        if self._quiet > MAX_HEAD and self._head_size() > MAX_HEAD:
            raise _too_large()
        if self.parser.should_upgrade() and any(name in _OF_BODIES and value != b"0" for name, value in self.headers):
            raise BadRequest(
                "Upgrade: bodies are taken as HTTP/1.1 alone; send it without this header", field="Upgrade"
            )
        self._hear()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of a body."""
        self._hear()
        super().on_body(body)

    def _hear(self) -> None:
        self._quiet = 0
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _wait(self) -> None:
        """Bound the bytes and, while nothing is answered, the time of what is not whole yet."""
        if self._quiet > MAX_HEAD:
            self._refuse(_too_large())
        elif self._overdue is None and (self.cycle is None or self.cycle.response_complete):
            self._overdue = self.loop.call_later(self._patience, self.timeout_keep_alive_handler)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _refuse(self, error: ServeError) -> None:
        """Answer an error and close; where that could be taken for the answer of another request, close alone."""
        cycle = self.cycle
        is_its_own = cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)
        if is_its_own and not self.pipeline:
            body = orjson.dumps(error.to_dict())
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            head = b"".join(b"%s: %s\r\n" % pair for pair in headers)
            self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        self.transport.close()


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the request line and headers have more than {MAX_HEAD} bytes; send less")

"""HTTP/1.1 as uvicorn speaks it, with bounds on what comes before a body and errors in the form of all others."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serve.app.bodies import ARRIVED
from serve.errors import BadRequest, HeadTooLarge, ServeError

MAX_HEAD = 32_768  # bytes of a request line and its headers
_UNUSUAL = frozenset((b"connection", b"transfer-encoding"))  # headers
_HOST = re.compile(rb"[^\s,/@?#\\]*")


class ClientConnection(HttpToolsProtocol):
    """One connection.

    A request that comes whole costs three calls more than uvicorn's own protocol does.

    Parameters
    ----------
    arguments : of uvicorn's own protocol
    patience : s that a client may take to send the head of a request, from its first byte, and to take something of an
        answer
    most : connections of this process; beyond that the one that has said nothing for the longest time makes room
    count : told the status of what is refused here
    options : of uvicorn's own protocol
    """

    def __init__(
        self, *arguments: Any, patience: float, most: int, count: Callable[[int], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._most = most
        self.heard = self.loop.time()
        self._idle: asyncio.TimerHandle | None = None
        self._unread: tuple[int, asyncio.TimerHandle] | None = None  # bytes that the client has not taken
        self._count = count
        self._quiet = 0  # bytes of which the parser has not yet made anything
        self._overdue: asyncio.TimerHandle | None = None
        self._is_passed_over = False  # a wish for another protocol has been met, and its head is read once more
        self._last_word: ServeError | None = None  # told after the answers that are still being made

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a client that says nothing the time of a connection that is idle."""
        super().connection_made(transport)
        self._idle = self.loop.call_later(self.timeout_keep_alive, self._check_idle)
        if len(self.connections) > self._most:
            self._make_room()

    def _make_room(self) -> None:
        """Close the connection that has been idle for the longest time, or this one where all are at work."""
        others: list[Any] = [c for c in self.connections if c is not self]
        idle = [c for c in others if c.cycle is None or c.cycle.response_complete]
        min(idle, key=lambda c: c.heard, default=self).transport.close()

    def _check_idle(self) -> None:
        """Close the connection once it has been idle for long enough.

        Looked at now and then, which costs less than a timer that each answer sets and each request stops.
        """
        is_busy = self._overdue is not None or (self.cycle is not None and not self.cycle.response_complete)
        left = self.timeout_keep_alive - (0.0 if is_busy else self.loop.time() - self.heard)
        if left > 0:
            self._idle = self.loop.call_later(left, self._check_idle)
        else:
            self.timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes what it has asked for."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop to watch: the client reads."""
        super().resume_writing()
        self._ignore_reader()

    def _watch_reader(self) -> None:
        timer = self.loop.call_later(self._patience, self._check_reader)
        self._unread = (self.transport.get_write_buffer_size(), timer)

    def _check_reader(self) -> None:
        before, _ = self._unread or (0, None)
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_reader()

    def _ignore_reader(self) -> None:
        if self._unread is not None:
            self._unread[1].cancel()
            self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._hear()
        self._ignore_reader()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come; nothing more after what can't be read."""
        if self._last_word is not None:
            return
        self.heard = self.loop.time()
        self._quiet += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ServeError) else BadRequest("this is no HTTP/1.1 request"))
            return
        if self._quiet:
            self._wait()

    def _feed(self, data: bytes) -> None:
        """Parse; a client's wish for another protocol is ignored (RFC 9110, 7.8).

        The parser gives up after the head of such a request, so another one is given the head without the wish.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                data = self._head_without_wish() + data[wish.args[0] :]
                self._is_passed_over = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def _head_without_wish(self) -> bytes:
        start = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = (b"%s: %s\r\n" % pair for pair in self.headers if pair[0] != b"upgrade")
        return start + b"".join(lines) + b"\r\n"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header without the spaces behind its value, which are no part of it (RFC 9110, 5.5)."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is wrong or too long."""
        if self._quiet > MAX_HEAD and self._head_size() > MAX_HEAD:
            raise _too_large()
        version = self.parser.get_http_version()
        _check_framing(self.headers, version)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise BadRequest("CONNECT: this server is no proxy")
            self._is_passed_over = True
            return
        self._hear()
        super().on_headers_complete()
        self.cycle.__class__ = _Cycle  # its task has not begun yet
        self.scope[ARRIVED] = self.cycle.message_event  # type: ignore[literal-required]
        self.cycle.keep_alive = self.parser.should_keep_alive()  # older uvicorns ask it as they write
        if version == "1.0" and self.cycle.keep_alive:
            self.cycle.default_headers = [*self.server_state.default_headers, (b"connection", b"keep-alive")]

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        if not self._is_passed_over:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or say what was wrong with it."""
        if self._last_word is not None and not self.pipeline and not self.transport.is_closing():
            self._say(self._last_word)
        elif self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.heard = self.loop.time()
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """End after the answer that is being made, which says so."""
        if self.cycle is not None:
            self.cycle.default_headers = self.server_state.default_headers
        super().shutdown()

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
        """Answer an error and close, once the requests before it have their answers."""
        self._hear()
        self._count(error.status)
        cycle = self.cycle
        is_body = cycle is not None and cycle.more_body
        if is_body and self.pipeline:
            self.pipeline.popleft()  # the broken one itself, which came last
        elif is_body and cycle.response_started:
            self.transport.close()
            return
        elif cycle is None or cycle.response_complete or is_body:
            self._say(error)
            return
        self._last_word = error

    def _say(self, error: ServeError) -> None:
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


class _Cycle(RequestResponseCycle):
    """A request and its answer, whose head is sent together with the first piece of its body.

    That is one call of the system instead of two, and one packet. What is usual, a whole answer that says its length,
    is written here for a third of the time that uvicorn's own protocol takes, which does all else.
    """

    _start: Any = None

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        if self._start is None and message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            head = None if message.get("more_body") else self._head(start, len(message.get("body", b"")))
            if head is not None:
                self._write(head + message.get("body", b""))
                return
            await super().send(start)
        await super().send(message)

    def _head(self, start: Any, length: int) -> bytes | None:
        """Write the head of a whole answer, if it is a usual one."""
        if self.flow.write_paused or self.disconnected or self.access_log or self.scope["method"] == "HEAD":
            return None
        try:
            lines = _lines((*self.default_headers, *start.get("headers", ())), length, self.keep_alive)
        except TypeError:  # pairs that are lists, as ASGI allows
            return None
        return None if lines is None else STATUS_LINE[start["status"]] + lines

    def _write(self, answer: bytes) -> None:
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(answer)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


@functools.lru_cache(maxsize=256)  # answers of the same second are much alike
def _lines(given: tuple[tuple[bytes, bytes], ...], length: int, keep_alive: bool) -> bytes | None:
    """Write the headers of a whole answer of some bytes, if they are usual ones, and the empty line after them."""
    headers = [(name.lower(), value) for name, value in given]
    if (b"content-length", b"%d" % length) not in headers:
        return None
    names, values = zip(*headers, strict=True)
    if not _UNUSUAL.isdisjoint(names) or HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(b"".join(values)):
        return None
    if not keep_alive:
        headers.append((b"connection", b"close"))
    return b"".join([b"%b: %b\r\n" % pair for pair in headers]) + b"\r\n"


def _check_framing(headers: list[tuple[bytes, bytes]], version: str) -> None:
    """Refuse what a proxy and this server could understand in different ways.

    Raises
    ------
    BadRequest
        For a request that names no host, two, or what can't be one; and for a coding of the transfer that is not
        known, since the end of the body would not be.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise BadRequest("Host: expected one name of a host, with a port or without", field="Host")
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version != "1.1"):
            raise BadRequest(
                "Transfer-Encoding: only chunked is taken, in HTTP/1.1; compress with Content-Encoding: gzip",
                field="Transfer-Encoding",
            )
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadRequest(f"Host: got it {hosts} times; HTTP/1.1 needs it once", field="Host")


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"the request line and headers have more than {MAX_HEAD} bytes; send less")

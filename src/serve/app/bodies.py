"""Bodies of requests, with bounds on their bytes and on the time that a client may pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serve.app.compression import STEP, Inflater, inflater_of
from serve.app.memory import Hold
from serve.errors import BadRequest, TooLarge
from serve.faults import fault_of

HOLD = "serve.hold"  # where the scope of a request has the memory that it takes
ARRIVED = "serve.arrived"  # where it has the event that is set while a piece of the body is there
_HEADERS = "serve.headers"  # where it has the first value of each header
_SINCE = "serve.since"  # where the scope of a request has the moment at which its body began
_SLOWEST = 10_000  # bytes of a body that must come in each second, after a first pause
_PIECE = 1 << 20  # bytes that are written to a file at once


async def read(request: Request, limit: int, *, pause: float) -> bytes:
    """Read a body into memory.

    Parameters
    ----------
    request : whose body nobody has read yet
    limit : bytes, of a compressed body when it is inflated
    pause : seconds that the client may send nothing

    Raises
    ------
    TooLarge
        Before anything is read where ``Content-Length`` says so.
    UnsupportedType
        For a body that is compressed in a way that is not taken.
    Overloaded
        If other bodies take the memory that there is for all of them.
    BadRequest
        If the client pauses for too long, or the body is not compressed as it says.
    """
    inflater = inflater_of(request)
    hold: Hold | None = request.scope.get(HOLD)
    if inflater is not None:
        return await _collected(_inflated(request, inflater, limit, pause), hold)
    declared = _declared(request)
    if declared is None:
        return await _collected(_pieces(request, limit, pause), hold)
    if declared > limit:
        raise _too_large(limit)
    if hold is not None:
        hold.grow(declared)  # before anything of it is read
    body, is_more = await _piece(request, limit, limit, pause)
    if not is_more:
        return body
    whole = bytearray(body)  # one piece of memory, which goes back to the system as one
    while is_more:
        piece, is_more = await _piece(request, limit - len(whole), limit, pause)
        whole += piece
    return bytes(whole)


async def _collected(pieces: AsyncIterator[bytes], hold: Hold | None) -> bytes:
    """Join the pieces of a body whose size shows only as it comes."""
    whole = bytearray()
    async for piece in pieces:
        if hold is not None:
            hold.grow(len(piece))
        whole += piece
    return bytes(whole)


async def save(request: Request, path: Path, limit: int, *, pause: float) -> None:
    """Write a body to a new file, which stays where it is after an error.

    Parameters
    ----------
    request : whose body nobody has read yet
    path : of the file, which must not exist
    limit : bytes, of a compressed body when it is inflated
    pause : seconds that the client may send nothing

    Raises
    ------
    TooLarge, UnsupportedType, BadRequest
        As :func:`read`.
    Overloaded, OutOfOrder
        If there is no room, or it can't be written.
    """
    kept = bytearray()
    inflater = inflater_of(request)
    pieces = _pieces(request, limit, pause) if inflater is None else _inflated(request, inflater, limit, pause)
    try:
        with path.open("xb") as file:
            async for piece in pieces:
                kept += piece
                if len(kept) >= _PIECE:
                    await asyncio.to_thread(file.write, bytes(kept))
                    kept.clear()
            await asyncio.to_thread(file.write, kept)
    except OSError as error:
        fault = fault_of(error, "the body can't be kept")
        if fault is None:
            raise
        raise fault from error


def header(request: Request, name: bytes) -> str | None:
    """Return the first value of a header, named in lower case; several times faster than ``request.headers``."""
    known = request.scope.get(_HEADERS)
    if known is None:
        known = request.scope[_HEADERS] = dict(reversed(request.scope["headers"]))
    value = known.get(name)
    return None if value is None else str(value, "latin-1")


async def _inflated(request: Request, inflater: Inflater, limit: int, pause: float) -> AsyncIterator[bytes]:
    """Give the pieces of a compressed body, and let others work between long ones."""
    left = limit
    async for packed in _pieces(request, limit, pause):
        for piece in inflater.feed(packed):
            left -= len(piece)
            if left < 0:
                raise _too_large(limit)
            yield piece
            if len(piece) == STEP:
                await asyncio.sleep(0)
    inflater.finish()


async def _pieces(request: Request, limit: int, pause: float) -> AsyncIterator[bytes]:
    left, is_more = _allowed(request, limit), True
    while is_more:
        piece, is_more = await _piece(request, left, limit, pause)
        left -= len(piece)
        yield piece


def _allowed(request: Request, limit: int) -> int:
    """Return the limit, unless the client says that it will send more."""
    if (_declared(request) or 0) > limit:
        raise _too_large(limit)
    return limit


def _declared(request: Request) -> int | None:
    """Return the bytes that the client says it will send."""
    declared = header(request, b"content-length") or ""
    return int(declared) if declared.isdecimal() else None


async def _piece(request: Request, left: int, limit: int, pause: float) -> tuple[bytes, bool]:
    """Return the next piece of the body, and whether there is more."""
    arrived: asyncio.Event | None = request.scope.get(ARRIVED)
    if arrived is not None and arrived.is_set():
        message = await request.receive()  # at once
    else:
        message = await _received(request, _time_for(request, limit - left, pause))
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    if len(body) > left:
        raise _too_large(limit)
    return body, message.get("more_body", False)


def _time_for(request: Request, received: int, pause: float) -> float:
    """Return the time for the next piece, s: a pause, and less where a body trickles."""
    now = time.monotonic()
    since: float = request.scope.setdefault(_SINCE, now)
    return max(1e-3, min(pause, since + pause + received / _SLOWEST - now))


async def _received(request: Request, pause: float) -> Message:
    try:
        async with asyncio.timeout(pause):
            return await request.receive()
    except TimeoutError as error:
        raise BadRequest(
            f"body: it comes too slowly; send it without pauses, and at least {_SLOWEST} bytes a second",
            code="body_too_slow",
        ) from error


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"body: more than the {limit} bytes that are allowed; send less at once", field="body")

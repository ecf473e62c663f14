"""Frames: how requests and replies look on the private sockets between API processes and workers.

A frame is a prefix of 12 bytes (bytes of the header as uint32, bytes of the body as uint64, little endian), a header
(a JSON list) and the body as it is. Nothing is pickled, so that a frame can only ever become data. Nothing here
touches a socket: a :class:`Decoder` takes the bytes in pieces of any size.
"""

from __future__ import annotations

import struct
from typing import Any

import orjson

from serve.messages import Reply, Request

_PREFIX = struct.Struct("<IQ")
_MAX_HEADER = 16_000_000
_MAX_BODY = 1 << 36


class FrameError(ValueError):
    """The bytes are no frames: the two sides are out of step, and the connection is of no more use."""


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[tuple[list[Any], bytes]]:
        """Take the next bytes; return header and body of the frames that are whole by now.

        Raises
        ------
        FrameError
            If the bytes can't be a frame.
        """
        self._buffer += data
        frames, start = [], 0
        with memoryview(self._buffer) as view:
            while len(view) - start >= _PREFIX.size:
                middle, end = _bounds(view, start)
                if end > len(view):
                    break
                frames.append((_header(view[start + _PREFIX.size : middle]), bytes(view[middle:end])))
                start = end
        del self._buffer[:start]
        return frames


def pack_request(number: int, request: Request, *, deadline: float) -> tuple[bytes, bytes]:
    """Write a request as the two parts of a frame.

    Parameters
    ----------
    number : by which the reply will be recognized
    request : whose body is a part of its own, so that it is not copied
    deadline : on the clock of ``time.monotonic``, s; it takes the place of the request's own
    """
    header = [
        number,
        request.road,
        request.model,
        request.version,
        request.content_type,
        request.accept,
        dict(request.options),
        request.path,
        deadline,
    ]
    return _pack(header, request.body)


def pack_taking_back(number: int) -> bytes:
    """Write that a request need not be answered any more."""
    return b"".join(_pack([number], b""))


def unpack_request(header: list[Any], body: bytes) -> tuple[int, Request | None]:
    """Read what :func:`pack_request` wrote: the number and the request; None where it is taken back."""
    if len(header) == 1:
        return header[0], None
    number, road, model, version, content_type, accept, options, path, deadline = header
    return number, Request(road, model, version, content_type, accept, options, body, path, deadline)


def pack_reply(number: int, reply: Reply) -> tuple[bytes, bytes]:
    """Write a reply as the two parts of a frame."""
    header = [
        number,
        reply.status,
        reply.content_type,
        dict(reply.headers),
        reply.path,
        reply.num_events,
        reply.seconds,
    ]
    return _pack(header, reply.body)


def unpack_reply(header: list[Any], body: bytes) -> tuple[int, Reply]:
    """Read what :func:`pack_reply` wrote: the number and the reply."""
    number, status, content_type, headers, path, num_events, seconds = header
    return number, Reply(status, body, content_type, headers, path, num_events, seconds)


def _pack(header: list[Any], body: bytes) -> tuple[bytes, bytes]:
    text = orjson.dumps(header)
    if len(text) > _MAX_HEADER:
        raise FrameError(f"a header of {len(text)} bytes; at most {_MAX_HEADER} are allowed")
    return _PREFIX.pack(len(text), len(body)) + text, body


def _bounds(view: memoryview, start: int) -> tuple[int, int]:
    """Return where the body of the frame at ``start`` begins and ends."""
    header, body = _PREFIX.unpack_from(view, start)
    if header > _MAX_HEADER or body > _MAX_BODY:
        raise FrameError(f"a frame with a header of {header} and a body of {body} bytes: the stream is out of step")
    middle = start + _PREFIX.size + header
    return middle, middle + body


def _header(text: memoryview) -> list[Any]:
    try:
        header = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FrameError("a header that is not JSON: the stream is out of step") from error
    if not isinstance(header, list):
        raise FrameError("a header that is not a list: the stream is out of step")
    return header

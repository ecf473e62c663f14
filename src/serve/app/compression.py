"""Compressed bodies (``Content-Encoding``), inflated piece by piece so that nobody makes much out of little."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from starlette.requests import Request

from serve.errors import BadRequest, UnsupportedType

CODINGS = ("gzip", "deflate")
STEP = 1 << 20  # bytes that are inflated at once
_GZIP, _ZLIB, _RAW = 31, 15, -15  # as zlib numbers its formats
_MEMBERS, _BYTES_OF_MEMBER = 16, 4096  # a body has so many members, and one more for each so many bytes


class UnknownCoding(UnsupportedType):
    """A body is compressed in a way that is not taken."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Say what is taken."""
        return {"Accept-Encoding": ", ".join(CODINGS)}


class Inflater:
    """Inflates one body.

    Parameters
    ----------
    coding : ``gzip``, of one member or several, or ``deflate``, with zlib's frame or, as some clients send it, without
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._start = b""  # of a deflated body, which says whether it has a frame
        self._stream = zlib.decompressobj(_GZIP) if coding == "gzip" else None
        self._members, self._taken = 1, 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Inflate a piece, in parts of at most :data:`STEP` bytes.

        Raises
        ------
        BadRequest
            For bytes that are not compressed as the header says.
        """
        self._taken += len(piece)
        if self._stream is None:
            piece, self._start = self._start + piece, b""
            if len(piece) < 2:
                self._start = piece
                return
            self._stream = zlib.decompressobj(_ZLIB if _has_frame(piece) else _RAW)
        while piece:
            if self._stream.eof:
                self._begin_member()
            try:
                part = self._stream.decompress(piece, STEP)
            except zlib.error as error:
                raise self._wrong(str(error)) from error
            piece = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            yield part
        while not self._stream.eof and (part := self._more()):
            yield part

    def _more(self) -> bytes:
        """Return what is left of bytes that have been taken already."""
        try:
            return self._stream.decompress(b"", STEP) if self._stream is not None else b""
        except zlib.error as error:
            raise self._wrong(str(error)) from error

    def finish(self) -> None:
        """Check that the body came to its end; a body without a byte counts as an empty one.

        Raises
        ------
        BadRequest
            If it did not.
        """
        if self._taken and (self._stream is None or not self._stream.eof):
            raise self._wrong("it ends too early")

    def _begin_member(self) -> None:
        self._members += 1
        if self._coding != "gzip" or self._members > _MEMBERS + self._taken // _BYTES_OF_MEMBER:
            raise self._wrong("there is more after its end")
        self._stream = zlib.decompressobj(_GZIP)

    def _wrong(self, why: str) -> BadRequest:
        return BadRequest(f"body: it is not what Content-Encoding: {self._coding} says ({why})", field="body")


def inflater_of(request: Request) -> Inflater | None:
    """Return what inflates the body of a request; None for one that comes as it is.

    Raises
    ------
    UnknownCoding
        For codings that are not taken, and several at once.
    """
    given = [value for key, value in request.scope["headers"] if key == b"content-encoding"]
    if not given:
        return None
    coding = b", ".join(given).decode("latin-1").strip().lower()
    if coding == "identity":
        return None
    coding = coding.removeprefix("x-")
    if coding not in CODINGS:
        raise UnknownCoding(
            f"Content-Encoding: got {coding[:40]!r}; bodies are taken as they are, or in {' or '.join(CODINGS)}",
            field="Content-Encoding",
        )
    return Inflater(coding)


def _has_frame(start: bytes) -> bool:
    """Say whether deflated bytes have zlib's head (RFC 1950)."""
    return start[0] & 15 == 8 and (256 * start[0] + start[1]) % 31 == 0

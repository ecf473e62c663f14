"""Carries out the steps of a request with httpx: waiting for each, or not."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import httpx

from serve.client.errors import InvalidInput
from serve.client.retry import Answer, Failure, Send, ServerCall

PIECE = 1 << 18  # bytes of a file that are in memory at once
CONNECT = 5.0  # seconds; a server that is there accepts at once
MAX_TIMEOUT_MS = 600_000  # the most that servers take, unless they were told otherwise
# What is wrong with a certificate, as OpenSSL numbers it (X509_V_ERR_...), to what helps.
_RENEWED = "whoever runs the server has to renew it, unless the clock of this machine is wrong"
_OF_CERTIFICATES = {
    9: _RENEWED,
    10: _RENEWED,
    62: "ask by the name that it is for",
    64: "ask by the name that it is for",
}
_UNTRUSTED = "give the file of its authority, ca=... or --ca, if you trust it"
_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNEXPECTED_MESSAGE",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)
Progress = Callable[[int, int], object]  # is told the bytes of a file that are sent, and all of them
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def trust(ca: str | Path | None) -> ssl.SSLContext | bool:
    """Say which authorities are believed: those of the system, or those in a file or folder alone.

    Raises
    ------
    InvalidInput
        For a file without certificates.
    """
    if ca is None:
        return True
    path = Path(ca)
    try:
        if path.is_dir():  # as /etc/grid-security/certificates, by hashes
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # which those of the library are, too
        why = "it holds none" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidInput(f"ca: {path}: {why}; expected a file of certificates (PEM), or a folder of them") from error


def send(http: httpx.Client, step: Send, progress: Progress | None = None) -> Answer | Failure:
    """Send a call, and wait for its answer.

    Parameters
    ----------
    http : with the connections that are open
    step : the call, the server's address and the deadline
    progress : is told how much of a file is sent

    Raises
    ------
    InvalidInput
        Where a file of the call can't be read or written.
    """
    try:
        with _body(step) as body, http.stream(**_request(step), content=_told(body, step, progress)) as response:
            with _sink(step, response) as sink:
                for piece in response.iter_bytes():
                    _check_time(step)
                    sink.write(piece)
            return _answer(step, response, sink)
    except httpx.RequestError as error:
        return _failure(error)
    except OSError as error:
        raise _unusable(error) from error


async def send_async(http: httpx.AsyncClient, step: Send, progress: Progress | None = None) -> Answer | Failure:
    """Send a call; other tasks run while the answer is on its way.

    Parameters
    ----------
    http : with the connections that are open
    step : the call, the server's address and the deadline
    progress : as of :func:`send`; it is called where the task runs

    Raises
    ------
    InvalidInput
        Where a file of the call can't be read or written.
    """
    try:
        async with asyncio.timeout(_seconds(step)):
            with _body(step) as body:
                content = body if isinstance(body, bytes | None) else _in_threads(body, _Sent(step, progress))
                async with http.stream(**_request(step), content=content) as response:
                    with _sink(step, response) as sink:
                        async for piece in response.aiter_bytes():
                            await asyncio.to_thread(sink.write, piece)
                    return _answer(step, response, sink)
    except httpx.RequestError as error:
        return _failure(error)
    except TimeoutError:
        return Failure(reason="it did not come in time", was_sent=True)
    except OSError as error:
        raise _unusable(error) from error


def _seconds(step: Send) -> float:
    return max(0.001, step.deadline - time.monotonic())


def _request(step: Send) -> dict[str, Any]:
    call, seconds = step.call, _seconds(step)
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT))
    url, headers = step.url + call.path, _headers(call, seconds)
    return {"method": call.method, "url": url, "params": call.params, "headers": headers, "timeout": timeout}


def _headers(call: ServerCall, seconds: float) -> dict[str, str]:
    """Add the size of a file, or else for how long the answer is of use: after that no server needs to work on it."""
    if isinstance(call.body, Path):
        return {**call.headers, "Content-Length": str(call.body.stat().st_size)}
    return {**call.headers, "X-Timeout-Ms": str(max(1, min(MAX_TIMEOUT_MS, int(seconds * 1000))))}


@contextmanager
def _body(step: Send) -> Iterator[bytes | Iterator[bytes] | None]:
    body = step.call.body
    if not isinstance(body, Path):
        yield body
        return
    with body.open("rb") as file:
        yield _pieces(file, step)


def _pieces(file: IO[bytes], step: Send) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        _check_time(step)
        yield piece


def _told(body: bytes | Iterator[bytes] | None, step: Send, progress: Progress | None) -> Any:
    return body if isinstance(body, bytes | None) else _counted(body, _Sent(step, progress))


def _counted(pieces: Iterator[bytes], sent: _Sent) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        sent.add(piece)


async def _in_threads(pieces: Iterator[bytes], sent: _Sent) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
        sent.add(piece)


class _Sent:
    """Counts what is sent of the file of a call.

    Parameters
    ----------
    progress : is told
    """

    def __init__(self, step: Send, progress: Progress | None) -> None:
        self._progress = progress
        self._total = step.call.body.stat().st_size if isinstance(step.call.body, Path) else 0
        self._sent = 0

    def add(self, piece: bytes) -> None:
        """Take note of a piece that was taken by the connection."""
        self._sent += len(piece)
        if self._progress is not None:
            self._progress(self._sent, self._total)


def _check_time(step: Send) -> None:
    # httpx bounds each silence, not the whole.
    if time.monotonic() > step.deadline:
        raise httpx.ReadTimeout("it did not come in time")


@contextmanager
def _sink(step: Send, response: httpx.Response) -> Iterator[IO[bytes]]:
    """Give the place for the body of an answer; a file appears once it is whole."""
    into = step.call.into
    if into is None or not response.is_success:
        yield BytesIO()
        return
    part = into.with_name(f"{into.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)


def _answer(step: Send, response: httpx.Response, sink: IO[bytes]) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = sink.getvalue() if isinstance(sink, BytesIO) else b""
    return Answer(server=step.url, path=step.call.path, status=response.status_code, headers=headers, body=body)


def _failure(error: httpx.RequestError) -> Failure:
    was_sent = not isinstance(error, _NOT_SENT)
    if isinstance(error, httpx.TimeoutException):
        return Failure(reason="it did not come in time" if was_sent else "no connection in time", was_sent=was_sent)
    cause = _innermost(error)
    if isinstance(cause, ssl.SSLError) and not was_sent:
        return Failure(reason=_word_of_tls(cause), was_sent=False, is_final=True)
    return Failure(reason=(was_sent and str(error)) or _system_word(cause), was_sent=was_sent)


def _word_of_tls(error: ssl.SSLError) -> str:
    """Say what is wrong with a certificate, and what helps."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _OF_CERTIFICATES.get(error.verify_code, _UNTRUSTED)
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}; {remedy}"
    if error.reason in _NO_TLS:
        return "it does not speak TLS there; write http:// instead of https://, or ask for the right port"
    return f"TLS fails: {(error.reason or str(error)).replace('_', ' ').lower()}"


def _innermost(error: BaseException) -> BaseException:
    """Find what happened below the errors of three libraries."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def _system_word(error: BaseException) -> str:
    """Return the operating system's word for it."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(error) or type(error).__name__


def _unusable(error: OSError) -> InvalidInput:
    return InvalidInput(f"{error.filename or 'file'}: {error.strerror or error}; check the path, and the room there")

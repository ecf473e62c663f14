"""What answers requests whatever transport brings them: HTTP's paths call it, and so may any other front.

A front asks :meth:`Handler.authorize` whether the client may, and :meth:`Handler.prepare` whether what it wants can be
done; then it reads the body and has :meth:`Handler.answer` answer it. Nothing here knows of connections.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from serve.app.memory import Room
from serve.errors import BadRequest, Forbidden
from serve.formats.known import Formats, formats_of
from serve.keys import Keys, is_loopback, is_private
from serve.messages import Reply, Request
from serve.models.repository import Repository
from serve.processes.metrics import Metrics
from serve.settings import Settings
from serve.upload.check import Limits

T = TypeVar("T")

_CHECKS = 2  # uploads that are checked at the same time in one process


class WorkerPool(Protocol):
    """Has requests answered by workers."""

    @property
    def pending(self) -> int:
        """Requests that wait."""

    @property
    def is_able(self) -> bool:
        """Whether a worker can be reached and makes progress."""

    def show_counts_soon(self) -> None:
        """Show what was counted to other processes, within a while."""

    async def submit(self, request: Request) -> Reply:
        """Have a request answered."""


class Call(NamedTuple):
    """What a client asks, as far as it is known before the body.

    Attributes
    ----------
    road : name of the protocol, one of ``serve.protocols.protocol.PROTOCOLS``
    reference : version number or alias; None for the latest version
    content_type, accept : what headers of these names would say; None where nothing is said, which means JSON
    options : of the request
    timeout : ms that the client gives, as it wrote them
    """

    road: str
    model: str
    reference: str | int | None = None
    content_type: str | None = None
    accept: str | None = None
    options: Mapping[str, str] = {}
    timeout: str | None = None


class Prepared(NamedTuple):
    """A request that wants its body.

    Attributes
    ----------
    make : the request, of ``body`` or ``path``, and ``deadline``
    seconds : that it may take
    is_file : whether the body is to be saved as a file
    """

    make: Callable[..., Request]
    seconds: float
    is_file: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Handler:
    """What a server is made of, and how it answers, without its transport; made once, before processes are forked.

    Parameters
    ----------
    pool : that has requests answered
    metrics : of all processes
    folder : for temporary files; it goes with the server
    room : for the bodies of requests in this process
    formats : that are taken and given
    keys : None if everybody may do everything
    is_private : whether other machines can't reach it
    checks : held while an upload is checked
    started : on the clock of ``time.monotonic``
    """

    settings: Settings
    pool: WorkerPool
    metrics: Metrics
    folder: Path
    room: Room
    formats: Formats
    repository: Repository
    keys: Keys | None
    is_private: bool
    checks: asyncio.Semaphore
    started: float

    @classmethod
    def of(cls, settings: Settings, *, pool: WorkerPool, metrics: Metrics, folder: Path, room: Room) -> Self:
        """Make the handler of a server with these settings.

        Parameters
        ----------
        settings : decide formats, keys, and where the repository is
        pool : that has requests answered
        metrics : of all processes
        folder : for temporary files; it goes with the server
        room : for the bodies of requests in this process
        """
        return cls(
            settings=settings,
            pool=pool,
            metrics=metrics,
            folder=folder,
            room=room,
            formats=formats_of(settings.formats),
            repository=Repository(
                settings.models,
                max_trash_bytes=settings.max_trash_bytes,
                max_trash_days=settings.max_trash_days,
            ),
            keys=None if settings.keys is None else Keys(settings.keys),
            is_private=is_private(settings.host),
            checks=asyncio.Semaphore(_CHECKS),
            started=time.monotonic(),
        )

    @property
    def check_limits(self) -> Limits:
        """Limits of the check of an upload."""
        made = self.settings
        return Limits(size=made.max_upload, memory=made.check_memory, seconds=made.check_seconds)

    def is_ready(self) -> bool:
        """Say whether a worker can be reached and makes progress."""
        return self.pool.is_able

    def count_answer(self, path: str, status: int) -> None:
        """Count an answer, whoever gave it; its path is empty where it has none."""
        self.metrics.count_answer(path, status)
        self.pool.show_counts_soon()

    async def counts(self) -> bytes:
        """Return what all processes have counted, in Prometheus' text format."""
        self.metrics.flush()  # here and not in the thread: counting goes on meanwhile
        return await in_thread(self.metrics.render)

    def authorize(self, header: Callable[[bytes], str | None], scope: str) -> str | None:
        """Let a request pass if its key, or where it comes from, allows what it asks for.

        Parameters
        ----------
        header : gives what a request says under a name in lower case: ``authorization``, ``x-api-key``, ``host``,
            ``origin``
        scope : ``predict``, ``publish`` or ``admin``, which the request needs

        Returns
        -------
        the name of the key; None where nobody is asked for one

        Raises
        ------
        Unauthorized, Forbidden
            If not.
        """
        if self.keys is not None:
            return self.keys.authorize(header(b"authorization"), header(b"x-api-key"), scope=scope).name
        host, origin = header(b"host") or "", header(b"origin")
        # Without keys a page of another site must not use a visitor's browser to reach the server.
        if origin is not None and _netloc(origin) != host and origin not in self.settings.allow_origin:
            raise Forbidden(
                "Origin: pages of other sites may not use a server without keys, unless it is started with "
                f"--allow-origin {origin[:80]}",
                field="Origin",
            )
        if self.is_private and not _is_own(host) and _without_port(host).lower() not in self.settings.allow_host:
            raise Forbidden(
                f"Host: got {host[:80]!r}; this server is called 127.0.0.1 or localhost, unless it is started with "
                "--allow-host",
                field="Host",
            )
        return None

    def seconds(self, timeout: str | None, default: float) -> float:
        """Return the time that a request may take, s.

        Parameters
        ----------
        timeout : ms, as the client wrote them
        default : where it does not say

        Raises
        ------
        BadRequest
            For what is no whole number, or out of its range.
        """
        if timeout is None:
            return default
        most = int(self.settings.max_timeout * 1000)
        if not (timeout.isascii() and timeout.isdecimal() and len(timeout) < 12 and 1 <= int(timeout) <= most):
            raise BadRequest(
                f"X-Timeout-Ms: got {timeout[:40]!r}; expected a whole number from 1 to {most}", field="X-Timeout-Ms"
            )
        return int(timeout) / 1000

    def prepare(self, call: Call) -> Prepared:
        """Check all of a request that can be known before its body.

        Raises
        ------
        ServeError
            Saying what is wrong: the model, the formats, the options or the time.
        """
        version = self.repository.served(call.model, call.reference)
        form = self.formats.of_events(call.content_type)
        accept = self.formats.choose(call.accept)
        seconds = self.seconds(call.timeout, self.settings.max_timeout if form.is_file else self.settings.timeout)
        if form.is_file and "explain" in call.options:
            raise BadRequest("explain: not offered for files; send some events as JSON", field="explain")
        make = functools.partial(
            Request, road=call.road, model=call.model, version=version, content_type=form.content_type, accept=accept,
            options=call.options,
        )  # fmt: skip
        return Prepared(make=make, seconds=seconds, is_file=form.is_file)

    async def answer(self, prepared: Prepared, body: bytes, *, seconds: float | None = None) -> Reply:
        """Have a request answered.

        Parameters
        ----------
        prepared : the request, but for its body
        body : as it came, uncompressed
        seconds : that it may take, in place of those prepared
        """
        given = prepared.seconds if seconds is None else seconds
        return await self.pool.submit(prepared.make(body=body, deadline=time.monotonic() + given))

    async def answer_file(self, prepared: Prepared, path: Path) -> Reply:
        """Have a request answered whose body is a file, which the caller removes; the answer is a file, too."""
        try:
            return await self.pool.submit(prepared.make(path=str(path), deadline=time.monotonic() + prepared.seconds))
        except BaseException:
            Path(f"{path}.scores").unlink(missing_ok=True)  # of a worker that did not live to send it
            raise

    def new_file(self) -> Path:
        """Return a path that nobody else uses."""
        return self.folder / f"body-{os.getpid()}-{os.urandom(8).hex()}"


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run what waits for disks or locks in a thread, so that it does not hold up other requests."""
    return await asyncio.to_thread(work, *arguments)


@functools.lru_cache(maxsize=64)
def _is_own(host: str) -> bool:
    return is_loopback(_without_port(host))


def _netloc(origin: str) -> str | None:
    """Return host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _without_port(host: str) -> str:
    """Take the port off a value of ``Host``.

    Examples
    --------
    >>> [_without_port(h) for h in ("localhost:8000", "[::1]:80", "127.0.0.1")]
    ['localhost', '[::1]', '127.0.0.1']
    """
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host

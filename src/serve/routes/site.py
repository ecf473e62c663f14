"""What every answer needs: the repository, the workers, the limits, and who may do what."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest

from serve import names
from serve.app.access_log import WHO
from serve.app.bodies import header
from serve.app.memory import Room
from serve.errors import BadRequest, Forbidden
from serve.keys import Keys, is_loopback, is_private
from serve.messages import Reply, Request
from serve.models.repository import Repository
from serve.processes.metrics import Metrics
from serve.settings import Settings
from serve.upload.check import Limits

T = TypeVar("T")

_CHECKS = 2  # uploads that are checked at the same time in one process


class Pool(Protocol):
    """Has requests answered by workers."""

    @property
    def pending(self) -> int:
        """Requests that wait."""

    async def submit(self, request: Request) -> Reply:
        """Have a request answered."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What a server is made of, as far as HTTP needs it.

    Parameters
    ----------
    folder : for temporary files
    keys : None if everybody may do everything
    is_private : whether other machines can't reach it
    is_ready : whether a worker can be reached and makes progress
    room : for the bodies of requests
    checks : held while an upload is checked
    started : on the clock of ``time.monotonic``
    """

    settings: Settings
    pool: Pool
    metrics: Metrics
    folder: Path
    is_ready: Callable[[], bool]
    repository: Repository
    keys: Keys | None
    is_private: bool
    room: Room
    checks: asyncio.Semaphore
    started: float

    @classmethod
    def of(cls, context: Any) -> Site:
        """Make it of what :func:`serve.processes.launch.serve_forever` gives."""
        settings: Settings = context.settings
        return cls(
            settings=settings,
            pool=context.pool,
            metrics=context.metrics,
            folder=context.folder,
            is_ready=context.is_ready,
            repository=Repository(
                settings.models,
                max_trash_bytes=settings.max_trash_bytes,
                max_trash_days=settings.max_trash_days,
            ),
            keys=None if settings.keys is None else Keys(settings.keys),
            room=context.room,
            is_private=is_private(settings.host),
            checks=asyncio.Semaphore(_CHECKS),
            started=time.monotonic(),
        )

    @property
    def check_limits(self) -> Limits:
        """Limits of the check of an upload."""
        made = self.settings
        return Limits(size=made.max_upload, memory=made.check_memory, seconds=made.check_seconds)

    async def counts(self) -> bytes:
        """Return what all processes have counted, in Prometheus' text format."""
        self.metrics.flush()  # here and not in the thread: counting goes on meanwhile
        return await in_thread(self.metrics.render)

    def authorize(self, request: HttpRequest, scope: str) -> None:
        """Let a request pass if its key, or where it comes from, allows what it asks for.

        Raises
        ------
        Unauthorized, Forbidden
            If not.
        """
        if self.keys is not None:
            key = self.keys.authorize(header(request, b"authorization"), header(request, b"x-api-key"), scope=scope)
            request.scope[WHO] = key.name
            return
        host, origin = header(request, b"host") or "", header(request, b"origin")
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

    def seconds(self, request: HttpRequest, default: float) -> float:
        """Return the time that a request may take, s.

        Parameters
        ----------
        default : where the header ``X-Timeout-Ms`` does not say

        Raises
        ------
        BadRequest
            For a header that is no whole number, or out of its range.
        """
        given = header(request, b"x-timeout-ms")
        if given is None:
            return default
        most = int(self.settings.max_timeout * 1000)
        if not (given.isascii() and given.isdecimal() and len(given) < 12 and 1 <= int(given) <= most):
            raise BadRequest(
                f"X-Timeout-Ms: got {given[:40]!r}; expected a whole number from 1 to {most}", field="X-Timeout-Ms"
            )
        return int(given) / 1000

    def new_file(self) -> Path:
        """Return a path that nobody else uses."""
        return self.folder / f"body-{os.getpid()}-{os.urandom(8).hex()}"


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Do what waits for disks or locks where it does not hold up other requests."""
    return await asyncio.to_thread(work, *arguments)


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

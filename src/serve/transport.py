"""The side of an API process: a pool of connections to the workers.

Each worker listens on a unix socket in a private folder, and each API process keeps one connection to each worker. A
worker that dies is noticed by the end of its connection, at once; what it held is answered with :class:`WorkerLost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

from serve.errors import DeadlineExceeded, Overloaded, ServeError, WorkerLost
from serve.frames import Decoder, FrameError, pack_request, unpack_reply
from serve.messages import Reply, Request
from serve.metrics import Metrics
from serve.settings import Settings

_RETRY = 0.05  # s between attempts to reach a worker that is not there
_GAUGE = 0.1  # s between updates of what the other processes see
_SMALL = 16_384  # bytes up to which a copy is cheaper than a second write


class Pool:
    """Hands requests to the worker that holds the fewest.

    Parameters
    ----------
    paths : of the workers' sockets
    settings : ``max_pending`` and ``max_timeout`` are used
    metrics : where requests are counted
    """

    def __init__(self, paths: Sequence[Path], *, settings: Settings, metrics: Metrics) -> None:
        self._links = [_Link(path) for path in paths]
        self._settings = settings
        self._metrics = metrics
        self._writing: asyncio.TimerHandle | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every worker is connected."""
        return all(link.is_open for link in self._links)

    @property
    def pending(self) -> int:
        """Requests that workers hold, those that nobody waits for any more included."""
        return sum(len(link.held) for link in self._links)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the connections while the block runs."""
        tasks = [asyncio.create_task(link.keep()) for link in self._links]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._metrics.flush()

    async def complete(self) -> None:
        """Wait until every worker has been connected."""
        for link in self._links:
            await link.opened.wait()

    async def submit(self, request: Request) -> Reply:
        """Have a request answered.

        Raises
        ------
        Overloaded
            If ``max_pending`` requests wait already.
        WorkerLost
            If the worker dies before it answers, or none lives.
        DeadlineExceeded
            If the deadline passes first, be the worker busy or stuck.
        """
        start = time.perf_counter()
        status, num_events, computed = 500, 0, 0.0
        try:
            reply = await self._ask(request)
            status, num_events, computed = reply.status, reply.num_events, reply.seconds
        except ServeError as error:
            status = error.status
            raise
        finally:
            self._metrics.observe(
                request, status=status, num_events=num_events, seconds=time.perf_counter() - start, computed=computed
            )
            self._write_metrics_soon()
        return reply

    async def _ask(self, request: Request) -> Reply:
        now = time.monotonic()
        deadline = min(request.deadline, now + self._settings.max_timeout)
        if deadline <= now:
            raise _late(request)
        future = self._choose().send(request, deadline=deadline)
        self._write_metrics_soon()
        timer = asyncio.get_running_loop().call_later(deadline - now, _expire, future, request)
        try:
            return await future
        finally:
            timer.cancel()

    def _write_metrics_soon(self) -> None:
        """Let the other processes know the counts, a few times a second at most."""
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(_GAUGE, self._write_metrics)

    def _write_metrics(self) -> None:
        self._writing = None
        self._metrics.pending.set(self.pending)
        self._metrics.flush()

    def _choose(self) -> _Link:
        living = [link for link in self._links if link.is_open]
        if not living:
            raise WorkerLost("no model process is running; it is being started: try again")
        if self.pending >= self._settings.max_pending:
            raise Overloaded(f"{self._settings.max_pending} requests wait already; try again later")
        return min(living, key=lambda link: len(link.held))


class _Link(asyncio.Protocol):
    """The connection to one worker, and what it has not answered yet.

    A request that nobody waits for any more is kept until its reply comes: the worker is still busy with it.
    """

    def __init__(self, path: Path) -> None:
        self.held: dict[int, asyncio.Future[Reply]] = {}
        self.opened = asyncio.Event()
        self._path = path
        self._numbers = itertools.count()
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def keep(self) -> None:
        """Connect, and connect again whenever the connection has ended."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    await loop.create_unix_connection(lambda: self, str(self._path))
                except OSError:
                    await asyncio.sleep(_RETRY)
                else:
                    await self._closed.wait()
        finally:
            if self._transport is not None:
                self._transport.abort()

    def send(self, request: Request, *, deadline: float) -> asyncio.Future[Reply]:
        number = next(self._numbers)
        head, body = pack_request(number, request, deadline=deadline)
        transport = cast("asyncio.Transport", self._transport)
        if len(body) <= _SMALL:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.held[number] = future
        return future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._decoder = Decoder()
        self._closed.clear()
        self.opened.set()

    def data_received(self, data: bytes) -> None:
        try:
            for header, body in self._decoder.feed(data):
                self._deliver(*unpack_reply(header, body))
        except (FrameError, KeyError, ValueError):
            # Out of step: a wrong answer would be worse than none. The end of the connection fails what is held.
            cast("asyncio.Transport", self._transport).abort()
            raise

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self.opened.clear()
        self._closed.set()
        held, self.held = self.held, {}
        for future in held.values():
            if not future.done():
                future.set_exception(WorkerLost("the process that worked on the request died; try again"))

    def _deliver(self, number: int, reply: Reply) -> None:
        future = self.held.pop(number)
        if not future.done():
            future.set_result(reply)
        elif reply.path is not None:
            Path(reply.path).unlink(missing_ok=True)


def _expire(future: asyncio.Future[Reply], request: Request) -> None:
    if not future.done():
        future.set_exception(_late(request))


def _late(request: Request) -> DeadlineExceeded:
    return DeadlineExceeded(f"model {request.model!r} did not answer within the time given; send less, or give more")

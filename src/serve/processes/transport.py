"""The side of an API process: a pool of connections to the workers.

Each worker listens on a unix socket in a private folder, and each API process keeps one connection to each worker. A
worker that dies is noticed by the end of its connection, at once. What it worked on is answered with
:class:`WorkerLost`; what only waited there goes to another one, also where a worker lives and makes no progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

from serve.app.memory import Room
from serve.errors import DeadlineExceeded, Overloaded, ServeError, WorkerLost
from serve.messages import Reply, Request
from serve.processes.frames import Decoder, FrameError, pack_request, pack_taking_back, unpack_reply
from serve.processes.metrics import Metrics
from serve.processes.progress import Slot
from serve.settings import Settings

_RETRY = 0.05  # s between attempts to reach a worker that is not there
_GAUGE = 0.1  # s between updates of what the other processes see
_SLOW = 0.3  # s without progress after which others are preferred, and get what waits there
_WATCH = 0.1  # s between looks at the workers while requests wait
_MOVES = 3  # times that a request goes to another worker
_SMALL = 16_384  # bytes up to which a copy is cheaper than a second write


@dataclasses.dataclass(slots=True, eq=False)
class _GivenRequest:
    """A request that a worker has been given.

    Parameters
    ----------
    request : None once nobody waits for it any more
    kept : bytes of its body that the worker may not have taken yet, though nobody waits for it any more
    sent : when the worker was given it, on the clock of ``time.monotonic``, as the deadline
    moves : how often it went to another worker
    is_over : whether no worker has it any more
    """

    request: Request | None
    deadline: float
    future: asyncio.Future[Reply]
    kept: int = 0
    sent: float = 0.0
    moves: int = 0
    is_over: bool = False

    def fail(self, error: ServeError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class LeastBusyPool:
    """Hands requests to the worker that makes progress and holds the fewest.

    Parameters
    ----------
    paths : of the workers' sockets
    slots : where they say what they do
    settings : ``max_pending``, ``max_timeout``, ``max_batch`` and ``stalled`` are used
    metrics : where requests are counted
    room : for the bodies of requests
    """

    def __init__(
        self, paths: Sequence[Path], *, slots: Sequence[Slot], settings: Settings, metrics: Metrics, room: Room
    ) -> None:
        self._links = [
            _Link(path, slot, on_lost=self._save, room=room) for path, slot in zip(paths, slots, strict=True)
        ]
        self._room = room
        self._settings = settings
        self._metrics = metrics
        self._writing: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        # One timer for all deadlines: one for each request costs more than to send it.
        self._expiring: asyncio.TimerHandle | None = None
        self._next_look = math.inf  # of that timer, on the clock of ``time.monotonic``

    @property
    def is_able(self) -> bool:
        """Whether a worker is connected and makes progress."""
        now = time.monotonic()
        return any(link.is_open and link.silence(now) <= self._settings.stalled for link in self._links)

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
            self.show_counts_soon()
        return reply

    async def _ask(self, request: Request) -> Reply:
        now = time.monotonic()
        deadline = min(request.deadline, now + self._settings.max_timeout)
        if deadline <= now:
            raise _late(request)
        link = self._choose(now)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        held = _GivenRequest(request, deadline, future)
        link.send(held, now)
        self.show_counts_soon()
        self._watch_soon()
        self._look_at(deadline, now)
        try:
            return await future
        finally:
            held.request = None
            if not held.is_over:
                held.kept = len(request.body)
                self._room.keep(held.kept)

    def _look_at(self, deadline: float, now: float) -> None:
        """Look at that moment, unless it is done sooner anyway, for requests whose deadline has passed."""
        if deadline < self._next_look:
            if self._expiring is not None:
                self._expiring.cancel()
            self._next_look = deadline
            self._expiring = asyncio.get_running_loop().call_later(max(0.0, deadline - now), self._expire)

    def _expire(self) -> None:
        """Fail the requests whose deadline has passed, and look again when the next one does."""
        self._expiring, self._next_look, now = None, math.inf, time.monotonic()
        waiting = [one for link in self._links for one in link.held.values() if not one.future.done()]
        for one in waiting:
            if one.deadline <= now and one.request is not None:
                one.fail(_late(one.request))
        self._look_at(min((one.deadline for one in waiting if one.deadline > now), default=math.inf), now)

    def show_counts_soon(self) -> None:
        """Let the other processes know what was counted, a few times a second at most."""
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(_GAUGE, self._write_metrics)

    def _write_metrics(self) -> None:
        self._writing = None
        self._metrics.pending.set(self.pending)
        self._metrics.flush()

    def _choose(self, now: float) -> _Link:
        living = [link for link in self._links if link.is_open]
        if not living:
            raise WorkerLost("no model process is running; it is being started: try again")
        if self.pending >= self._settings.max_pending:
            raise Overloaded(f"{self._settings.max_pending} requests wait already; try again later")
        best = living[0]
        if len(living) > 1:
            best = min(living, key=lambda link: (link.silence(now) > _SLOW, len(link.held)))
        if best.silence(now) > self._settings.stalled:
            raise _stalled()
        return best

    def _watch_soon(self) -> None:
        if self._watching is None:
            self._watching = asyncio.get_running_loop().call_later(_WATCH, self._watch)

    def _watch(self) -> None:
        """Help what waits for a worker that makes no progress."""
        self._watching = None
        now = time.monotonic()
        for link in self._links:
            if link.held and link.silence(now) > _SLOW:
                self._relieve(link, now)
        if self.pending:
            self._watch_soon()

    def _relieve(self, link: _Link, now: float) -> None:
        """Give what waits for a worker to others, or give it up after a while; what it works on stays with it."""
        running, is_stalled = link.slot.numbers(), link.silence(now) > self._settings.stalled
        room = max(self._settings.max_batch, len(link.held))
        for number, held in list(link.held.items()):
            if held.future.done() or held.request is None or held.request.path is not None:
                continue
            if number in running:
                if is_stalled and len(running) > 1:  # which of them is the one that holds up the others is not known
                    held.fail(_stalled())
            elif held.moves < _MOVES and (other := self._other(link, now, silent=_SLOW)) and len(other.held) < room:
                held.moves += 1
                link.take_back(number)
                other.send(held, now)
            elif is_stalled:
                held.fail(_stalled())

    def _other(self, link: _Link, now: float, *, silent: float) -> _Link | None:
        """Find the worker with the least to do that has not been silent for longer than some seconds."""
        able = (o for o in self._links if o is not link and o.is_open and o.silence(now) <= silent)
        return min(able, key=lambda o: len(o.held), default=None)

    def _save(self, link: _Link, held: _GivenRequest) -> None:
        """Have a request that waited for a worker that died answered by another one."""
        now = time.monotonic()
        other = self._other(link, now, silent=self._settings.stalled)
        if other is None or held.moves or held.request is None or held.request.path is not None:
            held.fail(_lost())
        else:
            held.moves += 1
            other.send(held, now)


class _Link(asyncio.Protocol):
    """The connection to one worker, and what it has not answered yet.

    A request that nobody waits for any more is kept until its reply comes: the worker is still busy with it.
    """

    def __init__(self, path: Path, slot: Slot, *, on_lost: Callable[[_Link, _GivenRequest], None], room: Room) -> None:
        self.held: dict[int, _GivenRequest] = {}
        self.opened = asyncio.Event()
        self.slot = slot
        self._left: dict[int, int] = {}  # requests that were taken back, and the bytes of their bodies
        self._room = room
        self._path = path
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._unwritten: list[bytes] = []

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def keep(self) -> None:
        """Connect, and connect again whenever the connection has ended."""
        loop = asyncio.get_running_loop()
        self._numbers = itertools.count(os.getpid() << 32)  # which no other API process gives to a worker
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

    def silence(self, now: float) -> float:
        """Return for how long the worker has made no progress though it has something to do, s."""
        if not self.held:
            return self.slot.silence(now)
        oldest = next(iter(self.held.values())).sent
        return now - max(oldest, self.slot.read()[0])

    def send(self, held: _GivenRequest, now: float) -> None:
        number = next(self._numbers)
        self._write(pack_request(number, cast("Request", held.request), deadline=held.deadline))
        held.sent, held.is_over = now, False
        self.held[number] = held

    def take_back(self, number: int) -> None:
        """Tell the worker that it need not answer a request any more."""
        size = len(cast("Request", self.held.pop(number).request).body)
        self._left[number] = size
        self._room.keep(size)
        self._write((pack_taking_back(number),))

    def _write(self, parts: Sequence[bytes]) -> None:
        """Write parts together with others that are written in the same turn of the loop, by one call of the system."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unwritten += parts

    def _flush(self) -> None:
        parts, self._unwritten = self._unwritten, []
        if self._transport is None or not parts:  # lost meanwhile: what was held is with another worker by now
            return
        if sum(map(len, parts)) <= _SMALL:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

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
        self._transport, self._unwritten = None, []
        self.opened.clear()
        self._closed.set()
        running, held, self.held = self.slot.numbers(), self.held, {}
        for size in (*self._left.values(), *(one.kept for one in held.values())):
            self._room.free(size)
        self._left.clear()
        for number, one in held.items():
            one.is_over, one.kept = True, 0
            if number in running:
                one.fail(_lost())
            else:
                self._on_lost(self, one)

    def _deliver(self, number: int, reply: Reply) -> None:
        if number in self._left:
            self._room.free(self._left.pop(number))
            return
        held = self.held.pop(number)
        held.is_over = True
        if held.kept:
            self._room.free(held.kept)
        future = held.future
        if not future.done():
            future.set_result(reply)
        elif reply.path is not None:
            Path(reply.path).unlink(missing_ok=True)


def _late(request: Request) -> DeadlineExceeded:
    return DeadlineExceeded(f"model {request.model!r} did not answer within the time given; send less, or give more")


def _lost() -> WorkerLost:
    return WorkerLost("the process that worked on the request died; try again")


def _stalled() -> Overloaded:
    return Overloaded("no model process has made progress for a while; try again later", code="stalled")

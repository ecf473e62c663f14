"""The side of a worker: what it reads from the API processes, in which order, and how it answers.

There is no timer: an idle worker sleeps until a frame comes, takes what has come by then as one batch, and looks again.
Long jobs advance by one step between batches, so that no small request waits for a file of a million events.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import orjson

from rootdata.arena import give_back
from serve.app.memory import LARGE
from serve.errors import DeadlineExceeded, ServeError
from serve.messages import LATER, Reply, Request
from serve.processes.frames import Decoder, FrameError, pack_reply, unpack_request
from serve.processes.metrics import Metrics
from serve.processes.progress import BEAT, Slot
from serve.settings import Settings

_log = logging.getLogger("serve")
_PIECE = 1 << 18  # bytes read at once, about what a socket holds
_HEAVY = 0.1  # s of work from which it is worth while to give memory back
_PARTS = 256  # parts written at once; systems allow 1024
_PULSE = 0.1  # s after which a worker that loads a model shows that it lives
_BELL = "bell"  # by which the selector knows the socket through which other threads wake the loop

Replies = Iterator[Reply | None]
"""A long job: None after each slice of the work, the answer at last."""


class RequestEngine(Protocol):
    """What answers requests; it lives in one worker and knows nothing of sockets."""

    def load_beside(self, done: Callable[[], None]) -> None:
        """Load models in other threads from now on, and meanwhile answer ``LATER``.

        Parameters
        ----------
        done : called, in any thread, when it is time to ask again
        """

    def answer(
        self, requests: Sequence[Request], *, mark: Callable[[Sequence[int]], None]
    ) -> Sequence[Reply | Replies]:
        """Answer requests together, in their order: a bad one by a reply that says so, a long one by steps.

        Parameters
        ----------
        requests : that have come together
        mark : told the places of those that are worked on next; until then it is all of them
        """

    def rest(self) -> None:
        """Let go of what is not needed any more; it is called each second while there is nothing to do."""

    def begin(self, request: Request) -> Replies:
        """Begin to score a file."""


def listen(path: Path) -> socket.socket:
    """Listen on a unix socket, in place of one that a dead process has left."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(str(path))
    listener.listen()
    return listener


@dataclasses.dataclass(slots=True, eq=False)
class _Assigned:
    peer: _Peer
    number: int
    request: Request
    steps: Replies | None = None


class Worker:
    """Answers what comes through the connections of a listening socket.

    Parameters
    ----------
    engine : that answers
    listener : unix socket, not blocking
    settings : ``max_batch`` is used
    metrics : where batches are counted
    slot : where it says what it does
    """

    def __init__(
        self, engine: RequestEngine, listener: socket.socket, *, settings: Settings, metrics: Metrics, slot: Slot
    ) -> None:
        self._engine = engine
        self._listener = listener
        self._settings = settings
        self._metrics = metrics
        self._slot = slot
        self._waiting: collections.deque[_Assigned] = collections.deque()
        self._jobs: collections.deque[_Assigned] = collections.deque()
        self._parked: collections.deque[_Assigned] = collections.deque()  # until a model has been loaded
        self._piece = memoryview(bytearray(_PIECE))  # one for all reads: making it takes longer than reading
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._bell, self._button = socket.socketpair()
        for end in (self._bell, self._button):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, _BELL)
        engine.load_beside(self._ring)

    def run(self) -> None:
        """Work for ever."""
        while True:
            self._look()
            started = time.monotonic()
            size = self._answer() + self._step()
            if size >= LARGE or time.monotonic() - started > _HEAVY:
                give_back()

    def _look(self) -> None:
        """Take what has come; wait for it where there is nothing else to do."""
        is_busy = bool(self._waiting or self._jobs)
        self._slot.rest()
        found = self._selector.select(0 if is_busy else _PULSE if self._parked else BEAT)
        if not (found or is_busy or self._parked):
            self._rest()
        for key, events in found:
            if key.data is None:
                self._accept()
            elif key.data is _BELL:
                self._resume()
            else:
                self._serve(key.data, events)

    def _rest(self) -> None:
        try:
            self._engine.rest()
        except Exception:  # noqa: BLE001  # the repository may be out of reach for a while
            _log.exception("models that are not served any more could not be let go of")

    def _ring(self) -> None:
        """Wake the loop, from any thread; once is enough until it has looked."""
        with contextlib.suppress(BlockingIOError):
            self._button.send(b"!")

    def _resume(self) -> None:
        """Try once more what waited for a model to be loaded, in the order in which it came."""
        self._bell.recv(_PIECE)
        for task in reversed(self._parked):
            (self._waiting if task.request.path is None else self._jobs).appendleft(task)
        self._parked.clear()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            peer = _Peer(self._listener.accept()[0])
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)

    def _serve(self, peer: _Peer, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(peer)
            # What can't be answered soon stays in the API process, which knows how much it may keep.
            if events & selectors.EVENT_READ and len(self._waiting) < self._settings.max_batch:
                for number, request in peer.receive(self._piece):
                    if request is None:
                        self._take_back(peer, number)
                    else:
                        self._enqueue(_Assigned(peer, number, request))
        except (OSError, EOFError, FrameError) as error:
            self._drop(peer, error)

    def _enqueue(self, task: _Assigned) -> None:
        if task.request.path is None:
            self._waiting.append(task)
        else:
            self._jobs.append(task)

    def _take_back(self, peer: _Peer, number: int) -> None:
        """Forget a request that another worker answers; one that is not there any more has its reply on the way."""
        for kept in (self._waiting, self._jobs, self._parked):
            for task in kept:
                if task.peer is peer and task.number == number:
                    kept.remove(task)
                    self._send([(task, _late())])
                    return

    def _drop(self, peer: _Peer, error: Exception) -> None:
        """Forget an API process that is gone, and what it asked for."""
        if isinstance(error, FrameError):
            _log.error("closing a connection: %s", error)
        peer.is_open = False
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._waiting = collections.deque(task for task in self._waiting if task.peer is not peer)
        self._jobs = collections.deque(task for task in self._jobs if task.peer is not peer)
        self._parked = collections.deque(task for task in self._parked if task.peer is not peer)

    def _answer(self) -> int:
        """Answer the oldest requests that wait, all together; return the bytes of their bodies and answers."""
        tasks = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._settings.max_batch))]
        if not tasks:
            return 0
        now = time.monotonic()
        answers = [(task, _late()) for task in tasks if task.request.deadline <= now]
        alive = [task for task in tasks if task.request.deadline > now]
        for task, reply in zip(alive, self._replies(alive) if alive else [], strict=True):
            if reply is LATER:
                self._parked.append(task)
            elif isinstance(reply, Reply):
                answers.append((task, reply))
            else:
                task.steps = reply
                self._jobs.append(task)
        self._send(answers)
        return sum(len(task.request.body) + len(reply.body) for task, reply in answers)

    def _replies(self, tasks: Sequence[_Assigned]) -> Sequence[Reply | Replies]:
        """Ask the engine; where it fails on one request, the others are answered all the same."""
        requests = [task.request for task in tasks]

        def mark(places: Sequence[int]) -> None:
            self._mark([tasks[place] for place in places])

        try:
            self._mark(tasks)
            replies = self._engine.answer(requests, mark=mark)
            if number := sum(reply is not LATER for reply in replies):
                self._metrics.batches.observe(number)
            return _checked(replies, len(requests))
        except Exception:  # noqa: BLE001  # a bug becomes a 500, never a dead worker
            if len(requests) == 1:
                _log.exception("a request to model %r failed", requests[0].model)
                return [_broken()]
        return [reply for task in tasks for reply in self._replies([task])]

    def _mark(self, tasks: Sequence[_Assigned]) -> None:
        """Say what is worked on, and when that has to be over."""
        deadline = tasks[0].request.deadline if len(tasks) == 1 else max([task.request.deadline for task in tasks])
        self._slot.work([task.number for task in tasks], deadline=deadline)

    def _step(self) -> int:
        """Advance the long job that was advanced longest ago; return the bytes that its end sets free."""
        if not self._jobs:
            return 0
        task = self._jobs.popleft()
        reply = self._advance(task)
        if reply is None:
            self._jobs.append(task)
            return 0
        task.steps = None
        if reply is LATER:
            self._parked.append(task)
            return 0
        self._send([(task, reply)])
        return len(task.request.body) + len(reply.body)

    def _advance(self, task: _Assigned) -> Reply | None:
        if task.request.deadline <= time.monotonic():
            task.steps = None
            return _late()
        try:
            self._mark([task])
            task.steps = task.steps or self._engine.begin(task.request)
            return next(task.steps)
        except Exception:  # noqa: BLE001
            _log.exception("a job of model %r failed", task.request.model)
            return _broken()

    def _send(self, answers: Sequence[tuple[_Assigned, Reply]]) -> None:
        for task, reply in answers:
            task.peer.put(task.number, reply)
        for peer in {task.peer for task, _ in answers if task.peer.is_open}:
            try:
                self._flush(peer)
            except OSError as error:
                self._drop(peer, error)

    def _flush(self, peer: _Peer) -> None:
        was_behind = peer.is_behind
        peer.flush()
        if peer.is_behind != was_behind:
            write = selectors.EVENT_WRITE if peer.is_behind else 0
            self._selector.modify(peer.socket, selectors.EVENT_READ | write, peer)


class _Peer:
    """The connection from one API process; it never blocks."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.is_open = True
        self.is_behind = False
        self._decoder = Decoder()
        self._fresh: list[bytes] = []  # parts of replies since the last flush
        self._parts: collections.deque[memoryview] = collections.deque()

    def receive(self, piece: memoryview) -> list[tuple[int, Request | None]]:
        """Return the requests that are whole by now; None for one that is taken back.

        Parameters
        ----------
        piece : (n,) uint8, room for what is read at once

        Raises
        ------
        EOFError
            If the other side is gone.
        """
        try:
            length = self.socket.recv_into(piece)
        except BlockingIOError:
            return []
        if not length:
            raise EOFError
        return [unpack_request(header, body) for header, body in self._decoder.feed(piece[:length])]

    def put(self, number: int, reply: Reply) -> None:
        """Keep a reply for the next flush; that of a peer that is gone is thrown away."""
        if self.is_open:
            self._fresh += pack_reply(number, reply)
        elif reply.path is not None:
            Path(reply.path).unlink(missing_ok=True)

    def flush(self) -> None:
        """Write what the system takes; small parts as one, which a copy makes cheaper."""
        fresh, self._fresh = self._fresh, []
        if sum(map(len, fresh)) <= _PIECE:
            fresh = [b"".join(fresh)]
        self._parts.extend(memoryview(part) for part in fresh if part)
        with contextlib.suppress(BlockingIOError):
            while self._parts:
                self._forget(self.socket.sendmsg(itertools.islice(self._parts, _PARTS)))
        self.is_behind = bool(self._parts)

    def _forget(self, sent: int) -> None:
        while sent and sent >= len(self._parts[0]):
            sent -= len(self._parts.popleft())
        if sent:
            self._parts[0] = self._parts[0][sent:]


def failure(error: ServeError) -> Reply:
    """Return an error as a reply."""
    return Reply(status=error.status, body=orjson.dumps(error.to_dict()), headers=error.headers)


def _late() -> Reply:
    return failure(DeadlineExceeded("the deadline passed before the model could answer; send less, or give more time"))


def _broken() -> Reply:
    return failure(ServeError("the server failed on this request; its log says why"))


def _checked(replies: Sequence[Reply | Replies], length: int) -> Sequence[Reply | Replies]:
    if len(replies) != length:
        raise RuntimeError(f"the engine gave {len(replies)} replies to {length} requests")
    return replies

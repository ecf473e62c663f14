"""Reading ahead: the threads that do it, and how they end.

An iteration has threads that read blocks (:func:`reading`) and one that mixes what they read (:func:`prefetched`). They
always end in the same way, be it at the end of the data, by an error, by Ctrl-C, by ``close`` or by the garbage
collector: nobody waits for a block any more (:class:`Stop`), retries give up, threads get a moment to end. All are
daemons: a read that hangs on a dead server is left behind, and holds up nothing.
"""

from __future__ import annotations

import atexit
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Jobs = queue.SimpleQueue[tuple[int, Future[T]] | None]

# Seconds for: threads to end when they are told to, all of an iteration to end.
READERS_WITHIN, ALL_WITHIN = 0.5, 0.7
# A signal that comes just before a thread goes to sleep does not wake it: who waits looks up as often, in seconds.
LOOK_UP_EVERY = 0.1

# They are for the thread that trains: the others let them wait.
FOR_THE_TRAINING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Reader(Protocol[T_co]):
    """Reads blocks by number; threads may share it."""

    def __call__(self, number: int) -> T_co:
        """Read one block."""

    def close(self) -> None:
        """Close the files, and let reads that still wait or retry give up; it may be called twice."""


class Stop:
    """A flag that an iteration is over; any thread may set it."""

    def __init__(self) -> None:
        self.is_set = False
        self._actions: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the flag, and do what was to be done then."""
        self.is_set = True
        for action in tuple(self._actions):
            action()

    def then(self, action: Callable[[], None]) -> None:
        """Do this once the flag is set, at once if it is; it may be done twice."""
        self._actions.append(action)
        if self.is_set:
            action()


class Pending(Future[T]):
    """A block that is to be read; Ctrl-C is answered while it is waited for."""

    def result(self, timeout: float | None = None) -> T:
        """Return the block, or raise the error that came instead."""
        while timeout is None and not self.done():
            with suppress(TimeoutError):
                return super().result(LOOK_UP_EVERY)
        return super().result(timeout)


class Readers(Generic[T]):
    """Threads that read blocks by number, in the order asked for.

    Parameters
    ----------
    reader : that all of them read through; it is closed with them
    threads : that read at the same time
    """

    # Its queues are those that a finaliser may use, which the garbage collector runs in whichever thread it likes.

    def __init__(self, reader: Reader[T], *, threads: int) -> None:
        self._jobs: Jobs[T] = queue.SimpleQueue()
        self._end: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._pending: set[Future[T]] = set()
        self._is_cancelled = False
        self._threads = [_thread("rootdata-read", _work, reader, self._jobs) for _ in range(threads)]
        # It exists from the start because a thread can't be made while the interpreter shuts down.
        self._closer = _thread("rootdata-close", _close, reader, tuple(self._threads), self._end)
        for thread in (self._closer, *self._threads):
            thread.start()

    def __call__(self, number: int) -> Future[T]:
        """Ask for a block."""
        future: Pending[T] = Pending()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        if self._is_cancelled:
            future.cancel()
        self._jobs.put((number, future))
        return future

    def cancel(self) -> None:
        """Give up what is not read yet: whoever waits for it gets a ``CancelledError`` at once."""
        self._is_cancelled = True
        for future in tuple(self._pending):
            future.cancel()

    def close(self) -> None:
        """Stop reading, close the reader, and wait a moment for the threads."""
        self.cancel()
        self._end.put(None)
        for _ in self._threads:
            self._jobs.put(None)
        _join([*self._threads, self._closer], within=READERS_WITHIN)


def _work(read: Reader[T], jobs: Jobs[T]) -> None:
    while (job := jobs.get()) is not None:
        _carry_out(read, *job)
        del job  # a thread that waits keeps no block in memory


def _carry_out(read: Reader[T], number: int, future: Future[T]) -> None:
    if future.cancelled():
        return
    try:
        block = read(number)
    except BaseException as error:  # noqa: BLE001 - it is raised again where the block is taken
        with suppress(InvalidStateError):  # cancelled meanwhile
            future.set_exception(error)
    else:
        with suppress(InvalidStateError):
            future.set_result(block)
    finally:
        del future  # which has the error, which has this frame


def _close(reader: Reader[T], threads: Sequence[threading.Thread], end: queue.SimpleQueue[None]) -> None:
    end.get()
    reader.close()
    for thread in threads:
        thread.join()
    reader.close()  # a read that ended just now has given its file back


@contextmanager
def reading(reader: Reader[T], *, threads: int, stop: Stop | None = None) -> Iterator[Readers[T]]:
    """Provide ``submit(block number) -> Future``.

    Parameters
    ----------
    reader : reads blocks in several threads; it is closed in the end
    threads : that read at the same time
    stop : once it is set, blocks that are not read yet are given up
    """
    with _held_back(FOR_THE_TRAINING):
        readers = Readers(reader, threads=threads)
    if stop is not None:
        stop.then(readers.cancel)
    with _ended_by(readers.close):
        yield readers


def prefetched(source: Iterator[T], *, depth: int, stop: Stop | None = None) -> Iterator[T]:
    """Run an iterator in a background thread, ``depth`` items ahead.

    An exception of the source is raised here. Closing this generator stops the thread and closes the source, in the
    thread that ran it, before it returns, unless that thread hangs.

    Parameters
    ----------
    source : used by that thread alone
    depth : items; with 0 there is no thread
    stop : is set when the generator is closed; the source should then give up waiting
    """
    if not depth:
        yield from source
        return
    stop = stop or Stop()
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    thread = _thread("rootdata-mix", _fill, source, room, ready, stop)
    stop.then(lambda: room.put(None))
    for _ in range(depth):
        room.put(None)

    def close() -> None:
        stop.set()
        _join([thread], within=ALL_WITHIN)

    with _ended_by(close):
        thread.start()
        while True:
            kind, item = _taken(ready)
            if kind == "error":
                raise item
            if kind == "end":
                return
            room.put(None)
            yield item


def _fill(source: Any, room: queue.SimpleQueue[None], ready: queue.SimpleQueue[tuple[str, Any]], stop: Stop) -> None:
    """Put an item wherever there is room, at last the end or the error."""
    try:
        while True:
            room.get()
            if stop.is_set:
                return
            ready.put(("item", next(source)))
    except StopIteration:
        ready.put(("end", None))
    except BaseException as error:  # noqa: BLE001 - it is raised again where the items are taken
        ready.put(("error", error))
    finally:
        source.close()


def _taken(ready: queue.SimpleQueue[T]) -> T:
    while True:
        with suppress(queue.Empty):
            return ready.get(timeout=LOOK_UP_EVERY)


def _thread(name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
    return threading.Thread(target=target, args=arguments, name=name, daemon=True)


def _join(threads: Sequence[threading.Thread], *, within: float) -> None:
    deadline = time.monotonic() + within
    for thread in threads:
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def _ended_by(close: Callable[[], None]) -> Iterator[None]:
    """Close at the end of the block, or before the interpreter takes its threads apart.

    Daemon threads that run while it does can crash in the code of a library.
    """
    atexit.register(close)
    try:
        yield
    finally:
        atexit.unregister(close)
        close()


@contextmanager
def _held_back(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Let signals wait: for this thread, and for good in the threads that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Reading ahead: the threads and processes that do it, and how they end.

An iteration has threads that read blocks, by themselves or through a process each (:func:`reading`), and one that
mixes what they read (:func:`prefetched`). They always end in the same way, be it at the end of the data, by an error,
by Ctrl-C, by ``close`` or by the garbage collector: nobody waits for a block any more (:class:`Stop`), retries give
up, threads get a moment to end. All are daemons: a read that hangs on a dead server is left behind, and
holds up nothing.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util  # which waits for processes as the interpreter ends: only after what is registered here
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, Generic, Literal, Protocol, TypeVar

from rootdata.errors import ReaderError
from rootdata.loading.shared_memory import Receiver, Sender

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Start = Literal["fork", "spawn"]
Jobs = queue.SimpleQueue[tuple[int, Future[T]] | None]

# Seconds for: a reading process to finish its block, threads to end when they are told to, all of an iteration to end.
FINISH_WITHIN, READERS_WITHIN, ALL_WITHIN = 0.3, 0.5, 0.7
# A signal that comes just before a thread goes to sleep does not wake it: who waits looks up as often, in seconds.
LOOK_UP_EVERY = 0.1

# They reach every process of a job. The training decides what they mean, and ends its reading processes itself.
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
    """Threads that read blocks by number, in the order asked for."""

    # Its queues are those that a finaliser may use, which the garbage collector runs in whichever thread it likes.

    def __init__(self) -> None:
        self._jobs: Jobs[T] = queue.SimpleQueue()
        self._endings: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._pending: set[Future[T]] = set()
        self._is_cancelled = False
        self._crews: list[tuple[threading.Thread, list[threading.Thread]]] = []

    def add(self, reader: Reader[T], *, threads: int) -> None:
        """Start threads that read through a reader, which is closed with them."""
        crew = [_thread("rootdata-read", _work, reader, self._jobs) for _ in range(threads)]
        # It exists from the start because a thread can't be made while the interpreter shuts down.
        closer = _thread("rootdata-close", _close, reader, crew, self._endings)
        self._crews.append((closer, crew))
        for thread in (closer, *crew):
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
        """Stop reading, close the readers, and wait a moment for the threads."""
        self.cancel()
        crews, self._crews = self._crews, []
        for _, crew in crews:
            self._endings.put(None)
            for _ in crew:
                self._jobs.put(None)
        _join([thread for closer, crew in crews for thread in (*crew, closer)], within=READERS_WITHIN)


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


def _close(reader: Reader[T], crew: Sequence[threading.Thread], endings: queue.SimpleQueue[None]) -> None:
    endings.get()
    reader.close()
    for thread in crew:
        thread.join()
    reader.close()  # a read that ended just now has given its file back


@contextmanager
def reading(
    make: Callable[[], Reader[T]], *, processes: int, start: Start | None = None, stop: Stop | None = None
) -> Iterator[Readers[T]]:
    """Provide ``submit(block number) -> Future``.

    Parameters
    ----------
    make : makes a reader; it can be sent to another process
    processes : reading processes; 0 reads in threads of this process
    start : how processes begin. ``fork`` takes milliseconds, but hangs where a library has threads of its own, as
        XRootD's has once it opened a file; ``spawn`` takes seconds. By default ``fork``.
    stop : gives up blocks that are not read yet once it is set

    Raises
    ------
    ReaderError
        Through the future: where a process ended.
    """
    readers: Readers[T] = Readers()
    if stop is not None:
        stop.then(readers.cancel)
    with _ended_by(readers.close):
        with _held_back(FOR_THE_TRAINING):
            if processes:
                for _ in range(processes):
                    readers.add(_Process(make, start=start), threads=1)
            else:
                readers.add(make(), threads=min(4, os.cpu_count() or 1))
        yield readers


class _Process(Generic[T]):
    """A reader in a process of its own. One thread asks it, any may close it."""

    def __init__(self, make: Callable[[], Reader[T]], *, start: Start | None) -> None:
        context: Any = multiprocessing.get_context(start or "fork")
        self._connection, theirs = context.Pipe()
        self._receiver = Receiver(self._connection)
        self._process = context.Process(
            target=_serve, args=(make, theirs, os.getpid()), name="rootdata-read", daemon=True
        )
        self._process.start()
        self._has_ended = False
        theirs.close()

    def __call__(self, number: int) -> T:
        try:
            self._connection.send((number, self._receiver.freed()))
            block, error, trace = self._receiver.loads(self._answer())
        except (EOFError, ConnectionError):
            raise self._why_it_ended(number) from None
        if error is not None:
            raise error from _TracebackThere(trace)
        return block  # type: ignore[no-any-return]

    def _answer(self) -> bytes:
        while not self._connection.poll(1):
            # Where another process inherited the pipe, it does not break.
            if not self._process.is_alive():
                raise EOFError
        return bytes(self._connection.recv_bytes())

    def _why_it_ended(self, number: int) -> ReaderError:
        self._process.join(1)
        status = self._process.exitcode or 0
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return ReaderError(
            f"reading process {self._process.pid} ended {how} while it read block {number}; if the machine ran out of "
            "memory, take smaller chunk_size or fewer num_workers (0 reads in threads)"
        )

    def close(self) -> None:
        """End the process; the second time, when its thread has ended too, close the pipe."""
        if self._has_ended:
            self._connection.close()
            self._receiver.close()
            self._process.close()
            return
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(FINISH_WITHIN)
        if self._process.is_alive():  # in a read that hangs
            self._process.kill()
            self._process.join()
        self._has_ended = True


class _TracebackThere(Exception):  # noqa: N818 - nobody raises it, it is shown as a cause
    """Where in the reading process an error was raised."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def _serve(make: Callable[[], Reader[Any]], connection: Any, parent: int) -> None:
    """Read what is asked for, in a process of its own, until None is or the other side is gone."""
    for number in FOR_THE_TRAINING:
        signal.signal(number, signal.SIG_IGN)
    _thread("rootdata-watch", _end_with, parent).start()
    reader: Reader[Any] | None = None
    with suppress(EOFError, ConnectionError):
        sender = Sender(connection)
        while (request := connection.recv()) is not None:
            number, freed = request
            sender.free(freed)
            try:
                reader = reader or make()
                answer = sender.dumps((reader(number), None, ""))
            except Exception as error:  # noqa: BLE001 - it is raised again where the block is taken
                answer = sender.dumps((None, _sendable(error), "".join(traceback.format_exception(error))))
            connection.send_bytes(answer)
    if reader is not None:
        reader.close()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone, which may have had no time to say so.

    Its end can't be told by a pipe, which other processes may have inherited.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """Return the error if it survives a pipe, otherwise what it says."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - written just now
    except Exception:  # noqa: BLE001 - whatever the class of an error does there
        return ReaderError(f"{type(error).__name__}: {error}")
    return error


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
    """Let signals wait: for this thread, and for good in the processes and threads that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

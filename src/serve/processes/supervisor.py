"""Keep processes alive, and end them all.

The parent waits on the ends of its children, on their reports and on signals, and looks a few times a second whether
the workers make progress: one that does not, long past the time it had, is killed and replaced. A child watches the
*lifeline*, a pipe whose other end only the parent has: its end of file is the parent's death, by whatever cause.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import math
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from serve.processes.progress import Slot

_log = logging.getLogger("serve")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ATTEMPTS = 3  # starts of a process that has never been ready
_HEALTHY = 10.0  # s that a process lives before its death counts as the first one
_LONGEST_DELAY = 5.0  # s between deaths and restarts at most
_LOOK = 0.25  # s between looks at the progress of workers
_LOOKS = 6  # that show no progress, longer than an idle worker is silent: after a pause of the machine all look stuck
_GRACE = 0.5  # s past a deadline in which a run may end by itself


class StartError(RuntimeError):
    """A process ended again and again before it was ready."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Child:
    """A process that shall live.

    Parameters
    ----------
    name : by which it reports
    start : makes and starts the process
    is_graceful : SIGTERM lets it finish its work; others hold nothing worth finishing
    is_stuck : says whether it is to be killed and replaced
    """

    name: str
    start: Callable[[], BaseProcess]
    is_graceful: bool = False
    is_stuck: Callable[[], bool] | None = None
    is_up: bool = False
    was_stuck: bool = False
    process: BaseProcess | None = None
    born: float = 0.0
    due: float = 0.0
    failures: int = 0
    has_been_ready: bool = False


class Stuck:
    """Says whether a worker is past the deadline of what it works on, or does not take what waits for it.

    Parameters
    ----------
    slot : of the worker
    seconds : without a sign of life
    """

    def __init__(self, slot: Slot, *, seconds: float) -> None:
        self._slot, self._seconds = slot, seconds
        self._last, self._looks = 0.0, 0

    def __call__(self) -> bool:
        """Look once more."""
        now, (sign, deadline) = time.monotonic(), self._slot.read()
        self._looks = self._looks + 1 if sign == self._last else 0
        self._last = sign
        is_over = not deadline or now > deadline + _GRACE
        return is_over and self._looks >= _LOOKS and self._slot.silence(now) > self._seconds


class Watch:
    """Starts children, starts them again when they die, and ends them.

    Parameters
    ----------
    children : to be kept alive
    reports : where a child sends its name when it is ready
    on_ready : called once, when all are
    on_death : called with the name and the process id of a child that died
    on_stop : called when a signal has come, before the children are ended
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        reports: Connection,
        on_ready: Callable[[], None],
        on_death: Callable[[str, int], None],
        on_stop: Callable[[], None],
    ) -> None:
        self._children = children
        self._reports = reports
        self._on_ready = on_ready
        self._on_death = on_death
        self._on_stop = on_stop
        self._is_ready = False

    def run(self, *, grace: float) -> int:
        """Keep the children alive until a signal comes; return the exit status.

        Parameters
        ----------
        grace : s for those that finish their work

        Raises
        ------
        StartError
            If a child can't be started at all.
        """
        with _signal_socket() as signals:
            try:
                self._until_signal(signals)
                return self._stop(signals, grace=grace)
            finally:
                self._kill()

    def _until_signal(self, signals: socket.socket) -> None:
        while True:
            self._start_due()
            events = self._wait([signals, self._reports], timeout=min(self._delay(), _LOOK))
            if self._reports in events:
                self._note(self._reports.recv_bytes().decode())
            self._end_stuck()
            self._bury()
            if signals in events:
                signals.recv(1)
                return

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and child.due <= now:
                with _signals_blocked():
                    child.process = child.start()
                child.born = now
                child.is_up = child.was_stuck = False

    def _end_stuck(self) -> None:
        for child in self._children:
            if child.process is not None and child.is_up and child.is_stuck is not None and child.is_stuck():
                child.is_up, child.was_stuck = False, True
                child.process.kill()

    def _delay(self) -> float:
        """Return the time until the next start, s."""
        due = [child.due for child in self._children if child.process is None]
        return max(0.0, min(due, default=math.inf) - time.monotonic())

    def _wait(self, others: Sequence[Connection | socket.socket], *, timeout: float) -> list[object]:
        sentinels = [child.process.sentinel for child in self._children if child.process is not None]
        return list(wait([*others, *sentinels], timeout))

    def _note(self, name: str) -> None:
        for child in self._children:
            if child.name == name:
                child.is_up = child.has_been_ready = True
        if not self._is_ready and all(child.has_been_ready for child in self._children):
            self._is_ready = True
            self._on_ready()

    def _bury(self) -> None:
        """Plan the restart of those that died."""
        for child in self._children:
            if child.process is None or child.process.exitcode is None:
                continue
            process, child.process = child.process, None
            is_young = time.monotonic() - child.born < _HEALTHY
            child.failures = child.failures + 1 if is_young else 1
            self._on_death(child.name, process.pid or 0)
            if child.failures >= _ATTEMPTS and not child.has_been_ready:
                raise StartError(f"{child.name} ended {_ATTEMPTS} times before it was ready; its messages say why")
            delay = min(_LONGEST_DELAY, 0.1 * 2**child.failures) if child.failures > 1 else 0.0
            child.due = time.monotonic() + delay
            _log.warning("%s ended (%s); starting it again", child.name, _cause(child, process.exitcode))
            process.close()

    def _stop(self, signals: socket.socket, *, grace: float) -> int:
        """End the children that may finish first, until their time is over or Ctrl-C comes once more."""
        self._on_stop()
        end = time.monotonic() + grace
        for child in self._children:
            if child.is_graceful and child.process is not None:
                child.process.terminate()
        while (left := end - time.monotonic()) > 0 and (alive := self._sentinels_of_graceful()):
            if signals in wait([signals, *alive], left) and signals.recv(1)[0] == signal.SIGINT:
                return 128 + signal.SIGINT
        return 0

    def _sentinels_of_graceful(self) -> list[int]:
        processes = [child.process for child in self._children if child.is_graceful and child.process is not None]
        return [process.sentinel for process in processes if process.exitcode is None]

    def _kill(self) -> None:
        processes = [child.process for child in self._children if child.process is not None]
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def exit_with_parent(lifeline: Connection, *, folder: Path) -> None:
    """End this process when the parent is gone, and remove the folder that the parent can't remove any more."""

    def wait_for_the_end() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, name="lifeline", daemon=True).start()


def spare_collector() -> None:
    """Let the garbage collector forget what was made so far, and look less often: an answer makes no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def become_child() -> None:
    """Undo in a forked child what the parent does with signals; Ctrl-C and a hang-up are left to the parent."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all processes
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _cause(child: Child, exitcode: int | None) -> str:
    if child.was_stuck:
        return "it was stuck: past the deadline of what it worked on, or it took no work"
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep signals from a child that has not yet undone the parent's handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextlib.contextmanager
def _signal_socket() -> Iterator[socket.socket]:
    """Give a socket from which the numbers of signals can be read."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    # Who starts a server with nohup wants it to outlive the terminal.
    taken = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in taken}
    old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()

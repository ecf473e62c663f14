"""How a process ends on SIGTERM and Ctrl-C, and with it the other ranks of its training.

Python runs the handler of a signal in the main thread, between two of its own steps: never while that thread waits in a
library for another rank. So a thread of its own hears of signals at once. It tells the other ranks on this machine,
and ends the process where its main thread can't.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

Say = Callable[[int], None]
Send = Callable[[int], None]
Handler = Callable[[int, FrameType | None], Any] | int

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STARTER = "ROOTDATA_STARTER"  # in the environment: the process that may start others as ranks

# Seconds: for a rank to end by itself, half of them for its step; from one attempt to raise to the next; between looks;
# for the sentence of a process that is ended.
WITHIN = 10.0
AGAIN_AFTER = 3.0
LOOK_EVERY = 0.25
SAID_WITHIN = 1.0


class Stopped(SystemExit):
    """Raised in the main thread on SIGTERM, as ``KeyboardInterrupt`` is on Ctrl-C; not caught, it gives status 143."""

    def __init__(self, signum: int) -> None:
        super().__init__(status_of(signum))
        self.signum = signum


class Ending:
    """The handler of SIGTERM and SIGINT, from ``open`` to ``close``; a context manager.

    The main thread gets :class:`Stopped` or ``KeyboardInterrupt``, at once, or for SIGTERM when the step of a training
    is over (``is_held``); again, where something swallowed it, until somebody says that it arrived (:meth:`arrived`).
    The other ranks get the signal, too. A process that has any ends in any case: with the status of the signal,
    ``within`` seconds after it, or half of them where the main thread does not answer.

    A process that was forked from this one is not concerned: there signals do what they did before ``open``.

    Parameters
    ----------
    within : seconds
    say : told the signal where the process is ended without the main thread

    Attributes
    ----------
    signum : the signal that came, None before
    is_held : whether the main thread is in a step that SIGTERM lets finish
    is_child : whether this is a rank that ``multiprocessing`` started
    has_trained : whether a training began
    """

    def __init__(self, *, within: float = WITHIN, say: Say | None = None) -> None:
        self.signum: int | None = None
        self.is_held = self.is_child = self.has_trained = False
        self._launcher: object = None
        self._within, self._say = within, say
        self._before: dict[int, Handler] = {}
        self._others: dict[int, Send] = {}
        self._started: list[subprocess.Popen[Any]] = []
        self._process, self._parent = os.getpid(), starter()
        self._since = self._asked = 0.0
        self._has_told = self._has_answered = self._has_raised = self._has_arrived = False
        self._thread: threading.Thread | None = None

    @staticmethod
    def current() -> Ending | None:
        """Return the one that handles signals now, by itself or among the handlers that Lightning calls together."""
        handler = signal.getsignal(signal.SIGTERM)
        handlers = [handler, *getattr(handler, "signal_handlers", ())]
        return next((one for one in handlers if isinstance(one, Ending) and one._is_open), None)  # noqa: SLF001

    @property
    def is_watching(self) -> bool:
        """Whether signals are heard of at once: here, or where this process was forked from."""
        return self._thread is not None

    @property
    def _is_open(self) -> bool:
        return self.is_watching and os.getpid() == self._process

    def open(self) -> None:
        """Take over the signals; where this is not the main thread, which alone may do so, nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in SIGNALS:
            if (before := handler_of(signum)) is not signal.SIG_IGN:
                self._before[signum] = before
        self._thread = threading.Thread(target=self._watch, name="rootdata-ending", daemon=True)
        self._thread.start()
        self._unraisable_before, sys.unraisablehook = sys.unraisablehook, self._swallowed
        itself = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: leave_to_parent(itself()))
        for number in self._before:
            signal.signal(number, self)

    def close(self) -> None:
        """Give back what was taken over, unless a signal is ending this rank and others."""
        thread = self._thread
        if thread is None or not self._is_open or (self.signum is not None and self._has_others()):
            return
        self._thread = None
        for signum, before in self._before.items():
            if signal.getsignal(signum) is self:
                signal.signal(signum, before)
        if sys.unraisablehook == self._swallowed:
            sys.unraisablehook = self._unraisable_before
        signal.set_wakeup_fd(self._wakeup_before)
        os.write(self._write, b"\0")
        if thread is not None:
            thread.join()
        os.close(self._read)
        os.close(self._write)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def expect(self, launcher: object) -> None:
        """Learn which part of Lightning may start other ranks from this process; they will know that they are.

        Parameters
        ----------
        launcher : of a strategy; None where it starts none. Its ``procs`` are those that it started.
        """
        self._launcher = launcher
        if launcher is not None:
            os.environ[STARTER] = str(self._process)

    def meet(self, ranks: Iterable[int]) -> None:
        """Learn which processes of this machine are the other ranks, now that there are all of them."""
        os.environ.pop(STARTER, None)
        self._others |= {pid: sender(pid) for pid in ranks if pid not in {*self._others, self._process}}

    def arrived(self) -> None:
        """Note that the exception is being handled: no other one is raised."""
        self._has_arrived = True

    # In the main thread

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Answer a signal."""
        before = self._before[signum]
        if not self._is_open:
            hand_over(signum, frame, before)
            return
        self._note(signum)
        self._tell()  # here, too: this thread may be gone before the other one had its turn
        self._has_answered = True
        if self._has_arrived or self._may_finish():
            return
        self._has_raised = True
        if callable(before) and before is not signal.default_int_handler:
            before(signum, frame)
        # A rank that torch's multiprocessing started would end on KeyboardInterrupt as if it had done its work.
        if self.signum == signal.SIGINT and not self.is_child:
            raise KeyboardInterrupt
        raise Stopped(self.signum or signum)

    def _swallowed(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise again at once what came while Python was clearing up an object, where nothing can be raised."""
        if self.signum is not None and issubclass(lost.exc_type, (Stopped, KeyboardInterrupt)):
            self._has_raised = False
        else:
            self._unraisable_before(lost)

    def _may_finish(self) -> bool:
        """Say whether the step of a training is waited for."""
        return self.is_held and self.signum == signal.SIGTERM and self._waited() < self._within / 2

    def _note(self, signum: int) -> None:
        if self.signum is None:
            self._since = self._asked = time.monotonic()
            self.signum = signum

    def _waited(self) -> float:
        return time.monotonic() - self._since

    # In the thread that hears of them at once

    def _watch(self) -> None:
        ready = select.poll()
        ready.register(self._read, select.POLLIN)
        while self._thread is not None:
            heard = os.read(self._read, 512) if ready.poll(LOOK_EVERY * 1000) else b""
            for signum in heard:
                if signum in self._before:
                    self._note(signum)
            if self.signum is None:
                self._look_around()
            else:
                self._tell()
                self._press()

    def _look_around(self) -> None:
        """Act as on a signal where who started this rank is gone, or one that it started was ended by a signal."""
        if self._parent is not None and os.getppid() != self._parent:
            os.kill(self._process, signal.SIGTERM)
        for signum in self._before:
            if any(rank.poll() in {-signum, status_of(signum)} for rank in self._ranks_started()):
                os.kill(self._process, signum)
                return

    def _ranks_started(self) -> list[subprocess.Popen[Any]]:
        return [rank for rank in getattr(self._launcher, "procs", []) if isinstance(rank, subprocess.Popen)]

    def _tell(self) -> None:
        """Send the signal on, once, to every other rank."""
        if self._has_told or self.signum is None:
            return
        self._has_told = True
        for send in self._others.values():
            with suppress(ProcessLookupError, PermissionError):
                send(self.signum)
        self._started = self._ranks_started()
        for rank in self._started:
            if rank.pid not in self._others:  # it may have no handler yet, to end on SIGINT without a word
                rank.send_signal(signal.SIGTERM)
        if isinstance(procs := getattr(self._launcher, "procs", None), list) and self._started:
            procs.clear()  # Lightning would kill this process as soon as one of them has ended

    def _press(self) -> None:
        """Raise the exception again while nobody has handled it; at last end the process without the main thread."""
        if self._has_others() and self._waited() > (self._within if self._has_answered else self._within / 2):
            self._end()
        if self._has_arrived or self._may_finish() or self.signum is None:
            return
        now, main = time.monotonic(), threading.main_thread().ident
        if main is not None and now - self._asked > (AGAIN_AFTER if self._has_raised else LOOK_EVERY):
            self._asked = now
            signal.pthread_kill(main, self.signum)

    def _has_others(self) -> bool:
        return bool(self._others or self._started or self._parent is not None)

    def _end(self) -> None:
        status = status_of(self.signum or signal.SIGTERM)
        for rank in self._started:
            rank.kill()
        threading.Timer(SAID_WITHIN, os._exit, [status]).start()  # the main thread may hold what is needed to print
        if self._say is not None and self.signum is not None:
            self._say(self.signum)
        os._exit(status)


def leave_to_parent(ending: Ending | None) -> None:
    """In a forked process, keep its signals from being taken for signals to the process that it came from."""
    if ending is not None and ending.is_watching:
        signal.set_wakeup_fd(-1)


def handler_of(signum: int) -> Handler:
    """Return what answers a signal now; one of ours that is closed stands for what was there before it."""
    handler = signal.getsignal(signum)
    while isinstance(handler, Ending) and not handler._is_open:  # noqa: SLF001 - its own
        handler = handler._before[signum]  # noqa: SLF001
    return handler if handler is not None else signal.SIG_DFL  # None: of a library, which can't be put back


def status_of(signum: int) -> int:
    """Return the exit status of a process that a signal ended, as a shell shows it."""
    return 128 + signum


def starter() -> int | None:
    """Return the process that started this one as a rank and ends with it; None where nobody is known to have."""
    parent = os.getppid()
    is_rank = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get(STARTER) == str(parent)
    return parent if is_rank else None


def is_first_here() -> bool:
    """Say whether this process speaks for the ranks of its machine."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def sender(process: int) -> Send:
    """Return a function that sends signals to a process, and to no other that gets its number later."""
    if sys.platform == "linux":
        with suppress(OSError):  # of an older kernel
            handle = os.pidfd_open(process)
            return lambda signum: signal.pidfd_send_signal(handle, signum)
    return lambda signum: os.kill(process, signum)


def hand_over(signum: int, frame: FrameType | None, handler: Handler) -> None:
    """Let another handler answer a signal, from now on.

    Parameters
    ----------
    signum : number of the signal that has come
    frame : where the program was then, as Python gives it to handlers
    handler : a function, or ``SIG_DFL`` or ``SIG_IGN``
    """
    signal.signal(signum, handler)
    if callable(handler):
        handler(signum, frame)
    else:
        os.kill(os.getpid(), signum)

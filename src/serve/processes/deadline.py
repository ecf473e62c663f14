"""Ends what onnxruntime does when its time is over.

A thread waits for the moment and tells the runtime, which looks between two nodes of a graph, those of a loop
included. A node that never ends is beyond its reach: :mod:`serve.processes.supervisor` ends the whole process then.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from serve.errors import DeadlineExceeded

_LOOK = 0.1  # s between looks while something runs


class Terminator:
    """Ends runs at a moment: one thread for all runs of a process, which sleeps while there are none.

    ``moment``, on the clock of ``time.monotonic``, holds for what is run next; by default runs take what they take.
    """

    def __init__(self) -> None:
        self.moment = math.inf
        self._job: tuple[Any, float] | None = None
        self._wake = threading.Event()
        self._is_parked = False
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def ending(self, options: Any) -> Iterator[None]:
        """End what runs with some options if the block still runs at the moment.

        Parameters
        ----------
        options : onnxruntime's ``RunOptions``

        Raises
        ------
        DeadlineExceeded
            If the moment has passed already.
        """
        if self.moment == math.inf:
            yield
            return
        if self.moment <= time.monotonic():
            raise late()
        self._job = (options, self.moment)
        self._rouse()
        try:
            yield
        finally:
            self._job = None

    def _rouse(self) -> None:
        if self._is_parked:
            self._wake.set()
        elif self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while True:
            job = self._job
            if job is None:
                self._park()
                continue
            options, moment = job
            left = moment - time.monotonic()
            if left <= 0:
                options.terminate = True
            time.sleep(min(max(left, 1e-3), _LOOK))

    def _park(self) -> None:
        self._wake.clear()
        self._is_parked = True  # from here on a new job wakes
        if self._job is None:
            self._wake.wait()
        self._is_parked = False


def late() -> DeadlineExceeded:
    """Make the error of a run that was ended."""
    return DeadlineExceeded("the model ran for too long; send less, or give more time")

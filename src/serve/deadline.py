"""Ends what onnxruntime does when its time is over.

A thread waits for the moment and tells the runtime, which looks between two nodes of a graph, those of a loop
included. A node that never ends is beyond its reach: :mod:`serve.watch` ends the whole process then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

_LOOK = 0.1  # s between looks while something runs


class Terminator:
    """Ends runs at their moments: one thread for all runs of a process, which sleeps while there are none."""

    def __init__(self) -> None:
        self._job: tuple[Any, float] | None = None
        self._wake = threading.Event()
        self._is_parked = False
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()

    @contextlib.contextmanager
    def ending(self, options: Any, *, moment: float) -> Iterator[None]:
        """End what runs with some options if the block still runs at a moment of ``time.monotonic``.

        Parameters
        ----------
        options : onnxruntime's ``RunOptions``
        """
        self._job = (options, moment)
        if self._is_parked:
            self._wake.set()
        try:
            yield
        finally:
            self._job = None

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

"""How much of a file is sent, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LEAST = 1_000_000  # bytes; less is sent before anybody could read it
_EVERY = 0.1  # s between two looks of the line


@contextmanager
def shown_on(stream: TextIO | None) -> Iterator[Shown | None]:
    """Give what shows progress on a terminal; None where the stream is none, as in a file or a job."""
    if stream is None or not stream.isatty():
        yield None
        return
    shown = Shown(stream)
    try:
        yield shown
    finally:
        shown.clear()


class Shown:
    """Writes a line, again and again in the same place; called with the bytes that are sent and the bytes in all.

    Parameters
    ----------
    clock : s
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._width, self._last = 0, float("-inf")

    def __call__(self, sent: int, total: int) -> None:
        """Show that ``sent`` of ``total`` bytes are on their way."""
        is_whole, now = sent >= total, self._clock()
        if total < LEAST or (now < self._last + _EVERY and not is_whole):
            return
        self._last = now
        waits = "; waiting for the answer" if is_whole else ""
        self._write(f"{sent / 1e6:.0f} of {total / 1e6:.0f} MB sent{waits}")

    def clear(self) -> None:
        """Take the line away."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text.ljust(self._width)}")
        self._stream.flush()
        self._width = len(text)

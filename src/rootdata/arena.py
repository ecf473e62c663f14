"""Memory for large arrays, lent again and again, as fresh pages cost more than filling them; and given back."""

from __future__ import annotations

import ctypes
import math
import queue
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

SMALL = 1 << 17  # bytes; below that numpy's own way is as good
ALIGNED = 64  # bytes; other libraries share memory that begins at a multiple of it


class Lender:
    """Makes arrays as ``np.empty`` does; the memory of an array is used again once neither it nor a view of it is left.

    Threads may share it. What came back is kept until the lender itself is gone.
    """

    # A queue that a finaliser may use, which runs in whichever thread drops the last view.
    def __init__(self) -> None:
        self._free: dict[int, queue.SimpleQueue[npt.NDArray[np.uint8]]] = {}

    def __reduce__(self) -> tuple[Callable[[], Lender], tuple[()]]:
        return shared, ()  # memory stays where it is

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an array of any content."""
        count = math.prod(shape) if isinstance(shape, tuple) else shape
        size = count * np.dtype(dtype).itemsize
        if size < SMALL:
            return np.empty(shape, dtype)
        # Arrays of about the same size share their memory; what of it is not touched costs none.
        room = 1 << (size - 1).bit_length()
        free = self._free.setdefault(room, queue.SimpleQueue())
        try:
            memory = free.get_nowait()
        except queue.Empty:
            new = np.empty(room + ALIGNED, np.uint8)
            memory = new[-new.ctypes.data % ALIGNED :][:room]
        # numpy shortens chains of views, but not past a memoryview: every view keeps this very object alive.
        lent = memory[:]
        weakref.finalize(lent, free.put, memory).atexit = False
        view = memoryview(lent)  # type: ignore[arg-type]
        return np.frombuffer(view, dtype, count).reshape(shape)


def shared() -> Lender:
    """Return the process's lender, which lives as long as somebody has it."""
    global _shared  # noqa: PLW0603 - one for everybody, so that what one epoch gave back the next takes
    lender = _shared()
    if lender is None:
        lender = Lender()
        _shared = weakref.ref(lender)
    return lender


_shared: Callable[[], Lender | None] = lambda: None  # noqa: E731 - a weak reference to nobody


def give_back() -> None:
    """Give the system what the C library keeps though nobody uses it, where that knows how (glibc)."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)

"""Memory for large arrays that is lent again and again: fresh pages from the system cost more than filling them."""

from __future__ import annotations

import math
import queue
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

SMALL = 1 << 18  # bytes; below that numpy's own way is as good
STEP = 1 << 20  # bytes to which sizes are rounded up, so that arrays of about the same size share their memory


class Lender:
    """Makes arrays as ``np.empty`` does; the memory of one comes back when nobody has it, nor a view of it, any more.

    Threads may share it. What came back is kept until the lender itself is gone.
    """

    # A queue that a finaliser may use, which runs in whichever thread drops the last view.
    def __init__(self) -> None:
        self._free: dict[int, queue.SimpleQueue[npt.NDArray[np.uint8]]] = {}

    def __reduce__(self) -> tuple[type[Lender], tuple[()]]:
        return Lender, ()  # memory stays where it is

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        """Return an array of any content."""
        count = math.prod(shape) if isinstance(shape, tuple) else shape
        size = count * np.dtype(dtype).itemsize
        if size < SMALL:
            return np.empty(shape, dtype)
        room = -(-size // STEP) * STEP
        free = self._free.setdefault(room, queue.SimpleQueue())
        try:
            memory = free.get_nowait()
        except queue.Empty:
            memory = np.empty(room, np.uint8)
        # numpy shortens chains of views, but not past a memoryview: every view keeps this very object alive.
        lent = memory[:]
        weakref.finalize(lent, free.put, memory).atexit = False
        view = memoryview(lent)  # type: ignore[arg-type]
        return np.frombuffer(view, dtype, count).reshape(shape)

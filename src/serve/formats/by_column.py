"""Answers in which one column comes after the other, of scores that come event after event."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from serve.formats.format import FileWriter, Floats, Heading, Target


class ByColumn(FileWriter):
    """Keeps each column of the scores in a file until the end; a subclass says how their bytes look."""

    def __init__(self, target: Target, heading: Heading) -> None:
        super().__init__(target, heading)
        self.num_events = 0
        folder = target.parent if isinstance(target, Path) else None
        self._files = contextlib.ExitStack()
        self._parts: list[IO[bytes]] = [
            self._files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - the stack closes it
            for _ in heading.columns
        ]

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""
        if not len(scores):
            return
        for part, values in zip(self._parts, np.ascontiguousarray(scores.T, np.float32), strict=True):
            part.write(self.as_bytes(values))
        self.num_events += len(scores)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._files:
                if kind is None:
                    for part in self._parts:
                        part.seek(0)
                    self.join(self._parts)
        finally:
            super().__exit__(kind, error, trace)

    def as_bytes(self, values: Floats) -> bytes:
        """Write the next values of a column, (n,)."""
        raise NotImplementedError

    def join(self, parts: Sequence[IO[bytes]]) -> None:
        """Write the file, of the bytes of each column."""
        raise NotImplementedError

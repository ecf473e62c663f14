"""A file format of one's own: arrays of one length in the ``.npz`` files of numpy.

A package announces it by an entry point of the group ``rootdata.file_formats``: ``npz = "own_format:NpzFormat"``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rootdata.io.tables.content import Content
from rootdata.io.tables.leaves import Leaf, paths_of
from rootdata.io.tables.tree import TableFormat


class NpzFormat(TableFormat):
    """What such files are called, and what they begin with."""

    kind = "NumPy"
    endings = (".npz",)
    start = b"PK\x03\x04"

    def open_file(self, content: Content) -> "NpzFile":
        """Read the arrays; the bytes may come from a server."""
        with np.load(content.reader()) as arrays:
            return NpzFile(pa.table({name: arrays[name] for name in arrays}))


class NpzFile:
    """A table with one group of rows."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.schema = table.schema
        self.groups: Sequence[int] = [table.num_rows]
        self.compression = "none"

    def size_of(self, leaves: Sequence[Leaf]) -> float:
        """Return the bytes that columns take."""
        return float(self._table.select(paths_of(leaves)).nbytes)

    def spans(self, group: int, leaves: Sequence[Leaf]) -> list[tuple[int, int]]:
        """Say which bytes are needed: none, as all are here."""
        return []

    def batches(self, group: int, leaves: Sequence[Leaf], *, rows: int) -> Iterator[Any]:
        """Give the rows of a group, from its start."""
        yield from self._table.select(paths_of(leaves)).to_batches(max_chunksize=rows)

    def close(self) -> None:
        """Let nothing go."""

"""Arrow files, which are also called Feather: record batches, as they lie in memory, compressed or not."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rootdata.causes import ContradictionError
from rootdata.io.local import Span
from rootdata.io.tables.content import Content
from rootdata.io.tables.flatbuffers import FlatTable
from rootdata.io.tables.leaves import Leaf, paths_of
from rootdata.io.tables.tree import OBJECTS, TableFormat

# Positions of fields in their tables, as File.fbs and Message.fbs of the Arrow format number them.
_FOOTER_BATCHES = 3
_MESSAGE_HEADER, _BATCH_ROWS = 2, 0
_BLOCK = "<qi4xq"  # where a message begins, the length of its metadata, the length of its body
_CONTINUES = b"\xff\xff\xff\xff"


class ArrowFormat(TableFormat):
    """Arrow files."""

    kind = "Arrow"
    endings = (".arrow", ".feather", ".ipc")
    start = end = b"ARROW1"

    def open_file(self, content: Content) -> _ArrowFile:
        """Read the footer, and of each record batch its length."""
        return _ArrowFile(content)


class _ArrowFile:
    def __init__(self, content: Content) -> None:
        import pyarrow as pa

        self.compression = "unknown"  # each record batch may have its own
        self._content = content
        self._opened: tuple[tuple[int, ...], Any] = ((), pa.ipc.open_file(pa.PythonFile(content.reader(), mode="r")))
        self.schema = self._opened[1].schema
        self._blocks = _blocks_of(content)
        self.groups: Sequence[int] = [_rows_at(content, at, size) for at, size, _ in self._blocks]
        if len(self.groups) != self._opened[1].num_record_batches:
            raise ContradictionError("the footer counts its record batches in two ways")

    def size_of(self, leaves: Sequence[Leaf]) -> float:
        """Return the bytes that leaves take; of lists nobody knows how long they are."""
        factors = {"flat": 1, "jagged": OBJECTS}
        each = (np.dtype(f.branch.dtype).itemsize * factors.get(f.branch.kind, f.branch.width) for f in leaves)
        return float(sum(self.groups) * sum(each))

    def spans(self, group: int, leaves: Sequence[Leaf]) -> list[Span]:  # noqa: ARG002 - its columns are many small pieces
        """Say where a record batch lies."""
        at, size, body = self._blocks[group]
        return [(at, at + size + body)]

    def batches(self, group: int, leaves: Sequence[Leaf], *, rows: int) -> Iterator[Any]:
        """Read a record batch."""
        import pyarrow as pa

        fields = tuple(sorted(self.schema.get_field_index(name) for name in paths_of(leaves)))
        if self._opened[0] != fields:
            options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=list(fields))
            self._opened = fields, pa.ipc.open_file(pa.PythonFile(self._content.reader(), mode="r"), options=options)
        batch = self._opened[1].get_batch(group)
        batch.validate(full=True)  # what reading alone does not: offsets that point outside of their buffers
        for low in range(0, batch.num_rows, rows):
            yield batch.slice(low, rows)

    def close(self) -> None:
        """Do nothing: the file is another's."""


def _blocks_of(content: Content) -> list[tuple[int, ...]]:
    """Say of each record batch where it begins, and how long its metadata and its body are."""
    magic = len(ArrowFormat.start)
    (length,) = struct.unpack("<i", content.fetch(content.size - magic - 4, 4))
    if not 0 < length <= content.size - 2 * magic - 4:
        raise ContradictionError(f"a footer of {length:,} bytes in a file of {content.size:,}")
    footer = FlatTable.root(content.fetch(content.size - magic - 4 - length, length))
    return footer.structures(_FOOTER_BATCHES, _BLOCK)


def _rows_at(content: Content, at: int, size: int) -> int:
    if at < 0 or size < 8 or at + size > content.size:
        raise ContradictionError("record batches lie outside of the file")
    metadata = content.fetch(at, size)
    begin = 8 if metadata.startswith(_CONTINUES) else 4
    batch = FlatTable.root(metadata[begin:]).table(_MESSAGE_HEADER)
    return 0 if batch is None else batch.long(_BATCH_ROWS)

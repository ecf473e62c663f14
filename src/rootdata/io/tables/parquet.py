"""Parquet files: row groups of columns, each compressed by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rootdata.causes import ContradictionError
from rootdata.io.local import Span
from rootdata.io.tables.content import Content
from rootdata.io.tables.leaves import Leaf
from rootdata.io.tables.tree import TableFormat

# Bytes of a column that are read at a time, here and from a server: a row group may be larger than memory.
BUFFER, BUFFER_FAR = 1 << 18, 1 << 21


class ParquetFormat(TableFormat):
    """Parquet files."""

    kind = "Parquet"
    endings = (".parquet", ".pq", ".parq")
    start = end = b"PAR1"

    def open_file(self, content: Content) -> _ParquetFile:
        """Read the footer."""
        return _ParquetFile(content)


class _ParquetFile:
    def __init__(self, content: Content) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(
            pa.PythonFile(content.reader(), mode="r"),
            pre_buffer=False,
            buffer_size=BUFFER_FAR if content.is_remote else BUFFER,
            page_checksum_verification=True,
        )
        about = self._file.metadata
        self.schema = self._file.schema_arrow
        self.groups: Sequence[int] = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        if sum(self.groups) != about.num_rows:
            raise ContradictionError(f"row groups of {sum(self.groups):,} rows in a file of {about.num_rows:,}")
        self.compression = (
            str(about.row_group(0).column(0).compression) if self.groups and about.num_columns else "none"
        )

    def size_of(self, leaves: Sequence[Leaf]) -> float:
        """Return the bytes that leaves take: of each number its own, and of each list where it begins."""
        about = self._file.metadata
        total = 0.0
        for leaf in leaves:
            size = np.dtype(leaf.branch.dtype).itemsize
            for i, rows in enumerate(self.groups):
                total += size * sum(about.row_group(i).column(n).num_values for n in leaf.numbers)
                total += 8 * rows if leaf.branch.kind == "jagged" else 0
        return total

    def spans(self, group: int, leaves: Sequence[Leaf]) -> list[Span]:
        """Say where the columns of a row group lie."""
        about = self._file.metadata.row_group(group)
        return [_span(about.column(n)) for leaf in leaves for n in leaf.numbers]

    def batches(self, group: int, leaves: Sequence[Leaf], *, rows: int) -> Iterator[Any]:
        """Read a row group from its start; only so many of its rows are in memory at a time."""
        about = self._file.metadata
        numbers = [n for leaf in leaves for n in leaf.numbers]
        names = [about.schema.column(n).path for n in numbers]
        yield from self._file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)

    def close(self) -> None:
        """Let the file go, which is not closed with it."""
        self._file.close(force=False)


def _span(column: Any) -> Span:
    """Return where a column of a row group lies."""
    at = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        at = min(at, column.dictionary_page_offset)
    return int(at), int(at + column.total_compressed_size)

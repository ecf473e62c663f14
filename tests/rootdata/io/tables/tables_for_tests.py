"""Helpers that write tables as Parquet, Arrow and CSV, and say what must be read of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from files_for_tests import branches

from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged
from rootdata.location import Location

KINDS = ("parquet", "arrow")


def write_table(path: Path, table: Any, *, rows: int | None = None, **how: Any) -> Path:
    """Write a table of pyarrow in the format that the path ends with.

    Parameters
    ----------
    rows : of a row group or record batch, at most; by default all
    """
    rows = rows or max(1, table.num_rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows, **how)
        return path
    options = pa.ipc.IpcWriteOptions(**how)
    with pa.ipc.new_file(path, table.schema, options=options) as file:
        for batch in table.to_batches(max_chunksize=rows):
            file.write_batch(batch)
    return path


def as_table(columns: Mapping[str, Any]) -> Any:
    """Make a table of the columns that :func:`files_for_tests.make_events` makes."""
    plain = branches(columns)
    return pa.table(
        {n: c if isinstance(c, np.ndarray) else ak.to_arrow(c, extensionarray=False) for n, c in plain.items()}
    )


def read_back(
    path: Path | str, names: Sequence[str] = (), *, start: int = 0, stop: int | None = None
) -> dict[str, Any]:
    """Read columns of a file, all that can be used by default, as plain lists."""
    tree = open_tree(Location(str(path)))
    try:
        wanted = names or [n for n in tree.names() if tree.describe(n).kind != "unusable"]
        read = tree.read(wanted, start, tree.num_entries if stop is None else stop)
        return {n: plain_of(c) for n, c in read.items()}
    finally:
        tree.close()


def plain_of(column: Any) -> list[Any]:
    """Return a column as lists, with ``None`` for NaN, so that what is equal compares so."""
    plain: list[Any] = without_nan((column.to_awkward() if isinstance(column, Jagged) else column).tolist())
    return plain


def without_nan(value: Any) -> Any:
    """Put ``None`` in the place of every NaN."""
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def expected(table: Any, name: str, *, width: int = 0) -> list[Any]:
    """Say what a leaf holds, by a walk through the rows as pyarrow gives them.

    Parameters
    ----------
    width : of lists of fixed length, of which one that is null has as many missing values
    """
    top, *fields = name.split(".")
    return [_within(value, fields, width) for value in table.column(top).to_pylist()]


def _within(value: Any, fields: Sequence[str], width: int) -> Any:
    if isinstance(value, list):
        return [_field(one, fields) for one in value]
    if value is None and width:
        return [None] * width
    return _field(value, fields)


def _field(value: Any, fields: Sequence[str]) -> Any:
    for name in fields:
        value = None if value is None else value[name]
    return without_nan(value)

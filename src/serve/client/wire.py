"""Columns and scores to and from bytes; pure.

The format ``application/vnd.rootdata.columns`` is described in :mod:`serve.codec.binary`. It is written here once more,
in few lines, since the server's side of it checks everything and needs libraries that a client does not.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.jagged import Ints, Jagged
from serve.client.columns import Column, Columns, is_awkward
from serve.client.errors import InvalidInput
from serve.client.scores import Floats

MAGIC = b"RDCOLS1\n"
START = len(MAGIC) + 4  # of the header


def encode_columns(columns: Columns) -> bytes:
    """Write columns; jagged ones of equal counts share them."""
    groups: dict[str, Ints] = {}
    described = [_described(name, column, groups) for name, column in columns.columns.items()]
    header = {"num_events": columns.num_events, "columns": described, "counts": list(groups)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    parts = [_padded(MAGIC + struct.pack("<I", len(text)) + text)]
    parts += [_buffer(np.diff(offsets).astype(np.int32)) for offsets in groups.values()]
    parts += [_buffer(c.content if isinstance(c, Jagged) else c) for c in columns.columns.values()]
    return b"".join(parts)


def _described(name: str, column: Column, groups: dict[str, Ints]) -> dict[str, Any]:
    if isinstance(column, Jagged):
        return {"name": name, "dtype": _dtype(column.content), "counts": _group(name, column.offsets, groups)}
    width = {} if column.ndim == 1 else {"width": column.shape[1]}
    return {"name": name, "dtype": _dtype(column), **width}


def _group(name: str, offsets: Ints, groups: dict[str, Ints]) -> str:
    for group, known in groups.items():
        if np.array_equal(known, offsets):
            return group
    groups[name] = offsets
    return name


def _dtype(values: npt.NDArray[Any]) -> str:
    """Name the type as the format does; numpy writes integers of one byte without an order."""
    return "|b1" if values.dtype.kind == "b" else f"<{values.dtype.kind}{values.dtype.itemsize}"


def _buffer(values: npt.NDArray[Any]) -> bytes:
    return _padded(values.astype(_dtype(values), copy=False).tobytes())


def _padded(raw: bytes) -> bytes:
    return raw.ljust(-(-len(raw) // 8) * 8, b"\0")


def decode_columns(body: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read the columns of an answer, which are flat.

    Raises
    ------
    ValueError
        For bytes that are no such answer.
    """
    if body[: len(MAGIC)] != MAGIC:
        raise ValueError(f"it starts with {body[:8]!r} instead of {MAGIC!r}")
    (length,) = struct.unpack_from("<I", body, len(MAGIC))
    header = json.loads(body[START : START + length])
    offset, columns = -(-(START + length) // 8) * 8, {}
    for column in header["columns"]:
        values = np.frombuffer(body, column["dtype"], header["num_events"], offset)
        offset += -(-values.nbytes // 8) * 8
        columns[column["name"]] = values
    return columns


def stacked(columns: Mapping[str, Any]) -> tuple[tuple[str, ...], Floats]:
    """Put columns beside each other: names, and (events, columns) float32."""
    return tuple(columns), np.stack([np.asarray(values, np.float32) for values in columns.values()], axis=1)


def encode_events(events: Sequence[Mapping[str, Any]]) -> bytes:
    """Write events as JSON, a dict each; NaN and infinities become null.

    Raises
    ------
    InvalidInput
        For what JSON has no word for.
    """
    plain = [{str(name): _plain(value) for name, value in event.items()} for event in events]
    return json.dumps({"events": plain}, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic) or is_awkward(value):
        return _plain(value.tolist())
    raise InvalidInput(f"events: got a value of type {type(value).__name__}; expected numbers and lists of numbers")

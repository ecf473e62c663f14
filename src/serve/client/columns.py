"""Events as people have them, to columns or JSON; pure, and awkward is only imported where it is in use already."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.jagged import Column, Ints, Jagged, offsets_of
from rootdata.table import Table
from serve.client.errors import InvalidInput


def is_columnar(events: Any) -> bool:
    """Tell whether events come as columns: a dict or DataFrame of them, an awkward or a structured array."""
    if isinstance(events, Table) or is_awkward(events):
        return True
    has_fields = isinstance(events, np.ndarray) and events.dtype.names is not None
    return has_fields or (hasattr(events, "keys") and hasattr(events, "__getitem__"))


def is_awkward(value: Any) -> bool:
    """Tell whether it is an awkward array, without the import."""
    return type(value).__module__.split(".")[0] == "awkward"


def columns_of(events: Any) -> Table:
    """Take the columns of events.

    Parameters
    ----------
    events : a table, as it is; else column name to array or list; a record of an awkward array's list, ``Jet`` with
        ``pt`` and ``eta``, becomes the branches ``Jet_pt`` and ``Jet_eta``

    Raises
    ------
    InvalidInput
        For a column that does not hold numbers, or columns of different lengths.
    """
    if isinstance(events, Table):
        return events
    columns: dict[str, Column] = {name: _column(name, values) for name, values in _named(events)}
    if not columns:
        raise InvalidInput("events: there are no columns; give one for each branch of the model")
    first, *others = columns
    for name in others:
        if len(columns[name]) != len(columns[first]):
            raise InvalidInput(
                f"column {name!r} has {len(columns[name])} events, {first!r} has {len(columns[first])}; "
                "give every column one value, or one list, for each event"
            )
    return Table(num_events=len(columns[first]), columns=columns)


def _named(events: Any) -> Iterator[tuple[str, Any]]:
    if is_awkward(events):
        yield from _fields(events, prefix="")
        return
    names = events.dtype.names if isinstance(events, np.ndarray) else events.keys()
    for name in names:
        values = events[name]
        if is_awkward(values) and values.fields:
            yield from _fields(values, prefix=f"{name}_")
        else:
            yield str(name), values


def _fields(array: Any, *, prefix: str) -> Iterator[tuple[str, Any]]:
    if not array.fields:
        raise InvalidInput(f"events: got an awkward array of type {array.type}; expected one of records")
    for name in array.fields:
        values = array[name]
        if values.fields:
            yield from _fields(values, prefix=f"{prefix}{name}_")
        else:
            yield prefix + name, values


def _column(name: str, values: Any) -> Column:
    try:
        column = _from_awkward(values) if is_awkward(values) else _from_sequence(values)
    except (ShapeError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"column {name!r}: {error}; give numbers, or lists of numbers") from error
    content = column.content if isinstance(column, Jagged) else column
    if content.dtype.kind not in "biuf" or content.dtype.itemsize > 8:
        raise InvalidInput(f"column {name!r}: got values of type {content.dtype}; expected numbers of at most 64 bits")
    if content.ndim > (1 if isinstance(column, Jagged) else 2) or 0 in content.shape[1:] or not content.ndim:
        raise InvalidInput(f"column {name!r}: got shape {content.shape}; expected a number or a list for each event")
    return column


def _from_awkward(array: Any) -> Column:
    import awkward as ak

    if "?" in str(array.type) or "option" in str(array.type):
        array = _without_none(array)
    is_list = array.ndim == 2 and not isinstance(array.type.content, ak.types.RegularType)
    return Jagged.from_awkward(array) if is_list else _native(ak.to_numpy(array))


def _without_none(array: Any) -> Any:
    """Make None, and it alone, a NaN; where nothing is missing numbers keep their type, and with it all digits."""
    import awkward as ak

    if array.ndim > 1 and ak.any(ak.is_none(array)):
        raise ValueError("got None in place of a list; expected an empty list for an event without objects")
    if ak.any(ak.is_none(array, axis=-1), axis=None):
        array = ak.fill_none(ak.values_astype(array, np.float64), np.nan, axis=-1)
    return ak.Array(_certain(ak.to_packed(array).layout))


def _certain(layout: Any) -> Any:
    """Take off the types that allow a None, of an array without any."""
    if layout.is_option:
        return _certain(layout.project())
    return layout.copy(content=_certain(layout.content)) if layout.is_list else layout


def _from_sequence(values: Any) -> Column:
    if isinstance(values, np.ma.MaskedArray):
        values = _unmasked(values)
    if isinstance(values, list | tuple) and _has_lists(values):
        return _from_lists(values)
    array = np.asarray(values)
    if array.dtype == object:
        rows = array.tolist()
        return _from_lists(rows) if _has_lists(rows) else _numbers(rows)
    if isinstance(values, list | tuple):
        _check_exact(array, values)
    return _native(array)


def _has_lists(values: Sequence[Any]) -> bool:
    return any(isinstance(value, list | tuple | np.ndarray) for value in values)


def _from_lists(rows: Sequence[Any]) -> Jagged:
    """Put a list for each event, of any length, one after the other."""
    rows = [_unmasked(row) if isinstance(row, np.ma.MaskedArray) else row for row in rows]
    counts = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    return Jagged(offsets_of(counts), _numbers(list(chain.from_iterable(rows))))


def _unmasked(values: Any) -> npt.NDArray[Any]:
    """Make what a mask hides a NaN."""
    if not np.ma.is_masked(values):
        return np.asarray(values.data)
    return np.asarray(values.astype(np.float64).filled(np.nan))


def _numbers(values: list[Any]) -> npt.NDArray[Any]:
    """Make an array of a list, None becomes NaN."""
    array = np.asarray(values)
    if array.dtype == object:
        if any(isinstance(value, str | bytes) for value in values):
            raise TypeError("got text")  # which numpy would read as a number
        array = array.astype(np.float64)
    _check_exact(array, values)
    return array


def _check_exact(array: npt.NDArray[Any], values: Sequence[Any]) -> None:
    """Refuse an integer that has lost digits, since numpy makes floats of integers that stand beside floats or None."""
    if array.dtype.kind != "f" or not np.any(np.abs(array) >= 2**53):
        return
    for value in values:
        if isinstance(value, int | np.integer) and float(value) != int(value):
            raise ValueError(f"the integer {value} stands beside floats or None, with which it would lose digits")


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def pieces(table: Table, *, max_events: int, max_bytes: int) -> list[tuple[int, int]]:
    """Cut events into ranges of bounded size.

    Parameters
    ----------
    table : the events
    max_events : of a range, at least 1
    max_bytes : of the values and counts in a range

    Returns
    -------
    (start, stop) of each, in order, at least one; none has more than ``max_events`` events, and only one of a single
    event more than ``max_bytes`` bytes
    """
    ends = _ends(table)
    found, start = [], 0
    while start < table.num_events:
        before = int(ends[start - 1]) if start else 0
        full = int(np.searchsorted(ends, before + max_bytes, side="right"))
        stop = min(max(full, start + 1), start + max_events, table.num_events)
        found.append((start, stop))
        start = stop
    return found or [(0, 0)]


def _ends(table: Table) -> Ints:
    """Sum up the bytes of the events up to each one, itself included."""
    ends = np.zeros(table.num_events, np.int64)
    for column in table.columns.values():
        if isinstance(column, Jagged):
            ends += column.offsets[1:] * column.content.itemsize + np.arange(1, len(ends) + 1) * 4
        else:
            ends += np.arange(1, len(ends) + 1) * (column.itemsize * int(np.prod(column.shape[1:])))
    return ends


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

"""Numbers to the number type of a branch or tensor: without loss of kind, and never silently.

A number may be rounded (float64 to float32); a fraction never becomes an integer, a number out of range never wraps
or turns infinite, a string or a truth value is no number. Where values stand matters only when one is wrong, so a
caller gives a function from the position in the array to the place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.jagged import Ints
from serve.errors import InvalidEvents
from serve.parsing import given, shown

Array = npt.NDArray[Any]
Locate = Callable[[int], tuple[str, str, int]]
"""From a position to the field, how to write the value's own name, and the event."""

_NONE = type(None)
_TAKEN = {"f": {int, float, _NONE}, "i": {int, float}, "u": {int, float}, "b": {bool, int, float}}
_EXPECTED = {"f": "a number, or null for a missing value", "i": "an integer", "u": "an integer", "b": "true or false"}
_INT64, _FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)


def array_type(dtype: str) -> np.dtype[Any]:
    """Return the type of the array of a tensor: numpy has strings of any length as objects alone."""
    return np.dtype(object if dtype == "string" else dtype)


def in_rows(names: Sequence[str], *, first: int = 0) -> Locate:
    """Locate values of several flat columns, event after event."""
    return lambda at: (names[at % len(names)], repr(names[at % len(names)]), first + at // len(names))


def in_events(name: str, *, width: int = 1, first: int = 0) -> Locate:
    """Locate values of a column that has the same number of them in each event.

    Parameters
    ----------
    name : of the branch
    width : values in each event
    first : number of the first event
    """
    return lambda at: (name, repr(name if width == 1 else f"{name}[{at % width}]"), first + at // width)


def in_lists(name: str, offsets: Ints, *, first: int = 0) -> Locate:
    """Locate values of a jagged column.

    Parameters
    ----------
    name : of the branch
    offsets : (n_events + 1,)
    first : number of the first event
    """

    def locate(at: int) -> tuple[str, str, int]:
        event = int(np.searchsorted(offsets, at, side="right")) - 1
        return name, repr(f"{name}[{at - int(offsets[event])}]"), first + event

    return locate


def flattened(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Put lists one after the other."""
    return list(chain.from_iterable(lists))


def from_list(values: Sequence[Any], dtype: np.dtype[Any], locate: Locate) -> Array:
    """Turn JSON values into an array.

    Parameters
    ----------
    values : (n,) what a JSON parser gives
    dtype : of the result; for floats null becomes NaN
    locate : from a position in ``values`` to its name and event, for errors

    Raises
    ------
    InvalidEvents
        Naming the first value that does not fit.
    """
    kinds = set(map(type, values))
    taken = _TAKEN[dtype.kind]
    if not kinds <= taken:
        at = next(i for i, value in enumerate(values) if type(value) not in taken)
        raise _unfit(locate, at, given(values[at]), _EXPECTED[dtype.kind])
    if dtype.kind == "f":
        numbers = np.array(values, _FLOAT64)
        return numbers if dtype == _FLOAT64 else _narrowed(numbers, dtype, locate)
    if dtype.kind == "b":
        return from_array(np.array(values, _FLOAT64), dtype, locate)
    return _whole(values, dtype, locate) if float in kinds else _integers(values, dtype, locate)


def strings(values: Sequence[Any], locate: Locate) -> Array:
    """Turn JSON values into an array of strings.

    Raises
    ------
    InvalidEvents
        Naming the first value that is none.
    """
    for at, value in enumerate(values):
        if type(value) is not str:
            raise _unfit(locate, at, given(value), "a string")
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _whole(values: Sequence[Any], dtype: np.dtype[Any], locate: Locate) -> Array:
    """Take integers that are written as 3.0 too, without going through floats, which end at 2**53."""
    for at, value in enumerate(values):
        if type(value) is float and not value.is_integer():
            raise _unfit(locate, at, shown(value), "an integer")
        if value == -(2.0**63) and type(value) is float:  # what a JSON parser makes of an integer below the lowest
            raise _unfit(locate, at, shown(value), _range(dtype))
    return _integers([int(value) for value in values], dtype, locate)


def _integers(values: Sequence[Any], dtype: np.dtype[Any], locate: Locate) -> Array:
    try:
        return from_array(np.array(values, np.uint64 if dtype == np.uint64 else _INT64), dtype, locate)
    except OverflowError:
        limits = np.iinfo(dtype)
        at = next(i for i, value in enumerate(values) if not limits.min <= value <= limits.max)
        raise _unfit(locate, at, shown(values[at]), _range(dtype)) from None


def from_array(values: Array, dtype: np.dtype[Any], locate: Locate) -> Array:
    """Cast numbers; the array itself where it has the type already.

    Parameters
    ----------
    values : numbers or truth values, of any shape; positions count in C order
    dtype : of the result; where it is a number, truth values are refused
    locate : from a position in ``values`` to its name and event, for errors

    Raises
    ------
    InvalidEvents
        Naming the first value that does not fit.
    """
    if values.dtype == dtype:
        return values
    if values.dtype.kind == "b" and values.size:
        raise _unfit(locate, 0, "a truth value", _EXPECTED[dtype.kind])
    if dtype.kind == "f":
        return _to_float(values, dtype, locate)
    if dtype.kind == "b":
        _refuse(values, (values != 0) & (values != 1), "true or false, 1 or 0", locate)
    else:
        _check_integer(values, dtype, locate)
    return values.astype(dtype)


def _to_float(values: Array, dtype: np.dtype[Any], locate: Locate) -> Array:
    fits = dtype.itemsize > 2 if values.dtype.kind != "f" else values.dtype.itemsize <= dtype.itemsize
    return values.astype(dtype) if fits else _narrowed(values, dtype, locate)


def _narrowed(values: Array, dtype: np.dtype[Any], locate: Locate) -> Array:
    if not np.count_nonzero(np.abs(values) > np.finfo(dtype).max):  # the fast way to say that nothing overflows
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        result = values.astype(dtype)
    _refuse(values, np.isinf(result) & np.isfinite(values), _range(dtype), locate)
    return result


def _check_integer(values: Array, dtype: np.dtype[Any], locate: Locate) -> None:
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        _refuse(values, np.isnan(values), "an integer: a missing value has no place here", locate)
        # As floats the limits round; 2**63 is one, 2**63 - 1 is none. Half precision has room for neither.
        values = values.astype(_FLOAT64, copy=False)
        high, low = float(limits.max) + (limits.max < 2**53), float(limits.min)
        _refuse(values, (values < low) | (values >= high), _range(dtype), locate)
        _refuse(values, values != np.trunc(values), "an integer", locate)
        return
    if not values.size:
        return
    if int(values.min()) < limits.min or int(values.max()) > limits.max:
        _refuse(values, _outside(values, limits), _range(dtype), locate)


def _outside(values: Array, limits: Any) -> npt.NDArray[np.bool_]:
    known = np.iinfo(values.dtype)
    low, high = max(limits.min, known.min), min(limits.max, known.max)
    return np.asarray((values < values.dtype.type(low)) | (values > values.dtype.type(high)))


def _range(dtype: np.dtype[Any]) -> str:
    if dtype.kind == "f":
        return f"a number that fits into {dtype}, at most {np.finfo(dtype).max:.3g}"
    return f"an integer from {np.iinfo(dtype).min} to {np.iinfo(dtype).max} ({dtype})"


def _refuse(values: Array, is_bad: npt.NDArray[np.bool_], expected: str, locate: Locate) -> None:
    if np.count_nonzero(is_bad):
        at = int(np.flatnonzero(is_bad)[0])
        raise _unfit(locate, at, shown(values.reshape(-1)[at].item()), expected)


def _unfit(locate: Locate, at: int, got: str, expected: str) -> InvalidEvents:
    field, name, event = locate(at)
    return InvalidEvents(f"{name} of event {event}: got {got}; expected {expected}", field=field, event=event)

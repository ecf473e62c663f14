"""Columns of events as expressions see them, and what can be done with the objects in them.

A value is a number (the same for every event), a flat column (one number an event, a numpy array) or a jagged one
(:class:`~rootdata.jagged.Jagged`). All work is numpy calls over the objects of all events at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rootdata import kinematics
from rootdata.arithmetic import (
    Array,
    Number,
    Numbers,
    OperandError,
    Operation,
    alike,
    check_range,
    is_boolean,
    is_whole,
    truth,
    widen,
)
from rootdata.jagged import Ints, Jagged

Value = Number | Array | Jagged
Reducer = Callable[..., Array]
Column = Any  # a numpy array, an awkward array (which has no types to check), or a Jagged

# A place beyond every list, with room for sums of places.
_FAR = 2**40
_ONE_NUMBER = "{0} has one number an event, and no objects to go over; a jagged column is needed"


def load(column: Column, num_events: int) -> Array | Jagged:
    """Check a column of ``num_events`` events and take its buffers.

    Parameters
    ----------
    column : (num_events,) or (num_events, k) numpy array, awkward array of depth 1 or 2, or ``Jagged``

    Raises
    ------
    OperandError
        If the column is of another length, nested deeper, or does not hold plain numbers.
    """
    loaded = column if isinstance(column, np.ndarray | Jagged) else _from_awkward(column)
    if len(loaded) != num_events:
        raise OperandError(f"{{0}} has {len(loaded)} events where {num_events} are asked for", 0)
    if isinstance(loaded, np.ndarray) and loaded.ndim == 2:
        loaded = Jagged.from_awkward(loaded)
    return _trimmed(loaded) if isinstance(loaded, Jagged) else _numbers(loaded)


def _from_awkward(column: Column) -> Array | Jagged:
    import awkward as ak

    if not isinstance(column, ak.Array):
        raise OperandError(f"{{0}} is a {type(column).__name__}; a column is a numpy or an awkward array", 0)
    leaf = column.layout
    while (leaf.is_list and "__array__" not in leaf.parameters) or (leaf.is_indexed and not leaf.is_option):
        leaf = leaf.content
    if not (leaf.is_numpy or leaf.is_unknown):
        kind = str(column.type).replace("{", "{{").replace("}", "}}")
        raise OperandError(f"{{0}} is of type '{kind}'; an expression takes numbers and lists of numbers", 0)
    if column.ndim > 2:
        raise OperandError(f"{{0}} is nested ('{column.type}'); one list an event is the most that is allowed", 0)
    layout = column.layout
    if isinstance(layout, ak.contents.ListOffsetArray) and layout.content.is_numpy:
        # As files are read: the buffers themselves, in a tenth of the time of the general way below.
        return Jagged(np.asarray(layout.offsets.data, np.int64), layout.content.data)
    return Jagged.from_awkward(column) if column.ndim == 2 else np.asarray(ak.to_numpy(column))


def _trimmed(column: Jagged) -> Jagged:
    """Leave out objects that no event owns: a slice of a longer column has them."""
    offsets, content = column.offsets, _numbers(column.content)
    start, stop = int(offsets[0]), int(offsets[-1])
    if start == 0 and stop == len(content):
        return Jagged(offsets, content)
    return Jagged(offsets - start, content[start:stop])


def _numbers(content: Array) -> Array:
    """Check that an array is a row of numbers, and put them in native order side by side."""
    if content.ndim != 1:
        raise OperandError(
            f"{{0}} is nested {content.ndim} levels deep; one list an event is the most that is allowed", 0
        )
    if content.dtype.kind not in "biuf":
        raise OperandError(f"{{0}} holds {content.dtype}; an expression takes numbers", 0)
    return np.ascontiguousarray(content, content.dtype.newbyteorder("="))


def align(*operands: Value) -> tuple[Ints | None, list[Numbers]]:
    """Repeat the flat operands for each object of the jagged ones.

    Returns
    -------
    offsets, parts : the offsets that the jagged operands share (None if all are flat), and arrays that fit each other

    Raises
    ------
    OperandError
        If two jagged operands differ in their numbers of objects.
    """
    jagged = [(i, x.offsets) for i, x in enumerate(operands) if isinstance(x, Jagged)]
    if not jagged:
        return None, [x for x in operands if not isinstance(x, Jagged)]
    first, offsets = jagged[0]
    for i, other in jagged[1:]:
        if other is not offsets and not np.array_equal(other, offsets):
            raise _mismatch(offsets, other, first, i)
    counts = np.diff(offsets) if any(isinstance(x, np.ndarray) for x in operands) else None
    return offsets, [_repeated(x, counts) for x in operands]


def _repeated(x: Value, counts: Ints | None) -> Numbers:
    if isinstance(x, Jagged):
        return x.content
    return np.repeat(x, counts) if isinstance(x, np.ndarray) and counts is not None else x


def _mismatch(a: Ints, b: Ints, *operands: int) -> OperandError:
    event = int(np.flatnonzero(np.diff(a) != np.diff(b))[0])
    counts = f"event {event} has {a[event + 1] - a[event]} and {b[event + 1] - b[event]}"
    return OperandError(f"{{0}} and {{1}} have different numbers of objects: {counts}", *operands)


def elementwise(function: Operation) -> Callable[..., Value]:
    """Lift a function of arrays to columns, flat ones broadcast over the objects of jagged ones."""

    def apply(*operands: Value) -> Value:
        offsets, parts = align(*operands)
        result = function(*parts)
        return result if offsets is None else Jagged(offsets, np.asarray(result))

    return apply


def _objects(x: Value, *, operand: int = 0) -> Jagged:
    if not isinstance(x, Jagged):
        raise OperandError(_ONE_NUMBER, operand)
    return x


def _reduce(ufunc: np.ufunc, content: Array, offsets: Ints, out: Array) -> Array:
    """Reduce the objects of each event; events without objects keep what ``out`` has for them."""
    some = offsets[1:] > offsets[:-1]
    # reduceat knows no empty stretch: it is shown only the starts of others, which lie end to end.
    out[some] = ufunc.reduceat(content, offsets[:-1][some])
    return out


def _filled(x: Jagged, fill: Number) -> Array:
    """Make one number an event, ``fill``, of a type that holds it and the objects."""
    if is_whole(x.content) and is_whole(fill) and not (is_boolean(x.content) and is_boolean(fill)):
        return np.full(len(x), fill, alike(x.content, fill)[0].dtype)
    return np.full(len(x), fill, np.result_type(x.content.dtype, fill))


def count(x: Value) -> Array:
    """Count the objects of each event."""
    return _objects(x).counts


def _accumulator(ufunc: np.ufunc) -> Reducer:
    """Make ``sum`` or ``prod``: whole numbers stay whole, real ones are summed in float64; none give 0 or 1."""

    def apply(x: Value) -> Array:
        jagged = _objects(x)
        empty = np.full(len(jagged), ufunc.identity, np.float64)
        result = _reduce(ufunc, jagged.content.astype(np.float64), jagged.offsets, empty)
        if not is_whole(jagged.content):
            return result
        content = widen(jagged.content)
        check_range(result, content.dtype)
        return _reduce(ufunc, content, jagged.offsets, np.full(len(jagged), ufunc.identity, content.dtype))

    return apply


total, product = _accumulator(np.add), _accumulator(np.multiply)


def _extreme(ufunc: np.ufunc) -> Reducer:
    """Make ``min`` or ``max``; a nan among the objects wins, as in numpy."""

    def apply(x: Value, *, fill: Number = math.nan) -> Array:
        jagged = _objects(x)
        return _reduce(ufunc, jagged.content, jagged.offsets, _filled(jagged, fill))

    return apply


smallest, largest = _extreme(np.minimum), _extreme(np.maximum)


def _logical(ufunc: np.ufunc) -> Reducer:
    """Make ``any`` (False for no objects) or ``all`` (True)."""

    def apply(x: Value) -> Array:
        jagged = _objects(x)
        out = np.full(len(jagged), ufunc.identity, np.bool_)
        return _reduce(ufunc, truth(jagged.content, operand=0), jagged.offsets, out)

    return apply


any_object, all_objects = _logical(np.logical_or), _logical(np.logical_and)


def _mean(x: Jagged) -> Array:
    sums = _reduce(np.add, x.content.astype(np.float64), x.offsets, np.zeros(len(x)))
    return sums / np.maximum(x.counts, 1)


def mean(x: Value, *, fill: Number = math.nan) -> Array:
    """Average the objects of each event."""
    jagged = _objects(x)
    return np.where(jagged.counts > 0, _mean(jagged), fill)


def std(x: Value, *, fill: Number = math.nan) -> Array:
    """Give the standard deviation of the objects of each event, divided by their number (0 for one object)."""
    jagged = _objects(x)
    counts = jagged.counts
    deviations = jagged.content.astype(np.float64) - np.repeat(_mean(jagged), counts)
    return np.where(counts > 0, np.sqrt(_mean(Jagged(jagged.offsets, deviations**2))), fill)


def _local(x: Jagged) -> Ints:
    """Count along the objects of each event, from 0."""
    return np.arange(len(x.content)) - np.repeat(x.offsets[:-1], x.counts)


def _position(best: np.ufunc) -> Reducer:
    """Make ``argmin`` or ``argmax``: the first of equals, never a nan."""

    def apply(x: Value, *, fill: Number = math.nan) -> Array:
        jagged = _objects(x)
        content, places = jagged.content, _local(jagged)
        extremes = _reduce(best, content, jagged.offsets, np.zeros(len(jagged), content.dtype))
        none = len(content)
        candidates = np.where(content == np.repeat(extremes, jagged.counts), places, none)
        first = _reduce(np.minimum, candidates, jagged.offsets, np.full(len(jagged), none))
        return np.where(first < none, first, fill)

    return apply


# The f-variants pass over nan.
argsmallest, arglargest = _position(np.fmin), _position(np.fmax)


def descending(x: Value) -> Jagged:
    """Sort the objects of each event from the largest to the smallest, nan last."""
    jagged = _objects(x)
    content, counts = jagged.content.copy(), jagged.counts
    # Events of equal counts make a rectangle, whose rows numpy sorts at once.
    for length in np.unique(counts):
        places = jagged.offsets[:-1][counts == length, np.newaxis] + np.arange(length)
        content[places] = _falling(content[places])
    return Jagged(jagged.offsets, content)


def _falling(rows: Array) -> Array:
    return np.sort(rows, axis=1)[:, ::-1] if is_whole(rows) else -np.sort(-rows, axis=1)


def pick(x: Value, index: Value, *, fill: Number = math.nan) -> Array:
    """Take the object at ``index`` (from the end where negative) of each event, ``fill`` where there is none.

    Parameters
    ----------
    index : a whole number, or a flat column of whole numbers in which nan stands for none
    """
    jagged, place = _objects(x), _whole_index(index)
    place = np.where(place < 0, place + jagged.counts, place)
    present = (place >= 0) & (place < jagged.counts)
    out = _filled(jagged, fill)
    out[present] = jagged.content[(jagged.offsets[:-1] + place)[present]]
    return out


def _whole_index(index: Value) -> Ints:
    """Read an index; nan becomes a place beyond every list."""
    if isinstance(index, Jagged) or is_boolean(index):
        raise OperandError("{0} is no index; one whole number an event is needed", 1)
    if is_whole(index):
        return np.maximum(np.minimum(widen(index), _FAR).astype(np.int64), -_FAR)
    number = np.asarray(index)
    if not np.all(np.isnan(number) | (np.floor(number) == number)):
        raise OperandError("{0} is no index: it has values that are not whole", 1)
    place: Ints = np.clip(np.nan_to_num(number, nan=_FAR), -_FAR, _FAR).astype(np.int64)
    return place


def leading(x: Value, *, fill: Number = math.nan) -> Array:
    """Take the first object of each event."""
    return pick(x, 0, fill=fill)


def index(x: Value, selector: Value) -> Value:
    """Do what ``x[selector]`` asks: objects where a jagged true/false column is true, or one object an event."""
    if not isinstance(selector, Jagged) and not is_boolean(selector):
        return pick(x, selector)
    if not isinstance(selector, Jagged):
        raise OperandError(
            "{1} is one true/false an event and selects no objects of {0}; events are selected by cuts", 0, 1
        )
    if not is_boolean(selector.content):
        raise OperandError("{0} selects no objects: a true/false column is needed, as in x[x > 30]", 1)
    jagged = _objects(x)
    align(jagged, selector)
    return jagged.take_objects(selector.content)


def cut(x: Value, *, start: int | None, stop: int | None) -> Jagged:
    """Take the objects ``x[start:stop]`` of each event, with Python's meaning of negative ends."""
    jagged = _objects(x)
    counts, places = jagged.counts, _local(jagged)
    low, high = (np.repeat(_end(bound, counts, default), counts) for bound, default in ((start, 0), (stop, _FAR)))
    return jagged.take_objects((places >= low) & (places < high))


def _end(bound: int | None, counts: Ints, default: int) -> Ints:
    place = int(np.clip(default if bound is None else bound, -_FAR, _FAR))
    return counts + place if place < 0 else np.full_like(counts, place)


def invariant_mass(pt: Value, eta: Value, phi: Value, mass: Value) -> Array:
    """Give the invariant mass of all objects of each event together, 0 where there are none."""
    offsets, parts = align(pt, eta, phi, mass)
    if offsets is None:
        raise OperandError(_ONE_NUMBER, 0)
    sums = (
        _reduce(np.add, component, offsets, np.zeros(len(offsets) - 1)) for component in kinematics.four_vector(*parts)
    )
    return kinematics.mass_of(*sums)

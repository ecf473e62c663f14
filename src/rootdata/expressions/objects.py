"""Columns of events as expressions see them, and what can be done with the objects in them.

A value is a number (the same for every event), a flat column (one number an event: a numpy array, or
:class:`~rootdata.missing.Masked` where integers or booleans are missing) or a jagged one
(:class:`~rootdata.jagged.Jagged`). All work is numpy calls over the objects of all events at once.

What goes over the objects of an event leaves out those that are missing. Where none is left to take, the result is
missing, or ``fill``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, NoReturn

import numpy as np

from rootdata.errors import ExpressionError
from rootdata.expressions import kinematics
from rootdata.expressions.arithmetic import (
    Number,
    NumberFunction,
    Numbers,
    OperandError,
    RangeError,
    beyond,
    fill_exact,
    find_missing,
    is_boolean,
    is_whole,
    known,
    real,
    settled,
    validity,
    widen,
)
from rootdata.expressions.logic import truth, where
from rootdata.jagged import Ints, Jagged, offsets_of, same_offsets
from rootdata.missing import Array, Bools, Masked, as_real, values_of, without_infinities

Flat = Array | Masked
Value = Number | Flat | Jagged
Reducer = Callable[..., Flat]
AnyColumn = Any  # a numpy array, an awkward array (which has no types to check), a Masked or a Jagged

# A place beyond every list, with room for sums of places.
_FAR = 2**40
_ONE_NUMBER = "{0} has one number an event, and no objects to go over; a jagged column is needed"


def load(column: AnyColumn, num_events: int) -> Flat | Jagged:
    """Check a column of ``num_events`` events and take its buffers; infinities become missing.

    Parameters
    ----------
    column : (num_events,) or (num_events, k) numpy array or ``Masked``, awkward array of depth 1 or 2, or ``Jagged``
    num_events : that it must have

    Raises
    ------
    OperandError
        If the column is of another length, nested deeper, or does not hold plain numbers.
    """
    loaded = column if isinstance(column, np.ndarray | Masked | Jagged) else _from_awkward(column)
    if len(loaded) != num_events:
        raise OperandError(f"{{0}} has {len(loaded)} events where {num_events} are asked for", 0)
    if isinstance(loaded, np.ndarray | Masked) and loaded.ndim == 2:
        loaded = Jagged.from_fixed(loaded)
    return _trimmed(loaded) if isinstance(loaded, Jagged) else _numbers(loaded)


def _from_awkward(column: AnyColumn) -> Array | Jagged:
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
    offsets, start, stop = column.offsets, int(column.offsets[0]), int(column.offsets[-1])
    if start == 0 and stop == len(column.content):
        return Jagged.of(offsets, _numbers(column.values))
    return Jagged.of(offsets - start, _numbers(column.values[start:stop]))


def _numbers(given: Flat) -> Flat:
    """Check that a column is a row of numbers, and put them in native order side by side; NaN is what is missing."""
    content = values_of(given)
    if content.ndim != 1:
        raise OperandError(
            f"{{0}} is nested {content.ndim} levels deep; one list an event is the most that is allowed", 0
        )
    if content.dtype.kind not in "biuf":
        raise OperandError(f"{{0}} holds {content.dtype}; an expression takes numbers", 0)
    content = np.ascontiguousarray(content, content.dtype.newbyteorder("="))
    if content.dtype.kind == "f":
        return without_infinities(as_real(Masked(content, given.valid)) if isinstance(given, Masked) else content)
    return Masked(content, given.valid) if isinstance(given, Masked) else content


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
        if not same_offsets(other, offsets):
            raise _mismatch(offsets, other, first, i)
    counts = np.diff(offsets) if any(_is_flat(x) for x in operands) else None
    return offsets, [_repeated(x, counts) for x in operands]


def _is_flat(x: Value) -> bool:
    """Tell a flat column from a single number; a missing number without an axis is a single one, too."""
    return isinstance(x, np.ndarray | Masked) and x.ndim > 0


def _repeated(x: Value, counts: Ints | None) -> Numbers:
    if isinstance(x, Jagged):
        return x.values
    if counts is None or not _is_flat(x):
        return x
    if isinstance(x, Masked):
        return Masked(np.repeat(x.values, counts), np.repeat(x.valid, counts))
    return np.repeat(x, counts)


def _mismatch(a: Ints, b: Ints, *operands: int) -> OperandError:
    event = int(np.flatnonzero(np.diff(a) != np.diff(b))[0])
    counts = f"event {event} has {a[event + 1] - a[event]} and {b[event + 1] - b[event]}"
    return OperandError(f"{{0}} and {{1}} have different numbers of objects: {counts}", *operands)


def elementwise(function: NumberFunction) -> Callable[..., Value]:
    """Lift a function of arrays to columns, flat ones broadcast over the objects of jagged ones."""

    def apply(*operands: Value) -> Value:
        offsets, parts = align(*operands)
        try:
            result = function(*parts)
        except RangeError as error:
            _locate(error, offsets)
        if offsets is None:
            return result
        return Jagged.of(offsets, result if isinstance(result, Masked) else np.asarray(result))

    return apply


def _locate(error: RangeError, offsets: Ints | None) -> NoReturn:
    """Say in which event a number does not fit."""
    if error.place is None:
        raise error
    event = error.place if offsets is None else int(np.searchsorted(offsets, error.place, side="right")) - 1
    located = ExpressionError(str(error).replace("the result", f"the result of event {event}"))
    located.event = event
    raise located from error


def _objects(x: Value, *, operand: int = 0) -> Jagged:
    if not isinstance(x, Jagged):
        raise OperandError(_ONE_NUMBER, operand)
    return x


def _present(x: Value) -> tuple[Jagged, Bools | None]:
    """Leave out missing objects.

    Returns
    -------
    objects, kept : those that are there, without a mask, and which of the given ones they are; ``None`` if all are
    """
    jagged = _objects(x)
    gone = find_missing(jagged.values)
    if gone is None:
        return Jagged(jagged.offsets, jagged.content), None
    return Jagged(jagged.offsets, jagged.content).take_objects(~gone), ~gone


def _reduce(ufunc: np.ufunc, content: Array, offsets: Ints, out: Array) -> Array:
    """Reduce the objects of each event; events without objects keep what ``out`` has for them."""
    some = offsets[1:] > offsets[:-1]
    # reduceat knows no empty stretch: it is shown only the starts of others, which lie end to end.
    out[some] = ufunc.reduceat(content, offsets[:-1][some])
    return out


def _filled(values: Array, there: Bools, fill: Number | None) -> Flat:
    """Give events without a value the ``fill``, if any, in a type that holds both, whatever the values are."""
    wide = values if is_boolean(values) or not is_whole(values) else values_of(widen(values))
    try:
        made = known(wide, there) if fill is None else where(there, wide, fill)
    except RangeError as error:
        _locate(error, None)
    return made if isinstance(made, Masked) else np.asarray(made)


def count(x: Value) -> Array:
    """Count the objects of each event that have a value."""
    return _present(x)[0].counts


def _accumulator(ufunc: np.ufunc, python: Callable[[int, int], int]) -> Reducer:
    """Make ``sum`` or ``prod``: whole numbers stay whole, real ones are summed in float64; none give 0 or 1."""

    def exactly(jagged: Jagged, estimate: Array) -> Array:
        content = values_of(widen(jagged.content))
        result = _reduce(ufunc, content, jagged.offsets, np.full(len(jagged), ufunc.identity, content.dtype))
        doubtful = beyond(estimate, content.dtype)
        if doubtful is not None:
            events = np.flatnonzero(doubtful)
            lists = (content[jagged.offsets[i] : jagged.offsets[i + 1]].tolist() for i in events)
            fill_exact(result, events, (reduce(python, numbers) for numbers in lists))
        return result

    def apply(x: Value) -> Array:
        jagged, _ = _present(x)
        none = np.full(len(jagged), ufunc.identity, np.float64)
        result = _reduce(ufunc, jagged.content.astype(np.float64), jagged.offsets, none)
        if not is_whole(jagged.content):
            return without_infinities(result)
        try:
            return exactly(jagged, result)
        except RangeError as error:
            _locate(error, None)

    return apply


total, product = _accumulator(np.add, operator.add), _accumulator(np.multiply, operator.mul)


def _extreme(ufunc: np.ufunc) -> Reducer:
    """Make ``min`` or ``max``."""

    def apply(x: Value, *, fill: Number | None = None) -> Flat:
        jagged, _ = _present(x)
        values = _reduce(ufunc, jagged.content, jagged.offsets, np.zeros(len(jagged), jagged.content.dtype))
        return _filled(values, jagged.counts > 0, fill)

    return apply


smallest, largest = _extreme(np.minimum), _extreme(np.maximum)


def _logical(ufunc: np.ufunc) -> Reducer:
    """Make ``any`` (False for no objects) or ``all`` (True)."""

    def apply(x: Value) -> Array:
        jagged, _ = _present(x)
        out = np.full(len(jagged), ufunc.identity, np.bool_)
        return _reduce(ufunc, values_of(truth(jagged.content, operand=0)), jagged.offsets, out)

    return apply


any_object, all_objects = _logical(np.logical_or), _logical(np.logical_and)


def _mean(x: Jagged) -> Array:
    sums = _reduce(np.add, x.content.astype(np.float64), x.offsets, np.zeros(len(x)))
    return sums / np.maximum(x.counts, 1)


def mean(x: Value, *, fill: Number | None = None) -> Flat:
    """Average the objects of each event."""
    jagged, _ = _present(x)
    return _filled(without_infinities(_mean(jagged)), jagged.counts > 0, fill)


def std(x: Value, *, fill: Number | None = None) -> Flat:
    """Give the standard deviation of the objects of each event, divided by their number (0 for one object)."""
    jagged, _ = _present(x)
    counts = jagged.counts
    deviations = jagged.content.astype(np.float64) - np.repeat(_mean(jagged), counts)
    spread = np.sqrt(_mean(Jagged(jagged.offsets, deviations**2)))
    return _filled(without_infinities(spread), counts > 0, fill)


def _local(x: Jagged) -> Ints:
    """Count along the objects of each event, from 0."""
    return np.arange(len(x.content)) - np.repeat(x.offsets[:-1], x.counts)


def _position(best: np.ufunc) -> Reducer:
    """Make ``argmin`` or ``argmax``: the first of equals."""

    def apply(x: Value, *, fill: Number | None = None) -> Flat:
        (jagged, kept), places = _present(x), _local(_objects(x))
        places = places if kept is None else places[kept]
        content, none = jagged.content, np.iinfo(np.int64).max
        extremes = _reduce(best, content, jagged.offsets, np.zeros(len(jagged), content.dtype))
        candidates = np.where(content == np.repeat(extremes, jagged.counts), places, none)
        first = _reduce(np.minimum, candidates, jagged.offsets, np.zeros(len(jagged), np.int64))
        return _filled(first, jagged.counts > 0, fill)

    return apply


argsmallest, arglargest = _position(np.minimum), _position(np.maximum)


def descending(x: Value) -> Jagged:
    """Sort the objects of each event from the largest to the smallest, missing ones last."""
    jagged = _objects(x)
    if jagged.valid is not None:
        order = order_of(jagged, descending=True)
        return jagged if order is None else Jagged.of(jagged.offsets, jagged.values[order])
    content, counts = jagged.content.copy(), jagged.counts
    # Events of equal counts make a rectangle, whose rows numpy sorts at once.
    for length in np.unique(counts):
        places = jagged.offsets[:-1][counts == length, np.newaxis] + np.arange(length)
        content[places] = _falling(content[places])
    return Jagged(jagged.offsets, content)


def positions(x: Value) -> Jagged:
    """Give the positions of the objects of each event in the order of :func:`descending`."""
    jagged = _objects(x)
    places, order = _local(jagged), order_of(jagged, descending=True)
    return Jagged(jagged.offsets, places if order is None else places[order])


def _falling(rows: Array) -> Array:
    return np.sort(rows, axis=1)[:, ::-1] if is_whole(rows) else -np.sort(-rows, axis=1)


def order_of(x: Jagged, *, descending: bool) -> Ints | None:
    """Order the objects within their events: ties in file order, missing ones last.

    Returns
    -------
    position of every object, or ``None`` where they are in order
    """
    # The complement of whole numbers runs the other way without a number that has no opposite.
    key = x.content if not descending else ~x.content if is_whole(x.content) else -x.content
    event = np.repeat(np.arange(len(x)), x.counts)
    gone = find_missing(x.values)
    if gone is None and not np.any((key[1:] < key[:-1]) & (event[1:] == event[:-1])):
        return None
    return np.lexsort((key, event) if gone is None or x.valid is None else (key, gone, event))


def pick(x: Value, index: Value, *, fill: Number | None = None) -> Flat:
    """Take the object at ``index`` (from the end where negative) of each event.

    Parameters
    ----------
    x : jagged
    index : a whole number, or a flat column of whole numbers
    fill : for events without this object, or without a value of it
    """
    jagged, (place, valid) = _objects(x), _whole_index(index)
    place = np.where(place < 0, place + jagged.counts, place)
    there = (place >= 0) & (place < jagged.counts)
    if valid is not None:
        there &= valid
    which = (jagged.offsets[:-1] + place)[there]
    out = np.zeros(len(jagged), jagged.content.dtype)
    out[there] = jagged.content[which]
    gone = find_missing(jagged.values)
    if gone is not None:
        there[there] = ~gone[which]
    return _filled(out, there, fill)


def _whole_index(index: Value) -> tuple[Ints, Bools | None]:
    """Read an index, and mark where there is one; large ones are cut to a number that is still beyond every list."""
    if isinstance(index, Jagged) or is_boolean(index):
        raise OperandError("{0} is no index; one whole number an event is needed", 1)
    if is_whole(index):
        place = values_of(widen(index))
        return np.maximum(np.minimum(place, _FAR).astype(np.int64), -_FAR), validity(index)
    number = np.asarray(index)
    gone = np.isnan(number)
    if not np.all(gone | (np.floor(number) == number)):
        raise OperandError("{0} is no index: it has values that are not whole", 1)
    return np.clip(np.where(gone, 0, number), -_FAR, _FAR).astype(np.int64), ~gone


def leading(x: Value, *, fill: Number | None = None) -> Flat:
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
    jagged = _objects(x)
    if not is_boolean(selector.content):
        return _linked(jagged, selector)
    align(jagged, selector)
    return jagged.take_objects(is_true(selector.values))


def _linked(x: Jagged, places: Jagged) -> Jagged:
    """Follow places in the lists of ``x``, such as ``Muon_jetIdx``; one that is negative or beyond leads nowhere."""
    if not is_whole(places.content):
        raise OperandError(
            "{0} selects no objects: a true/false column or whole numbers are needed, as in x[x > 30]", 1
        )
    if len(x) != len(places):
        raise OperandError("{0} and {1} have different numbers of events", 0, 1)
    place, valid = _whole_index(places.values)
    counts = np.repeat(x.counts, places.counts)
    there = (place >= 0) & (place < counts)
    if valid is not None:
        there &= valid
    which = (np.repeat(x.offsets[:-1], places.counts) + place)[there]
    out = np.zeros(len(place), x.content.dtype)
    out[there] = x.content[which]
    gone = find_missing(x.values)
    if gone is not None:
        there[there] = ~gone[which]
    return Jagged.of(places.offsets, _filled(out, there, None))


def is_true(x: Flat) -> Bools:
    """Mark where a condition is true: neither false nor unknown."""
    chosen = values_of(x).astype(np.bool_, copy=False)
    return chosen & x.valid if isinstance(x, Masked) else chosen


def cut(x: Value, *, start: int | None, stop: int | None) -> Jagged:
    """Take the objects ``x[start:stop]`` of each event, with Python's meaning of negative ends.

    Parameters
    ----------
    x : jagged
    start, stop : positions among the objects of an event; negative ones count from its end, None is the end itself
    """
    jagged = _objects(x)
    counts, places = jagged.counts, _local(jagged)
    low, high = (np.repeat(_end(bound, counts, default), counts) for bound, default in ((start, 0), (stop, _FAR)))
    return jagged.take_objects((places >= low) & (places < high))


def _end(bound: int | None, counts: Ints, default: int) -> Ints:
    place = int(np.clip(default if bound is None else bound, -_FAR, _FAR))
    return counts + place if place < 0 else np.full_like(counts, place)


# Pairs


def first_of_pairs(x: Value) -> Jagged:
    """Give, for all pairs of different objects of each event, the earlier object."""
    return _of_pairs(x, lambda first, _second: first)


def second_of_pairs(x: Value) -> Jagged:
    """Give, for all pairs of different objects of each event, the later object."""
    return _of_pairs(x, lambda _first, second: second)


def _of_pairs(x: Value, choose: Callable[[Ints, Ints], Ints]) -> Jagged:
    jagged = _objects(x)
    counts = jagged.counts
    later = np.repeat(counts, counts) - 1 - _local(jagged)  # objects behind each
    first = np.repeat(np.arange(len(later)), later)
    return _taken(jagged, choose(first, first + 1 + _within(later)), counts * (counts - 1) // 2)


def first_of_cross(x: Value, y: Value) -> Jagged:
    """Give the object of ``x`` of all pairs of an object of ``x`` and one of ``y`` in each event."""
    jagged, other = _objects(x), _objects(y, operand=1)
    each = np.repeat(other.counts, jagged.counts)
    return _taken(jagged, np.repeat(np.arange(len(each)), each), jagged.counts * other.counts)


def second_of_cross(x: Value, y: Value) -> Jagged:
    """Give the object of ``y`` of all pairs of an object of ``x`` and one of ``y`` in each event."""
    jagged, other = _objects(x), _objects(y, operand=1)
    each = np.repeat(other.counts, jagged.counts)
    which = np.repeat(np.repeat(other.offsets[:-1], jagged.counts), each) + _within(each)
    return _taken(other, which, jagged.counts * other.counts)


def _within(counts: Ints) -> Ints:
    """Count from 0 in each of some stretches of these lengths, which lie end to end."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _taken(x: Jagged, which: Ints, counts: Ints) -> Jagged:
    return Jagged.of(offsets_of(counts), x.values[which])


def invariant_mass(pt: Value, eta: Value, phi: Value, mass: Value) -> Array:
    """Give the invariant mass of all objects of each event together, 0 where there are none.

    Parameters
    ----------
    pt, eta, phi, mass : of the objects, in GeV and radians; jagged ones have the same counts, a flat one is the same
        for all objects of its event

    Raises
    ------
    OperandError
        Where none of the four is jagged.
    """
    offsets, parts = align(pt, eta, phi, mass)
    if offsets is None:
        raise OperandError(_ONE_NUMBER, 0)
    components = [_present(Jagged(offsets, settled(c)))[0] for c in _components(parts)]
    sums = (_reduce(np.add, c.content, c.offsets, np.zeros(len(c))) for c in components)
    return without_infinities(kinematics.mass_of(*sums))


def _components(parts: list[Numbers]) -> list[Array]:
    """Give the four-vectors of objects, NaN in all components where one of their properties is missing."""
    numbers = [real(x) for x in parts]
    gone = [marks for x in numbers if (marks := find_missing(x)) is not None]
    vectors = list(kinematics.four_vector(*numbers))
    return [np.where(np.logical_or.reduce(gone), np.nan, c) for c in vectors] if gone else vectors

"""Logic, comparisons and bits of numbers and columns, in which what is not known stays unknown (Kleene)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from rootdata.expressions.arithmetic import (
    LARGEST,
    NumberFunction,
    Numbers,
    OperandError,
    RangeError,
    bare,
    beside,
    beyond,
    common,
    doubt_operands,
    exactly,
    find_missing,
    in_type,
    is_boolean,
    is_whole,
    known,
    masked,
    validity,
    widen,
)
from rootdata.missing import Array, Bools, Masked, values_of

_BITS = 64


def truth(x: Numbers, *, operand: int) -> Array | Masked:
    """Read as true/false: booleans as they are, integers as flags (0 is false).

    Raises
    ------
    OperandError
        If ``x`` is real: whether 0.3 is true is not for us to guess.
    """
    if not is_whole(x):
        raise OperandError("{0} is a number, neither true nor false; compare it with something: x > 0", operand)
    return masked(np.asarray(bare(x), np.bool_), validity(x))


def _logic(decisive: bool) -> NumberFunction:
    """Make ``or`` or ``and`` of three-valued logic (Kleene): one true operand decides ``or``, one false ``and``."""
    some, every = (np.logical_or, np.logical_and) if decisive else (np.logical_and, np.logical_or)

    def apply(*operands: Numbers) -> Numbers:
        parts = [truth(x, operand=i) for i, x in enumerate(operands)]
        if not any(isinstance(x, Masked) for x in parts):
            return _joined(some, parts)
        true = _joined(some, [_surely(x, True) for x in parts])
        return masked(true, true | _joined(every, [_surely(x, False) for x in parts]))

    return apply


def _joined(ufunc: np.ufunc, parts: list[Any]) -> Bools:
    result = parts[0]
    for part in parts[1:]:
        result = ufunc(result, part)
    return np.asarray(result)


def _surely(x: Array | Masked, value: bool) -> Bools:
    is_it = values_of(x) if value else ~values_of(x)
    return is_it & x.valid if isinstance(x, Masked) else is_it


all_of, any_of = _logic(decisive=False), _logic(decisive=True)


def inverse(x: Numbers) -> Numbers:
    """Turn true into false; unknown stays unknown."""
    given = truth(x, operand=0)
    return masked(~values_of(given), validity(given))


def is_one_of(x: Numbers, *values: Numbers) -> Numbers:
    """Tell where a number equals one of some values."""
    equal = comparing(np.equal)
    return any_of(*(equal(x, value) for value in values))


# Bits


def _bitwise(
    ufunc: np.ufunc,
    python: Callable[[int, int], int],
    logic: NumberFunction,
    *,
    remedy: str = "compare it first: (x > 0)",
) -> NumberFunction:
    """Make ``&``, ``|`` or ``^``: logic on booleans, bit masks on integers, nothing on a mixture."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        if is_boolean(a) and is_boolean(b):
            return logic(a, b)
        for i, x in enumerate((a, b)):
            if not is_whole(x) or (is_boolean(a) != is_boolean(b) and not is_boolean(x)):
                raise OperandError(f"{{0}} is a number, not true or false; {remedy}", i)
        return exactly(ufunc, python, doubt_operands, a, b)

    return apply


def _either(a: Numbers, b: Numbers) -> Numbers:
    return masked(np.logical_xor(bare(a), bare(b)), validity(a, b))


bit_and = _bitwise(np.bitwise_and, operator.and_, all_of)
bit_or = _bitwise(np.bitwise_or, operator.or_, any_of)
exclusive_or = _bitwise(np.bitwise_xor, operator.xor, _either, remedy="^ is the exclusive or, a power is written x**2")


def complement(x: Numbers) -> Numbers:
    """Turn true into false; of a whole number, turn each bit: ``-x - 1``, of a uint64 column unsigned."""
    if is_boolean(x):
        return inverse(x)
    if not is_whole(x):
        raise OperandError("~ turns true into false, and {0} is a number; compare it first: ~(x > 0)", 0)
    return masked(np.invert(values_of(widen(x))), validity(x))


def opposite(x: Numbers) -> Numbers:
    """Turn true into false, where ``~`` stands for a condition: bits turned are hardly ever all 0."""
    if not is_boolean(x):
        raise OperandError("~ turns the bits of a number, which says nothing of true or false; write `not` {0}", 0)
    return inverse(x)


def _shift(move: Callable[[Array, Array], Array], python: Callable[[int, int], int]) -> NumberFunction:
    """Make ``<<`` or ``>>``: exact or refused, missing where a number of places is negative."""

    def doubt(x: Array, y: Array, dtype: np.dtype[Any]) -> Bools | None:
        far = np.minimum(y, _BITS).astype(np.float64)
        moved = beyond(x * 2.0 ** (far if python is operator.lshift else -far), dtype)
        large = doubt_operands(x, np.zeros((), np.int64), dtype)
        marks = [np.broadcast_to(m, np.broadcast_shapes(x.shape, y.shape)) for m in (moved, large) if m is not None]
        return np.logical_or.reduce(marks) if marks else None

    def apply(a: Numbers, b: Numbers) -> Numbers:
        for i, x in enumerate((a, b)):
            if not is_whole(x):
                raise OperandError("{0} is a real number, which has no bits to shift; write int({0})", i)
        places = values_of(widen(b))
        none = places < 0
        far = masked(np.where(none, 0, np.minimum(places, 2 * _BITS)).astype(np.int64), validity(b))
        return known(in_type(common(a), move, python, doubt, a, far), np.asarray(~none))

    return apply


def _leftwards(x: Array, places: Array) -> Array:
    moved: Array = np.left_shift(x, np.minimum(places, x.dtype.type(_BITS - 1)))
    return moved


def _rightwards(x: Array, places: Array) -> Array:
    far = x.dtype.type(_BITS - 1)
    moved: Array = np.right_shift(x, np.minimum(places, far))
    return moved if x.dtype.kind == "i" else np.where(places > far, x.dtype.type(0), moved)


shift_left, shift_right = _shift(_leftwards, operator.lshift), _shift(_rightwards, operator.rshift)


# Choices


def where(condition: Numbers, a: Numbers, b: Numbers) -> Numbers:
    """Take ``a`` where the condition is true, ``b`` where it is false, nothing where it is unknown.

    Parameters
    ----------
    condition : truth values, or whole numbers, of which 0 is false
    a, b : of the shape of ``condition``, or one number each; a missing one matters only where it is taken
    """
    chosen = truth(condition, operand=0)
    is_true, sure = values_of(chosen), validity(chosen)
    if is_whole(a) and is_whole(b):
        return _whole_where(is_true, sure, a, b)
    result = np.where(is_true, beside(a, b), beside(b, a))
    return result if sure is None else known(result, sure)


def _whole_where(is_true: Bools, sure: Bools | None, a: Numbers, b: Numbers) -> Numbers:
    dtype = np.dtype(np.bool_) if is_boolean(a) and is_boolean(b) else common(a, b)
    parts = [np.asarray(bare(x)) for x in (a, b)]
    result = np.where(is_true, *(x.astype(dtype, copy=False) for x in parts))
    masks = [x.valid if isinstance(x, Masked) else np.True_ for x in (a, b)]
    valid = sure if validity(a, b) is None else np.where(is_true, *masks) & (True if sure is None else sure)
    large = doubt_operands(np.where(is_true, parts[0], 0), np.where(is_true, 0, parts[1]), dtype)
    if large is not None and (places := np.flatnonzero(large if valid is None else large & valid)).size:
        raise RangeError(int(places[0]) if result.ndim else None)
    return masked(result, valid)


# Comparisons


def comparing(*ufuncs: np.ufunc) -> NumberFunction:
    """Make a chain of comparisons, such as ``0 < x < 5``; unknown where an operand is missing."""

    def apply(*operands: Numbers) -> Numbers:
        pairs = zip(ufuncs, operands[:-1], operands[1:], strict=True)
        return all_of(*(_compared(ufunc, a, b) for ufunc, a, b in pairs))

    return apply


def _compared(ufunc: np.ufunc, a: Numbers, b: Numbers) -> Numbers:
    if is_whole(a) and is_whole(b):
        # Of Python's numbers numpy takes those above 2**63 from arrays only.
        x, y = (np.asarray(z) if isinstance(z, int) and z > LARGEST else z for z in (bare(a), bare(b)))
        return masked(ufunc(x, y), validity(a, b))
    x, y = beside(a, b), beside(b, a)
    result, valid = np.asarray(ufunc(x, y)), None
    for gone in (find_missing(x), find_missing(y)):
        if gone is not None:
            valid = ~gone if valid is None else valid & ~gone
    return masked(result, valid)

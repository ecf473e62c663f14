"""Arithmetic on numbers and numpy arrays in which whole numbers stay exact.

Whole numbers (booleans count as 0 and 1) of any width are worked on in 64 bits: signed, or unsigned where some value
needs it. They never pass through float64, which would merge neighbouring event numbers above 2**53, nor wrap round
silently: a result that does not fit is an error. Real columns keep their width, as numpy does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ExpressionError

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Number = bool | int | float
Numbers = Number | Array
Operation = Callable[..., Numbers]

# The range is checked on float64 estimates; the margin is wider than all their roundings.
_SAFE = 1 - 2.0**-50
_TOO_LARGE = "does not fit into a 64-bit integer; write 1.0 * x to work with real numbers"


class OperandError(ExpressionError):
    """Operands that do not fit an operation.

    Parameters
    ----------
    template : the sentence, with ``{0}``, ``{1}`` where the operands stand
    operands : which operands these are, counted from 0
    """

    def __init__(self, template: str, *operands: int) -> None:
        super().__init__(template.format(*(f"operand {i + 1}" for i in operands)))
        self.template = template
        self.operands = operands

    def named(self, names: list[str]) -> str:
        """Write the sentence with the operands' own words."""
        return self.template.format(*(f"'{names[i]}'" for i in self.operands))


def is_whole(x: Numbers) -> bool:
    """Tell whether ``x`` holds integers or booleans."""
    return x.dtype.kind in "biu" if isinstance(x, np.ndarray | np.generic) else isinstance(x, int)


def is_boolean(x: Numbers) -> bool:
    """Tell whether ``x`` holds booleans."""
    return x.dtype.kind == "b" if isinstance(x, np.ndarray | np.generic) else isinstance(x, bool)


def widen(x: Numbers) -> Array:
    """Give whole numbers 64 bits: signed, or unsigned where a value needs it."""
    array = np.asarray(x)
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        return array
    return array.astype(np.int64, copy=False)


def alike(*operands: Numbers) -> list[Array]:
    """Bring whole numbers to the one 64-bit type that holds them all."""
    wide = [widen(x) for x in operands]
    if any(x.dtype == np.uint64 for x in wide):
        if any(x.dtype == np.int64 and x.min(initial=0) < 0 for x in wide):
            raise ExpressionError(f"a number above 2**63 next to a negative one {_TOO_LARGE}")
        wide = [x.astype(np.uint64, copy=False) for x in wide]
    return wide


def real(x: Numbers) -> Numbers:
    """Make whole numbers float64; leave real ones as wide as they are."""
    if not is_whole(x):
        return x
    # A Python float is weak: a constant does not widen the column it meets.
    return x.astype(np.float64) if isinstance(x, np.ndarray) else float(x)


def check_range(estimate: Array, dtype: np.dtype[Any]) -> None:
    """Refuse whole results beyond 64 bits, given their float64 estimates."""
    limits = np.iinfo(dtype)
    top, bottom = estimate.max(initial=0.0), estimate.min(initial=0.0)
    if not (top < limits.max * _SAFE and bottom >= limits.min * _SAFE):
        raise ExpressionError(f"the result {_TOO_LARGE}")


def _exactly(ufunc: np.ufunc, a: Array, b: Array) -> Array:
    """Apply to whole numbers of one 64-bit type."""
    if ufunc is np.subtract and a.dtype == np.uint64 and (a < b).any():
        raise ExpressionError(f"a negative difference of numbers above 2**63 {_TOO_LARGE}")
    with np.errstate(all="ignore"):
        check_range(np.asarray(ufunc(a.astype(np.float64), b.astype(np.float64))), a.dtype)
    result: Array = ufunc(a, b)
    return result


def _binary(ufunc: np.ufunc) -> Operation:
    """Make an operation that is exact on whole numbers."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        whole = is_whole(a) and is_whole(b)
        result: Numbers = _exactly(ufunc, *alike(a, b)) if whole else ufunc(a, b)
        return result

    return apply


def _dividing(ufunc: np.ufunc) -> Operation:
    """Make an operation that is exact on whole numbers, but for divisors of 0, whose nan or inf needs real numbers."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        whole = is_whole(a) and is_whole(b) and np.all(b)
        result: Numbers = ufunc(*alike(a, b)) if whole else ufunc(real(a), real(b))
        return result

    return apply


def _matching(ufunc: np.ufunc) -> Operation:
    """Make an operation that picks one of its operands, whole or real."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        operands = alike(a, b) if is_whole(a) and is_whole(b) else (a, b)
        result: Numbers = ufunc(*operands)
        return result

    return apply


def of_real(ufunc: np.ufunc) -> Operation:
    """Make a function of real numbers; whole ones are taken as float64, never float16."""

    def apply(*operands: Numbers) -> Numbers:
        result: Numbers = ufunc(*(real(x) for x in operands))
        return result

    return apply


def _rounding(function: Operation) -> Operation:
    """Make a function that has nothing to do for whole numbers."""

    def apply(x: Numbers) -> Numbers:
        return widen(x) if is_whole(x) else function(x)

    return apply


add, subtract, multiply = _binary(np.add), _binary(np.subtract), _binary(np.multiply)
floor_divide, remainder = _dividing(np.floor_divide), _dividing(np.remainder)
divide = of_real(np.true_divide)
minimum, maximum = _matching(np.minimum), _matching(np.maximum)
floor, ceil, nearest_whole = _rounding(np.floor), _rounding(np.ceil), _rounding(np.round)


def power(a: Numbers, b: Numbers) -> Numbers:
    """Raise to a power; whole numbers stay whole unless an exponent is negative."""
    if is_whole(a) and is_whole(b):
        negative = np.any(np.less(b, 0))
        return np.power(real(a), real(b)) if negative else _exactly(np.power, *alike(a, b))
    # The operator of arrays knows shortcuts for squares and roots that the ufunc lacks.
    result: Numbers = operator.pow(a, b) if isinstance(a, np.ndarray) else np.power(a, b)
    return result


def negative(x: Numbers) -> Numbers:
    """Change the sign."""
    result: Numbers = subtract(0, x) if is_whole(x) else np.negative(x)
    return result


def positive(x: Numbers) -> Numbers:
    """Keep the sign."""
    return widen(x) if is_whole(x) else x


def absolute(x: Numbers) -> Numbers:
    """Drop the sign."""
    number = positive(x)
    if is_whole(number) and np.any(np.equal(number, np.iinfo(np.int64).min)):
        raise ExpressionError(f"the result {_TOO_LARGE}")
    result: Numbers = np.abs(number)
    return result


def sign(x: Numbers) -> Numbers:
    """Give -1, 0 or 1."""
    result: Numbers = np.sign(positive(x))
    return result


def clip(x: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Move values outside ``[low, high]`` to its nearer end."""
    return minimum(maximum(x, low), high)


def truth(x: Numbers, *, operand: int) -> Bools:
    """Read as true/false: booleans as they are, integers as flags (0 is false).

    Raises
    ------
    OperandError
        If ``x`` is real: whether nan or 0.3 is true is not for us to guess.
    """
    if not is_whole(x):
        raise OperandError("{0} is a number, neither true nor false; compare it with something: x > 0", operand)
    return np.asarray(x, np.bool_)


def _logic(ufunc: np.ufunc) -> Operation:
    def apply(*operands: Numbers) -> Numbers:
        result = truth(operands[0], operand=0)
        for i, x in enumerate(operands[1:], start=1):
            result = ufunc(result, truth(x, operand=i))
        return result

    return apply


all_of, any_of = _logic(np.logical_and), _logic(np.logical_or)


def inverse(x: Numbers) -> Numbers:
    """Turn true into false."""
    return ~truth(x, operand=0)


def _bits(ufunc: np.ufunc) -> Operation:
    """Make ``&`` or ``|``: logic on booleans, bit masks on integers, nothing on a mixture."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        if is_boolean(a) and is_boolean(b):
            both: Numbers = ufunc(a, b)
            return both
        for i, x in enumerate((a, b)):
            if not is_whole(x) or (is_boolean(a) != is_boolean(b) and not is_boolean(x)):
                raise OperandError("{0} is a number, not true or false; compare it first: (x > 0)", i)
        result: Numbers = ufunc(*alike(a, b))
        return result

    return apply


bit_and, bit_or = _bits(np.bitwise_and), _bits(np.bitwise_or)


def exclusive_or(a: Numbers, b: Numbers) -> Numbers:
    """Tell where exactly one of two booleans is true."""
    for i, x in enumerate((a, b)):
        if not is_boolean(x):
            raise OperandError("^ is the exclusive or, and {0} is a number; a power is written x**2", i)
    result: Numbers = np.logical_xor(a, b)
    return result


def complement(x: Numbers) -> Numbers:
    """Turn true into false, booleans only."""
    if not is_boolean(x):
        raise OperandError("~ turns true into false, and {0} is a number; compare it first: ~(x > 0)", 0)
    return np.logical_not(x)


def where(condition: Numbers, a: Numbers, b: Numbers) -> Numbers:
    """Take ``a`` where the condition is true, ``b`` elsewhere."""
    chosen = truth(condition, operand=0)
    if is_whole(a) and is_whole(b) and not (is_boolean(a) and is_boolean(b)):
        a, b = alike(a, b)
    return np.where(chosen, a, b)


def comparing(*ufuncs: np.ufunc) -> Operation:
    """Make a chain of comparisons, ``0 < x < 5``, of one operand more than it has signs."""

    def apply(*operands: Numbers) -> Numbers:
        # Of Python's numbers numpy takes those above 2**63 from arrays only.
        known = [np.asarray(x) if isinstance(x, int) and x >= 2**63 else x for x in operands]
        return all_of(*(np.asarray(ufunc(a, b)) for ufunc, a, b in zip(ufuncs, known[:-1], known[1:], strict=True)))

    return apply

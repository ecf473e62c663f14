"""Arithmetic on numbers and columns in which whole numbers stay exact and what is missing stays missing.

Whole numbers (booleans count as 0 and 1) of any width are worked on in 64 bits. They never pass through float64, which
would merge neighbouring event numbers above 2**53, nor wrap round silently: a result that does not fit is an error that
says where. Real columns keep their width, as numpy does; in them NaN is what is missing, and infinities become NaN.

The type of a result follows from the types of the operands alone, and each of its values from its own operands:
whole numbers give whole ones, int64, or uint64 where a uint64 column meets no signed one. What has no whole result (a
divisor of 0, a negative exponent) is missing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ExpressionError
from rootdata.missing import Array, Bools, Masked, as_real, values_of, without_infinities

Number = bool | int | float
Plain = Number | Array
Numbers = Plain | Masked
NumberFunction = Callable[..., Numbers]
Doubt = Callable[[Array, Array, np.dtype[Any]], "Bools | None"]

# Whether a result fits is told by estimates in float64; the margin is wider than all their roundings.
_MARGIN = 2.0**-40
_HUGE_POWER = 100
_SMALL = 63  # bits of a result that fits in any case
LARGEST = np.iinfo(np.int64).max
_SIGNED, _UNSIGNED = np.dtype(np.int64), np.dtype(np.uint64)
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


class RangeError(ExpressionError):
    """A whole number that 64 bits do not hold.

    Parameters
    ----------
    place : position of the result in its column; ``None`` for a constant
    """

    def __init__(self, place: int | None = None) -> None:
        super().__init__(f"the result {_TOO_LARGE}")
        self.place = place


# What operands are


def is_whole(x: Numbers) -> bool:
    """Tell whether ``x`` holds integers or booleans."""
    return x.dtype.kind in "biu" if isinstance(x, np.ndarray | np.generic | Masked) else isinstance(x, int)


def is_boolean(x: Numbers) -> bool:
    """Tell whether ``x`` holds booleans."""
    return x.dtype.kind == "b" if isinstance(x, np.ndarray | np.generic | Masked) else isinstance(x, bool)


def bare(x: Numbers) -> Plain:
    """Return values without their mask."""
    return x.values if isinstance(x, Masked) else x


def common(*operands: Numbers) -> np.dtype[Any]:
    """Choose the type in which whole numbers meet: unsigned where a uint64 column meets nothing that has a sign.

    A literal of 0 or above has none, nor has a column of booleans or of a narrower unsigned type.
    """
    kinds = [_sign_of(x) for x in operands]
    return _UNSIGNED if "u" in kinds and "i" not in kinds else _SIGNED


def _sign_of(x: Numbers) -> str:
    """Say whether whole numbers are signed (i), need unsigned 64 bits (u), or fit into either (n)."""
    if isinstance(x, int):
        return "i" if x < 0 else "u" if x > LARGEST else "n"
    dtype = np.asarray(bare(x)).dtype
    return "u" if dtype == np.uint64 else "i" if dtype.kind == "i" else "n"


def widen(x: Numbers) -> Array | Masked:
    """Give whole numbers 64 bits: signed, but for uint64 columns."""
    return masked(np.asarray(bare(x)).astype(common(x), copy=False), validity(x))


def find_missing(x: Numbers) -> Bools | None:
    """Mark what has no value; ``None`` where nothing is missing."""
    if isinstance(x, Masked):
        return ~x.valid
    if is_whole(x):
        return None
    gone = np.isnan(x)
    return np.asarray(gone) if gone.any() else None


def validity(*operands: Numbers) -> Bools | None:
    """Mark where all operands that are masked have a value; ``None`` where none is masked."""
    valid = None
    for x in operands:
        if isinstance(x, Masked):
            valid = x.valid if valid is None else valid & x.valid
    return valid


def masked(values: Any, valid: Bools | None) -> Array | Masked:
    """Join whole numbers and what is valid of them."""
    if valid is None or valid.all():
        return np.asarray(values)
    return Masked(np.asarray(values), np.broadcast_to(valid, np.shape(values)))


def known(values: Numbers, there: Bools) -> Numbers:
    """Let values, whole or real, be missing where ``there`` is false."""
    if is_whole(values):
        mine = validity(values)
        return masked(bare(values), there if mine is None else there & mine)
    return values if there.all() else np.where(there, bare(values), np.nan)


def real(x: Numbers) -> Plain:
    """Make whole numbers float64; leave real ones as wide as they are."""
    if isinstance(x, Masked):
        # A Python float is weak: a constant does not widen the column it meets.
        return as_real(x) if x.ndim else float("nan")
    if not is_whole(x):
        return x
    return x.astype(np.float64) if isinstance(x, np.ndarray) else float(x)


def beside(x: Numbers, *others: Numbers) -> Plain:
    """Prepare an operand of an operation on real numbers, of the type that numpy would give it there."""
    if not isinstance(x, Masked) or not x.ndim:
        return real(x) if isinstance(x, Masked | int) else x
    types = (o if isinstance(o, int | float) else np.asarray(bare(o)).dtype for o in others)
    return as_real(x, np.result_type(x.dtype, *types))


def settled(x: Any) -> Any:
    """Turn infinite results into NaN."""
    if isinstance(x, np.ndarray) and x.ndim:
        return without_infinities(x) if x.dtype.kind == "f" else x
    return x if np.isfinite(x) else x - x  # infinity less itself: NaN of the same type


# Whole numbers


def exactly(ufunc: np.ufunc, python: Callable[[int, int], int], doubt: Doubt, a: Numbers, b: Numbers) -> Numbers:
    """Apply to whole numbers in the type in which they meet, see :func:`in_type`.

    Parameters
    ----------
    ufunc, python, doubt : as :func:`in_type` takes them
    a, b : the operands
    """
    return in_type(common(a, b), ufunc, python, doubt, a, b)


def in_type(
    dtype: np.dtype[Any],
    ufunc: Callable[..., Any],
    python: Callable[[int, int], int],
    doubt: Doubt,
    a: Numbers,
    b: Numbers,
) -> Numbers:
    """Apply to whole numbers in 64 bits, and anew in Python where the result is in doubt.

    Parameters
    ----------
    dtype : of the result, int64 or uint64
    ufunc : the operation on arrays of this type
    python : the same on Python's integers, of any size
    doubt : marks the results that may be wrong
    a, b : the operands

    Raises
    ------
    RangeError
        For a result that does not fit.
    """
    valid = validity(a, b)
    x, y = np.asarray(bare(a)), np.asarray(bare(b))
    result = np.asarray(ufunc(x.astype(dtype, copy=False), y.astype(dtype, copy=False)))
    doubtful = doubt(x, y, dtype)
    if doubtful is not None:
        places = np.flatnonzero(np.broadcast_to(doubtful if valid is None else doubtful & valid, result.shape))
        lefts, rights = (np.broadcast_to(z, result.shape).reshape(-1)[places].tolist() for z in (x, y))
        fill_exact(result, places, (python(p, q) for p, q in zip(lefts, rights, strict=True)))
    return masked(result, valid)


def fill_exact(result: Array, places: npt.NDArray[np.int64], exact: Any) -> None:
    """Write Python integers into an array of whole numbers.

    Parameters
    ----------
    result : whole numbers, of any shape; changed in place
    places : (n,) positions in ``result``, counted in C order
    exact : n Python integers, in the order of ``places``

    Raises
    ------
    RangeError
        For one that does not fit.
    """
    limits = np.iinfo(result.dtype)
    for place, value in zip(places.tolist(), exact, strict=True):
        if not limits.min <= value <= limits.max:
            raise RangeError(place if result.ndim else None)
        result.reshape(-1)[place] = value


def truncated(x: Numbers) -> Numbers:
    """Drop what is behind the point, and make whole numbers of real ones; NaN is missing.

    Raises
    ------
    RangeError
        For a number that 64 bits do not hold.
    """
    if is_whole(x):
        return widen(x)
    number = np.trunc(np.asarray(x, np.float64))
    there = ~np.isnan(number)
    some = np.where(there, number, 0.0)
    if (doubtful := beyond(some, _SIGNED)) is not None:
        raise RangeError(int(np.flatnonzero(doubtful)[0]) if number.ndim else None)
    return masked(some.astype(np.int64), there)


def beyond(estimate: Array, dtype: np.dtype[Any]) -> Bools | None:
    """Mark whole results that may not fit, by their estimates in float64; ``None`` where all do."""
    limits = np.iinfo(dtype)
    low, high = limits.min * (1 - _MARGIN), limits.max * (1 - _MARGIN)
    if estimate.min(initial=0.0) >= low and estimate.max(initial=0.0) <= high:  # false for NaN, too
        return None
    return ~((estimate >= low) & (estimate <= high))


def _bits_of_type(x: Array) -> int:
    return 8 * x.dtype.itemsize


def _bits_of_values(x: Array) -> int:
    return max(abs(int(x.min(initial=0))), abs(int(x.max(initial=0)))).bit_length()


def _doubt_range(ufunc: np.ufunc, bits: Callable[[int, int], int]) -> Doubt:
    """Doubt results that may leave the range; operands may, as sums and products are right modulo 2**64."""

    def doubt(x: Array, y: Array, dtype: np.dtype[Any]) -> Bools | None:
        # Most need no estimate, which takes longer than the operation itself.
        if any(bits(size(x), size(y)) <= _SMALL for size in (_bits_of_type, _bits_of_values)):
            return None
        return beyond(np.asarray(ufunc(x, y, dtype=np.float64)), dtype)

    return doubt


def doubt_operands(x: Array, y: Array, dtype: np.dtype[Any]) -> Bools | None:
    """Doubt results of unsigned operands that do not fit into the signed type of the result.

    Parameters
    ----------
    x, y : the operands
    dtype : of the result
    """
    large = [z > LARGEST for z in (x, y) if z.dtype == np.uint64 and dtype == _SIGNED]
    return np.asarray(np.logical_or.reduce(np.broadcast_arrays(*large))) if large else None


def _doubt_quotients(x: Array, y: Array, dtype: np.dtype[Any]) -> Bools | None:
    """Doubt unsigned operands that don't fit, and the lowest number, whose negative does not fit."""
    doubtful = doubt_operands(x, y, dtype)
    if dtype == _SIGNED and (y == -1).any():
        lowest = (x == -LARGEST - 1) & (y == -1)
        return np.asarray(lowest if doubtful is None else doubtful | lowest)
    return doubtful


def _power_of(base: int, exponent: int) -> int:
    """Raise to a power, no further than is needed to see that it does not fit."""
    size = max(abs(base), 1).bit_length() - 1
    return 2**65 if size * exponent > 65 else base**exponent


_doubt_sums = _doubt_range(np.add, lambda a, b: max(a, b) + 1)
_doubt_differences = _doubt_range(np.subtract, lambda a, b: max(a, b) + 1)
_doubt_products = _doubt_range(np.multiply, operator.add)
_doubt_powers = _doubt_range(np.power, lambda _a, _b: _SMALL + 1)


def _binary(ufunc: np.ufunc, python: Callable[[int, int], int], doubt: Doubt) -> NumberFunction:
    """Make an operation that is exact on whole numbers."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        if is_whole(a) and is_whole(b):
            return exactly(ufunc, python, doubt, a, b)
        result: Numbers = settled(ufunc(beside(a, b), beside(b, a)))
        return result

    return apply


def _dividing(ufunc: np.ufunc, python: Callable[[int, int], int]) -> NumberFunction:
    """Make an operation that is exact on whole numbers, and missing where the divisor is 0."""

    def apply(a: Numbers, b: Numbers) -> Numbers:
        if not (is_whole(a) and is_whole(b)):
            result: Numbers = settled(ufunc(beside(a, b), beside(b, a)))
            return result
        divisor = np.asarray(bare(b))
        none = divisor == 0
        if not none.any():
            return exactly(ufunc, python, _doubt_quotients, a, b)
        one = known(masked(np.where(none, divisor.dtype.type(1), divisor), validity(b)), np.asarray(~none))
        dtype = common(a, b)  # of the operands as they were given: a literal 0 has no sign
        return in_type(dtype, ufunc, python, _doubt_quotients, a, one)

    return apply


def subtract(a: Numbers, b: Numbers) -> Numbers:
    """Take the difference: of whole numbers, signed."""
    if is_whole(a) and is_whole(b):
        return in_type(_SIGNED, np.subtract, operator.sub, _doubt_differences, a, b)
    result: Numbers = settled(np.subtract(beside(a, b), beside(b, a)))
    return result


add, multiply = _binary(np.add, operator.add, _doubt_sums), _binary(np.multiply, operator.mul, _doubt_products)
minimum, _maximum = _binary(np.minimum, min, doubt_operands), _binary(np.maximum, max, doubt_operands)
floor_divide, remainder = _dividing(np.floor_divide, operator.floordiv), _dividing(np.remainder, operator.mod)


def maximum(a: Numbers, b: Numbers) -> Numbers:
    """Take the larger number; of an unsigned and a signed one it is unsigned, as it is never below 0."""
    is_mixed = is_whole(a) and is_whole(b) and {_sign_of(a), _sign_of(b)} == {"u", "i"}
    return _maximum(*(_floored(x) if is_mixed else x for x in (a, b)))


def _floored(x: Numbers) -> Numbers:
    """Make whole numbers unsigned; those below 0 become 0."""
    return masked(np.maximum(np.asarray(bare(x)), 0).astype(_UNSIGNED), validity(x))


def power(a: Numbers, b: Numbers) -> Numbers:
    """Raise to a power; of whole numbers whole, missing where an exponent is negative.

    A negative literal makes the result real, as it says so of every event.
    """
    is_literal = isinstance(b, int) and b < 0
    if is_whole(a) and is_whole(b) and not is_literal:
        return _whole_power(a, b)
    base, exponent = beside(real(a) if is_literal else a, b), beside(b, a)
    # The operator of arrays knows shortcuts for squares and roots that the ufunc lacks.
    result = operator.pow(base, exponent) if isinstance(base, np.ndarray) else np.power(base, exponent)
    none = [gone for x in (base, exponent) if (gone := find_missing(x)) is not None]  # nan**0 and 1**nan are 1
    powers: Numbers = settled(np.where(np.logical_or.reduce(none), np.nan, result) if none else result)
    return powers


def _whole_power(a: Numbers, b: Numbers) -> Numbers:
    exponent, dtype = np.asarray(bare(b)), common(a, b)
    none = exponent < 0
    # From there on only 0, 1 and -1 have powers that fit, and these look at no more than the last bit.
    some = np.where(exponent > _HUGE_POWER, _HUGE_POWER + exponent % 2, np.where(none, 0, exponent))
    powers = in_type(dtype, np.power, _power_of, _doubt_powers, a, masked(some.astype(exponent.dtype), validity(b)))
    return known(powers, np.asarray(~none))


# Real numbers


def of_real(function: Callable[..., Any]) -> NumberFunction:
    """Make a function of real numbers; whole ones are taken as float64, never float16."""

    def apply(*operands: Numbers) -> Numbers:
        result: Numbers = settled(function(*(real(x) for x in operands)))
        return result

    return apply


divide = of_real(np.true_divide)


def _rounding(function: Callable[..., Any]) -> NumberFunction:
    """Make a function that rounds real numbers and leaves whole ones as they are."""

    def apply(x: Numbers) -> Numbers:
        result: Numbers = widen(x) if is_whole(x) else function(x)
        return result

    return apply


floor, ceil, nearest_whole = _rounding(np.floor), _rounding(np.ceil), _rounding(np.round)
positive = _rounding(lambda x: x)


def negative(x: Numbers) -> Numbers:
    """Change the sign."""
    result: Numbers = subtract(0, x) if is_whole(x) else np.negative(bare(x))
    return result


def absolute(x: Numbers) -> Numbers:
    """Drop the sign."""
    if not is_whole(x):
        result: Numbers = np.abs(bare(x))
        return result
    wide, valid = widen(x), validity(x)
    lowest = values_of(wide) == -LARGEST - 1
    if lowest.any() and (places := np.flatnonzero(lowest if valid is None else lowest & valid)).size:
        raise RangeError(int(places[0]) if wide.ndim else None)
    return masked(np.abs(values_of(wide)), valid)


def sign(x: Numbers) -> Numbers:
    """Give -1, 0 or 1."""
    if not is_whole(x):
        result: Numbers = np.sign(bare(x))
        return result
    return masked(np.sign(bare(widen(x))), validity(x))


def clip(x: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Move values outside ``[low, high]`` to its nearer end.

    Parameters
    ----------
    x : numbers, masked where they are missing
    low, high : ends of the range, of the shape of ``x`` or one number; a missing end makes the result missing
    """
    return minimum(maximum(x, low), high)


def is_missing(x: Numbers) -> Numbers:
    """Tell where there is no value; that itself is always known."""
    gone = find_missing(x)
    return np.zeros(np.shape(bare(x)), np.bool_) if gone is None else gone


def is_present(x: Numbers) -> Numbers:
    """Tell where there is a value."""
    return ~np.asarray(is_missing(x))

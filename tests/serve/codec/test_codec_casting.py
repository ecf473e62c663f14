"""Casting: exact where exactness is promised, compared with Python's own integers and floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from codec_strategies import NUMBER_TYPES, numbers
from hypothesis import given
from hypothesis import strategies as st

from serve.codec.casting import from_array, from_list, in_events, in_lists, in_rows
from serve.errors import InvalidEvents

TYPES = st.sampled_from(NUMBER_TYPES).map(np.dtype)
edges = st.sampled_from([0, 1, 2**7, 2**8, 2**15, 2**16, 2**24, 2**31, 2**32, 2**53, 2**63, 2**64])
integers = st.builds(lambda edge, step, sign: sign * (edge + step), edges, st.integers(-2, 2), st.sampled_from([-1, 1]))
# What a JSON parser makes of an integer beyond 64 bits is a float.
parsed = integers.map(lambda i: i if -(2**63) <= i < 2**64 else float(i))
fractions = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.5, 1e39, -1e39, 3.5e38, 1e300])


def fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Say, the slow way, whether a value may become a number of a type."""
    if value is None:
        return dtype.kind == "f"
    if type(value) is bool:
        return dtype.kind == "b"
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return not math.isinf(float(np.float64(value).astype(dtype)))
    if type(value) is float and value == -(2.0**63):  # the parser's float of an integer below the lowest
        return False
    limits = np.iinfo(dtype)
    return float(value).is_integer() and int(limits.min) <= int(value) <= int(limits.max)


def cast(value: Any, dtype: np.dtype[Any]) -> Any:
    if value is None:
        return math.nan
    return np.float64(value).astype(dtype) if dtype.kind == "f" else dtype.type(int(value))


@given(values=st.lists(parsed | fractions | st.none() | st.booleans(), max_size=5), dtype=TYPES)
def test_json_values_are_cast_or_the_first_bad_one_is_named(values: list[Any], dtype: np.dtype[Any]) -> None:
    if all(fits(value, dtype) for value in values):
        result = from_list(values, dtype, in_events("x"))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, np.array([cast(v, dtype) for v in values], dtype))
        return
    with pytest.raises(InvalidEvents, match="'x' of event") as error:
        from_list(values, dtype, in_events("x"))
    assert error.value.event is not None
    assert not fits(values[error.value.event], dtype)


@given(data=st.data(), source=TYPES | st.just(np.dtype("float16")), target=TYPES)
def test_arrays_are_cast_as_their_values_are(data: st.DataObject, source: np.dtype[Any], target: np.dtype[Any]) -> None:
    near = numbers(source.name)
    if source.kind in "iu":
        limits = np.iinfo(source)
        near |= integers.filter(lambda i: int(limits.min) <= i <= int(limits.max))
    elif source.kind == "f":
        near |= integers.filter(lambda i: abs(i) <= float(np.finfo(source).max)).map(float)
    values = np.array(data.draw(st.lists(near, max_size=5)), source)
    plain = [None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()]
    if not all(fits(value, target) for value in plain):
        with pytest.raises(InvalidEvents, match="'x' of event") as error:
            from_array(values, target, in_events("x"))
        assert error.value.event is not None
        assert not fits(plain[error.value.event], target)
        return
    result = from_array(values, target, in_events("x"))
    assert result.dtype == target
    np.testing.assert_array_equal(result, np.array([cast(v, target) for v in plain], target))
    assert (result is values) == (source == target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinities_of_binary_formats_pass(dtype: str) -> None:
    values = np.array([math.inf, -math.inf, math.nan, 1.0])
    np.testing.assert_array_equal(from_array(values, np.dtype(dtype), in_events("x")), values)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinities_are_no_integers(value: float) -> None:
    with pytest.raises(InvalidEvents, match="'x' of event 1"):
        from_array(np.array([1.0, value]), np.dtype("int32"), in_events("x"))


def test_the_largest_float32_does_not_overflow() -> None:
    # Its shortest decimal form is a little above it.
    assert np.isfinite(from_list([3.4028235e38, -3.4028235e38], np.dtype("float32"), in_events("x"))).all()


def test_half_precision_overflows_too() -> None:
    with pytest.raises(InvalidEvents, match="got 70000; expected a number that fits into float16"):
        from_array(np.array([1, 70_000]), np.dtype("float16"), in_events("x"))


def test_places() -> None:
    assert in_rows(["a", "b"])(5) == ("b", "'b'", 2)
    assert in_events("cov", width=3, first=10)(4) == ("cov", "'cov[1]'", 11)
    offsets = np.array([0, 2, 2, 2, 5])
    assert [in_lists("pt", offsets, first=7)(at) for at in (1, 2, 4)] == [
        ("pt", "'pt[1]'", 7),
        ("pt", "'pt[0]'", 10),
        ("pt", "'pt[2]'", 10),
    ]

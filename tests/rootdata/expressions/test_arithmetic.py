import operator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rootdata.errors import ExpressionError
from rootdata.expressions import arithmetic, logic

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.bool_]
EXACT = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "minimum": min,
    "maximum": max,
}
SAFE = 1 - 2.0**-50

columns = st.sampled_from(INTEGERS).flatmap(lambda dtype: hnp.arrays(dtype, 4))
literals = st.integers(-(2**63), 2**64 - 1)
operands = st.one_of(columns, literals)


def exact_values(column):
    return column.tolist() if isinstance(column, np.ndarray) else [column] * 4


def sign_of(operand):
    """Say whether an operand is unsigned as uint64 is, signed, or neither in particular."""
    if isinstance(operand, int):
        return "neither" if 0 <= operand < 2**63 else "signed" if operand < 0 else "unsigned"
    return {"int": "signed", "uint64": "unsigned"}.get(
        operand.dtype.name.rstrip("0123456789" * (operand.dtype != np.uint64)), "neither"
    )


def kind_of(name, a, b):
    """Say the type of a result, which follows from the types of the operands."""
    signs = {sign_of(a), sign_of(b)}
    if name == "maximum" and "unsigned" in signs:
        return np.uint64
    return np.uint64 if name != "subtract" and "unsigned" in signs and "signed" not in signs else np.int64


@given(st.sampled_from(sorted(EXACT)), columns, operands)
def test_integers_of_all_widths_are_exact_or_refused(name, a, b):
    divides = name in {"floor_divide", "remainder"}
    assume(not divides or 0 not in exact_values(b))
    expected = [EXACT[name](int(x), int(y)) for x, y in zip(exact_values(a), exact_values(b), strict=True)]
    try:
        result = getattr(arithmetic, name)(a, b)
    except ExpressionError:
        # What is refused does not fit into the type of the result.
        assert not all(np.iinfo(kind_of(name, a, b)).min <= x <= np.iinfo(kind_of(name, a, b)).max for x in expected)
    else:
        assert result.tolist() == expected
        assert result.dtype == kind_of(name, a, b)


@given(st.sampled_from(["less", "less_equal", "equal", "not_equal", "greater"]), columns, operands)
def test_comparisons_of_integers_are_exact(name, a, b):
    compare = logic.comparing(getattr(np, name))
    python = {"less": "lt", "less_equal": "le", "equal": "eq", "not_equal": "ne", "greater": "gt"}[name]
    expected = [getattr(operator, python)(x, y) for x, y in zip(exact_values(a), exact_values(b), strict=True)]
    assert compare(a, b).tolist() == expected


@given(st.integers(-9, 9), st.integers(0, 40))
def test_powers_of_integers_are_exact_or_refused(base, exponent):
    try:
        result = arithmetic.power(np.array([base]), exponent)
    except ExpressionError:
        assert abs(base**exponent) >= 2**63 * SAFE
    else:
        assert result.tolist() == [base**exponent]


def test_a_negative_literal_as_exponent_gives_real_numbers():
    assert arithmetic.power(np.array([2, 4]), -1).tolist() == [0.5, 0.25]


def test_a_negative_exponent_has_no_whole_result():
    assert arithmetic.power(np.array([2, 4, 1]), np.array([-1, 2, -3])).tolist() == [None, 16, None]
    assert arithmetic.power(2, np.array([-1, 62])).tolist() == [None, 2**62]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_functions_of_real_numbers_take_integers_as_float64(dtype):
    root = arithmetic.of_real(np.sqrt)(np.array([1], dtype))
    assert root.dtype == np.float64


@pytest.mark.parametrize("name", ["add", "divide", "multiply", "power", "minimum", "remainder"])
@pytest.mark.parametrize("constant", [2, 2.5, True])
def test_constants_do_not_widen_float32(name, constant):
    assert getattr(arithmetic, name)(np.ones(2, np.float32), constant).dtype == np.float32


def test_what_is_divided_by_zero_is_missing():
    numbers, zeros = np.array([1, 0, -1, 7]), np.array([0, 0, 0, 2], np.int32)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(arithmetic.divide(numbers, zeros), [np.nan, np.nan, np.nan, 3.5])
        assert arithmetic.remainder(numbers, zeros).tolist() == [None, None, None, 1]
        assert arithmetic.floor_divide(numbers, zeros).tolist() == [None, None, None, 3]
        assert arithmetic.floor_divide(numbers, 0).tolist() == [None] * 4


def test_booleans_count_as_numbers():
    flags = np.array([True, False])
    assert arithmetic.add(flags, flags).tolist() == [2, 0]
    assert arithmetic.negative(flags).tolist() == [-1, 0]


def test_absolute_value_of_the_lowest_integers():
    assert arithmetic.absolute(np.array([-128], np.int8)).tolist() == [128]
    with pytest.raises(ExpressionError, match="64-bit"):
        arithmetic.absolute(np.array([-(2**63)]))


def test_rounding_leaves_integers_exact():
    large = np.array([2**53 + 1])
    for function in (arithmetic.floor, arithmetic.ceil, arithmetic.nearest_whole, arithmetic.positive):
        assert function(large).tolist() == [2**53 + 1]


def test_bits_take_two_booleans_or_two_integers():
    assert logic.bit_and(np.array([6, 5], np.uint8), 4).tolist() == [4, 4]
    assert logic.bit_or(np.array([True, False]), False).tolist() == [True, False]
    with pytest.raises(arithmetic.OperandError, match="operand 2 is a number"):
        logic.bit_and(np.array([True]), np.array([1]))


def test_where_keeps_integers_and_booleans():
    chosen = logic.where(np.array([True, False]), np.array([2**53 + 1] * 2, np.uint64), 1)
    assert chosen.tolist() == [2**53 + 1, 1]
    assert logic.where(np.array([True]), True, False).dtype == np.bool_

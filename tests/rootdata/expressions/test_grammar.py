import copy
import math
import operator
import pickle
import re
import time

import awkward as ak
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootdata.errors import ExpressionError
from rootdata.expressions.grammar import parse
from rootdata.jagged import Jagged
from rootdata.missing import find_missing

numbers = st.floats(-1e3, 1e3, width=32)
objects = st.lists(st.tuples(st.floats(0, 500, width=32), st.floats(-5, 5, width=32)), max_size=5)
events = st.lists(st.tuples(objects, numbers, st.integers(0, 2**32 - 1)), max_size=6)

NAN = math.nan


def columns_of(rows):
    """Put events of (jets, MET, nJet) into columns, with the types that a file would have."""
    jets = ak.values_astype(ak.Array([[list(jet) for jet in row[0]] for row in [([(1, 1)],), *rows]])[1:], np.float32)
    return {
        "pt": jets[..., 0],
        "jets.eta": jets[..., 1],
        "MET": np.array([row[1] for row in rows], np.float32),
        "n": np.array([row[2] for row in rows], np.uint32),
    }


def evaluate(text, columns, num_events=None):
    num_events = len(next(iter(columns.values()))) if num_events is None else num_events
    return parse(text).evaluate(columns, num_events=num_events)


FLAT = {
    "sum(pt)": lambda pt, eta, met, n: sum(pt),
    "n >= 6": lambda pt, eta, met, n: n >= 6,
    "n % 5": lambda pt, eta, met, n: n % 5,
    "n - 1": lambda pt, eta, met, n: n - 1,
    "-n // 3": lambda pt, eta, met, n: -n // 3,
    "MET > 3 and not n == 1": lambda pt, eta, met, n: met > 3 and n != 1,
    "(MET > 3) & ~(n == 1) | (MET < 0)": lambda pt, eta, met, n: (met > 3 and n != 1) or met < 0,
    "(MET > 3) ^ (n > 2)": lambda pt, eta, met, n: (met > 3) != (n > 2),
    "0 < MET <= 100 < n": lambda pt, eta, met, n: 0 < met <= 100 < n,
    "max(pt[abs(jets.eta) < 2.4], fill=0) > 50": lambda pt, eta, met, n: any(
        p > 50 and abs(e) < 2.4 for p, e in zip(pt, eta, strict=True)
    ),
    "sum(pt[pt > 30]) + MET": lambda pt, eta, met, n: sum(p for p in pt if p > 30) + met,
    "sum((pt > 30) & (jets.eta > 0))": lambda pt, eta, met, n: sum(
        p > 30 and e > 0 for p, e in zip(pt, eta, strict=True)
    ),
    "pt[0]": lambda pt, eta, met, n: pt[0] if pt else NAN,
    "pt[-1]": lambda pt, eta, met, n: pt[-1] if pt else NAN,
    "at(pt, 1, fill=-1)": lambda pt, eta, met, n: pt[1] if len(pt) > 1 else -1,
    "first(pt, fill=0)": lambda pt, eta, met, n: pt[0] if pt else 0,
    "pt[argmax(jets.eta)]": lambda pt, eta, met, n: pt[eta.index(max(eta))] if pt else NAN,
    "pt[n % 3]": lambda pt, eta, met, n: pt[n % 3] if n % 3 < len(pt) else NAN,
    "sort(pt)[1]": lambda pt, eta, met, n: sorted(pt)[-2] if len(pt) > 1 else NAN,
    "sum(pt[1:])": lambda pt, eta, met, n: sum(pt[1:]),
    "count(pt)": lambda pt, eta, met, n: len(pt),
    "any(pt > MET)": lambda pt, eta, met, n: any(p > met for p in pt),
    "all(pt > MET)": lambda pt, eta, met, n: all(p > met for p in pt),
    "min(pt, fill=1e4)": lambda pt, eta, met, n: min(pt, default=1e4),
    "mean(pt)": lambda pt, eta, met, n: sum(pt) / len(pt) if pt else NAN,
    "MET if n > 3 else -MET": lambda pt, eta, met, n: met if n > 3 else -met,
    "clip(MET, -10, 10)": lambda pt, eta, met, n: min(max(met, -10), 10),
    "minimum(n, 7)": lambda pt, eta, met, n: min(n, 7),
    "round(MET)": lambda pt, eta, met, n: round(met),
    "sign(MET) * abs(MET)": lambda pt, eta, met, n: met,
    "sum(pt * MET)": lambda pt, eta, met, n: sum(p * met for p in pt),
    "7": lambda pt, eta, met, n: 7,
    "2 ** 3 ** 2 - 500": lambda pt, eta, met, n: 12,
    "not n": lambda pt, eta, met, n: not n,
}
JAGGED = {
    "pt": lambda pt, eta, met, n: pt,
    "pt[:2]": lambda pt, eta, met, n: pt[:2],
    "pt[-2:]": lambda pt, eta, met, n: pt[-2:],
    "pt[1:-1]": lambda pt, eta, met, n: pt[1:-1],
    "pt[(pt > 30) & (abs(jets.eta) < 2.4)]": lambda pt, eta, met, n: [
        p for p, e in zip(pt, eta, strict=True) if p > 30 and abs(e) < 2.4
    ],
    "pt > MET": lambda pt, eta, met, n: [p > met for p in pt],
    "1 < jets.eta < 2": lambda pt, eta, met, n: [1 < e < 2 for e in eta],
    "where(jets.eta > 0, pt, -1)": lambda pt, eta, met, n: [p if e > 0 else -1 for p, e in zip(pt, eta, strict=True)],
    "sort(jets.eta)": lambda pt, eta, met, n: sorted(eta, reverse=True),
}


def python_values(function, rows):
    return [function([j[0] for j in jets], [j[1] for j in jets], met, n) for jets, met, n in rows]


@given(rows=events)
def test_flat_results_agree_with_python(rows):
    columns = columns_of(rows)
    for text, function in FLAT.items():
        result = evaluate(text, columns)
        assert isinstance(result, np.ndarray)
        assert result.shape == (len(rows),)
        expected = np.array(python_values(function, rows), float)
        np.testing.assert_allclose(result.astype(float), expected, rtol=1e-6, atol=1e-3, err_msg=text)


@given(rows=events)
def test_jagged_results_agree_with_python(rows):
    columns = columns_of(rows)
    for text, function in JAGGED.items():
        result = evaluate(text, columns)
        assert isinstance(result, ak.Array)
        assert result.tolist() == python_values(function, rows), text


EXACT = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod}


@st.composite
def integer_expressions(draw, depth=3):
    """Draw a text and the same as a function of Python's exact integers."""
    if depth == 0 or draw(st.booleans()):
        value = draw(st.integers(1, 1000))
        return draw(st.sampled_from([("event", lambda event: event), (str(value), lambda event: value)]))
    sign = draw(st.sampled_from(sorted(EXACT)))
    (left, on_left), (right, on_right) = (draw(integer_expressions(depth=depth - 1)) for _ in range(2))
    return f"({left}) {sign} ({right})", lambda event: EXACT[sign](on_left(event), on_right(event))


@given(
    integer_expressions(),
    st.lists(st.integers(1, 2**63), min_size=1, max_size=3),
    st.sampled_from([np.uint64, np.int64]),
)
def test_integers_are_exact_or_refused(expression, values, dtype):
    text, python = expression
    values = [min(value, np.iinfo(dtype).max) for value in values]
    try:
        expected = [python(value) for value in values]
        result = evaluate(text, {"event": np.array(values, dtype)})
    except (ExpressionError, ZeroDivisionError):
        return
    assert result.tolist() == expected


BIG = 9007199254740993


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"event == {BIG}", [True, False, False]),
        (f"event == {BIG} - 1", [False, False, False]),
        ("event % 5", [BIG % 5, (2**64 - 1) % 5, 7 % 5]),
        ("(run == 1) & (event > 5)", [True, True, False]),
        ("event != run + 5", [True, True, False]),
        ("event > -1", [True, True, True]),
        ("event // 10 % 10", [9, 1, 0]),
        ("event if run == 1 else 0", [BIG, 2**64 - 1, 0]),
        ("maximum(event, run)", [BIG, 2**64 - 1, 7]),
        ("first(ids, fill=0)", [2**64 - 1, BIG, 0]),
    ],
)
def test_event_numbers_are_exact(text, expected):
    columns = {
        "event": np.array([BIG, 2**64 - 1, 7], np.uint64),
        "run": np.array([1, 1, 2], np.int32),
        "ids": Jagged(np.array([0, 1, 3, 3]), np.array([2**64 - 1, BIG, 1], np.uint64)),
    }
    assert evaluate(text, columns).tolist() == expected


@pytest.mark.parametrize("text", ["event * event", "event + event", "10 - event", "-event"])
def test_integers_that_do_not_fit_are_refused_where_they_arise(text):
    with pytest.raises(ExpressionError, match=rf"64-bit integer.*\n {{4}}{re.escape(text)}\n {{4}}\^"):
        evaluate(text, {"event": np.array([2**64 - 1], np.uint64)})


def test_labels_and_weights_of_whole_samples():
    columns = {"is_signal": np.array([0, 1, 1], np.int8)}
    assert evaluate("is_signal == 1", columns).tolist() == [False, True, True]
    assert evaluate("1", columns).tolist() == [1, 1, 1]
    assert evaluate("2.5", {}, num_events=2).tolist() == [2.5, 2.5]


def test_float32_columns_stay_float32_next_to_constants():
    columns = {"x": np.ones(2, np.float32), "y": ak.values_astype(ak.Array([[1.0], []]), np.float32)}
    assert evaluate("(2 * x + 1 / 3) ** 2 * sqrt(2)", columns).dtype == np.float32
    assert ak.type(evaluate("y * x * (1 / 3)", columns)).content.content.primitive == "float32"


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        *((t, np.float64) for t in ("1 / x", "log(x)", "sqrt(-1 - x)", "x % 0", "n / n", "exp(1e4 + x)", "1 / 0")),
        *((t, np.float64) for t in ("arcsin(2)", "1e308 * 10", "n ** -1", "1 / (1 / x)", "deltaphi(1 / x, 0)")),
        *((t, np.float32) for t in ("1e30 * (y + 1e30)", "sinh(1000 + y)", "3 / y", "y if 1 / y > 0 else y")),
        *((t, np.int64) for t in ("n // n", "n % n", "(n + 2) ** (n - 1)", "5 // 0", "n % (5 // 0)", "max(j)", "j[n]")),
        *((t, np.int64) for t in ("argmin(j)", "n if 1 / x > 0 else n", "at(j, 1 // n)")),
        *((t, np.bool_) for t in ("1 / x > 0", "not 1 / x != 0", "1 / 0 == 1", "5 // n == 5", "j[0] == 0 or n > 0")),
        *((t, np.bool_) for t in ("(j[0] == 1) ^ (n == 0)", "0 < 1 / x < 1", "min(j) < 1 and n == 0", "~(j[0] == 1)")),
    ],
)  # fmt: skip
def test_what_is_not_defined_is_missing_in_the_type_of_the_expression(text, dtype):
    columns = {"x": np.zeros(1), "y": np.zeros(1, np.float32), "n": np.zeros(1, np.int32)}
    result = evaluate(text, columns | {"j": Jagged(np.array([0, 0]), np.zeros(0, np.int16))})
    assert result.dtype == dtype
    assert find_missing(result).tolist() == [True]


def test_infinities_have_no_literal():
    with pytest.raises(ExpressionError, match="this number does not fit into 64 bits"):
        parse("x < 1e999")


@pytest.mark.parametrize("num_events", [0, 3])
@pytest.mark.parametrize("text", [*FLAT, *JAGGED])
def test_blocks_without_events_or_objects(text, num_events):
    rows = [([], 1.0, 2)] * num_events
    expected = python_values({**FLAT, **JAGGED}[text], rows)
    result = evaluate(text, columns_of(rows))
    np.testing.assert_array_equal(ak.to_list(result), expected)


def test_kinematics_on_columns():
    columns = {
        "pt": ak.Array([[45.6, 45.6], []]),
        "eta": ak.Array([[0.0, 0.0], []]),
        "phi": ak.Array([[0.0, math.pi], []]),
        "MET_phi": np.array([-3.0, 1.0]),
    }
    assert evaluate("invariant_mass(pt, eta, phi, 0)", columns).tolist() == pytest.approx([91.2, 0])
    pair = "pair_mass(pt[0], eta[0], phi[0], 0, pt[1], eta[1], phi[1], 0)"
    np.testing.assert_allclose(evaluate(pair, columns), [91.2, NAN])
    assert evaluate("min(abs(deltaphi(phi, MET_phi)))", columns)[0] == pytest.approx(math.pi - 3)
    assert evaluate("max(deltar(eta, phi, 0, MET_phi))", columns)[0] == pytest.approx(3)


def test_names_are_those_of_the_branches():
    expression = parse("sum(jets.pt[`jets/jets.eta#1` > 2]) + sum + a.b.c if `lambda` else MET")
    assert expression.names == {"jets.pt", "jets/jets.eta#1", "sum", "a.b.c", "lambda", "MET"}


def test_quoted_names_stand_anywhere():
    columns = {"muons/muons.pt#1": np.array([1, 5]), "µ": np.array([2, 2]), "x": np.array([0, 1])}
    assert evaluate("`muons/muons.pt#1`>3", columns).tolist() == [False, True]
    assert evaluate("(x+`µ`)*`muons/muons.pt#1`", columns).tolist() == [2, 15]
    assert evaluate("`x`", columns).tolist() == [0, 1]


def test_expressions_may_run_over_lines():
    expression = parse("\n  a +\n\tb  ")
    assert expression.text == "\n  a +\n\tb  "
    assert expression.evaluate({"a": np.array([1]), "b": np.array([2])}, num_events=1).tolist() == [3]


def test_jagged_columns_are_given_back_as_the_kind_they_came():
    jagged = Jagged(np.array([0, 1, 3]), np.array([1.0, 2.0, 3.0]))
    result = evaluate("2 * x", {"x": jagged})
    assert isinstance(result, Jagged)
    assert result.to_awkward().tolist() == [[2], [4, 6]]


def test_fixed_size_columns_are_lists_of_equal_length():
    assert evaluate("cov[0] + cov[-1] + sum(cov)", {"cov": np.arange(6).reshape(2, 3)}).tolist() == [5, 20]


def test_inputs_are_left_alone():
    columns = columns_of([([(1.0, 2.0), (3.0, 4.0)], 5.0, 6)])
    before = copy.deepcopy({name: ak.to_list(column) for name, column in columns.items()})
    for text in [*FLAT, *JAGGED]:
        evaluate(text, columns)
    assert {name: ak.to_list(column) for name, column in columns.items()} == before


def test_expressions_travel_to_other_processes():
    expression = parse("sum(pt[pt > 30])", where="cut")
    for other in (pickle.loads(pickle.dumps(expression)), copy.deepcopy(expression)):
        assert other == expression
        assert other.evaluate({"pt": ak.Array([[20.0, 40.0]])}, num_events=1).tolist() == [40]


# What is written, what the message says, and the stretch that it points at.
REFUSED = [
    ("summ(x) / y", "no function 'summ'; nearest: 'sum'", "summ"),
    ("__import__('os').system('ls')", "never with a dot", "__import__('os').system"),
    ("__import__('os')", "no function '__import__'", "__import__"),
    ("eval(x)", "no function 'eval'", "eval"),
    ("(1).real", "attributes and methods are not allowed", "(1).real"),
    ("().__class__", "attributes and methods are not allowed", "().__class__"),
    ("sum(x).y", "attributes and methods are not allowed", "sum(x).y"),
    ("x.max()", "called by its bare name", "x.max"),
    ("np.sqrt(x)", "called by its bare name", "np.sqrt"),
    ("x + sum(y)(1)", "not a function", "sum(y)"),
    ("`sum`(y)", "not a function", "`sum`"),
    ("1 + (lambda: 1)", "a lambda is not allowed", "lambda: 1"),
    ("[x for x in y]", "a comprehension is not allowed", "[x for x in y]"),
    ("sum(x for x in y)", "a comprehension is not allowed", "(x for x in y)"),
    ("{1: 2}", "a dictionary is not allowed", "{1: 2}"),
    ("{1}", "a set is not allowed", "{1}"),
    ("[1]", "a list is not allowed", "[1]"),
    ("x, y", "a tuple is not allowed", "x, y"),
    ("x[0, 1]", "a tuple is not allowed", "0, 1"),
    ("x + 'a'", "text is not allowed", "'a'"),
    ("x == b'a'", "text is not allowed", "b'a'"),
    ("x + f'{y}'", "text is not allowed", "f'{y}'"),
    ("x + (y := 1)", "an assignment is not allowed", "y := 1"),
    ("x == None", "None is not allowed", "None"),
    ("x + ...", "Ellipsis is not allowed", "..."),
    ("x + 1j", "1j is not allowed", "1j"),
    ("sum(*x)", "a starred argument is not allowed", "*x"),
    ("sum(x, **y)", "sum has no option '[*][*]'", "**y"),
    ("await x", "await is not allowed", "await x"),
    ("(yield)", "yield is not allowed", "yield"),
    ("import os", "not an expression", None),
    ("x; y", "not an expression", ";"),
    ("sum(x", "not an expression: .* was never closed", "("),
    ("x +", "not an expression", None),
    ("x y", "not an expression", None),
    ("x`y`", "not an expression", None),
    ("x > 2 and y = 3", "write == for equal", "="),
    ("x = 1", "write == for equal", "="),
    ("x $ y", "not an expression", "$"),
    ("x \\ y", "not an expression", None),
    ("`x`.y", "whole branch name in backticks", None),
    ("x + `y", "never closed", "`"),
    ("x + ``", "no name between", "``"),
    ("x && y", "write `and`", "&&"),
    ("x || y", "write `or`", "||"),
    ("x + !y", "write `not`", "!"),
    ("x ? 1 : 2", "write `a if condition else b`", "?"),
    ("muons.pt#1 > 3", "in backticks", "#"),
    ("x > µ", "in backticks", "µ"),
    ("x > \0", "in backticks", "\0"),
    ("a > 1 & b < 2", r"put parentheses, \(a > 1\) & \(b < 2\)", "1 & b"),
    ("(a > 1 & b)", "put parentheses", "1 & b"),
    ("sum(a & b > 1)", "put parentheses", "a & b"),
    ("(a) & (b) == c", "put parentheses", "(a) & (b)"),
    ("a == 1 | b == 2", r"put parentheses, \(a > 1\) \| \(b < 2\)", "1 | b"),
    ("x ^ 2 > 3", r"a power is written x\*\*2", "x ^ 2"),
    ("x @ y", "this operator is not allowed", "x @ y"),
    ("x in y", "one list of numbers", "x in y"),
    ("x in ()", "one list of numbers", "x in ()"),
    ("1 < x in (2, 3)", "one list of numbers", "1 < x in (2, 3)"),
    ("x in (1, y)", "the same for all events", "y"),
    ("Sum$(x) > 3", r"sum\(", "Sum$"),
    ("Length$(x)", r"count\(x\)", "Length$"),
    ("MaxIf$(x, y > 3)", r"max\(x\[y > 30\]\)", "MaxIf$"),
    ("Max$(x)", r"max\(x\)", "Max$"),
    ("Alt$(x, 0)", "at\\(x, 0", "Alt$"),
    ("Entry$ < 10", "written entry here", "Entry$"),
    ("LocalEntry$ < 10", "written entry here", "LocalEntry$"),
    ("rdfentry_ % 2", "written entry here", "rdfentry_"),
    ("Entries$ > 3", "its number in the tree", "Entries$"),
    ("x.size() > 2", r"count\(x\)", ".size()"),
    ("TMath::Abs(x)", "no prefix", "TMath::"),
    ("x->pt", "-> is not an operator", "->"),
    ("fabs(x)", "called abs here", "fabs"),
    ("atan2(x, y)", "called arctan2 here", "atan2"),
    ("x == 1 and ~(3)", "write `not`", "~(3)"),
    ("x is y", "this comparison is not allowed", "x is y"),
    ("x[::2]", "a slice with a step", "x[::2]"),
    ("x[:y]", "ends of a slice are whole numbers", "y"),
    ("x[:1.5]", "ends of a slice are whole numbers", "1.5"),
    ("x[:True]", "ends of a slice are whole numbers", "True"),
    ("x + sum()", "sum takes 1 argument, got 0", "sum()"),
    ("flatten(x + 1)", "flatten takes the name of a branch", "flatten(x + 1)"),
    ("num(x, y)", "num takes the name of a branch", "num(x, y)"),
    ("min(x, y)", r"min takes 1 argument, got 2; of two columns: minimum\(a, b\)", "min(x, y)"),
    ("clip(x, 1)", "clip takes 3 arguments, got 2", "clip(x, 1)"),
    ("sum(x, axis=1)", "sum has no option 'axis'; it takes none", "axis=1"),
    ("sum(x, fill=1)", "sum has no option 'fill'; it takes none", "fill=1"),
    ("max(x, initial=1)", "max has no option 'initial'; allowed: fill=", "initial=1"),
    ("max(x, fill=y)", "fill= takes a number", "fill=y"),
    ("max(x, fill=1, fill=2)", "one option|repeated", "fill=2"),
    ("x + 9 ** 9 ** 9", "64-bit integer", "9 ** 9 ** 9"),
    ("x + 2 ** 64", "64-bit integer", "2 ** 64"),
    ("x + 18446744073709551616", "does not fit into 64 bits", "18446744073709551616"),
    ("1 + count(x > 3)", r"write sum\(x > 3\) for the objects that pass", "count(x > 3)"),
    ("count((x > 3) & ok)", r"write sum\(\(x > 3\) & ok\)", "count((x > 3) & ok)"),
    ("count(~(x > 3))", r"write sum\(~\(x > 3\)\)", "count(~(x > 3))"),
    ("count(not x)", r"write sum\(not x\)", "count(not x)"),
    ("sum(3)", "'3' has one number an event", "sum(3)"),
    ("x + ~3.5", "'3.5' is a number", "~3.5"),
    ("n ^ 2", r"a power is written x\*\*2; if bits are meant, write hexadecimal, 0x2", "n ^ 2"),
    ("2.5 ^ 2", r"a power is written x\*\*2", "2.5 ^ 2"),
]


def pointed_at(error):
    """Read back the stretch that the caret line of a message marks."""
    _, line, marks = str(error).rsplit("\n", 2)
    start = marks.index("^")
    assert marks.strip() == "^" * marks.count("^")
    return line[start : start + marks.count("^")]


@pytest.mark.parametrize(("text", "message", "place"), REFUSED, ids=[text for text, *_ in REFUSED])
def test_everything_else_is_refused_where_it_stands(text, message, place):
    with pytest.raises(ExpressionError, match=message) as caught:
        parse(text, where="derived column 'r'")
    assert str(caught.value).startswith("derived column 'r': ")
    assert f"\n    {text}\n" in str(caught.value)
    if place is not None:
        assert pointed_at(caught.value) == place


@pytest.mark.parametrize("text", ["", "  \n ", None, 1, b"x", ["x"]])
def test_no_text_is_refused(text):
    with pytest.raises(ExpressionError, match="cut: an expression is needed, as text: got"):
        parse(text, where="cut")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000,
        "9" * 10_000,
        "-" * 3_900 + "x",
        "(" * 1_900 + "x" + ")" * 1_900,
        "+".join("x" * 1_900),
        "x" + "[0]" * 1_000,
        "not " * 900 + "x",
        "sum(" * 150 + "x" + ")" * 150,
        "x" + ".y" * 1_900 + "()",
        "9" * 3_900,
        "0 < (" * 110 + "x" + ") < 1" * 110,
        "1 if x else " * 150 + "2",
    ],
    ids=lambda text: text[:12],
)
def test_long_and_deep_texts_are_refused_at_once(text):
    start = time.process_time()  # which no other process takes part in
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert time.process_time() - start < 1
    assert len(str(caught.value)) < 600


def test_chains_of_comparisons_evaluate_their_operands_once():
    text = "0 <= " * 30 + "x" + " <= 1" * 30
    nested = "x"
    for _ in range(40):
        nested = f"0 <= ({nested}) <= 1"
    assert evaluate(text, {"x": np.array([0.5])}).tolist() == [True]
    assert evaluate(nested, {"x": np.array([0.5])}).tolist() == [True]


def test_the_caret_is_found_in_long_expressions():
    text = " + ".join(["x"] * 60) + " + bad(y)" + " + x" * 20
    with pytest.raises(ExpressionError, match="no function 'bad'") as caught:
        parse(text)
    assert pointed_at(caught.value) == "bad"
    assert max(map(len, str(caught.value).splitlines())) < 300


COLUMNS = {
    "pt": ak.Array([[1.0, 2.0], []]),
    "mu": ak.Array([[1.0], [2.0]]),
    "MET": np.array([1.0, 2.0]),
    "n": np.array([1, 2]),
    "deep": ak.Array([[[1.0]], []]),
    "text": ak.Array(["a", "b"]),
    "short": np.array([1.0]),
    "odd {name}": ak.Array([[1.0], []]),
}


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("1 + MTE", "no column 'MTE'; nearest: 'MET'", "MTE"),
        ("2 * (pt + mu)", "'pt' and 'mu' have different numbers of objects: event 0 has 2 and 1", "pt + mu"),
        ("where(pt > 1, pt, mu)", "'pt > 1' and 'mu' have different", "where(pt > 1, pt, mu)"),
        ("pt[mu > 0]", "'pt' and 'mu > 0' have different", "pt[mu > 0]"),
        ("pt + `odd {name}`", "'pt' and '`odd {name}`' have different", "pt + `odd {name}`"),
        ("1 + sum(MET)", "'MET' has one number an event", "sum(MET)"),
        ("MET[0]", "'MET' has one number an event", "MET[0]"),
        ("MET[:1]", "'MET' has one number an event", "MET[:1]"),
        ("max(n)", "'n' has one number an event", "max(n)"),
        ("invariant_mass(MET, n, n, n)", "'MET' has one number an event", "invariant_mass(MET, n, n, n)"),
        ("sum(deep)", "'deep' is nested", "deep"),
        ("text == 1", "'text' is of type", "text"),
        ("MET + short", "'short' has 1 events where 2 are asked for", "short"),
        ("pt[MET > 1]", "events are selected by cuts", "pt[MET > 1]"),
        ("pt[pt + 0.5]", "'pt [+] 0.5' selects no objects", "pt[pt + 0.5]"),
        ("at(pt, mu)", "'mu' is no index", "at(pt, mu)"),
        ("pt[n / 2]", "'n / 2' is no index", "pt[n / 2]"),
        ("not MET", "'MET' is a number, neither true nor false", "not MET"),
        ("n > 1 and MET", "'MET' is a number", "n > 1 and MET"),
        ("1 if MET else 2", "'MET' is a number", "1 if MET else 2"),
        ("(n > 1) & MET", "'MET' is a number", "(n > 1) & MET"),
        ("(n > 1) & n", r"'n' is a number, not true or false; compare it first: \(x > 0\)", "(n > 1) & n"),
        ("~n", "turns the bits of a number.* write `not` 'n'", "~n"),
        ("not ~n", "write `not` 'n'", "~n"),
        ("n == 1 or ~n", "write `not` 'n'", "~n"),
        ("where(~n, 1, 2)", "write `not` 'n'", "~n"),
        ("any(~pt)", "turns the bits of a number", "~pt"),
        ("n << 0.5", "'0.5' is a real number, which has no bits", "n << 0.5"),
        ("any(pt)", "'pt' is a number", "any(pt)"),
    ],
)
def test_unfit_columns_are_named_with_their_place(text, message, place):
    expression = parse(text, where="cut")
    with pytest.raises(ExpressionError, match=f"^cut: .*{message}") as caught:
        expression.evaluate(COLUMNS, num_events=2)
    assert pointed_at(caught.value) == place


def test_nothing_of_the_text_is_executed(tmp_path):
    target = tmp_path / "made"
    for text in (
        f"open('{target}', 'w')",
        f"__import__('pathlib').Path('{target}').touch()",
        f"`open('{target}', 'w')`",
    ):
        with pytest.raises(ExpressionError):
            parse(text).evaluate({}, num_events=1)
    assert not target.exists()


PIECES = [
    *"abj()[],.:+-*/%&|^~<>!=`'#? ",
    "a",
    "j",
    "b",
    "0",
    "1",
    "-1",
    "2.5",
    "sum(",
    "max(",
    "at(",
    "where(",
    "sort(",
]
PIECES += [
    "fill=",
    " if ",
    " else ",
    " and ",
    "not ",
    "==",
    "**",
    "//",
    "18446744073709551615",
    "True",
    "argmax(",
    "lambda ",
]


@pytest.mark.long
@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=20))
@example("a[b]")
@example("(b > 1) < 18446744073709551615")
@example("clip(0, 18446744073709551615, -1)")
@example("j[(a if b else 1)] ** -(18446744073709551615 > j)")
def test_any_text_is_an_expression_or_an_expression_error(text):
    columns = {
        "a": np.array([1.5, NAN, -2.0], np.float16),
        "b": np.array([0, 3, 255], np.uint8),
        "j": ak.Array([[1, 2], [], [-3]]),
    }
    try:
        result = evaluate(text, columns)
    except ExpressionError:
        return
    assert len(result) == 3


def test_a_comparison_with_what_is_missing_is_unknown():
    columns = {"pt": ak.Array([[40.0], []])}
    for text in ("pt[0] > 30", "not pt[0] < 30", "pt[0] != 30", "pt[0] == pt[0]"):
        assert evaluate(text, columns).tolist() == [True, None]
    assert evaluate("isnan(pt[0])", columns).tolist() == [False, True]
    assert evaluate("pt > 30", {"pt": ak.Array([[40.0, NAN], []])}).tolist() == [[True, None], []]

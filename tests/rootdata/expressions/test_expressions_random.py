"""Random expressions against a plain interpreter, one event at a time: integers of Python, ``None`` for missing.

What an expression means is written here a second time, without arrays. Every result is compared with it to the last bit
and the type, in a block of random neighbours and alone, as a cut, as a feature, and in the graph's input.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.bundle import signature
from rootdata.bundle.assemble import Assembler
from rootdata.bundle.graph.deployed import Scaler
from rootdata.bundle.manifest import BranchSpec, Manifest, OutputSpec
from rootdata.errors import DataError, ExpressionError
from rootdata.events import selection
from rootdata.events.evaluation import Block
from rootdata.expressions.grammar import parse
from rootdata.jagged import Jagged, offsets_of
from rootdata.layouts.layout import Layout
from rootdata.layouts.packed import pack
from rootdata.location import Location
from rootdata.missing import mask_sentinels
from rootdata.options.data import parse_data
from rootdata.scaling.transform import Transform
from rootdata.table import Table
from strategies import SENTINEL

DTYPES = {
    "i": np.int64, "u": np.uint64, "k": np.int32, "s": np.uint8, "b": np.bool_, "f": np.float32, "d": np.float64,
    "Ai": np.int64, "Au": np.uint64, "As": np.uint8, "Ab": np.bool_, "Af": np.float32, "Ad": np.float64,
}  # fmt: skip
LARGEST_SINGLE = float(np.finfo(np.float32).max)
KINDS = {"b": "bool", "i": "int", "u": "int", "f": "real"}


class OverflowsError(Exception):
    """A whole number that does not fit into its 64 bits."""


# What a value means


def loaded(value: Any, dtype: Any) -> Any:
    """Read one value of a branch."""
    if np.dtype(dtype).kind == "b":
        return bool(value)
    if value == SENTINEL or not math.isfinite(value):
        return None
    return dtype(value) if np.dtype(dtype).kind == "f" else int(value)


@dataclasses.dataclass(frozen=True)
class Node:
    """A piece of an expression.

    Parameters
    ----------
    dtype : number type of the result; ``None`` for a literal, which has the type of what it meets
    of : from an event (branch name to a value or a list of them) to the value, or to the list where ``is_list``
    """

    text: str
    dtype: np.dtype[Any] | None
    of: Callable[[dict[str, Any]], Any]
    is_list: bool = False
    literal: Any = None

    @property
    def kind(self) -> str:
        return "real" if isinstance(self.literal, float) else "int" if self.dtype is None else KINDS[self.dtype.kind]

    @property
    def sign(self) -> str:
        """Say whether it is signed, unsigned in 64 bits, or neither in particular."""
        if self.dtype is None:
            return "signed" if self.literal < 0 else "unsigned" if self.literal >= 2**63 else "neither"
        return {"int64": "signed", "int32": "signed", "uint64": "unsigned"}.get(self.dtype.name, "neither")


def node(text: str, dtype: Any, of: Callable[..., Any], *operands: Node, is_list: bool | None = None) -> Node:
    """Apply a function of single values to operands, to each object where one of them has objects."""
    lists = any(x.is_list for x in operands)

    def apply(event: dict[str, Any]) -> Any:
        values = [x.of(event) for x in operands]
        if not lists:
            return of(*values)
        length = next(len(v) for v, x in zip(values, operands, strict=True) if x.is_list)
        rows = zip(*(v if x.is_list else [v] * length for v, x in zip(values, operands, strict=True)), strict=True)
        return [of(*row) for row in rows]

    return Node(text, np.dtype(dtype), apply, lists if is_list is None else is_list)


def fitting(value: int, dtype: Any) -> int:
    if not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise OverflowsError
    return value


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of what is there be missing where something is missing."""
    return lambda *values: None if any(v is None for v in values) else function(*values)


def meeting(*operands: Node) -> np.dtype[Any]:
    """Choose the type in which whole operands meet."""
    signs = {x.sign for x in operands}
    return np.dtype(np.uint64 if "unsigned" in signs and "signed" not in signs else np.int64)


def real_type(*operands: Node) -> np.dtype[Any]:
    return np.result_type(*(x.literal if x.dtype is None else x.dtype for x in operands))


def finite(value: Any) -> Any:
    return value if math.isfinite(value) else None


def real_operation(function: Callable[..., Any], dtype: np.dtype[Any]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        with np.errstate(all="ignore"):
            return finite(dtype.type(function(*(dtype.type(v) for v in values))))

    return strict(apply)


def power(base: int, exponent: int) -> int | None:
    if exponent < 0:
        return None
    if abs(base) > 1 and exponent > 64:
        raise OverflowsError
    return base**exponent


WHOLE: dict[str, Callable[[int, int], int | None]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "**": power,
    "//": lambda a, b: a // b if b else None, "%": lambda a, b: a % b if b else None,
}  # fmt: skip
REAL = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "//": np.floor_divide, "%": np.remainder
}  # fmt: skip
BITS: dict[str, Callable[[int, int], int | None]] = {
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
    "<<": lambda a, b: a << min(b, 200) if b >= 0 else None, ">>": lambda a, b: a >> min(b, 200) if b >= 0 else None,
}  # fmt: skip
COMPARE = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne
}  # fmt: skip


def arithmetic(a: Node, sign: str, b: Node) -> Node:
    text = f"({a.text}) {sign} ({b.text})"
    if "real" in (a.kind, b.kind) or sign == "/":
        given = (np.dtype(np.float64) if x.dtype is not None and x.kind != "real" else x for x in (a, b))
        dtype = real_type(a, b) if sign != "/" else np.result_type(*(_divided(x) for x in given))
        return node(text, dtype, real_operation(REAL[sign], dtype), a, b)
    if sign == "**" and isinstance(b.literal, int) and b.literal < 0:  # says of every event that it is real
        return node(text, np.float64, real_operation(np.power, np.dtype(np.float64)), a, b)
    dtype = np.dtype(np.int64) if sign == "-" else meeting(a, b)
    exact = WHOLE[sign]

    def apply(x: int, y: int) -> Any:
        result = exact(int(x), int(y))
        return None if result is None else fitting(result, dtype)

    return node(text, dtype, strict(apply), a, b)


def bits(a: Node, sign: str, b: Node) -> Node:
    dtype = meeting(a) if sign in ("<<", ">>") else meeting(a, b)

    def apply(x: int, y: int) -> Any:
        result = BITS[sign](int(x), int(y))
        return None if result is None else fitting(result, dtype)

    return node(f"({a.text}) {sign} ({b.text})", dtype, strict(apply), a, b)


def turned(x: Node) -> Node:
    """Turn the bits of a number; the product keeps it from standing for a condition."""
    dtype = meeting(x)
    of = strict(lambda v: 2**64 - 1 - v if dtype == np.uint64 else ~int(v))
    return node(f"(~({x.text})) * 1", dtype, of, x)


def cut_off(x: Node) -> Node:
    return node(f"int({x.text})", np.int64, strict(lambda v: fitting(math.trunc(float(v)), np.int64)), x)


def _divided(x: Any) -> Any:
    return x if isinstance(x, np.dtype) else float(x.literal) if x.dtype is None else x.dtype


def chosen(text: str, a: Node, b: Node, choose: Callable[[Any, Any], Any], *before: Node) -> Node:
    """Take one of two operands, in a type that holds both."""
    whole = "real" not in (a.kind, b.kind)
    both_boolean = a.kind == b.kind == "bool"
    dtype = np.dtype(np.bool_) if both_boolean and before else meeting(a, b) if whole else real_type(a, b)

    def apply(*values: Any) -> Any:
        if before and values[0] is None:
            return None
        value = choose(*values)
        if value is None or (both_boolean and before):
            return value
        return fitting(int(value), dtype) if whole else dtype.type(value)

    return node(text, dtype, apply if before else strict(apply), *before, a, b)


def extreme(name: str, a: Node, b: Node) -> Node:
    text = f"{name}({a.text}, {b.text})"
    if "real" not in (a.kind, b.kind):
        dtype = np.dtype(np.uint64) if name == "maximum" and "unsigned" in (a.sign, b.sign) else meeting(a, b)
        best = max if name == "maximum" else min
        return node(text, dtype, strict(lambda x, y: fitting(best(int(x), int(y)), dtype)), a, b)
    dtype = real_type(a, b)
    return node(text, dtype, real_operation(getattr(np, name), dtype), a, b)


def comparison(operands: list[Node], signs: list[str]) -> Node:
    text = f"({operands[0].text})" + "".join(f" {s} ({x.text})" for s, x in zip(signs, operands[1:], strict=True))
    pairs = list(zip(signs, operands[:-1], operands[1:], strict=True))
    types = [None if {a.kind, b.kind} <= {"int", "bool"} else real_type(a, b) for _, a, b in pairs]

    def apply(*values: Any) -> bool | None:
        answers = []
        for (sign, _, _), dtype, x, y in zip(pairs, types, values[:-1], values[1:], strict=True):
            if x is None or y is None:
                answers.append(None)
                continue
            with np.errstate(all="ignore"):
                answers.append(bool(COMPARE[sign](*((int(v) if dtype is None else dtype.type(v)) for v in (x, y)))))
        return every(*answers)

    return node(text, np.bool_, apply, *operands)


def every(*answers: Any) -> bool | None:
    if any(x is not None and not x for x in answers):
        return False
    return None if None in answers else True


def some(*answers: Any) -> bool | None:
    if any(x is not None and x for x in answers):
        return True
    return None if None in answers else False


def turn(a: Any, b: Any) -> Any:
    angle = math.remainder(float(a) - float(b), 2 * math.pi)
    return np.float64(math.pi if angle <= -math.pi else angle)


# Objects of an event to one number


def present(values: list[Any]) -> list[Any]:
    return [v for v in values if v is not None]


def total(x: Node) -> Node:
    dtype = meeting(x) if x.kind != "real" else np.dtype(np.float64)

    def apply(event: dict[str, Any]) -> Any:
        values = present(x.of(event))
        if x.kind != "real":
            return fitting(sum(map(int, values)), dtype)
        if not values:
            return np.float64(0)
        with np.errstate(all="ignore"):
            rest = np.float64(0)
            for v in values[1:]:  # as numpy adds up
                rest = rest + np.float64(v)
            return finite(np.float64(values[0]) + rest)

    return Node(f"sum({x.text})", dtype, apply)


def reduced(name: str, x: Node, take: Callable[[list[Any]], Any], fill: Any) -> Node:
    """Take something of the objects that have a value, or ``fill``."""
    text = f"{name}({x.text})" if fill is None else f"{name}({x.text}, fill={fill})"
    given = Node("", None, lambda _: fill, literal=fill)
    plain = meeting(x) if x.kind == "int" else x.dtype
    if name.startswith("arg"):
        plain = np.dtype(np.int64)
    of = dataclasses.replace(x, dtype=plain)
    dtype = plain if fill is None else meeting(of, given) if isinstance(fill, int) and of.kind != "real" else None
    dtype = dtype or real_type(of, given)

    def apply(event: dict[str, Any]) -> Any:
        value = take(x.of(event))
        value = fill if value is None else value
        if value is None:
            return None
        return dtype.type(value) if dtype.kind == "f" else bool(value) if dtype.kind == "b" else fitting(value, dtype)

    return Node(text, dtype, apply)


def best_place(values: list[Any], best: Callable[..., Any]) -> int | None:
    kept = present(values)
    return values.index(best(kept)) if kept else None


TAKES: dict[str, Callable[[list[Any]], Any]] = {
    "min": lambda v: min(present(v), default=None), "max": lambda v: max(present(v), default=None),
    "argmin": lambda v: best_place(v, min), "argmax": lambda v: best_place(v, max),
    "first": lambda v: v[0] if v else None,
}  # fmt: skip


def picked(x: Node, place: Node) -> Node:
    def apply(event: dict[str, Any]) -> Any:
        values, i = x.of(event), place.of(event)
        return values[i] if i is not None and -len(values) <= i < len(values) else None

    return Node(f"({x.text})[{place.text}]", meeting(x) if x.kind == "int" else x.dtype, apply)


def falling(values: list[Any]) -> list[Any]:
    return sorted(present(values), reverse=True) + [None] * values.count(None)


def order(values: list[Any]) -> list[int]:
    """Give the places of values from the largest to the smallest, those of missing ones last."""
    there = [i for i, v in enumerate(values) if v is not None]
    return sorted(there, key=lambda i: values[i], reverse=True) + [i for i, v in enumerate(values) if v is None]


def sorted_by(x: Node, key: Node) -> Node:
    of = lambda e: [x.of(e)[i] for i in order(key.of(e))]  # noqa: E731
    return Node(f"({x.text})[argsort({key.text})]", meeting(x) if x.kind == "int" else x.dtype, of, True)


def linked(x: Node, links: Node) -> Node:
    def of(event: dict[str, Any]) -> Any:
        values = x.of(event)
        return [None if i is None or not 0 <= i < len(values) else values[i] for i in links.of(event)]

    return Node(f"({x.text})[{links.text}]", meeting(x) if x.kind == "int" else x.dtype, of, True)


def paired(name: str, x: Node, other: Node) -> Node:
    def of(event: dict[str, Any]) -> Any:
        mine, theirs = x.of(event), other.of(event)
        pairs = itertools.combinations(mine, 2) if name.endswith("pairs") else itertools.product(mine, theirs)
        return [pair[0 if name.startswith("first") else 1] for pair in pairs]

    text = f"{name}({x.text}" + ("" if name.endswith("pairs") else f", {other.text}") + ")"
    return Node(text, other.dtype if name == "second_of_cross" else x.dtype, of, True)


# Expressions


def leaf(name: str) -> Node:
    dtype = DTYPES[name]
    is_list = name.startswith("A")
    of = (lambda e: [loaded(v, dtype) for v in e[name]]) if is_list else (lambda e: loaded(e[name], dtype))
    return Node(name, np.dtype(dtype), of, is_list)


def literal(value: Any) -> Node:
    return Node(str(value), None, lambda _: value, literal=value)


literals = {
    "int": st.sampled_from([0, 1, 2, 3, 5, -7, 16777217, 2**53 + 1, 2**62, 2**64 - 1]).map(literal),
    "real": st.sampled_from([0.5, 2.0, 0.1, -1.5, 1e30]).map(literal),
}
names = {
    (kind, is_list): [n for n, d in DTYPES.items() if KINDS[np.dtype(d).kind] == kind and n.startswith("A") == is_list]
    for kind in ("int", "real", "bool")
    for is_list in (False, True)
}


@st.composite
def expressions(draw: st.DrawFn, kind: str, is_list: bool, depth: int) -> Node:
    """Draw an expression of a kind of numbers, one an event or one an object."""
    if depth == 0:
        return leaf(draw(st.sampled_from(names[kind, is_list])))

    def sub(kind: str, is_list: bool) -> Node:
        return draw(expressions(kind, is_list, depth - 1))

    def other(kind: str) -> Node:
        """Draw an operand to go with one of the right shape."""
        if draw(st.integers(0, 3)) == 0:
            return draw(literals[kind])
        return sub(kind, is_list and draw(st.booleans()))

    how = draw(st.integers(0, 8))
    if how == 0:
        return leaf(draw(st.sampled_from(names[kind, is_list])))
    if how == 1:
        a, b = sub(kind, is_list), sub(kind, is_list)
        condition = sub("bool", is_list)
        text = f"where({condition.text}, {a.text}, {b.text})"
        if draw(st.booleans()):
            text = f"({a.text}) if ({condition.text}) else ({b.text})"
        return chosen(text, a, b, lambda c, x, y: x if c else y, condition)
    if how == 2 and not is_list:
        return _reduction(draw, kind, sub(kind, True))
    return _elementwise(draw, kind, how, sub, other, is_list)


def _rearranged(draw: st.DrawFn, kind: str, x: Node) -> Node:
    """Draw what selects, sorts, joins or pairs objects, or leaves them as they are."""
    keep = draw(expressions("bool", True, 0))
    before = draw(st.integers(0, 6))
    if before == 1:
        of = lambda e: [v for v, k in zip(x.of(e), keep.of(e), strict=True) if k]  # noqa: E731
        return Node(f"({x.text})[{keep.text}]", x.dtype, of, True)
    if before == 2:
        return Node(f"sort({x.text})", x.dtype, lambda e: falling(x.of(e)), True)
    if before == 3:
        stop = draw(st.integers(-2, 3))
        return Node(f"({x.text})[:{stop}]", x.dtype, lambda e: x.of(e)[:stop], True)
    if before == 4:
        return sorted_by(x, draw(expressions(draw(st.sampled_from(["int", "real"])), True, 0)))
    if before == 5:
        return linked(x, draw(expressions("int", True, 0)))
    if before == 6:
        names = ["first_of_pairs", "second_of_pairs", "first_of_cross", "second_of_cross"]
        return paired(draw(st.sampled_from(names)), x, draw(expressions(kind, True, 0)))
    return x


def _reduction(draw: st.DrawFn, kind: str, x: Node) -> Node:
    """Draw something that goes over objects, some of them selected or sorted before."""
    x = _rearranged(draw, kind, x)
    name = draw(st.sampled_from(["sum", "count", "min", "max", "argmin", "argmax", "first", "[]", "any", "all"]))
    if kind == "bool":
        if name in ("any", "all"):
            how = any if name == "any" else all
            return Node(f"{name}({x.text})", np.dtype(np.bool_), lambda e: how(present(x.of(e))))
        name = "[]"
    elif name in ("any", "all"):
        name = "first"
    if kind == "int" and name == "count":
        return Node(f"count({x.text})", np.dtype(np.int64), lambda e: len(present(x.of(e))))
    if kind == "real" and name in ("count", "argmin", "argmax"):
        name = "max"
    if name == "sum":
        return total(x)
    if name == "[]":
        place = draw(expressions("int", False, 0) | st.integers(0, 3).map(literal))
        return picked(x, place)
    fill = draw(st.none() | st.sampled_from([0, 1, -7] if kind == "int" else [0, 1.5, -7]))
    return reduced(name, x, TAKES[name], fill)


def _elementwise(
    draw: st.DrawFn, kind: str, how: int, sub: Callable[..., Node], other: Callable[..., Node], is_list: bool
) -> Node:
    return {"bool": _condition, "int": _whole, "real": _real}[kind](draw, how, sub, other, is_list)


def _condition(draw: st.DrawFn, how: int, sub: Callable[..., Node], other: Callable[..., Node], is_list: bool) -> Node:
    if how == 3:
        x = sub("bool", is_list)
        return node(f"not ({x.text})", np.bool_, strict(operator.not_), x)
    if how == 4:
        x = sub(draw(st.sampled_from(["int", "real", "bool"])), is_list)
        return node(f"isnan({x.text})", np.bool_, lambda v: v is None, x)
    if how in (5, 6):
        a, b = sub("bool", is_list), sub("bool", is_list and draw(st.booleans()))
        signs = [("and", every), ("or", some), ("&", every), ("|", some), ("^", strict(operator.xor))]
        sign, of = draw(st.sampled_from(signs))
        return node(f"({a.text}) {sign} ({b.text})", np.bool_, of, a, b)
    kinds = st.sampled_from(["int", "real"])
    if how == 7:
        x, values = sub(draw(kinds), is_list), draw(st.lists(literals[draw(kinds)], min_size=1, max_size=3))
        text = f"({x.text}) in ({', '.join(v.text for v in values)},)"
        return node(text, np.bool_, some, *(comparison([x, v], ["=="]) for v in values))
    operands = [sub(draw(kinds), is_list), other(draw(kinds))]
    if how == 8:
        operands.append(sub(draw(kinds), is_list))
    return comparison(operands, [draw(st.sampled_from(sorted(COMPARE))) for _ in operands[1:]])


def _whole(draw: st.DrawFn, how: int, sub: Callable[..., Node], other: Callable[..., Node], is_list: bool) -> Node:
    if how == 3:
        x = sub("int", is_list)
        return node(f"-({x.text})", np.int64, strict(lambda v: fitting(-int(v), np.int64)), x)
    a = sub(draw(st.sampled_from(["int", "int", "bool"])), is_list)
    if how == 4:
        dtype = meeting(a)
        return node(f"abs({a.text})", dtype, strict(lambda v: fitting(abs(int(v)), dtype)), a)
    b = other("int")
    if how == 5:
        return extreme(draw(st.sampled_from(["minimum", "maximum"])), a, b)
    if how == 6:
        sign = draw(st.sampled_from(sorted(BITS)))
        if sign in ("<<", ">>"):
            return bits(a, sign, draw(st.integers(-1, 70).map(literal)) if draw(st.booleans()) else b)
        return bits(sub("int", is_list), "&" if b.literal is not None else sign, b)
    if how == 7:
        return turned(sub("int", is_list))
    if how == 8 and draw(st.booleans()):
        return cut_off(sub("real", is_list))
    sign = draw(st.sampled_from(sorted(WHOLE)))
    if sign == "**" and isinstance(b.literal, int):
        b = literal(abs(b.literal))  # a negative literal makes the result real
    return arithmetic(b, sign, a) if a.kind != "bool" and draw(st.booleans()) else arithmetic(a, sign, b)


def _real(draw: st.DrawFn, how: int, sub: Callable[..., Node], other: Callable[..., Node], is_list: bool) -> Node:
    a = sub("real", is_list)
    if how == 3:
        name = draw(st.sampled_from(["abs", "sqrt", "floor", "ceil", "round", "sign", "exp", "log"]))
        return node(f"{name}({a.text})", a.dtype, real_operation(getattr(np, name), a.dtype), a)
    if how == 4:
        b = sub("real", is_list)
        return node(f"deltaphi({a.text}, {b.text})", np.float64, strict(turn), a, b)
    b = other(draw(st.sampled_from(["real", "int"])))
    if how == 5:
        return extreme(draw(st.sampled_from(["minimum", "maximum"])), a, b)
    if how == 6:
        return arithmetic(sub("int", is_list), "/", b)
    if how == 7:
        return arithmetic(sub("int", is_list), "**", literal(draw(st.sampled_from([-1, -2, -7]))))
    sign = draw(st.sampled_from(sorted(REAL)))
    return arithmetic(b, sign, a) if draw(st.booleans()) else arithmetic(a, sign, b)


# Events


def numbers(dtype: Any) -> st.SearchStrategy[Any]:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return st.booleans()
    if kind.kind == "f":
        odd = [math.nan, math.inf, -math.inf, SENTINEL, 0.0, 1e30, -1e30, float(np.finfo(kind).max), math.pi, -math.pi]
        return (st.sampled_from(odd) | st.floats(-100, 100, width=32) | st.integers(-3, 3)).map(dtype).map(float)
    limits = np.iinfo(kind)
    odd = [0, 1, -1, 2, 3, int(SENTINEL), limits.min, limits.max, limits.max - 1, 2**53 + 1, 2**60 + 3, 2**63, -(2**31)]
    held = [x for x in odd if limits.min <= x <= limits.max]
    return st.sampled_from(held) | st.integers(max(limits.min, -9), 9)


@st.composite
def events_of(draw: st.DrawFn, used: frozenset[str]) -> dict[str, Any]:
    """Draw an event: what is used of it, and something for the rest."""
    length = draw(st.integers(0, 4)) if any(n.startswith("A") for n in used) else 1
    event: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        is_list = name.startswith("A")
        if name not in used:
            event[name] = [dtype(1)] * length if is_list else dtype(1)
        elif is_list:
            event[name] = draw(st.lists(numbers(dtype), min_size=length, max_size=length))
        else:
            event[name] = draw(numbers(dtype))
    return event


@st.composite
def cases(draw: st.DrawFn, *, with_lists: bool = True) -> tuple[Node, list[dict[str, Any]]]:
    """Draw an expression and events to evaluate it for."""
    kind, depth = draw(st.sampled_from(["int", "real", "bool"])), draw(st.integers(1, 3))
    expression = draw(expressions(kind, with_lists and draw(st.booleans()), depth))
    return expression, draw(st.lists(events_of(parse(expression.text).names), min_size=1, max_size=5))


def columns_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Put events into the columns that a file would give."""
    offsets = offsets_of(np.array([len(e["Ai"]) for e in found], np.int64))
    return {
        name: Jagged(offsets, np.array([v for e in found for v in e[name]], dtype))
        if name.startswith("A")
        else np.array([e[name] for e in found], dtype)
        for name, dtype in DTYPES.items()
    }


def masked_columns(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        n: Jagged.of(c.offsets, mask_sentinels(c.content, [SENTINEL]))
        if isinstance(c, Jagged)
        else mask_sentinels(c, [SENTINEL])
        for n, c in columns_of(found).items()
    }


def plain(column: Any) -> list[Any]:
    """Give values of a column, ``None`` where one is missing."""
    if isinstance(column, Jagged):
        content = plain(column.values)
        return [content[a:b] for a, b in zip(column.offsets[:-1], column.offsets[1:], strict=True)]
    return [None if isinstance(v, float) and math.isnan(v) else v for v in column.tolist()]


def expected_of(expression: Node, found: list[dict[str, Any]]) -> tuple[list[Any], set[int]]:
    """Interpret an expression event by event: values, and the events in which a number does not fit."""
    values, bad = [], set()
    for i, event in enumerate(found):
        try:
            value = expression.of(event)
            values.append([_python(v) for v in value] if expression.is_list else _python(value))
        except OverflowsError:
            bad.add(i)
    return values, bad


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def check_values(expression: Node, found: list[dict[str, Any]]) -> None:
    """Evaluate among neighbours and alone."""
    parsed = parse(expression.text)
    values, bad = expected_of(expression, found)
    if bad:
        with pytest.raises(ExpressionError, match=r"of event \d+ does not fit into a 64-bit integer") as caught:
            parsed.evaluate(masked_columns(found), num_events=len(found))
        assert caught.value.event in bad
        return
    result = parsed.evaluate(masked_columns(found), num_events=len(found))
    assert (result.content if isinstance(result, Jagged) else result).dtype == expression.dtype, expression.text
    assert plain(result) == values, expression.text
    for event, value in zip(found, values, strict=True):
        alone = parsed.evaluate(masked_columns([event]), num_events=1)
        assert (alone.content if isinstance(alone, Jagged) else alone).dtype == expression.dtype
        assert plain(alone) == [value]


def select(found: list[dict[str, Any]], **options: Any) -> selection.Events:
    config = parse_data({"samples": {"all": "a.root"}, "split": {"train": 1.0}, "missing": [SENTINEL], **options})
    block = Block(location=Location("a.root", "Events"), start=100, stop=100 + len(found), num_entries=1000)
    return selection.select(config, config.samples[0], columns_of(found), block=block)


def check_events(expression: Node, found: list[dict[str, Any]]) -> None:
    """Use it as a cut or as a feature of events, from raw branches to what a network and its graph see."""
    values, bad = expected_of(expression, found)
    if bad:
        with pytest.raises(DataError, match=r"event \d+ is entry 10\d of a\.root") as caught:
            select(found, flat=["d", "r"], derived={"r": expression.text})
        assert any(f"is entry {100 + i} of" in str(caught.value) for i in bad)
        return
    if expression.kind == "bool":
        passing = [i for i, value in enumerate(values) if value is True]
        assert (select(found, flat=["d"], cut=expression.text).entry - 100).tolist() == passing
        refused = [i for i, value in enumerate(values) if value is not True]
        inverse = select(found, flat=["d"], cut=f"not ({expression.text})")
        assert (inverse.entry - 100).tolist() == [i for i in refused if values[i] is False]
    selected = select(found, flat=["r"], derived={"r": expression.text})
    assert plain(selected.flat["r"]) == values
    transform, layout = Transform(shift=1.5, factor=0.25), Layout(kind="vector", flat=("r",), collections=())
    with np.errstate(over="ignore"):
        packed = pack(selected, layout, {"r": transform}, sample=0, file=0).flat[:, 0]
        scaled = scaled_in_graph(expression, selected, found, transform)[:, 0]
    fits = [v is None or abs(v) < LARGEST_SINGLE for v in values]  # once scaled, and rounded to float32
    np.testing.assert_array_equal(packed[fits], scaled[fits])
    assert np.isnan(packed[fits]).tolist() == [v is None for v, is_small in zip(values, fits, strict=True) if is_small]


def scaled_in_graph(
    expression: Node, selected: selection.Events, found: list[dict[str, Any]], transform: Transform
) -> np.ndarray[Any, Any]:
    """Send the branches, as a client would, and scale the tensor as the graph does; NaN where it is missing."""
    config = parse_data({"samples": {"all": "a.root"}, "flat": ["r"], "derived": {"r": expression.text}})
    held = signature._held("r", selected.flat["r"].dtype, config)
    (spec,) = signature._inputs(None, {"r": held}, None)
    branches = tuple(
        BranchSpec(name=n, dtype=np.dtype(d).name, kind="jagged" if n.startswith("A") else "flat")
        for n, d in DTYPES.items()
    )
    manifest = Manifest(
        sha256="", size=0, inputs=(spec,), branches=branches,
        outputs=(OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("s",)),),
        features={"flat": ["r"], "derived": {"r": expression.text}, "missing": [SENTINEL]},
    )  # fmt: skip
    tensor = Assembler(manifest)(Table(num_events=len(found), columns=columns_of(found)))[spec.name]
    values, gone = Scaler(spec, [transform], (SENTINEL,), {"r"})(torch.from_numpy(tensor))
    return np.where(gone.numpy(), np.float32(np.nan), values.numpy())


@settings(max_examples=100)
@given(cases())
def test_expressions_mean_what_an_interpreter_says(case: tuple[Node, list[dict[str, Any]]]) -> None:
    check_values(*case)


@settings(max_examples=40)
@given(cases(with_lists=False))
def test_cuts_and_features_mean_what_an_interpreter_says(case: tuple[Node, list[dict[str, Any]]]) -> None:
    check_events(*case)


@pytest.mark.long
@settings(max_examples=1500)
@given(cases())
def test_many_expressions_mean_what_an_interpreter_says(case: tuple[Node, list[dict[str, Any]]]) -> None:
    check_values(*case)


@pytest.mark.long
@settings(max_examples=700)
@given(cases(with_lists=False))
def test_many_cuts_and_features_mean_what_an_interpreter_says(case: tuple[Node, list[dict[str, Any]]]) -> None:
    check_events(*case)

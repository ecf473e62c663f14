"""The words of expressions: functions, operators, constants; and those of other languages, with ours for them."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from rootdata.expressions import arithmetic, kinematics, logic, objects
from rootdata.expressions.arithmetic import of_real
from rootdata.expressions.objects import Value, elementwise

ValueFunction = Callable[..., Value]


@dataclass(frozen=True, slots=True)
class Function:
    """A function and how it may be called: ``least`` to ``most`` arguments, with or without ``fill=``."""

    apply: ValueFunction
    arguments: int = 1
    has_fill: bool = False
    remedy: str = ""


def _lifted(functions: Mapping[str, Callable[..., Any]], arguments: int = 1) -> dict[str, Function]:
    return {name: Function(elementwise(function), arguments) for name, function in functions.items()}


# Functions of real numbers that numpy has under the same name.
_REAL = (
    *("sqrt", "log", "log10", "log2", "log1p", "exp", "expm1", "sin", "cos", "tan", "arcsin", "arccos", "arctan"),
    *("sinh", "cosh", "tanh", "arcsinh"),
)

FUNCTIONS: Mapping[str, Function] = MappingProxyType(
    {
        **_lifted({name: of_real(getattr(np, name)) for name in _REAL}),
        **_lifted({"abs": arithmetic.absolute, "sign": arithmetic.sign, "floor": arithmetic.floor}),
        **_lifted({"ceil": arithmetic.ceil, "round": arithmetic.nearest_whole}),
        **_lifted({"int": arithmetic.truncated}),
        **_lifted({"isnan": arithmetic.is_missing, "isfinite": arithmetic.is_present}),
        **_lifted({"minimum": arithmetic.minimum, "maximum": arithmetic.maximum, "pow": arithmetic.power}, 2),
        **_lifted({"hypot": of_real(np.hypot)}, 2),
        **_lifted({"arctan2": of_real(np.arctan2), "deltaphi": of_real(kinematics.deltaphi)}, 2),
        **_lifted({"clip": arithmetic.clip, "where": logic.where}, 3),
        **_lifted({"deltar": of_real(kinematics.deltar)}, 4),
        **_lifted({"pair_mass": of_real(kinematics.pair_mass)}, 8),
        "sum": Function(objects.total),
        "prod": Function(objects.product),
        "any": Function(objects.any_object),
        "all": Function(objects.all_objects),
        "count": Function(objects.count),
        "sort": Function(objects.descending),
        "argsort": Function(objects.positions),
        "first_of_pairs": Function(objects.first_of_pairs),
        "second_of_pairs": Function(objects.second_of_pairs),
        "first_of_cross": Function(objects.first_of_cross, 2),
        "second_of_cross": Function(objects.second_of_cross, 2),
        "min": Function(objects.smallest, has_fill=True, remedy="of two columns: minimum(a, b)"),
        "max": Function(objects.largest, has_fill=True, remedy="of two columns: maximum(a, b)"),
        "mean": Function(objects.mean, has_fill=True),
        "std": Function(objects.std, has_fill=True),
        "argmin": Function(objects.argsmallest, has_fill=True),
        "argmax": Function(objects.arglargest, has_fill=True),
        "first": Function(objects.leading, has_fill=True),
        "at": Function(objects.pick, 2, has_fill=True),
        "invariant_mass": Function(objects.invariant_mass, 4),
    }
)

BINARY: Mapping[type[ast.operator], ValueFunction] = MappingProxyType(
    {
        ast.Add: elementwise(arithmetic.add),
        ast.Sub: elementwise(arithmetic.subtract),
        ast.Mult: elementwise(arithmetic.multiply),
        ast.Div: elementwise(arithmetic.divide),
        ast.FloorDiv: elementwise(arithmetic.floor_divide),
        ast.Mod: elementwise(arithmetic.remainder),
        ast.Pow: elementwise(arithmetic.power),
        ast.BitAnd: elementwise(logic.bit_and),
        ast.BitOr: elementwise(logic.bit_or),
        ast.BitXor: elementwise(logic.exclusive_or),
        ast.LShift: elementwise(logic.shift_left),
        ast.RShift: elementwise(logic.shift_right),
    }
)
BITWISE: Mapping[type[ast.operator], str] = MappingProxyType({ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"})

UNARY: Mapping[type[ast.unaryop], ValueFunction] = MappingProxyType(
    {
        ast.USub: elementwise(arithmetic.negative),
        ast.UAdd: elementwise(arithmetic.positive),
        ast.Not: elementwise(logic.inverse),
        ast.Invert: elementwise(logic.complement),
    }
)

COMPARISONS: Mapping[type[ast.cmpop], np.ufunc] = MappingProxyType(
    {
        ast.Lt: np.less,
        ast.LtE: np.less_equal,
        ast.Gt: np.greater,
        ast.GtE: np.greater_equal,
        ast.Eq: np.equal,
        ast.NotEq: np.not_equal,
    }
)

LOGIC: Mapping[type[ast.boolop], ValueFunction] = MappingProxyType(
    {ast.And: elementwise(logic.all_of), ast.Or: elementwise(logic.any_of)}
)

WHERE = elementwise(logic.where)
OPPOSITE = elementwise(logic.opposite)
ENTRY = "entry"  # the number of an event in the tree of its file, read as a branch is
CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi})

# Words of ROOT, C++ and others for what has a name here.
ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        **{word: f"arc{word[1:]}" for word in ("asin", "acos", "atan", "atan2", "asinh")},
        "fabs": "abs",
        "Abs": "abs",
        "fmin": "minimum",
        "fmax": "maximum",
        "power": "pow",
        "Power": "pow",
        "Min": "minimum",
        "Max": "maximum",
        "trunc": "int",
        "Int": "int",
        "Pi": "pi",
        "rint": "round",
        "ASin": "arcsin",
        "ACos": "arccos",
        "ATan": "arctan",
        "ATan2": "arctan2",
        "ASinH": "arcsinh",
        "SinH": "sinh",
        "CosH": "cosh",
        "TanH": "tanh",
        "Hypot": "hypot",
        "Nint": "round",
        "Even": "x % 2 == 0",
        **{word.capitalize(): word for word in ("sqrt", "exp", "log", "log10", "log2", "sin", "cos", "tan", "floor")},
        "Ceil": "ceil",
        "Sign": "sign",
        "length": "count",
        "len": "count",
        "size": "count",
        "Any": "any",
        "All": "all",
        "Sum": "sum",
        "Mean": "mean",
        "StdDev": "std",
        "ArgMax": "argmax",
        "ArgMin": "argmin",
        "Argsort": "argsort",
        "Take": "x[links]",
        "DeltaR": "deltar",
        "DeltaPhi": "deltaphi",
        "InvariantMass": "invariant_mass",
        "if_else": "where",
        "ternary": "where",
    }
)

# What Python would take for something else, or would fail on without saying what to write instead.
PITFALLS = (
    (re.compile(r"Sum\$"), "Sum$ is written sum(...) here"),
    (re.compile(r"Length\$"), "Length$ is written count(x) here, of a branch x of the collection"),
    (re.compile(r"(Max|Min)If\$"), "write the condition as a selection of objects: max(x[y > 30]), min(x[y > 30])"),
    (re.compile(r"Max\$|Min\$"), "write max(x) or min(x), of an event's objects"),
    (re.compile(r"Alt\$"), "write at(x, 0, fill=-1) for an object that may not be there"),
    (
        re.compile(r"(Local)?Entry\$|\brdfentry_"),
        "the number of an event in the tree of its file, from 0, is written entry here",
    ),
    (
        re.compile(r"(Entries|Iteration|EvtNumber)\$"),
        "an event is told by its number in the tree of its file, written entry here, or by a branch such as event",
    ),
    (re.compile(r"(@|\.)\s*@?size\s*\(\s*\)"), "write count(x), of a branch x of the collection"),
    (re.compile(r"[A-Za-z_]\w*::"), "names have no prefix here: TMath::Abs and std::abs are abs, TMath::Pi() is pi"),
    (
        re.compile(r"->"),
        "-> is not an operator here; a member of an object is written x.y where the tree has such a branch",
    ),
    (re.compile("&&"), "&& is not an operator here; write `and`, or & between parentheses"),
    (re.compile(r"\|\|"), "|| is not an operator here; write `or`, or | between parentheses"),
    (re.compile("!(?!=)"), "! is not an operator here; write `not`, or ~ before parentheses"),
    (re.compile(r"\?"), "? is not an operator here; write `a if condition else b`"),
    (re.compile("#"), "# would start a comment; put a branch name that has one in backticks: `muons.pt#1`"),
    (re.compile("[^ -~]"), "only plain ASCII is allowed; put a branch name of other characters in backticks"),
)

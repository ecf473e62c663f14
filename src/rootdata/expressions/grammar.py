"""Expressions over the columns of events, as physicists write them: cuts, derived columns, labels, weights, splits.

``sum(Jet_pt[Jet_pt > 30]) / MET`` is read once into a small tree of known operations and then evaluated on the
columns of many events at once. The text is only ever parsed: nothing of it is executed, and what is not listed here is
refused.

Numbers, ``True``, ``False`` and branch names (dots included, any other name in backticks)
    ``30``, ``1.5e3``, ``Jet_pt``, ``jets.pt``, ```muons/muons.pt#1```
The number of an event in the tree of its file, from 0
    ``entry``, where the tree has no branch of that name
Arithmetic and comparisons
    ``+ - * / // % **``, ``< <= > >= == !=``, also chained: ``0 < x < 5``; ``abs(id) in (11, 13)``. Integers give
    integers, exact, whatever their size; but for ``/``
Logic and bits
    ``and or not``, ``& | ~ ^`` (in parentheses next to a comparison), ``a if condition else b``; of integers ``& | ^ ~
    << >>`` work on their bits
Numbers in, one out
    abs sqrt log log10 log2 log1p exp expm1 sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh arcsinh hypot pow
    floor ceil round int isnan isfinite sign clip minimum maximum where deltaphi deltar pair_mass; ``pi``
The objects of an event to one number
    min max mean std argmin argmax first (missing where an event has none, or ``fill=``), sum prod any all count,
    ``invariant_mass(pt, eta, phi, mass)``; objects that are missing are left out
Objects of an event
    ``x[0]``, ``x[-1]``, ``x[argmax(y)]`` (missing where absent), ``at(x, 0, fill=-1.0)``, ``x[:2]``, ``x[y > 30]``,
    ``x[links]`` (what each link points at, missing where that is nothing), ``sort(x)`` (the largest first, missing ones
    last), ``x[argsort(y)]``
Pairs of objects of an event
    ``first_of_pairs(x)``, ``second_of_pairs(x)``: each pair once; ``first_of_cross(x, y)``, ``second_of_cross(x, y)``
Lists of lists, by the name of their branch
    ``flatten(x)`` (one list an event), ``num(x)`` (a list of the numbers of objects)

NaN, infinities, objects that are not there, a divisor of 0: all are missing, and so is what is computed of them. A
comparison with what is missing is unknown, ``not`` of it too; ``and``, ``or`` decide where one side is enough. A cut
takes what is true, so an event without jets passes neither ``Jet_pt[0] > 30`` nor ``not Jet_pt[0] > 30``.
``isnan(x)`` asks.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from rootdata.errors import ExpressionError, nearest
from rootdata.expressions import logic, nested, objects
from rootdata.expressions.arithmetic import Number, OperandError
from rootdata.expressions.objects import AnyColumn, Value, elementwise
from rootdata.expressions.vocabulary import (
    BINARY,
    BITWISE,
    COMPARISONS,
    CONSTANTS,
    ELSEWHERE,
    FUNCTIONS,
    LOGIC,
    OPPOSITE,
    PITFALLS,
    UNARY,
    WHERE,
    Function,
    ValueFunction,
)
from rootdata.jagged import Jagged
from rootdata.missing import Masked

MAX_LENGTH = 4000
MAX_DEPTH = 100
_MAX_INTEGER = 2**64 - 1
_SHOWN = 120

_ALLOWED = "allowed are numbers, branch names, operators, indexing and functions such as sum(Jet_pt)"

_REFUSED: Mapping[type[ast.AST], str] = MappingProxyType(
    {
        ast.Lambda: "a lambda",
        ast.NamedExpr: "an assignment",
        ast.JoinedStr: "text",
        ast.ListComp: "a comprehension",
        ast.SetComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.GeneratorExp: "a comprehension",
        ast.List: "a list",
        ast.Tuple: "a tuple",
        ast.Set: "a set",
        ast.Dict: "a dictionary",
        ast.Starred: "a starred argument",
        ast.Slice: "a slice in a list of indices",
        ast.Await: "await",
        ast.Yield: "yield",
        ast.YieldFrom: "yield",
    }
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A stretch of an expression, to point at."""

    text: str
    where: str
    start: int = 0
    stop: int = 0

    @property
    def excerpt(self) -> str:
        return self.text[self.start : self.stop]

    def error(self, what: str, *, event: int | None = None) -> ExpressionError:
        """Say what is wrong, in which event if in one, and mark the place under the expression."""
        begin = max(0, self.start - _SHOWN // 2) if len(self.text) > _SHOWN else 0
        line = self.text[begin : begin + _SHOWN]
        marks = "^" * max(1, min(self.stop, begin + _SHOWN) - self.start)
        prefix = f"{self.where}: " if self.where else ""
        error = ExpressionError(f"{prefix}{what}\n    {line}\n    {' ' * (self.start - begin)}{marks}")
        error.event = event
        return error


@dataclass(frozen=True, slots=True)
class _Constant:
    place: _Place
    value: Number | Masked

    def evaluate(self, _loaded: Mapping[str, Value]) -> Value:
        return self.value


@dataclass(frozen=True, slots=True)
class _BranchNode:
    place: _Place
    name: str

    def evaluate(self, loaded: Mapping[str, Value]) -> Value:
        return loaded[self.name]


@dataclass(frozen=True, slots=True)
class _Apply:
    place: _Place
    operation: ValueFunction
    operands: tuple[_Node, ...]

    def evaluate(self, loaded: Mapping[str, Value]) -> Value:
        values = [operand.evaluate(loaded) for operand in self.operands]
        try:
            return self.operation(*values)
        except OperandError as error:
            raise self.place.error(error.named([operand.place.excerpt for operand in self.operands])) from error
        except ExpressionError as error:
            raise self.place.error(str(error), event=error.event) from error


_Node = _Constant | _BranchNode | _Apply


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; made by :func:`parse`.

    Parameters
    ----------
    text : as written
    where : what the expression is for, for messages
    names : the branches that it needs
    """

    text: str
    where: str
    names: frozenset[str]
    _root: _Node = field(repr=False, compare=False)
    _branches: tuple[_BranchNode, ...] = field(repr=False, compare=False)

    def evaluate(self, columns: Mapping[str, AnyColumn], *, num_events: int) -> AnyColumn:
        """Compute the expression for every event.

        Parameters
        ----------
        columns : by branch name, numpy arrays or ``Masked`` (num_events,) or (num_events, k), awkward arrays of numbers
            or of lists of numbers, or ``Jagged``; any integer, boolean or real type
        num_events : length of every column, which can't be told where there are none

        Returns
        -------
        (num_events,) numpy array, ``Masked`` where integers or booleans are missing (real numbers are NaN then); or a
        jagged column: ``Jagged`` if any was given, else an awkward array, of option type where integers or booleans are
        missing. May share its memory with a column.

        Raises
        ------
        ExpressionError
            If a column is missing or unfit, or two jagged ones differ in their counts.
        """
        loaded = {branch.name: _load(branch, columns, num_events) for branch in self._branches}
        with np.errstate(all="ignore"):
            value = self._root.evaluate(loaded)
        if not isinstance(value, Jagged):
            return _of_length(value, num_events)
        return value if any(isinstance(columns[name], Jagged) for name in self.names) else value.to_awkward()

    def steps(self, columns: Mapping[str, AnyColumn], *, num_events: int) -> dict[str, AnyColumn]:
        """Compute every part of the expression, the innermost first.

        Parameters
        ----------
        columns, num_events : as :meth:`evaluate` takes them

        Returns
        -------
        text of a part to its value; constants are left out, and the expression itself is the last one
        """
        loaded = {branch.name: _load(branch, columns, num_events) for branch in self._branches}
        with np.errstate(all="ignore"):
            found = {node.place.excerpt: node.evaluate(loaded) for node in _parts(self._root)}
        return {text: v if isinstance(v, Jagged) else _of_length(v, num_events) for text, v in found.items()}

    def __reduce__(self) -> tuple[Callable[..., Expression], tuple[str, str]]:
        # The operations are closures: another process gets the text and reads it again.
        return _parse, (self.text, self.where)


def parse(text: str, *, where: str = "") -> Expression:
    """Read an expression.

    Parameters
    ----------
    text : in the language of ``docs/expressions.md``
    where : what the expression is for, ``"derived column 'r'"``; put before messages

    Raises
    ------
    ExpressionError
        If the text is not an expression of the grammar above; the message points at the place.

    Examples
    --------
    >>> expression = parse("event % 5 == 0")
    >>> expression.evaluate({"event": np.array([4, 5, 6])}, num_events=3).tolist()
    [False, True, False]
    """
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError(f"{where + ': ' if where else ''}an expression is needed, as text: got {text!r}")
    return _parse(text, where)


@functools.lru_cache(maxsize=4096)  # the same few expressions meet every block
def _parse(text: str, where: str) -> Expression:
    place = _Place(re.sub(r"\s", " ", text).strip(), where)
    if len(place.text) > MAX_LENGTH:
        raise place.error(
            f"{len(place.text)} characters are too long; at most {MAX_LENGTH}: split it into derived columns"
        )
    bare, quoted = _hide_quoted(place)
    _check_pitfalls(bare, place)
    reader = _SyntaxReader(place, bare, quoted)
    syntax = _syntax(bare, place)
    reader.note_conditions(syntax)
    root = reader.visit(syntax)
    return Expression(text, where, frozenset(reader.branches), root, tuple(reader.branches.values()))


def _parts(node: _Node) -> Iterator[_Node]:
    """Walk from the leaves of a tree to its root."""
    for operand in node.operands if isinstance(node, _Apply) else ():
        if not isinstance(operand, _Constant):
            yield from _parts(operand)
    yield node


def _load(branch: _BranchNode, given: Mapping[str, AnyColumn], num_events: int) -> Value:
    if branch.name not in given:
        raise branch.place.error(f"no column {branch.name!r}; {nearest(branch.name, given)}")
    try:
        return objects.load(given[branch.name], num_events)
    except OperandError as error:
        raise branch.place.error(error.named([branch.name])) from error


def _of_length(value: Number | objects.Flat, num_events: int) -> objects.Flat:
    """Repeat a single number for every event; a column stays as it is."""
    if isinstance(value, Masked):
        return value if value.ndim else Masked(np.full(num_events, value.values), np.full(num_events, value.valid))
    return value if isinstance(value, np.ndarray) and value.ndim else np.full(num_events, value)


def _at(place: _Place, start: int, stop: int) -> _Place:
    return _Place(place.text, place.where, start, stop)


def _hide_quoted(place: _Place) -> tuple[str, dict[int, str]]:
    """Put a plain name of the same length in the place of each name in backticks.

    Returns
    -------
    bare, quoted : the text for Python's parser, and the names by where they start in it
    """
    pieces, quoted = place.text.split("`"), {}
    if len(pieces) % 2 == 0:
        start = place.text.rindex("`")
        raise _at(place, start, start + 1).error("this backtick is never closed")
    position = 0
    for i, piece in enumerate(pieces):
        if i % 2:
            if not piece.strip():
                raise _at(place, position - 1, position + len(piece) + 1).error(
                    "there is no name between the backticks"
                )
            quoted[position] = piece
            pieces[i] = "_" * len(piece)
        position += len(piece) + 1
    # Blanks for the backticks: they hold a quoted name apart from what it touches.
    return " ".join(pieces), quoted


def _check_pitfalls(bare: str, place: _Place) -> None:
    for pattern, advice in PITFALLS:
        if found := pattern.search(bare):
            raise _at(place, *found.span()).error(advice)


def _syntax(bare: str, place: _Place) -> ast.expr:
    indent = len(bare) - len(bare.lstrip())
    try:
        tree = ast.parse(bare.lstrip(), mode="eval").body
    except SyntaxError as error:
        start = min(max((error.offset or 1) - 1 + indent, 0), len(bare))
        stop = (error.end_offset or 0) - 1 + indent
        if re.match(r"=(?!=)", bare[start:]):
            raise _at(place, start, start + 1).error("= compares nothing: write == for equal") from error
        raise _at(place, start, max(start + 1, stop)).error(f"not an expression: {error.msg}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise place.error("nested too deeply to be read; split it into derived columns") from error
    return tree


def _is_condition(node: ast.expr) -> bool:
    """Say whether the answer is yes or no by the way it is written."""
    if isinstance(node, ast.BinOp):
        return type(node.op) in BITWISE and (_is_condition(node.left) or _is_condition(node.right))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not) or (isinstance(node.op, ast.Invert) and _is_condition(node.operand))
    return isinstance(node, ast.Compare | ast.BoolOp)


class _SyntaxReader(ast.NodeVisitor):
    """Turn Python's syntax tree into ours, node by node; what has no method here is refused.

    Parameters
    ----------
    bare : the text that the tree was made from, less its indent
    """

    def __init__(self, place: _Place, bare: str, quoted: Mapping[int, str]) -> None:
        self.place = place
        self.bare = bare
        self.indent = len(bare) - len(bare.lstrip())
        self.quoted = quoted
        self.branches: dict[str, _BranchNode] = {}
        self.conditions: set[ast.AST] = set()
        self.depth = 0

    def visit(self, node: ast.AST) -> _Node:
        """Read one node and, through it, what lies below."""
        if self.depth >= MAX_DEPTH:
            self.refuse(node, f"nested more than {MAX_DEPTH} levels deep; split it into derived columns")
        self.depth += 1
        result: _Node = super().visit(node)
        self.depth -= 1
        return result

    def generic_visit(self, node: ast.AST) -> NoReturn:
        """Refuse what is not listed."""
        self.refuse(node, f"{_REFUSED.get(type(node), 'this')} is not allowed in an expression; {_ALLOWED}")

    def place_of(self, node: ast.AST) -> _Place:
        """Find a node in the text."""
        start, stop = (getattr(node, end, 0) + self.indent for end in ("col_offset", "end_col_offset"))
        # Python saw a quoted name without its backticks.
        return _at(self.place, start - (start in self.quoted), stop + self.place.text.startswith("`", stop))

    def refuse(self, node: ast.AST, what: str) -> NoReturn:
        """Say what is wrong with a node."""
        raise self.place_of(node).error(what)

    def apply(self, node: ast.AST, operation: ValueFunction, operands: Iterable[ast.AST]) -> _Node:
        """Apply an operation to what the operands stand for, at once where all are constants."""
        made = _Apply(self.place_of(node), operation, tuple(self.visit(operand) for operand in operands))
        if not all(isinstance(operand, _Constant) for operand in made.operands):
            return made
        with np.errstate(all="ignore"):
            value: Any = made.evaluate({})
        # .item(): a Python number is weak, and leaves float32 columns as they are.
        return _Constant(made.place, value if isinstance(value, Masked) else np.asarray(value).item())

    def branch(self, node: ast.AST, name: str) -> _BranchNode:
        """Note that a branch is needed."""
        made = _BranchNode(self.place_of(node), name)
        self.branches.setdefault(name, made)
        return made

    def visit_Constant(self, node: ast.Constant) -> _Node:
        value = node.value
        if isinstance(value, str | bytes):
            self.refuse(node, "text is not allowed in an expression; a branch name stands bare or in `backticks`")
        if not isinstance(value, bool | int | float):
            self.refuse(node, f"{value!r} is not allowed in an expression; {_ALLOWED}")
        if isinstance(value, int) and value > _MAX_INTEGER:
            self.refuse(node, "this integer does not fit into 64 bits")
        if value in (math.inf, -math.inf):
            self.refuse(node, "this number does not fit into 64 bits")
        return _Constant(self.place_of(node), value)

    def visit_Name(self, node: ast.Name) -> _Node:
        if node.id in CONSTANTS and node.col_offset + self.indent not in self.quoted:
            return _Constant(self.place_of(node), CONSTANTS[node.id])
        return self.branch(node, self.quoted.get(node.col_offset + self.indent, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> _Node:
        parts, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            parts.append(base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            self.refuse(node, "a dot is part of a branch name here (jets.pt); attributes and methods are not allowed")
        if base.col_offset + self.indent in self.quoted:
            self.refuse(node, "put the whole branch name in backticks, with its dots")
        return self.branch(node, ".".join([base.id, *reversed(parts)]))

    def visit_BinOp(self, node: ast.BinOp) -> _Node:
        operation = BINARY.get(type(node.op))
        if operation is None:
            self.refuse(node, "this operator is not allowed; allowed: + - * / // % ** & | ^ << >>")
        if isinstance(node.op, ast.BitXor):
            self.check_power(node)
        return self.apply(node, operation, (node.left, node.right))

    def check_power(self, node: ast.BinOp) -> None:
        """Refuse ``x^2``, which means a square to whoever writes it."""
        for side in (node.left, node.right):
            place = self.place_of(side)
            if isinstance(side, ast.Constant) and place.excerpt.isdecimal():
                self.refuse(
                    node,
                    f"^ is the exclusive or of bits, a power is written x**{place.excerpt}; if bits are meant, write "
                    f"hexadecimal, {int(place.excerpt):#x}",
                )

    def visit_UnaryOp(self, node: ast.UnaryOp) -> _Node:
        if isinstance(node.op, ast.Not):
            self.note_conditions(node.operand)
        is_condition = isinstance(node.op, ast.Invert) and node in self.conditions
        return self.apply(node, OPPOSITE if is_condition else UNARY[type(node.op)], (node.operand,))

    def note_conditions(self, *nodes: ast.AST) -> None:
        """Note what stands for true or false: there ``~`` of a number would be true of nearly all."""
        self.conditions.update(nodes)

    def visit_BoolOp(self, node: ast.BoolOp) -> _Node:
        self.note_conditions(*node.values)
        return self.apply(node, LOGIC[type(node.op)], node.values)

    def visit_IfExp(self, node: ast.IfExp) -> _Node:
        self.note_conditions(node.test)
        return self.apply(node, WHERE, (node.test, node.body, node.orelse))

    def visit_Compare(self, node: ast.Compare) -> _Node:
        operands = (node.left, *node.comparators)
        for operand in operands:
            self.check_binding(operand)
        if any(isinstance(op, ast.In | ast.NotIn) for op in node.ops):
            return self.membership(node)
        signs = [COMPARISONS.get(type(op)) for op in node.ops]
        known = [sign for sign in signs if sign is not None]
        if len(known) < len(signs):
            self.refuse(node, "this comparison is not allowed; allowed: < <= > >= == != in")
        return self.apply(node, elementwise(logic.comparing(*known)), operands)

    def membership(self, node: ast.Compare) -> _Node:
        """Read ``x in (1, 2)`` and ``x not in (1, 2)``."""
        values = node.comparators[0]
        if len(node.ops) > 1 or not isinstance(values, ast.Tuple | ast.List | ast.Set) or not values.elts:
            self.refuse(node, "`in` takes one list of numbers: abs(Muon_pdgId) in (11, 13)")
        for value in values.elts:
            if not isinstance(self.visit(value), _Constant):
                self.refuse(value, "the numbers after `in` are the same for all events; write x == y")
        found = self.apply(node, elementwise(logic.is_one_of), (node.left, *values.elts))
        if isinstance(node.ops[0], ast.In):
            return found
        return _Apply(found.place, elementwise(logic.inverse), (found,))

    def check_binding(self, node: ast.expr) -> None:
        """Refuse ``a > 1 & b < 2``, which Python reads as ``a > (1 & b) < 2``."""
        sign = BITWISE.get(type(node.op)) if isinstance(node, ast.BinOp) else None
        if sign is None:
            return
        place = self.place_of(node)
        before, after = self.bare[: place.start].rstrip(), self.bare[place.stop :].lstrip()
        if before.endswith("(") and after.startswith(")"):
            return
        power = "; a power is written x**2" if sign == "^" else ""
        raise place.error(f"{sign} binds tighter than comparisons: put parentheses, (a > 1) {sign} (b < 2){power}")

    def visit_Subscript(self, node: ast.Subscript) -> _Node:
        if not isinstance(node.slice, ast.Slice):
            return self.apply(node, objects.index, (node.value, node.slice))
        if node.slice.step is not None:
            self.refuse(node, "a slice with a step is not allowed; allowed: x[start:stop]")
        start, stop = self.bound(node.slice.lower), self.bound(node.slice.upper)
        return self.apply(node, partial(objects.cut, start=start, stop=stop), (node.value,))

    def bound(self, node: ast.expr | None) -> int | None:
        """Read the end of a slice."""
        if node is None:
            return None
        value = self.visit(node)
        if not isinstance(value, _Constant) or not isinstance(value.value, int) or isinstance(value.value, bool):
            self.refuse(node, "the ends of a slice are whole numbers, the same for all events: x[:2]")
        return value.value

    def visit_Call(self, node: ast.Call) -> _Node:
        if isinstance(node.func, ast.Name) and node.func.id in nested.READ_AS and self.is_bare(node.func):
            return self.of_lists(node, node.func.id)
        name, function = self.function(node.func)
        if len(node.args) != function.arguments:
            takes = f"{function.arguments} argument{'s' if function.arguments > 1 else ''}"
            remedy = f"; {function.remedy}" if function.remedy else ""
            self.refuse(node, f"{name} takes {takes}, got {len(node.args)}{remedy}")
        if len(node.keywords) > 1:
            self.refuse(node.keywords[1], "one option at the most: fill=")
        if name in {"where", "any", "all"}:
            self.note_conditions(node.args[0])
        fills = [self.fill(keyword, name, function) for keyword in node.keywords]
        operation = partial(function.apply, fill=fills[0]) if fills else function.apply
        made = self.apply(node, operation, node.args)
        if name == "count" and _is_condition(node.args[0]):
            passes = f"sum({self.place_of(node.args[0]).excerpt})"
            self.refuse(node, f"count takes answers of no as well: write {passes} for the objects that pass")
        return made

    def is_bare(self, node: ast.Name) -> bool:
        """Say whether a name stands without backticks."""
        return node.col_offset + self.indent not in self.quoted

    def of_lists(self, node: ast.Call, function: str) -> _Node:
        """Read what is made of the lists of lists of a branch, under a name of its own."""
        if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name | ast.Attribute):
            self.refuse(node, f"{function} takes the name of a branch, {function}(x), and nothing computed")
        known = set(self.branches)
        inner = self.visit(node.args[0])
        name = inner.name if isinstance(inner, _BranchNode) else ""
        if name not in known:
            self.branches.pop(name, None)  # it is not read itself
        return self.branch(node, nested.name_of(function, name))

    def function(self, node: ast.expr) -> tuple[str, Function]:
        """Look a function up."""
        if isinstance(node, ast.Attribute):
            self.refuse(node, "a function is called by its bare name, sum(jets.pt), never with a dot")
        if not isinstance(node, ast.Name) or node.col_offset + self.indent in self.quoted:
            self.refuse(node, f"this is not a function; {_ALLOWED}")
        if node.id in ELSEWHERE and node.id not in FUNCTIONS:
            self.refuse(node, f"{node.id} is called {ELSEWHERE[node.id]} here")
        if node.id not in FUNCTIONS:
            self.refuse(node, f"no function {node.id!r}; {nearest(node.id, [*FUNCTIONS, *nested.READ_AS])}")
        return node.id, FUNCTIONS[node.id]

    def fill(self, keyword: ast.keyword, name: str, function: Function) -> Number:
        """Read ``fill=``, the only option there is."""
        allowed = "allowed: fill=" if function.has_fill else "it takes none"
        if keyword.arg != "fill" or not function.has_fill:
            self.refuse(keyword, f"{name} has no option {keyword.arg or '**'!r}; {allowed}")
        value = self.visit(keyword.value)
        if not isinstance(value, _Constant) or isinstance(value.value, Masked):
            self.refuse(keyword, "fill= takes a number, the same for all events")
        return value.value

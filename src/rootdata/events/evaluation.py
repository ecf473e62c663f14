"""Expressions over the columns of a block, each column made when it is first used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata import missing
from rootdata.errors import DataError, ExpressionError, ShapeError
from rootdata.expressions.arithmetic import OperandError
from rootdata.expressions.grammar import Expression, parse
from rootdata.expressions.objects import Flat, is_true, load
from rootdata.jagged import Jagged, same_offsets
from rootdata.location import Location
from rootdata.missing import Bools, Masked
from rootdata.options.columns import Collection
from rootdata.options.data import DataConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A contiguous entry range of one tree."""

    location: Location
    start: int
    stop: int
    num_entries: int

    def __str__(self) -> str:
        tree = "" if self.location.tree is None else f", tree {self.location.tree!r}"
        return f"{self.location.path}{tree}, entries {self.start} to {self.stop}"


class ColumnsOnUse(Mapping[str, Any]):
    """Columns of a block by name: branches without their sentinels, and derived columns, computed on first use."""

    def __init__(self, config: DataConfig, raw: Mapping[str, Any], block: Block) -> None:
        self._config = config
        self._raw = raw
        self._block = block
        self._branches: dict[str, Any] = {}
        self._derived: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        text = self._config.derived.get(name)
        if text is None:
            return self._branch(name)
        if name not in self._derived:
            expression = parse(text, where=f"derived column {name!r}")
            inputs = {n: self._branch(n) if n == name else self[n] for n in expression.names}
            self._derived[name] = self._evaluated(expression, inputs)
        return self._derived[name]

    def is_branch(self, text: str) -> bool:
        """Say whether a text is the name of a branch alone."""
        return text in self._raw and text not in self._config.derived

    def as_read(self, name: str) -> Any:
        """Return a branch with its sentinels."""
        return self._plain(name)

    def _branch(self, name: str) -> Any:
        if name not in self._branches:
            self._branches[name] = _masked(self._plain(name), self._config.missing_of(name))
        return self._branches[name]

    def _plain(self, name: str) -> Any:
        """Return a branch as arrays; one that can't be turned into them is refused when it is used."""
        column = self._raw[name]
        if isinstance(column, np.ndarray | Jagged):
            return column
        try:
            return load(column, self._block.stop - self._block.start)
        except OperandError:
            return column

    def steps(self, text: str, key: tuple[str, str]) -> dict[str, Any]:
        """Compute every part of an expression of these columns; a derived column may use the branch of its name."""
        expression, own = parse(text), key[1] if key[0] == "derived" else None
        inputs = {n: self._branch(n) if n == own else self[n] for n in expression.names}
        return expression.steps(inputs, num_events=self._block.stop - self._block.start)

    def evaluate(self, text: str, *, what: str) -> Any:
        """Evaluate an expression of these columns."""
        expression = parse(text, where=what)
        return self._evaluated(expression, {n: self[n] for n in expression.names})

    def _evaluated(self, expression: Expression, inputs: Mapping[str, Any]) -> Any:
        block = self._block
        try:
            return expression.evaluate(inputs, num_events=block.stop - block.start)
        except ExpressionError as error:
            if error.event is None:
                raise
            entry = f"event {error.event} is entry {block.start + error.event} of {block.location.path}"
            raise DataError(f"{error}\n    {entry}") from error

    def __iter__(self) -> Any:
        return iter({**self._raw, **self._config.derived})

    def __len__(self) -> int:
        return len({**self._raw, **self._config.derived})


def _masked(column: Any, sentinels: tuple[float, ...]) -> Any:
    """Mask the sentinels of a branch."""
    if isinstance(column, Jagged):
        return Jagged.of(column.offsets, missing.mask_sentinels(column.content, sentinels)) if sentinels else column
    return missing.mask_sentinels(column, sentinels) if isinstance(column, np.ndarray) else column


def per_event(text: str, columns: ColumnsOnUse, block: Block, *, what: str) -> Flat:
    """Evaluate an expression that has one number an event.

    Parameters
    ----------
    text : expression
    columns : of the block
    block : they are of, for errors
    what : the expression stands for, in errors
    """
    values = columns.evaluate(text, what=what)
    if not isinstance(values, np.ndarray | Masked) or values.ndim != 1:
        raise DataError(
            f"{what} {text!r} gives a list an event; reduce it with any(), all(), sum(), max(), ... ({block})"
        )
    return values


def decision(text: str, values: Flat, block: Block) -> Bools:
    """Mark where a cut is true, which is neither false nor unknown.

    Parameters
    ----------
    text : the cut
    values : of it, one an event
    block : they are of, for errors
    """
    if values.dtype.kind == "f":
        raise DataError(f"cut {text!r} gives numbers, not yes or no; write a comparison such as '{text} > 0' ({block})")
    return is_true(values)


def known_values(
    text: str, columns: ColumnsOnUse, keep: Bools, block: Block, *, what: str, wrong: str
) -> npt.NDArray[Any]:
    """Evaluate an expression for the selected events, each of which must have a value of it.

    Parameters
    ----------
    text : expression
    columns : of the block
    keep : which events are selected
    block : they are of, for errors
    what : the expression stands for, in errors
    wrong : what is said of an event without a value
    """
    values = per_event(text, columns, block, what=what)
    gone = missing.find_missing(values)
    if gone is not None:
        check_known(~gone, keep, block, what=f"{what} {text!r} {wrong}")
    return missing.values_of(values)[keep]


def check_known(is_known: Bools, keep: Bools, block: Block, *, what: str) -> None:
    """Refuse selected events of which something is not known, by the first of them.

    Parameters
    ----------
    is_known : of which events
    keep : which events are selected
    block : they are of
    what : is not known, and that it is not, in words
    """
    bad = np.flatnonzero(keep & ~is_known)
    if len(bad):
        raise DataError(
            f"{what} at entry {block.start + int(bad[0])} of {block.location.path} (selected events like it in this "
            f"block: {len(bad)}); cut such events away, or give them a value: where(isnan(x), 0, x)"
        )


def jagged_lists(values: Any, name: str, collection: Collection, block: Block) -> Jagged:
    """Take values as the lists of a collection.

    Parameters
    ----------
    values : a list an event, or numbers of a fixed-size branch
    name : of the branch or expression, for errors
    collection : they belong to
    block : they are of, for errors
    """
    if isinstance(values, np.ndarray | Masked) and values.ndim == 1:
        raise DataError(f"jagged.{collection.name}: {name!r} has one number an event; list it under `flat` ({block})")
    try:
        if isinstance(values, Masked):
            return Jagged.from_fixed(values)
        return values if isinstance(values, Jagged) else Jagged.from_awkward(values)
    except ShapeError as error:
        raise DataError(
            f"jagged.{collection.name}: {name!r} is nested deeper than a list an event ({block})"
        ) from error


def check_counts(lists: Mapping[str, Jagged], collection: Collection, block: Block) -> None:
    """Refuse branches of a collection whose lists differ in length.

    Parameters
    ----------
    lists : by the names of the branches
    collection : they belong to
    block : they are of, for errors
    """
    first, *others = lists
    for other in others:
        if same_offsets(lists[other].offsets, lists[first].offsets):
            continue
        at = int(np.flatnonzero(lists[other].counts != lists[first].counts)[0])
        raise DataError(
            f"jagged.{collection.name}: {first!r} has {lists[first].counts[at]} objects but {other!r} has "
            f"{lists[other].counts[at]} in entry {block.start + at} of {block.location.path}; "
            "branches of one collection share their counts: put them into two"
        )


def per_object(
    text: str,
    collection: Collection,
    columns: ColumnsOnUse,
    lists: Mapping[str, Jagged],
    block: Block,
    *,
    what: str,
) -> Jagged:
    """Evaluate an expression that has one value an object.

    Parameters
    ----------
    text : expression
    collection : of the objects
    columns : of the block
    lists : of the collection, which say how many objects there are
    block : they are of, for errors
    what : the expression stands for within the collection, in errors
    """
    values = columns.evaluate(text, what=f"jagged.{collection.name}.{what}")
    first = next(iter(lists.values()))
    jagged = jagged_lists(values, text, collection, block)
    if not same_offsets(jagged.offsets, first.offsets):
        raise DataError(
            f"jagged.{collection.name}.{what}: {text!r} does not have one value for each "
            f"object of the collection ({block})"
        )
    return jagged

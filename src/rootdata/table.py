"""The branches of some events, side by side, and what is done with whole events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rootdata.errors import ShapeError
from rootdata.jagged import Column, Ints, Jagged, offsets_of


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The branches of some events.

    Parameters
    ----------
    columns : branch name to (n,), (n, width) of a fixed-size branch, or a jagged column of n events
    """

    num_events: int
    columns: Mapping[str, Column]


def concatenate(tables: Sequence[Table]) -> Table:
    """Put the events of tables one after the other.

    Raises
    ------
    ShapeError
        For tables of different columns, or a column that has lists in one and numbers in another.
    """
    first, *others = tables
    if not others:
        return first
    for other in others:
        if other.columns.keys() != first.columns.keys():
            raise ShapeError(f"tables of different columns: {', '.join(first.columns)}; {', '.join(other.columns)}")
    joined = {name: _join(name, [t.columns[name] for t in tables]) for name in first.columns}
    return Table(num_events=sum(t.num_events for t in tables), columns=joined)


def _join(name: str, parts: Sequence[Column]) -> Column:
    lists = [part.trimmed() for part in parts if isinstance(part, Jagged)]
    if not lists:
        return np.concatenate([part for part in parts if not isinstance(part, Jagged)])
    if len(lists) < len(parts):
        raise ShapeError(f"column {name!r} has a list an event in one table and numbers in another")
    offsets = offsets_of(np.concatenate([part.counts for part in lists]))
    marks = None
    if any(part.valid is not None for part in lists):
        marks = np.concatenate([np.ones(len(p.content), bool) if p.valid is None else p.valid for p in lists])
    return Jagged(offsets, np.concatenate([part.content for part in lists]), marks)


def take(table: Table, rows: Ints) -> Table:
    """Pick events, by number, in any order; an event may be picked again."""

    def picked(offsets: Ints) -> tuple[Ints, Ints]:
        counts = np.diff(offsets)[rows]
        taken = offsets_of(counts)
        return taken, np.arange(taken[-1]) + np.repeat(offsets[:-1][rows] - taken[:-1], counts)

    return _of_rows(table, rows, num_events=len(rows), objects=picked)


def cut(table: Table, start: int, stop: int) -> Table:
    """Take the events from ``start`` to ``stop``, without a copy of their values.

    Parameters
    ----------
    table : of flat and jagged branches
    start, stop : 0 <= start <= stop <= number of events
    """
    if (start, stop) == (0, table.num_events):
        return table

    def within(offsets: Ints) -> tuple[Ints, slice]:
        own = offsets[start : stop + 1]
        return own - own[0], slice(int(own[0]), int(own[-1]))

    return _of_rows(table, slice(start, stop), num_events=stop - start, objects=within)


def _of_rows(
    table: Table, rows: Ints | slice, *, num_events: int, objects: Callable[[Ints], tuple[Ints, Ints | slice]]
) -> Table:
    """Make a table of some rows.

    Parameters
    ----------
    objects : offsets of lists to those of the chosen events, and the objects that are theirs
    """
    # Branches that share their offsets go on sharing them, which makes comparing them cheap.
    known: dict[int, tuple[Ints, Ints | slice]] = {}
    columns: dict[str, Column] = {}
    for name, column in table.columns.items():
        if isinstance(column, Jagged):
            if id(column.offsets) not in known:
                known[id(column.offsets)] = objects(column.offsets)
            offsets, chosen = known[id(column.offsets)]
            columns[name] = Jagged.of(offsets, column.values[chosen])
        else:
            columns[name] = column[rows]
    return Table(num_events=num_events, columns=columns)

"""What is done with whole events: the same as with lists of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import ShapeError
from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table, concatenate, cut, take
from strategies import tables


def events_of(table: Table) -> list[dict[str, Any]]:
    """Return the events as dicts, the plain way."""
    rows = {name: lists_of(column) for name, column in table.columns.items()}
    return [{name: values[i] for name, values in rows.items()} for i in range(table.num_events)]


def lists_of(column: Any) -> list[Any]:
    """Return what each event has, as bytes where numbers may be NaN, with what is missing marked."""
    if not isinstance(column, Jagged):
        return [(row.dtype.str, row.tobytes()) for row in column]
    valid = np.ones(len(column.content), bool) if column.valid is None else column.valid
    spans = itertools.pairwise(column.offsets.tolist())
    return [(column.content.dtype.str, column.content[a:b].tobytes(), valid[a:b].tolist()) for a, b in spans]


@given(tables(), st.data())
def test_events_are_taken_in_any_order(table: Table, data: st.DataObject) -> None:
    last = table.num_events - 1
    rows = data.draw(st.lists(st.integers(0, last), max_size=8)) if table.num_events else []
    taken = take(table, np.array(rows, np.int64))
    assert taken.num_events == len(rows)
    assert events_of(taken) == [events_of(table)[i] for i in rows]


@given(tables(), st.data())
def test_events_are_cut_out_without_a_copy(table: Table, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, table.num_events))
    stop = data.draw(st.integers(start, table.num_events))
    piece = cut(table, start, stop)
    assert piece.num_events == stop - start
    assert events_of(piece) == events_of(table)[start:stop]
    for name, column in piece.columns.items():
        one, whole = (c.content if isinstance(c, Jagged) else c for c in (column, table.columns[name]))
        assert not one.size or np.shares_memory(one, whole)


@given(tables(), st.data())
def test_what_is_cut_is_put_together_again(table: Table, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.lists(st.integers(0, table.num_events), max_size=4)))
    parts = [cut(table, a, b) for a, b in itertools.pairwise([0, *edges, table.num_events])]
    whole = concatenate(parts)
    assert whole.num_events == table.num_events
    assert events_of(whole) == events_of(table)


@given(tables())
def test_columns_that_share_their_offsets_go_on_sharing_them(table: Table) -> None:
    rows = np.arange(table.num_events)[::-1]
    for made in (take(table, rows), cut(table, 0, table.num_events // 2)):
        for a, b in itertools.combinations([n for n, c in table.columns.items() if isinstance(c, Jagged)], 2):
            was, now = ({id(t.columns[n].offsets) for n in (a, b)} for t in (table, made))
            assert len(now) <= len(was)


def test_cutting_keeps_offsets_shared() -> None:
    offsets = offsets_of(np.array([1, 2, 0, 3]))
    columns = {n: Jagged(offsets, np.arange(6.0)) for n in "ab"}
    piece = cut(Table(num_events=4, columns=columns | {"x": np.arange(4)}), 1, 3)
    a, b, x = (piece.columns[n] for n in "abx")
    assert isinstance(a, Jagged)
    assert isinstance(b, Jagged)
    assert a.offsets is b.offsets
    assert (a.offsets.tolist(), a.content.tolist(), x.tolist()) == ([0, 2, 2], [1, 2], [1, 2])  # type: ignore[union-attr]


def test_values_around_the_lists_are_not_joined() -> None:
    table = Table(num_events=1, columns={"a": Jagged(np.array([1, 3]), np.arange(9))})
    assert concatenate([table, table]).columns["a"].content.tolist() == [1, 2, 1, 2]


def test_what_is_missing_in_one_table_is_missing_in_all() -> None:
    offsets = offsets_of(np.array([2]))
    masked, plain = (Jagged(offsets, np.arange(2), valid) for valid in (np.array([True, False]), None))
    joined = concatenate([Table(num_events=1, columns={"a": column}) for column in (plain, masked)])
    assert joined.columns["a"].valid.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"b": np.zeros(1)}, "different columns: a; b"),
        ({}, "different columns"),
        ({"a": Jagged(np.array([0, 1]), np.zeros(1))}, "column 'a' has a list an event in one table and numbers"),
    ],
)
def test_tables_of_other_columns_are_not_joined(other: Any, words: str) -> None:
    tables = [Table(num_events=1, columns={"a": np.zeros(1)}), Table(num_events=1, columns=other)]
    for order in (tables, tables[::-1]):
        with pytest.raises(ShapeError, match="column"):
            concatenate(order)
    with pytest.raises(ShapeError, match=words):
        concatenate(tables)

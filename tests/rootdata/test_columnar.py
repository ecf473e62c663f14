"""Columns as bytes: exact on the way there and back, small, and never read otherwise than they were written."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata import columnar
from rootdata.errors import ColumnsError
from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from strategies import tables


def facts_of(column: Any) -> Any:
    """Return all that tells a column from others: types, shapes, lists, and every bit of the values in them."""
    if isinstance(column, Jagged):
        first, last = column.offsets[[0, -1]]
        return (column.offsets - first).tolist(), facts_of(column.content[first:last])
    return column.dtype.str, column.shape, column.tobytes()


def as_facts(columns: Any) -> Any:
    return [(name, facts_of(column)) for name, column in columns.items()]


def sent(columns: dict[str, Any], num_events: int = 2) -> bytes:
    return columnar.encode(Table(num_events=num_events, columns=columns))


def kept(columns: Any, key: str = "k", before: int = 0) -> tuple[str, Any]:
    parts = columnar.to_keep(columns, key, before=before)
    assert parts is not None
    return columnar.kept(memoryview(b"".join([bytes(before), *parts])), before=before)


@given(tables())
def test_any_table_comes_back_when_it_is_sent(table: Table) -> None:
    again = columnar.decode(columnar.encode(table))
    assert again.num_events == table.num_events
    assert as_facts(again.columns) == as_facts(table.columns)


@given(tables(), st.text(max_size=8), st.integers(0, 200))
def test_any_table_comes_back_when_it_is_kept(table: Table, key: str, before: int) -> None:
    assert kept(table.columns, key, before)[0] == key
    assert as_facts(kept(table.columns, key, before)[1]) == as_facts(table.columns)


@given(tables())
def test_what_is_sent_tells_nothing_more_when_it_is_sent_again(table: Table) -> None:
    body = columnar.encode(table)
    assert columnar.encode(columnar.decode(body)) == body


@pytest.mark.parametrize("is_one", [True, False])
def test_equal_offsets_are_written_once(is_one: bool) -> None:
    offsets = offsets_of(np.full(1000, 2))
    columns = {n: Jagged(offsets if is_one else offsets.copy(), np.zeros(2000, "i1")) for n in "abc"}
    columns["view"] = Jagged(offsets + 3, np.zeros(2003, "i1"))
    columns["other"] = Jagged(offsets_of(np.full(1000, 1)), np.zeros(1000, "i1"))
    again = columnar.decode(sent(columns, 1000)).columns
    for found in (again, kept(columns)[1]):
        assert len({id(column.offsets) for column in found.values()}) == 2
        assert found["a"].offsets is found["view"].offsets
    assert len(sent(columns, 1000)) < 2 * 4000 + 9000 + 500
    assert sum(map(len, columnar.to_keep(columns, "k", before=0))) < 2 * 8008 + 9000 + 1500


@given(tables(), st.integers(0, 100))
def test_what_is_read_is_a_view_that_begins_at_a_cache_line(table: Table, before: int) -> None:
    parts = columnar.to_keep(table.columns, "k", before=before)
    content = np.empty(before + sum(map(len, parts)), np.uint8)
    content[before:] = np.frombuffer(b"".join(parts), np.uint8)
    _, columns = columnar.kept(content.data.toreadonly(), before=before)
    for column in columns.values():
        for array in [column.offsets, column.content] if isinstance(column, Jagged) else [column]:
            assert not array.flags.writeable
            assert (array.ctypes.data - content.ctypes.data) % columnar.CACHE_LINE == 0
            assert not array.size or np.shares_memory(array, content)


def test_what_is_sent_shares_the_memory_of_the_body() -> None:
    body = sent({"x": np.arange(2.0), "y": Jagged(np.array([0, 1, 3]), np.arange(3.0))})
    columns = columnar.decode(body).columns
    assert all(np.shares_memory(a, np.frombuffer(body, "u1")) for a in (columns["x"], columns["y"].content))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_header_is_the_documented_one(kind: Any) -> None:
    columns = {
        "HT": np.zeros(2, ">f4"),
        "Jet_pt": Jagged(np.array([0, 1, 3]), np.arange(3, dtype="f4")),
        "cov": np.zeros((2, 3)),
    }
    body = sent(columns)
    text, start = columnar.header_of(kind(body))
    assert json.loads(bytes(text)) == {
        "num_events": 2,
        "columns": [
            {"name": "HT", "dtype": "<f4"},
            {"name": "Jet_pt", "dtype": "<f4", "counts": "Jet_pt"},
            {"name": "cov", "dtype": "<f8", "width": 3},
        ],
        "counts": ["Jet_pt"],
    }
    assert body[:12] == b"RDCOLS1\n" + struct.pack("<I", len(text))
    assert body[start:] == struct.pack("<2i 2f 3f4x 6d", 1, 2, 0, 0, 0, 1, 2, *[0] * 6)


@pytest.mark.parametrize(
    "column",
    [
        np.zeros(2, complex),
        np.zeros(2, np.longdouble),
        np.array(["a", "b"]),
        np.zeros((2, 0)),
        np.zeros((2, 3, 4)),
        Jagged(np.array([0, 1, 2]), np.zeros((2, 3))),
        Jagged(np.array([0, 1, 2]), np.array(["a", "b"])),
    ],
)
def test_what_the_format_has_no_word_for_is_not_sent(column: Any) -> None:
    with pytest.raises(ColumnsError, match="'x': got") as error:
        sent({"x": column})
    assert error.value.field == "x"


@pytest.mark.parametrize(
    "column",
    [
        np.array(["a"]),
        np.float32(1),
        np.ma.masked_array([1.0]),
        Jagged(np.array([0, 1]), np.zeros(1), np.array([True])),
    ],
)
def test_what_is_more_than_its_values_is_not_kept(column: Any) -> None:
    assert columnar.to_keep({"x": column}, "k", before=0) is None


# What is sent by somebody else

GOOD = sent(
    {"x": np.array([True, False]), "y": Jagged(np.array([0, 1, 3]), np.arange(3, dtype="i2")), "z": np.ones((2, 3))}
)


def body_of(header: Any, buffers: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    start = b"RDCOLS1\n" + struct.pack("<I", len(text)) + text
    return start + bytes(-len(start) % 8) + buffers


def described(**changes: Any) -> dict[str, Any]:
    return {"num_events": 1, "columns": [{"name": "x", "dtype": "<f8"}]} | changes


def column(**changes: Any) -> dict[str, Any]:
    return described(columns=[{"name": "x", "dtype": "<f8"} | changes])


@given(st.data())
def test_cut_and_changed_bytes_are_refused_or_are_columns(data: st.DataObject) -> None:
    body = bytearray(GOOD)
    del body[data.draw(st.integers(0, len(body))) :]
    for at in data.draw(st.lists(st.integers(0, len(GOOD) - 1), max_size=4)):
        body[at : at + 1] = data.draw(st.binary(min_size=1, max_size=2))
    try:
        table = columnar.decode(bytes(body))
    except ColumnsError:
        return
    assert all(len(column) == table.num_events for column in table.columns.values())
    columnar.encode(table)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "<f8", ""]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["num_events", "columns", "counts", "name", "dtype", "width"]), inner)),
       st.binary(max_size=32))  # fmt: skip
def test_any_header_is_refused_or_is_of_columns(header: Any, buffers: bytes) -> None:
    for plain in (header, described(num_events=header), described(columns=header), described(counts=header)):
        with contextlib.suppress(ColumnsError):
            columnar.decode(body_of(plain, buffers))


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_what_ends_early_is_refused(size: int) -> None:
    with pytest.raises(ColumnsError):
        columnar.decode(GOOD[:size])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "at the start"),
        (b"RDCOLS2\n" + GOOD[8:], "at the start"),
        (GOOD + bytes(8), "8 bytes are left"),
        (body_of(b"{"), "not JSON"),
        (body_of(b"[" * 100_000), "not JSON"),
        (body_of(b'{"num_events": ' + b"9" * 5000 + b"}"), "not JSON"),
        (body_of({}), "is missing"),
        (body_of(described(rows=1)), "unknown key 'rows'"),
        (body_of(described(columns=[1])), "columns: got 1; expected an object"),
        (body_of(described(num_events=-1)), "num_events: got -1; expected an integer from 0"),
        (body_of(described(num_events=True), bytes(8)), "got True"),
        (body_of(described(num_events=2**70)), "its values end at byte"),
        (body_of(described(counts=["a", "a"])), "'a' is named twice"),
        (body_of(described(counts=[1])), "got (a list of 1|null); expected a (list of names|string)"),
        (body_of(column(name="y" * 10**6)), "its values end at byte"),
        (body_of(column(name=None)), "got (a list of 1|null); expected a (list of names|string)"),
        (body_of(column(dtype="O")), "dtype: got 'O'; allowed: <f2"),
        (body_of(column(dtype=">f8"), bytes(8)), "dtype: got '>f8'"),
        (body_of(column(counts="a")), "counts 'a' are not declared"),
        (body_of(column(counts="a", width=1) | {"counts": ["a"]}), "expected one name, and no width"),
        (body_of(column(width=0)), "width of 'x': got 0; expected an integer from 1"),
        (body_of(column(width=2**62)), "its values end at byte"),
        (body_of(column(dtype="|b1"), b"\2" + bytes(7)), "a truth value is one byte, 0 or 1"),
        (
            body_of(column(counts="a") | {"counts": ["a"]}, struct.pack("<i4x", -1)),
            "counts of 'a': got -1; expected 0 or more",
        ),
        (body_of(column(counts="a") | {"counts": ["a"]}, struct.pack("<i4x", 2**31 - 1)), "its values end at byte"),
    ],
)  # fmt: skip
def test_hostile_bytes_are_refused(body: bytes, words: str) -> None:
    with pytest.raises(ColumnsError, match=words) as error:
        columnar.decode(body)
    assert len(str(error.value)) < 400

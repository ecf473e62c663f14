from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata import columnar
from rootdata.bundle.manifest import BranchSpec, Manifest, OutputSpec, TensorSpec
from rootdata.jagged import Jagged
from rootdata.table import Table, cut
from serve.client.columns import columns_of, encode_events, is_columnar, pieces
from serve.client.errors import InvalidInput
from serve.client.scores import stacked
from serve.codec import binary, media
from serve.codec.schema import Schemas
from serve.formats.format import Heading
from serve.formats.known import Formats
from serve.settings import Settings
from strategies import jagged_of, number_columns

SETTINGS = Settings(models=Path())


@st.composite
def tables(draw: st.DrawFn, *, max_events: int = 12) -> Table:
    """Flat, fixed-size and jagged columns of any number type; two of the jagged ones share their counts."""
    n = draw(st.integers(0, max_events))
    counts = [draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)) for _ in range(2)]
    made: dict[str, Any] = {}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(["flat", "fixed", "a", "b"]), min_size=1, max_size=6))):
        values = draw(number_columns(min_size=1))
        lengths = counts[0] if kind == "a" else counts[1]
        size = {"flat": n, "fixed": 3 * n}.get(kind, sum(lengths))
        content = np.resize(values, size)
        if kind in "ab":
            made[f"x{i}"] = Jagged(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), content)
        else:
            made[f"x{i}"] = content if kind == "flat" else content.reshape(n, 3)
    return Table(num_events=n, columns=made)


def manifest_of(columns: Table) -> Manifest:
    """Describe a model that takes these columns as they are."""
    specs = []
    for name, column in columns.columns.items():
        if isinstance(column, Jagged):
            specs.append(BranchSpec(name=name, dtype=column.content.dtype.name, kind="jagged", counts=name))
        elif column.ndim == 2:
            specs.append(BranchSpec(name=name, dtype=column.dtype.name, kind="fixed", width=column.shape[1]))
        else:
            specs.append(BranchSpec(name=name, dtype=column.dtype.name))
    tensor = TensorSpec(name="flat", dtype="float32", shape=("events", 1), features=("x0",))
    output = OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",))
    return Manifest(sha256="", size=0, inputs=(tensor,), outputs=(output,), branches=tuple(specs))


def assert_same(one: Any, other: Any) -> None:
    assert one.num_events == other.num_events
    assert list(one.columns) == list(other.columns)
    for name, column in one.columns.items():
        assert_same_column(column, other.columns[name])


def assert_same_column(one: Any, other: Any) -> None:
    assert isinstance(one, Jagged) == isinstance(other, Jagged)
    if isinstance(one, Jagged):
        np.testing.assert_array_equal(one.offsets, other.offsets)
        one, other = one.content, other.content
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


@given(tables())
def test_the_server_reads_what_the_client_writes(columns: Table) -> None:
    decoded = binary.decode(columnar.encode(columns), Schemas(manifest_of(columns)), settings=SETTINGS)
    ordered = Table(num_events=columns.num_events, columns={n: decoded.columns[n] for n in columns.columns})
    assert decoded.num_events == columns.num_events
    assert_same(columns, ordered)


@given(tables())
def test_client_and_server_write_the_same_bytes(columns: Table) -> None:
    table = Table(num_events=columns.num_events, columns=columns.columns)
    assert columnar.encode(columns) == binary.encode(table)


def test_one_byte_types_are_named_as_the_format_names_them() -> None:
    columns = columns_of({"a": np.array([1], np.int8), "b": np.array([True]), "c": np.array([1], np.uint8)})
    body = columnar.encode(columns)
    assert all(word in body for word in (b'"<i1"', b'"|b1"', b'"<u1"'))
    decoded = binary.decode(body, Schemas(manifest_of(columns)), settings=SETTINGS)
    assert {n: c.dtype.name for n, c in decoded.columns.items()} == {"a": "int8", "b": "bool", "c": "uint8"}


@given(tables(max_events=30), st.integers(1, 8), st.integers(1, 300))
def test_pieces_cover_all_events_once_and_are_bounded(columns: Table, max_events: int, max_bytes: int) -> None:
    cuts = pieces(columns, max_events=max_events, max_bytes=max_bytes)
    covered = [event for start, stop in cuts for event in range(start, stop)]
    assert covered == list(range(columns.num_events))
    assert all(start < stop for start, stop in cuts) or cuts == [(0, 0)]
    for start, stop in cuts:
        assert stop - start <= max_events
        assert stop - start <= 1 or buffers_of(cut(columns, start, stop)) <= max_bytes


def buffers_of(columns: Table) -> int:
    """Count the bytes of values and counts."""
    values = [c.content if isinstance(c, Jagged) else c for c in columns.columns.values()]
    jagged = sum(isinstance(c, Jagged) for c in columns.columns.values())
    return sum(v.nbytes for v in values) + jagged * 4 * columns.num_events


@given(tables(max_events=20), st.integers(1, 5))
def test_what_is_cut_can_be_put_together(columns: Table, max_events: int) -> None:
    parts = [cut(columns, a, b) for a, b in pieces(columns, max_events=max_events, max_bytes=10**9)]
    for name, column in columns.columns.items():
        own = [part.columns[name] for part in parts]
        if isinstance(column, Jagged):
            assert np.concatenate([p.counts for p in own]).tolist() == column.counts.tolist()
            assert all(p.offsets[0] == 0 and p.offsets[-1] == len(p.content) for p in own)
            own, column = [p.content for p in own], column.content
        np.testing.assert_array_equal(np.concatenate(own), column)


LISTS = [[1.5, 2.5], [], [3.5]]


class Frame:
    """What a DataFrame has in common with a dict: keys, and columns that numpy can read."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns

    def keys(self) -> Any:
        return self._columns.keys()

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


def objects(rows: list[Any]) -> np.ndarray:
    made = np.empty(len(rows), object)
    made[:] = [np.array(row, np.float32) for row in rows]
    return made


@pytest.mark.parametrize(
    "events",
    [
        {"HT": [1, 2, 3], "Jet_pt": LISTS},
        {"HT": np.array([1, 2, 3]), "Jet_pt": ak.Array(LISTS)},
        {"HT": (1, 2, 3), "Jet_pt": objects(LISTS)},
        {"HT": ak.Array([1, 2, 3]), "Jet": ak.zip({"pt": ak.Array(LISTS)})},
        Frame({"HT": np.array([1, 2, 3]), "Jet_pt": objects(LISTS)}),
        ak.Array([{"HT": i + 1, "Jet_pt": row} for i, row in enumerate(LISTS)]),
        ak.Array([{"HT": i + 1, "Jet": [{"pt": x} for x in row]} for i, row in enumerate(LISTS)]),
        ak.Array([{"HT": 0, "Jet_pt": [9.0]}] + [{"HT": i + 1, "Jet_pt": row} for i, row in enumerate(LISTS)])[1:],
    ],
)
def test_columns_come_in_many_ways(events: Any) -> None:
    assert is_columnar(events)
    made = columns_of(events)
    assert made.num_events == 3
    assert made.columns["HT"].tolist() == [1, 2, 3]
    assert made.columns["Jet_pt"].counts.tolist() == [2, 0, 1]
    assert made.columns["Jet_pt"].content.tolist() == [1.5, 2.5, 3.5]


def test_structured_and_big_endian_arrays_are_columns() -> None:
    array = np.array([(1.0, 2), (3.0, 4)], dtype=[("a", ">f4"), ("b", ">i8")])
    made = columns_of(array)
    assert {n: (c.dtype.str, c.tolist()) for n, c in made.columns.items()} == {
        "a": ("<f4", [1.0, 3.0]),
        "b": ("<i8", [2, 4]),
    }


def test_fixed_size_branches_are_rectangular() -> None:
    made = columns_of({"a": np.ones((2, 3)), "b": ak.to_regular(ak.Array([[1, 2], [3, 4]]))})
    assert [c.shape for c in made.columns.values()] == [(2, 3), (2, 2)]


@pytest.mark.parametrize("values", [[1.0, None], ak.Array([1.0, None]), np.array([1.0, None], object)])
def test_none_is_a_missing_value(values: Any) -> None:
    assert np.isnan(columns_of({"a": values}).columns["a"]).tolist() == [False, True]


def test_none_in_lists_is_a_missing_value() -> None:
    for values in ([[1.0, None], []], ak.Array([[1.0, None], []])):
        column = columns_of({"a": values}).columns["a"]
        assert column.counts.tolist() == [2, 0]
        assert np.isnan(column.content).tolist() == [False, True]


def test_integers_that_may_be_missing_keep_all_digits() -> None:
    large = 2**53 + 1
    flat = ak.mask(ak.Array([large, 3]), [True, True])
    lists = ak.mask(ak.Array([[large], [2, 3]]), [True, True])
    parquet = ak.Array(ak.contents.UnmaskedArray(lists.layout.content))  # as ak.from_parquet has it
    made = columns_of({"a": flat, "b": lists, "c": parquet}).columns
    assert made["a"].tolist() == [large, 3]
    for name in "bc":
        assert made[name].counts.tolist() == [1, 2]
        assert made[name].content.tolist() == [large, 2, 3]
    assert {made["a"].dtype.name, made["b"].content.dtype.name} == {"int64"}


@pytest.mark.parametrize("other", [0.5, None])
def test_an_integer_that_would_lose_digits_beside_others_is_refused(other: Any) -> None:
    for values in ([2**53 + 1, other], [[2**53 + 1], [other]], np.array([2**53 + 1, other], object)):
        with pytest.raises(InvalidInput, match=r"column 'event': the integer 9007199254740993 .* would lose digits"):
            columns_of({"event": values})
    assert np.asarray(columns_of({"event": [2**54, 0.5]}).columns["event"])[0] == 2**54


def test_none_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'a': got None in place of a list; expected an empty list"):
        columns_of({"a": ak.Array([[1.0], None])})


def test_what_a_mask_hides_is_a_missing_value() -> None:
    hidden = np.ma.array([1, -999, 3], mask=[False, True, False])
    made = columns_of({"a": hidden, "b": [hidden[:2], [], hidden[2:]], "c": np.ma.array([2**53 + 1, 2, 3])}).columns
    np.testing.assert_array_equal(made["a"], [1.0, np.nan, 3.0])
    np.testing.assert_array_equal(made["b"].content, [1.0, np.nan, 3.0])
    assert made["b"].counts.tolist() == [2, 0, 1]
    assert made["c"].tolist() == [2**53 + 1, 2, 3]


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ({}, "no columns"),
        ({"a": [1], "b": [1, 2]}, "'b' has 2 events, 'a' has 1"),
        ({"a": ["x"]}, "column 'a'"),
        ({"a": [[["deep"]]]}, "column 'a'"),
        ({"a": [[[1]]]}, "column 'a'"),
        ({"a": [[1], 2]}, "column 'a'"),
        ({"a": [{}]}, "column 'a'"),
        ({"a": np.ones((1, 2, 3))}, r"shape \(1, 2, 3\)"),
        ({"a": np.ones((2, 0))}, r"shape \(2, 0\)"),
        ({"a": np.array(1.0)}, "shape"),
        ({"a": np.array(["2020"], "M8")}, "datetime64"),
        ({"a": np.ones(1, np.longdouble)}, "at most 64 bits"),
        ({"a": np.ones(1, complex)}, "complex"),
        ({"a": [None, "1.5"]}, "column 'a': got text"),
        ({"a": ak.Array([[[1]]])}, "column 'a'"),
        ({"a": ak.Array(["x"])}, "column 'a'"),
        (ak.Array([1, 2]), "expected one of records"),
    ],
)
def test_what_is_no_column_is_named(events: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        columns_of(events)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=5))
def test_answers_of_the_server_are_read(values: list[float]) -> None:
    scores = np.array([[v, -v] for v in values], np.float32).reshape(-1, 2)
    body = Formats().of_scores(media.COLUMNS).encode(Heading(model="m", version=1, columns=("a", "b")), scores)
    names, read = stacked(columnar.decode(body).columns)
    assert names == ("a", "b")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, scores)


@pytest.mark.parametrize("body", [b"", b"<html>", columnar.MAGIC, columnar.MAGIC + b"\xff\xff\xff\xff{}"])
def test_other_answers_are_refused(body: bytes) -> None:
    with pytest.raises((ValueError, struct.error, KeyError)):
        columnar.decode(body)


def test_events_as_dicts_become_json() -> None:
    event = {"a": np.float32(1.5), "b": [math.nan, 2], "c": np.array([1, 2]), "d": None, "e": math.inf, "f": (True, 3)}
    expected = b'{"events":[{"a":1.5,"b":[null,2],"c":[1,2],"d":null,"e":null,"f":[true,3]}]}'
    assert encode_events([event]) == expected
    with pytest.raises(InvalidInput, match="complex"):
        encode_events([{"a": 1j}])


def test_jagged_of_the_strategies_is_the_same_jagged() -> None:
    assert_same_column(columns_of({"a": LISTS}).columns["a"], jagged_of(LISTS, np.float64))

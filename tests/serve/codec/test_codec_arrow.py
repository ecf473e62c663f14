"""Arrow streams: every kind of list, refused types, and streams that are not what they seem."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from codec_strategies import SETTINGS, arrow_stream, fixed, flat, jagged, manifest_of

from rootdata.jagged import Jagged
from rootdata.table import Table
from serve.codec import arrow
from serve.codec.arrowsize import Size, size_of
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents, TooLarge

MODEL = manifest_of(
    flat("HT"), flat("nPV", "int32"), fixed("cov", 2), jagged("Jet_pt", "jets"), jagged("Jet_n", "jets", "int8")
)
COLUMNS = {
    "HT": pa.array([1.0, 2.0, 3.0], pa.float32()),
    "nPV": pa.array([4, 5, 6], pa.int32()),
    "cov": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float64(), 2)),
    "Jet_pt": pa.array([[1.0], [], [2.0, 3.0]], pa.list_(pa.float32())),
    "Jet_n": pa.array([[1], [], [2, 3]], pa.list_(pa.int8())),
}


def stream_of(**changes: Any) -> bytes:
    return arrow_stream(pa.table({**COLUMNS, **changes}))


def decode(body: bytes) -> Table:
    return arrow.decode(body, Schemas(MODEL), settings=SETTINGS)


def jets_of(table: Table, name: str = "Jet_pt") -> list[list[float]]:
    column = table.columns[name]
    assert isinstance(column, Jagged)
    return column.to_awkward().to_list()


LISTS = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("inner", [pa.float16(), pa.float32(), pa.float64(), pa.int16(), pa.uint64()])
def test_every_kind_of_list_and_number(kind: Any, inner: Any) -> None:
    values = [[np.float16(1) if inner == pa.float16() else 1], [], [2, 3]]
    lists = pa.array([[np.float16(v) if inner == pa.float16() else v for v in row] for row in values], kind(inner))
    table = decode(stream_of(Jet_pt=lists))
    assert jets_of(table) == [[1], [], [2, 3]]


def test_lists_of_one_length_may_be_jagged_and_jagged_ones_of_one_length() -> None:
    table = decode(
        stream_of(
            Jet_pt=pa.array([[1, 2]] * 3, pa.list_(pa.float32(), 2)),
            Jet_n=pa.array([[1, 2]] * 3, pa.list_(pa.int64())),
            cov=pa.array([[1, 2]] * 3, pa.list_(pa.float32())),
        )
    )
    assert jets_of(table) == [[1, 2]] * 3
    assert table.columns["cov"].shape == (3, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_batches_and_compression(compression: str | None, rows: int) -> None:
    table = decode(arrow_stream(pa.table(COLUMNS), rows=rows, compression=compression))
    assert jets_of(table) == [[1], [], [2, 3]]
    assert table.columns["cov"].tolist() == [[1, 2], [3, 4], [5, 6]]  # type: ignore[union-attr]


def test_slices() -> None:
    table = decode(arrow_stream(pa.table(COLUMNS).slice(1), rows=1))
    assert (table.num_events, jets_of(table)) == (2, [[], [2, 3]])


@pytest.mark.parametrize("kind", LISTS)
def test_sliced_lists(kind: Any) -> None:
    lists = pa.array([[1.0], [], [2.0, 3.0]], kind(pa.float32()))
    assert jets_of(decode(arrow_stream(pa.table({**COLUMNS, "Jet_pt": lists}).slice(2)))) == [[2, 3]]


def test_no_batches() -> None:
    table = decode(arrow_stream(pa.table(COLUMNS).schema.empty_table()))
    assert table.num_events == 0
    assert table.columns["cov"].shape == (0, 2)  # type: ignore[union-attr]


def test_other_columns_are_ignored() -> None:
    extra = {
        "name": pa.array(["a", "b", None]),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "deep": pa.array([[[1]], [], None]),
        "day": pa.array([dt.date(2020, 1, 1)] * 3),
    }
    assert decode(stream_of(**extra)).num_events == 3


def test_nulls_are_missing_values() -> None:
    lists = pa.array([[None], [], [2.0, None]], pa.list_(pa.float32()))
    table = decode(stream_of(HT=pa.array([None, 2, 3], pa.int64()), Jet_pt=lists))
    np.testing.assert_array_equal(table.columns["HT"], [np.nan, 2, 3])
    np.testing.assert_array_equal(table.columns["Jet_pt"].content, [np.nan, 2, np.nan])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "field", "event", "message"),
    [
        ({"HT": pa.array(["1", "2", "3"])}, "HT", None, "'HT': got string; expected numbers"),
        ({"HT": pa.array(["1", "2", "1"]).dictionary_encode()}, "HT", None, "got dictionary.*; expected numbers"),
        ({"HT": pa.array([1.0, 2.0, 1.0]).dictionary_encode()}, "HT", None, "got dictionary"),
        ({"HT": pa.array([decimal.Decimal(1)] * 3)}, "HT", None, "got decimal128"),
        ({"HT": pa.array([dt.datetime(2020, 1, 1)] * 3)}, "HT", None, "got timestamp"),  # noqa: DTZ001
        ({"HT": pa.array([dt.timedelta(1)] * 3)}, "HT", None, "got duration"),
        ({"HT": pa.array([None, None, None])}, "HT", None, "got null; expected numbers"),
        ({"HT": pa.array([b"", b"", b""])}, "HT", None, "got binary"),
        ({"HT": pa.array([{"a": 1}] * 3)}, "HT", None, "got struct"),
        ({"HT": pa.array([True, False, True])}, "HT", None, "got bool; expected numbers"),
        ({"HT": COLUMNS["Jet_pt"]}, "HT", None, "got a list an event; expected one number"),
        ({"HT": COLUMNS["cov"]}, "HT", None, "expected one number"),
        ({"HT": pa.array([1.0, 1e39, 2.0])}, "HT", 1, r"got 1e\+39; expected a number that fits"),
        ({"nPV": pa.array([1, None, 2])}, "nPV", 1, "'nPV' of event 1: got null; expected a value, as int32 has none"),
        ({"nPV": pa.array([1.0, 2.5, 2.0])}, "nPV", 1, "got 2.5; expected an integer"),
        ({"nPV": pa.array([1, 2, 2**40])}, "nPV", 2, "got 1099511627776; expected an integer from"),
        ({"cov": pa.array([[1], [2], [3]])}, "cov", 0, "'cov' of event 0: got 1 values; expected 2"),
        ({"cov": pa.array([1, 2, 3])}, "cov", None, "'cov': got one number an event; expected 2 numbers"),
        ({"cov": pa.array([[1, 2], None, [1, 2]])}, "cov", 1, "'cov' of event 1: got null; expected a list"),
        ({"Jet_pt": pa.array([[1.0], None, [2.0, 3.0]])}, "Jet_pt", 1, "'Jet_pt' of event 1: got null; expected a l"),
        ({"Jet_pt": pa.array([[[1.0]], [], []])}, "Jet_pt", None, "'Jet_pt': got list<.*; expected numbers"),
        ({"Jet_pt": pa.array([["a"], [], []])}, "Jet_pt", None, "got string; expected numbers"),
        ({"Jet_pt": pa.array([1.0, 2.0, 3.0])}, "Jet_pt", None, "got one number an event; expected a list"),
        ({"Jet_n": pa.array([[1], [], [2, None]])}, "Jet_n", 2, r"'Jet_n\[1\]' of event 2: got null"),
        ({"Jet_n": pa.array([[1], [], [2, 300]])}, "Jet_n", 2, r"'Jet_n\[1\]' of event 2: got 300"),
        ({"Jet_n": pa.array([[1], [2], [3]])}, "Jet_n", 1, "'Jet_n' of event 1: got 1 objects; 'Jet_pt' has 0"),
        ({"Jet_pt": pc.run_end_encode(pa.array([1.0, 1.0, 2.0]))}, "Jet_pt", None, "got run_end_encoded"),
    ],
)
def test_columns_that_can_not_be_used(changes: Any, field: str, event: int | None, message: str) -> None:
    with pytest.raises(InvalidEvents, match=message) as error:
        decode(stream_of(**changes))
    assert (error.value.field, error.value.event) == (field, event)


def test_a_missing_column_names_the_nearest() -> None:
    table = pa.table({("Jet_ptt" if n == "Jet_pt" else n): c for n, c in COLUMNS.items()})
    with pytest.raises(InvalidEvents, match="branch 'Jet_pt' is missing; nearest: 'Jet_ptt'") as error:
        decode(arrow_stream(table))
    assert error.value.field == "Jet_pt"


def test_a_column_twice() -> None:
    table = pa.table([*COLUMNS.values(), COLUMNS["HT"]], names=[*COLUMNS, "HT"])
    with pytest.raises(InvalidEvents, match="'HT' is there twice"):
        decode(arrow_stream(table))


GOOD = stream_of()


@pytest.mark.parametrize(
    "body",
    [b"", b"\0" * 64, b"ARROW1\0\0" + GOOD, b"PAR1", GOOD[:50], GOOD[: len(GOOD) // 2], b'{"events": []}', GOOD[8:]],
)
def test_a_body_that_is_no_stream(body: bytes) -> None:
    with pytest.raises((BadRequest, InvalidEvents)):
        decode(body)


def test_too_many_events() -> None:
    flats = manifest_of(flat("x"))
    body = arrow_stream(pa.table({"x": np.zeros(SETTINGS.max_events + 1, "f4")}), rows=100)
    with pytest.raises(TooLarge, match="got 1001 events"):
        arrow.decode(body, Schemas(flats), settings=SETTINGS)


def test_rows_without_bytes_are_counted() -> None:
    # A column of nulls has no buffers: a batch of any length costs a client nothing.
    body = arrow_stream(pa.table({"x": pa.nulls(987_654)}), rows=10**6)
    body = body.replace(struct.pack("<q", 987_654), struct.pack("<q", 2**40))
    with pytest.raises(TooLarge, match=f"got {2**40} events"):
        arrow.decode(body, Schemas(manifest_of(flat("x"))), settings=SETTINGS)


def test_too_many_objects() -> None:
    one = manifest_of(jagged("Jet_pt", "jets"))
    body = arrow_stream(pa.table({"Jet_pt": [[], [1.0] * 51]}))
    with pytest.raises(TooLarge, match="'jets' of event 1: got 51 objects"):
        arrow.decode(body, Schemas(one), settings=SETTINGS)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_decompresses_to_too_much_is_refused_before_it_does(compression: str) -> None:
    lists = pa.array([np.zeros(40, "f8")] * 900)
    extra = pa.table({"x": np.zeros(900, "f4"), "ignored": pa.array([b"\0" * 10_000] * 900), "lists": lists})
    body = arrow_stream(extra, rows=900, compression=compression)
    assert len(body) < SETTINGS.max_body / 10
    with pytest.raises(TooLarge, match=r"decode to 9[0-9]{6} bytes or more; 1000000 are allowed"):
        arrow.decode(body, Schemas(manifest_of(flat("x"))), settings=SETTINGS)


def test_views_that_share_their_values_are_counted_each() -> None:
    n, size = 1000, 100_000
    shared = pa.ListViewArray.from_arrays(
        pa.array([0] * n, pa.int32()), pa.array([size] * n, pa.int32()), pa.array(np.zeros(size, "f4"))
    )
    body = arrow_stream(pa.table({"Jet_pt": shared}), rows=n)
    assert len(body) < SETTINGS.max_body
    with pytest.raises(TooLarge, match="'Jet_pt': got 100000000 values"):
        arrow.decode(body, Schemas(manifest_of(jagged("Jet_pt", "jets"))), settings=SETTINGS)


def test_too_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_BATCHES", 2)
    with pytest.raises(TooLarge, match="more than 2 record batches"):
        decode(arrow_stream(pa.table(COLUMNS), rows=1))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_declared_sizes_are_those_of_the_buffers(compression: str | None) -> None:
    values = np.arange(1000, dtype="f8")
    body = arrow_stream(pa.table({"x": values, "y": values.astype("f4")}), rows=600, compression=compression)
    sizes = [size_of(bytes(m.metadata), memoryview(m.body)) for m in pa.ipc.MessageReader.open_stream(body)]
    padding = 0 if compression else 64
    assert [s.rows for s in sizes] == [0, 600, 400]
    for size, rows in zip(sizes[1:], (600, 400), strict=True):
        assert 0 <= size.num_bytes - 12 * rows <= padding
    assert sizes[0] == Size()

"""Binary columns: headers that lie, and buffers that are not there."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from codec_strategies import SETTINGS, fixed, flat, jagged, manifest_of

from rootdata.jagged import Jagged, offsets_of
from rootdata.table import Table
from serve.codec import binary
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge

MODEL = manifest_of(
    flat("HT"), flat("nPV", "int32"), flat("trigger", "bool"), fixed("cov", 3), jagged("Jet_pt", "jets"),
    jagged("Jet_eta", "jets"),
)  # fmt: skip
HEADER: dict[str, Any] = {
    "num_events": 2,
    "counts": ["a"],
    "columns": [
        {"name": "HT", "dtype": "<f4"},
        {"name": "nPV", "dtype": "<i4"},
        {"name": "trigger", "dtype": "|b1"},
        {"name": "cov", "dtype": "<f8", "width": 3},
        {"name": "Jet_pt", "dtype": "<f4", "counts": "a"},
        {"name": "Jet_eta", "dtype": "<f4", "counts": "a"},
    ],
}
BUFFERS: list[Any] = [
    np.array([1, 2], "<i4"), np.array([1, 2], "<f4"), np.array([3, 4], "<i4"), np.array([True, False]),
    np.arange(6, dtype="<f8"), np.arange(3, dtype="<f4"), np.arange(3, dtype="<f4"),
]  # fmt: skip


def body_of(header: Any, buffers: list[Any]) -> bytes:
    """Write a body by hand, whatever its header says."""
    text = header if isinstance(header, bytes) else orjson.dumps(header)
    body = b"RDCOLS1\n" + struct.pack("<I", len(text)) + text
    for buffer in [b"", *(b.tobytes() for b in buffers)]:
        body += buffer
        body += bytes(-len(body) % 8)
    return body


def changed(**changes: Any) -> dict[str, Any]:
    return {**HEADER, **changes}


def with_column(number: int, **changes: Any) -> dict[str, Any]:
    columns = [dict(c) for c in HEADER["columns"]]
    columns[number] = {k: v for k, v in {**columns[number], **changes}.items() if v != "absent"}
    return changed(columns=columns)


def with_buffer(number: int, values: Any) -> list[Any]:
    return [values if i == number else b for i, b in enumerate(BUFFERS)]


def decode(body: bytes) -> Table:
    return binary.decode(body, Schemas(MODEL), settings=SETTINGS)


def test_a_body_by_hand() -> None:
    table = decode(body_of(HEADER, BUFFERS))
    assert table.num_events == 2
    jets = table.columns["Jet_pt"]
    assert isinstance(jets, Jagged)
    assert jets.offsets.tolist() == [0, 1, 3]
    assert table.columns["cov"].dtype == np.float32  # type: ignore[union-attr]


def test_the_layout_is_the_documented_one() -> None:
    offsets = offsets_of(np.array([2, 0]))
    table = Table(num_events=2, columns={"x": np.array([1, 2], "int8"), "y": Jagged(offsets, np.array([1.0, 2.0]))})
    body = binary.encode(table)
    (length,) = struct.unpack_from("<I", body, 8)
    header = orjson.loads(body[12 : 12 + length])
    assert header == {
        "num_events": 2, "counts": ["y"],
        "columns": [{"name": "x", "dtype": "<i1"}, {"name": "y", "dtype": "<f8", "counts": "y"}],
    }  # fmt: skip
    start = -(-(12 + length) // 8) * 8
    assert body[start:] == struct.pack("<2i 2b6x 2d", 2, 0, 1, 2, 1.0, 2.0)


def test_equal_counts_are_written_once() -> None:
    one, same, other = (offsets_of(np.array(c)) for c in ([2, 0], [2, 0], [1, 1]))
    columns = {n: Jagged(o, np.zeros(2)) for n, o in (("a", one), ("b", same), ("c", other), ("d", one))}
    assert binary.encode(Table(num_events=2, columns=columns)).count(b'"counts":"a"') == 3


def test_a_type_that_the_format_does_not_know() -> None:
    with pytest.raises(InvalidEvents, match="'x': got numbers of type complex128"):
        binary.encode(Table(num_events=1, columns={"x": np.zeros(1, complex)}))


GOOD = body_of(HEADER, BUFFERS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", r"at the start; expected b'RDCOLS1\\n'"),
        (b"RDCOLS2\n" + GOOD[8:], "got b'RDCOLS2"),
        (b"PK\x03\x04", "at the start"),
        (GOOD[:10], "got 10 bytes; at least 12"),
        (GOOD[:8] + b"\xff\xff\xff\xff" + GOOD[12:], "its length is 4294967295; the body has"),
        (GOOD[:8] + b"\x00\x00\x00\x00" + GOOD[12:], "this is not JSON"),
        (GOOD[:-8], "is truncated, or num_events or counts are wrong"),
        (GOOD[:200], "its values end|its length is"),
        (GOOD + bytes(8), "8 bytes are left after the last column"),
        (GOOD + b"x", "1 bytes are left"),
        (body_of(b"{", BUFFERS), "header: line 1, column 2: this is not JSON"),
        (body_of(b'{"num_events": NaN}', BUFFERS), "header: .*send null"),
        (body_of(b"[]", BUFFERS), "header: got a list of 0; expected an object"),
        (body_of(b"[" * 5000, BUFFERS), "depth "),
        (body_of({}, BUFFERS), "is missing"),
        (body_of(changed(rows=1), BUFFERS), "unknown key 'rows'"),
        (body_of(changed(num_events=-1), BUFFERS), "num_events: got -1; expected an integer from 0"),
        (body_of(changed(num_events=2.0), BUFFERS), "num_events: got 2.0"),
        (body_of(changed(num_events=True), BUFFERS), "num_events: got True"),
        (body_of(changed(num_events="2"), BUFFERS), "num_events: got '2'"),
        (body_of(changed(num_events=None), BUFFERS), "num_events: got null"),
        (body_of(changed(num_events=1000), BUFFERS), "its values end"),
        (body_of(changed(num_events=1), BUFFERS), "bytes are left"),
        (body_of(changed(counts="a"), BUFFERS), "counts: got 'a'; expected a list of names"),
        (body_of(changed(counts=[1]), BUFFERS), "counts: got a list of 1; expected a list of names"),
        (body_of(changed(counts=["a", "a"]), BUFFERS), "counts: 'a' is named twice"),
        (body_of(changed(counts=[]), BUFFERS), "column 'Jet_pt': counts 'a' are not declared"),
        (body_of(changed(columns={}), BUFFERS), "columns: got an object; expected a list"),
        (body_of(changed(columns=[1]), BUFFERS), "columns: got 1; expected an object"),
        (body_of(with_column(0, name=3), BUFFERS), "name: got 3; expected a string"),
        (body_of(with_column(0, name="absent"), BUFFERS), "'name' is missing"),
        (body_of(with_column(0, name="nPV"), BUFFERS), "columns: 'nPV' is named twice"),
        (body_of(with_column(0, dtype="absent"), BUFFERS), "'dtype' is missing"),
        (body_of(with_column(0, dtype=">f4"), BUFFERS), "column 'HT': dtype: got '>f4'; allowed: <f2, <f4"),
        (body_of(with_column(0, dtype="O"), BUFFERS), "dtype: got 'O'"),
        (body_of(with_column(0, dtype="float32"), BUFFERS), "dtype: got 'float32'"),
        (body_of(with_column(0, dtype=["<f4"]), BUFFERS), "dtype: got a list of 1"),
        (body_of(with_column(0, offset=1), BUFFERS), "unknown key 'offset'"),
        (body_of(with_column(3, width=0), BUFFERS), "width of 'cov': got 0; expected an integer from 1"),
        (body_of(with_column(3, width=-3), BUFFERS), "width of 'cov': got -3"),
        (body_of(with_column(3, width=2**62), BUFFERS), "its values end at byte"),
        (body_of(with_column(3, width=1.5), BUFFERS), "width of 'cov': got 1.5"),
        (body_of(with_column(4, width=2), BUFFERS), "expected one name, and no width"),
        (body_of(with_column(4, counts=7), BUFFERS), "counts: got 7"),
        (body_of(HEADER, with_buffer(3, np.array([1, 2], np.uint8))), "a truth value is one byte, 0 or 1"),
        (body_of(HEADER, with_buffer(0, np.array([1, 40], "<i4"))), "its values end"),
    ],
)
def test_a_body_that_can_not_be_read(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as error:
        decode(body)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("body", "field", "event", "message"),
    [
        (body_of(with_column(0, name="Ht"), BUFFERS), "Ht", None, "unknown branch 'Ht'; nearest: 'HT'"),
        (body_of(changed(columns=HEADER["columns"][:-1]), BUFFERS[:-1]), "Jet_eta", None, "'Jet_eta' is missing"),
        (body_of(HEADER, with_buffer(0, np.array([4, -1], "<i4"))), "a", 1, "counts of 'a' of event 1: got -1"),
        (body_of(with_column(1, dtype="<f4"), with_buffer(2, np.array([1, 0.5], "<f4"))), "nPV", 1, "got 0.5"),
        (body_of(with_column(1, dtype="<f4"), with_buffer(2, np.array([1, np.nan], "<f4"))), "nPV", 1, "missing value"),
        (body_of(with_column(1, dtype="<i8"), with_buffer(2, np.array([1, 2**40]))), "nPV", 1, "got 1099511627776"),
        (body_of(with_column(1, dtype="<u4"), with_buffer(2, np.array([1, 2**31], "<u4"))), "nPV", 1, "got 2147483648"),
        (body_of(with_column(0, dtype="<f8"), with_buffer(1, np.array([1, 1e39]))), "HT", 1, r"got 1e\+39"),
        (body_of(with_column(0, dtype="|b1"), with_buffer(1, np.array([True, False]))), "HT", 0, "got a truth value"),
        (body_of(with_column(2, dtype="<u1"), with_buffer(3, np.array([1, 2], "<u1"))), "trigger", 1, "got 2"),
        (body_of(with_column(0, width=1), BUFFERS), "HT", None, "got 1 numbers an event; expected one number"),
        (body_of(with_column(3, width="absent"), with_buffer(4, np.zeros(2))), "cov", None, "expected 3 numbers"),
        (body_of(with_column(3, width=2), with_buffer(4, np.zeros(4))), "cov", None, "got 2 numbers an event; exp"),
        (
            body_of(with_column(4, counts="absent"), with_buffer(5, np.zeros(2, "f4"))),
            "Jet_pt",
            None,
            "expected a list",
        ),
        (body_of(with_column(0, counts="a"), with_buffer(1, np.zeros(3, "f4"))), "HT", None, "got a list an event"),
    ],
)
def test_columns_that_can_not_be_used(body: bytes, field: str, event: int | None, message: str) -> None:
    with pytest.raises(InvalidEvents, match=message) as error:
        decode(body)
    assert (error.value.field, error.value.event) == (field, event)


def test_unequal_counts_name_event_and_branches() -> None:
    header = with_column(5, counts="b") | {"counts": ["a", "b"]}
    with pytest.raises(InvalidEvents, match="'Jet_eta' of event 0: got 2 objects; 'Jet_pt' has 1") as error:
        decode(body_of(header, [BUFFERS[0], np.array([2, 1], "<i4"), *BUFFERS[1:]]))
    assert (error.value.field, error.value.event) == ("Jet_eta", 0)


def test_groups_may_be_named_and_split_as_one_likes() -> None:
    header = with_column(5, counts="b") | {"counts": ["a", "b"]}
    assert decode(body_of(header, [BUFFERS[0], *BUFFERS])).num_events == 2


@pytest.mark.parametrize("changes", [{"num_events": 3}, {"counts": ["a", "b"]}, {"counts": ["b", "a"]}])
def test_buffers_that_are_taken_for_others(changes: dict[str, Any]) -> None:
    with pytest.raises(ServeError):
        decode(body_of(changed(**changes), BUFFERS))


@pytest.mark.parametrize("num_events", [SETTINGS.max_events + 1, 2**31, 2**62, 2**64 - 1])
def test_too_many_events(num_events: int) -> None:
    with pytest.raises(TooLarge, match=f"got {num_events} events; a request may have 1000"):
        decode(body_of(changed(num_events=num_events), BUFFERS))


def test_too_many_objects() -> None:
    with pytest.raises(TooLarge, match="'a' of event 1: got 51 objects; an event may have 50"):
        decode(body_of(HEADER, with_buffer(0, np.array([1, 51], "<i4"))))


def test_a_number_of_events_beyond_64_bits() -> None:
    text = orjson.dumps(HEADER).replace(b'"num_events":2', b'"num_events":' + b"9" * 30)
    with pytest.raises(ServeError, match="num_events"):
        decode(body_of(text, BUFFERS))


def test_a_memory_view_and_a_bytearray_do_as_well() -> None:
    assert decode(memoryview(GOOD)).num_events == decode(bytearray(GOOD)).num_events == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("sent", ["<f4", "<f8"])
def test_a_sentinel_is_one_in_any_type(sent: str) -> None:
    taken = dataclasses.replace(
        manifest_of(flat("x", "float64"), jagged("pt", None, "float64")),
        features={"flat": ["x"], "missing": {"x": [-999.9], "pt": [-0.1]}, "jagged": {"jets": {"branches": ["pt"]}}},
    )
    columns = [{"name": "x", "dtype": sent}, {"name": "pt", "dtype": sent, "counts": "a"}]
    buffers = [np.array([2, 1], "<i4"), np.array([-999.9, 5], sent), np.array([-0.1, 7, 8], sent)]
    body = body_of({"num_events": 2, "counts": ["a"], "columns": columns}, buffers)
    found = binary.decode(body, Schemas(taken), settings=SETTINGS).columns
    assert found["x"].tolist() == [-999.9, 5.0]
    assert found["pt"].content.tolist() == [-0.1, 7.0, 8.0]

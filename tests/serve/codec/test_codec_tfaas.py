"""TFaaS's bodies, in JSON and as messages whose bytes are those of its ``.proto`` file."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from codec_strategies import SETTINGS, as_tfaas_proto, fixed, flat, jagged, manifest_of

from rootdata.table import Table
from serve.codec import tfaas
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge

MODEL = manifest_of(
    flat("HT"), flat("nPV", "int32"), fixed("cov", 2), jagged("Jet_pt", "jets"), jagged("Jet_eta", "jets"),
    jagged("Jet_n", "jets2", "int8"),
)  # fmt: skip
PAIRS: dict[str, Any] = {
    "HT": 1.5,
    "nPV": 3,
    "cov[0]": 1,
    "cov[1]": 2,
    "Jet_pt[0]": 10,
    "Jet_pt[1]": 20,
    "Jet_eta[1]": 0.5,
}


def json_of(**changes: Any) -> bytes:
    return orjson.dumps({"keys": list(PAIRS), "values": list(PAIRS.values()), "model": "m", **changes})


def with_pairs(pairs: dict[str, Any]) -> bytes:
    pairs = {key: value for key, value in {**PAIRS, **pairs}.items() if value != "absent"}
    return json_of(keys=list(pairs), values=list(pairs.values()))


def decode(body: bytes) -> Table:
    return tfaas.decode_json(body, Schemas(MODEL), settings=SETTINGS)


def lists(table: Table) -> dict[str, Any]:
    return {n: (c.content if n.startswith("Jet") else c).tolist() for n, c in table.columns.items()}  # type: ignore[union-attr]


def test_objects_reach_to_the_last_one_given() -> None:
    table = decode(json_of())
    found = lists(table)
    assert found.pop("Jet_eta")[1] == 0.5
    assert found == {"HT": [1.5], "nPV": [3], "cov": [[1, 2]], "Jet_pt": [10, 20], "Jet_n": []}
    assert np.isnan(table.columns["Jet_eta"].content).tolist() == [True, False]  # type: ignore[union-attr]


def test_order_does_not_matter_and_null_is_missing() -> None:
    body = json_of(keys=[*PAIRS, "Jet_pt[3]"][::-1], values=[*PAIRS.values(), None][::-1])
    table = decode(body)
    np.testing.assert_array_equal(table.columns["Jet_pt"].content, [10, 20, np.nan, np.nan])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b"", None, "this is not JSON"),
        (b"[1]", None, "expected an object"),
        (b'{"keys": ["HT"]}', "values", "'values' is missing"),
        (b'{"key": [], "values": []}', "key", "unknown key 'key'; nearest: 'keys'"),
        (json_of(keys="HT"), "keys", "keys: got 'HT'; expected a list"),
        (json_of(values={}), "values", "values: got an object; expected a list"),
        (json_of(keys=[1] * 7), "keys", "keys: got 1; expected names of branches"),
        (json_of(values=[1, 2]), "values", "values: got 2; there are 7 keys"),
        (with_pairs({"Ht": 1}), "Ht", "unknown 'Ht'; nearest: 'HT'"),
        (with_pairs({"HT[0]": 1}), "HT", r"got 'HT\[0\]'; 'HT' has one value an event; write 'HT'"),
        (with_pairs({"Jet_pt": 1}), "Jet_pt", r"'Jet_pt' has several values in an event; write 'Jet_pt\[0\]'"),
        (with_pairs({"Jet_pt[-1]": 1}), "Jet_pt[-1]", "unknown"),
        (with_pairs({"Jet_pt[01]": 1}), "Jet_pt[01]", "unknown"),
        (with_pairs({"Jet_pt[0][0]": 1}), "Jet_pt[0][0]", "unknown"),
        (with_pairs({"Jet_ptt[0]": 1}), "Jet_ptt[0]", r"unknown 'Jet_ptt\[0\]'; nearest: 'Jet_pt\[0\]'"),
        (with_pairs({"x" * 5000: 1}), "x" * 60, "unknown"),
        (with_pairs({"cov[2]": 1}), "cov", r"got 'cov\[2\]'; 'cov' has 2 values, from 0"),
        (json_of(keys=["HT"] * 7), "HT", "'HT' is there twice"),
        (json_of(keys=["Jet_pt[0]"] * 7), "Jet_pt", r"'Jet_pt\[0\]' is there twice"),
        (with_pairs({"HT": "absent"}), "HT", "branch 'HT' is missing"),
        (with_pairs({"cov[0]": "absent", "cov[1]": "absent"}), "cov", "branch 'cov' is missing"),
        (with_pairs({"HT": "1"}), "HT", "'HT' of event 0: got '1'; expected a number"),
        (with_pairs({"HT": [1]}), "HT", "'HT' of event 0: got a list of 1"),
        (with_pairs({"nPV": 1.5}), "nPV", "'nPV' of event 0: got 1.5; expected an integer"),
        (with_pairs({"nPV": None}), "nPV", "'nPV' of event 0: got null; expected an integer"),
        (with_pairs({"Jet_n[1]": 1}), "Jet_n", r"'Jet_n\[0\]' of event 0: got null; expected an integer"),
        (with_pairs({"Jet_pt[1]": True}), "Jet_pt", r"'Jet_pt\[1\]' of event 0: got True; expected a number"),
    ],
)
def test_rows_that_can_not_be_used(body: bytes, field: str | None, message: str) -> None:
    with pytest.raises((BadRequest, InvalidEvents), match=message) as error:
        decode(body)
    assert error.value.field == field


def test_too_many_objects() -> None:
    for number in (50, 999_999_999):
        with pytest.raises(TooLarge, match=f"got {number + 1} objects; an event may have 50"):
            decode(with_pairs({f"Jet_pt[{number}]": 1}))


def test_messages_are_those_of_the_proto_file() -> None:
    # Row: key = 1 (repeated string), value = 2 (repeated float), model = 3 (string); written by hand.
    row = b"\x0a\x02HT" + b"\x0a\x03nPV" + b"\x12\x08" + struct.pack("<2f", 1.5, 3) + b"\x1a\x01m"
    assert as_tfaas_proto(["HT", "nPV"], [1.5, 3.0], "m") == row
    assert tfaas.model_of(row, "proto") == "m"
    # Predictions: prediction = 1 (repeated Class: label = 1, probability = 2).
    scores = np.array([[0.25, 0.75]], "f4")
    expected = b"".join(
        b"\x0a\x08\x0a\x01" + label + b"\x15" + struct.pack("<f", p) for label, p in ((b"a", 0.25), (b"b", 0.75))
    )
    assert tfaas.encode_proto(("a", "b"), scores) == expected


def test_unpacked_values_and_the_model_of_a_message() -> None:
    row = b"\x0a\x02HT" + b"\x15" + struct.pack("<f", 1.5)
    flats = manifest_of(flat("HT"))
    assert tfaas.decode_proto(row, Schemas(flats), settings=SETTINGS).columns["HT"].tolist() == [1.5]  # type: ignore[union-attr]
    assert tfaas.model_of(row, "proto") is None


def test_what_is_not_finite_in_a_message_is_missing() -> None:
    keys = ["HT", "nPV", "cov[0]", "cov[1]"]
    body = as_tfaas_proto(keys, [math.inf, 3.0, -math.inf, math.nan])
    table = tfaas.decode_proto(body, Schemas(MODEL), settings=SETTINGS)
    assert np.isnan(table.columns["HT"]).all()
    assert np.isnan(table.columns["cov"]).all()
    with pytest.raises(InvalidEvents, match="'nPV' of event 0: got null"):
        tfaas.decode_proto(as_tfaas_proto(keys, [1.0, math.nan, 1.0, 1.0]), Schemas(MODEL), settings=SETTINGS)


@pytest.mark.parametrize("body", [b"\x0a\xff", b"{}", b"\xff" * 20, b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message(body: bytes) -> None:
    with pytest.raises(BadRequest, match="this is no message Row"):
        tfaas.model_of(body, "proto")
    with pytest.raises(ServeError):
        tfaas.decode_proto(body, Schemas(MODEL), settings=SETTINGS)


def test_the_model_of_a_body() -> None:
    assert tfaas.model_of(json_of(), "json") == "m"
    assert tfaas.model_of(b'{"keys": []}', "json") is None
    for body, message in ((b'{"model": 3}', "model: got 3; expected a string"), (b"{", "this is not JSON")):
        with pytest.raises(BadRequest, match=message):
            tfaas.model_of(body, "json")


def test_scores_are_a_list() -> None:
    assert orjson.loads(tfaas.encode_json(np.array([[0.25, 0.75]], "f4"))) == [0.25, 0.75]
    assert orjson.loads(tfaas.encode_json(np.array([[0.25]], "f4"))) == [0.25]

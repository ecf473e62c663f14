"""Events in JSON: what is wrong is named, with its event; nothing but a ServeError comes out."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import orjson
import pytest
from codec_strategies import (
    EVENT,
    PHYSICS,
    SETTINGS,
    as_columns,
    as_nested_columns,
    check_equal,
    events_of,
    fixed,
    flat,
    jagged,
    manifest_of,
    tables,
)
from hypothesis import given
from hypothesis import strategies as st

from rootdata.jagged import Jagged
from rootdata.table import Table, concatenate
from serve.codec import events
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge
from serve.parsing import parse_object

COLUMNS: dict[str, Any] = {
    "HT": [1.0, 2.0], "MET_pt": [3, None], "nPV": [4, 5], "trigger": [True, False], "weight": [1, 1.5],
    "cov": [[1, 2, 3], [4, 5, None]], "Jet_pt": [1, 2, 3], "Jet_eta": [1, 2, 3], "Jet_flavour": [1, 2, 3],
    "Muon_pt": [],
}  # fmt: skip
COUNTS = {"jets": [1, 2], "muons": [0, 0]}


def decode(body: bytes) -> Table:
    return events.decode(body, Schemas(PHYSICS), settings=SETTINGS)


def decode_events(*changes: dict[str, Any]) -> Table:
    return decode(orjson.dumps({"events": [{**EVENT, **change} for change in changes]}))


def decode_columns(changes: dict[str, Any] | None = None, counts: dict[str, Any] | None = None) -> Table:
    return decode(orjson.dumps({"counts": {**COUNTS, **(counts or {})}, "columns": {**COLUMNS, **(changes or {})}}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "line 1, column 1: this is not JSON"),
        (b"{", "this is not JSON"),
        (b'{"events": [{"HT": 1.0,}]}', "line 1, column 2[0-9]: this is not JSON"),
        (b'{"events": [\n{"HT": NaN}]}', "line 2, column 8: JSON knows neither NaN nor infinities; send null"),
        (b'{"events": [{"HT": -Infinity}]}', "send null"),
        (b'{"events": [{"HT": Infinity}]}', "send null"),
        (b'{"events": [{"HT": nan}]}', "send null"),
        (b'{"events": [{"HT": 1e999}]}', "this is not JSON .*infinity"),
        (b'{"events": "\xff"}', "not valid UTF-8"),
        (b"\x93NUMPY\x01\x00", "this is not JSON"),
        (b"[" * 100_000, "depth "),
        (b'{"events": ' + b'[{"HT": ' * 2000, "depth "),
        (b"null", "got null; expected an object"),
        (b'"events"', "got a string; expected an object"),
        (b"[[1, 2]]", "got a list of 1; expected an object"),
        (b"{}", "got an empty object; expected"),
        (b'{"event": []}', "got an object with the key 'event'; expected"),
        (b'{"events": [], "event": []}', "got an object with the key 'event'"),
        (b'{"events": [], "columns": {}}', "both 'events' and 'columns'"),
        (b'{"counts": {}}', "expected"),
        (b'{"columns": {}, "count": {}}', "unknown key 'count'; nearest: 'counts'"),
        (b'{"events": {"HT": 1}}', "events: got an object; expected a list of objects"),
        (b'{"events": null}', "events: got null"),
        (b'{"columns": []}', "columns: got a list of 0; expected an object"),
        (b'{"columns": {}, "counts": 3}', "counts: got a number; expected an object"),
    ],
)
def test_a_body_that_can_not_be_read(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decode(body)


LAST = len(events_of()) - 1


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"Ht": 1.0}, "Ht", "unknown branch 'Ht' in event 1; nearest: 'HT'"),
        ({"x" * 10_000: 1.0}, "x" * 60, "unknown branch 'xxx"),
        ({"HT": "431"}, "HT", "'HT' of event 1: got '431'; expected a number, or null for a missing value"),
        ({"HT": "y" * 10_000}, "HT", "got 'yyy"),
        ({"HT": True}, "HT", "got True; expected a number"),
        ({"HT": [1.0]}, "HT", "got a list of 1; expected a number"),
        ({"HT": {"a": 1}}, "HT", "got an object; expected a number"),
        ({"HT": 1e39}, "HT", r"got 1e\+39; expected a number that fits into float32, at most 3.4e\+38"),
        ({"HT": -1e39}, "HT", r"got -1e\+39; expected a number that fits"),
        ({"weight": "1"}, "weight", "'weight' of event 1"),
        ({"nPV": None}, "nPV", "'nPV' of event 1: got null; expected an integer"),
        ({"nPV": 1.5}, "nPV", "got 1.5; expected an integer"),
        ({"nPV": True}, "nPV", "got True; expected an integer"),
        ({"nPV": 2**31}, "nPV", "got 2147483648; expected an integer from -2147483648 to 2147483647"),
        ({"nPV": -(2**31) - 1}, "nPV", "got -2147483649; expected an integer from"),
        ({"nPV": 2**64 - 1}, "nPV", "got 18446744073709551615; expected an integer from"),
        ({"nPV": 1e300}, "nPV", "expected an integer from"),
        ({"trigger": None}, "trigger", "got null; expected true or false"),
        ({"trigger": 2}, "trigger", "got 2.*; expected true or false"),
        ({"trigger": "true"}, "trigger", "got 'true'; expected true or false"),
        ({"cov": 1.0}, "cov", "'cov' of event 1: got 1.0; expected a list of numbers"),
        ({"cov": [1.0, 2.0]}, "cov", "'cov' of event 1: got 2 values; expected 3"),
        ({"cov": [1.0, 2.0, "x"]}, "cov", r"'cov\[2\]' of event 1: got 'x'"),
        ({"cov": [1.0, [2.0], 3.0]}, "cov", r"'cov\[1\]' of event 1: got a list of 1"),
        ({"Jet_pt": 3.0}, "Jet_pt", "'Jet_pt' of event 1: got 3.0; expected a list of numbers"),
        ({"Jet_pt": None}, "Jet_pt", "'Jet_pt' of event 1: got null; expected a list"),
        ({"Jet_pt": "abc"}, "Jet_pt", "'Jet_pt' of event 1: got 'abc'; expected a list"),
        ({"Jet_pt": {}}, "Jet_pt", "'Jet_pt' of event 1: got an object; expected a list"),
        ({"Jet_pt": [1.0, "x"]}, "Jet_pt", r"'Jet_pt\[1\]' of event 1: got 'x'; expected a number"),
        ({"Jet_pt": [1.0, [2.0]]}, "Jet_pt", r"'Jet_pt\[1\]' of event 1: got a list of 1"),
        ({"Jet_flavour": [1, 200]}, "Jet_flavour", r"'Jet_flavour\[1\]' of event 1: got 200; expected .* -128 to 127"),
        ({"Jet_flavour": [1, None]}, "Jet_flavour", r"'Jet_flavour\[1\]' of event 1: got null; expected an integer"),
        ({"Jet_eta": [1.0]}, "Jet_eta", "'Jet_eta' of event 1: got 1 objects; 'Jet_pt' has 2"),
        ({"Jet_eta": [1.0] * 3}, "Jet_eta", "'Jet_eta' of event 1: got 3 objects; 'Jet_pt' has 2"),
    ],
)
def test_an_event_that_can_not_be_used(change: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidEvents, match=message) as error:
        decode_events({}, change, {})
    assert (error.value.field, error.value.event) == (field, 1)
    assert error.value.status == 422
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", list(EVENT))
def test_a_missing_branch_is_named(name: str) -> None:
    bad = {key: value for key, value in EVENT.items() if key != name}
    with pytest.raises(InvalidEvents, match=f"branch '{name}' is missing in event 1") as error:
        decode(orjson.dumps({"events": [EVENT, bad]}))
    assert (error.value.field, error.value.event) == (name, 1)


def test_a_misspelt_branch_names_the_right_one() -> None:
    bad = {("Jet_ptt" if key == "Jet_pt" else key): value for key, value in EVENT.items()}
    with pytest.raises(InvalidEvents, match="unknown branch 'Jet_ptt' in event 0; nearest: 'Jet_pt'"):
        decode(orjson.dumps({"events": [bad]}))


@pytest.mark.parametrize("odd", [None, 1, "HT", [EVENT], True])
def test_an_event_is_an_object(odd: Any) -> None:
    with pytest.raises(InvalidEvents, match=r"event 1: got .*; expected an object") as error:
        decode(orjson.dumps({"events": [EVENT, odd]}))
    assert error.value.event == 1


def test_columns_by_hand() -> None:
    table = decode_columns()
    assert table.num_events == 2
    jets = table.columns["Jet_flavour"]
    assert isinstance(jets, Jagged)
    assert (jets.offsets.tolist(), jets.content.tolist(), jets.content.dtype) == ([0, 1, 3], [1, 2, 3], np.int8)


def test_counts_and_nested_lists_may_be_mixed() -> None:
    table = decode_columns({"Jet_pt": [[1], [2, 3]], "Muon_pt": [[], []]})
    assert table.columns["Jet_pt"].content.tolist() == [1, 2, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "counts", "field", "message"),
    [
        ({"Ht": []}, {}, "Ht", "unknown branch 'Ht'; nearest: 'HT'"),
        ({}, {"jet": [1, 2]}, "jet", "unknown counts 'jet'; nearest: 'jets'"),
        ({"HT": 1.0}, {}, "HT", "'HT': got 1.0; expected a list"),
        ({"HT": {}}, {}, "HT", "'HT': got an object; expected a list"),
        ({"MET_pt": [1.0]}, {}, "MET_pt", "'MET_pt' has 1 events; .* has 2"),
        ({"MET_pt": []}, {}, "MET_pt", "'MET_pt' has 0 events; .* has 2"),
        ({"cov": [[1, 2, 3]]}, {}, "cov", "'cov' has 1 events; .* has 2"),
        ({"cov": [1, 2]}, {}, "cov", "'cov' of event 0: got 1; expected a list"),
        ({"cov": [[1, 2, 3], [1, 2]]}, {}, "cov", "'cov' of event 1: got 2 values; expected 3"),
        ({"HT": [1.0, [2.0]]}, {}, "HT", "'HT' of event 1: got a list of 1; expected a number"),
        ({"HT": [1.0, "x"]}, {}, "HT", "'HT' of event 1: got 'x'"),
        ({"nPV": [1, 0.5]}, {}, "nPV", "'nPV' of event 1: got 0.5; expected an integer"),
        ({}, {"jets": [1]}, None, "has 1 events|has 2 events"),
        ({}, {"jets": [1, 2, 3]}, None, "events; .* has"),
        ({}, {"jets": 3}, "jets", "counts.jets: got 3; expected a list of integers"),
        ({}, {"jets": [1, -1]}, "jets", "counts of 'jets' of event 1: got -1; expected 0 or more"),
        ({}, {"jets": [1, 1.5]}, "counts.jets", "'counts.jets' of event 1: got 1.5; expected an integer"),
        ({}, {"jets": [1, "2"]}, "counts.jets", "'counts.jets' of event 1: got '2'; expected an integer"),
        ({}, {"jets": [1, None]}, "counts.jets", "'counts.jets' of event 1: got null; expected an integer"),
        ({}, {"jets": [1, True]}, "counts.jets", "'counts.jets' of event 1: got True; expected an integer"),
        ({}, {"jets": [2, 2]}, "Jet_pt", "'Jet_pt': got 3 values; counts.jets sum up to 4"),
        ({"Jet_eta": [1, 2]}, {}, "Jet_eta", "'Jet_eta': got 2 values; counts.jets sum up to 3"),
        ({"Jet_eta": [1, 2, [3]]}, {}, "Jet_eta", r"'Jet_eta\[1\]' of event 1: got a list of 1; expected a number"),
        ({"Jet_eta": [1, "x", 3]}, {}, "Jet_eta", r"'Jet_eta\[0\]' of event 1: got 'x'"),
        ({"Jet_eta": [[1, 2], [3]]}, {}, "Jet_eta", "'Jet_eta' of event 0: got 2 objects; 'counts.jets' has 1"),
        ({"Jet_eta": [[1], 2]}, {}, "Jet_eta", "'Jet_eta' of event 1: got 2; expected a list"),
        ({"Jet_eta": [[1], [2, [3]]]}, {}, "Jet_eta", r"'Jet_eta\[1\]' of event 1: got a list of 1"),
        ({"Jet_eta": [[1]]}, {}, "Jet_eta", "'Jet_eta' has 1 events; .* has 2"),
    ],
)
def test_columns_that_can_not_be_used(
    changes: dict[str, Any], counts: dict[str, Any], field: str | None, message: str
) -> None:
    with pytest.raises(InvalidEvents, match=message) as error:
        decode_columns(changes, counts)
    assert field is None or error.value.field == field


@pytest.mark.parametrize("name", list(COLUMNS))
def test_a_missing_column_is_named(name: str) -> None:
    columns = {key: value for key, value in COLUMNS.items() if key != name}
    with pytest.raises(InvalidEvents, match=f"branch '{name}' is missing") as error:
        decode(orjson.dumps({"counts": COUNTS, "columns": columns}))
    assert error.value.field == name


def test_flat_content_needs_counts() -> None:
    with pytest.raises(InvalidEvents, match=r"counts.jets is missing; 'Jet_pt' needs it, or a list of numbers"):
        decode(orjson.dumps({"columns": COLUMNS}))


def test_unequal_nested_lists_name_event_and_branches() -> None:
    columns = {
        **COLUMNS,
        "Jet_pt": [[1], [2, 3]],
        "Jet_eta": [[1], [2]],
        "Jet_flavour": [[1], [2]],
        "Muon_pt": [[], []],
    }
    with pytest.raises(InvalidEvents, match="'Jet_eta' of event 1: got 1 objects; 'Jet_pt' has 2") as error:
        decode(orjson.dumps({"columns": columns}))
    assert (error.value.field, error.value.event) == ("Jet_eta", 1)


def test_too_many_events() -> None:
    flats = manifest_of(flat("x"))
    bodies = [
        orjson.dumps({"events": [{"x": 1}] * (SETTINGS.max_events + 1)}),
        orjson.dumps({"columns": {"x": [1] * (SETTINGS.max_events + 1)}}),
    ]
    for body in bodies:
        with pytest.raises(TooLarge, match="got 1001 events; a request may have 1000"):
            events.decode(body, Schemas(flats), settings=SETTINGS)
    most = orjson.dumps({"columns": {"x": [1] * SETTINGS.max_events}})
    assert events.decode(most, Schemas(flats), settings=SETTINGS).num_events == SETTINGS.max_events


@pytest.mark.parametrize("form", ["events", "columns", "nested"])
def test_too_many_objects(form: str) -> None:
    one = manifest_of(jagged("Jet_pt", "jets"))
    for size, is_allowed in ((SETTINGS.max_objects, True), (SETTINGS.max_objects + 1, False)):
        many = [1.0] * size
        body = {
            "events": {"events": [{"Jet_pt": []}, {"Jet_pt": many}]},
            "columns": {"counts": {"jets": [0, size]}, "columns": {"Jet_pt": many}},
            "nested": {"columns": {"Jet_pt": [[], many]}},
        }[form]
        if is_allowed:
            assert events.decode(orjson.dumps(body), Schemas(one), settings=SETTINGS).num_events == 2
            continue
        with pytest.raises(TooLarge, match="'jets' of event 1: got 51 objects; an event may have 50") as error:
            events.decode(orjson.dumps(body), Schemas(one), settings=SETTINGS)
        assert (error.value.field, error.value.event) == ("jets", 1)


@pytest.mark.parametrize("count", [2**31, 2**62, 2**63, 2**64 - 1, 10**30])
def test_counts_that_overflow(count: int) -> None:
    body = json.dumps({"counts": {"jets": [count, count]}, "columns": {"Jet_pt": []}}).encode()
    with pytest.raises(ServeError, match="jets"):
        events.decode(body, Schemas(manifest_of(jagged("Jet_pt", "jets"))), settings=SETTINGS)


def test_a_list_without_counts_of_its_own_counts_for_itself() -> None:
    alone = manifest_of(jagged("a", None), jagged("b", None))
    table = events.decode(b'{"events": [{"a": [1], "b": [1, 2]}]}', Schemas(alone), settings=SETTINGS)
    assert [len(c.content) for c in table.columns.values()] == [1, 2]  # type: ignore[union-attr]
    body = b'{"counts": {"a": [1], "b": [2]}, "columns": {"a": [1], "b": [1, 2]}}'
    assert events.decode(body, Schemas(alone), settings=SETTINGS).num_events == 1


def test_whole_numbers_may_be_written_as_fractions_and_the_other_way_round() -> None:
    table = decode_events({"nPV": 3.0, "HT": 3, "trigger": 1})
    assert [table.columns[n].tolist() for n in ("nPV", "HT", "trigger")] == [[3], [3.0], [True]]  # type: ignore[union-attr]


def test_of_equal_keys_the_last_counts() -> None:
    table = events.decode(b'{"events": [{"x": 1, "x": 2}]}', Schemas(manifest_of(flat("x"))), settings=SETTINGS)
    assert table.columns["x"].tolist() == [2]  # type: ignore[union-attr]


def test_a_width_of_one_is_a_list_too() -> None:
    one = manifest_of(fixed("x", 1))
    assert events.decode(b'{"events": [{"x": [4]}]}', Schemas(one), settings=SETTINGS).columns["x"].shape == (1, 1)  # type: ignore[union-attr]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*EVENT, "events", "columns", "counts", "jets", "x"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(value=json_values, name=st.sampled_from(list(EVENT)))
def test_whatever_is_sent_for_a_branch_is_taken_or_named(value: Any, name: str) -> None:
    body = json.dumps({"events": [EVENT, {**EVENT, name: value}]}).encode()
    check_refusal(body, name)
    body = json.dumps({"counts": COUNTS, "columns": {**COLUMNS, name: value}}).encode()
    check_refusal(body, name)


def check_refusal(body: bytes, name: str) -> None:
    """Check that what goes wrong is put down to the branch, to one that must agree with it, or to the body."""
    collection = {"Jet_pt", "Jet_eta", "Jet_flavour"}
    fields = {name} | (collection if name in collection else set())
    with contextlib.suppress(BadRequest):
        try:
            decode(body)
        except InvalidEvents as error:
            blamed = error.field
        else:
            return
        # Where the first column is the odd one, all others disagree with it.
        assert blamed in fields or name == next(iter(COLUMNS)) or name in collection | {"Muon_pt"}


@given(document=json_values)
def test_whatever_is_sent_at_all_is_refused(document: Any) -> None:
    with pytest.raises(ServeError):
        decode(json.dumps(document).encode())


@given(st.binary(max_size=60))
def test_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        decode(body)


# A few events at a time


def outcome(work: Any) -> Any:
    """Return what some work gives, or the kind, sentence and event of the error that it ends with."""
    try:
        return work()
    except ServeError as error:
        return type(error), str(error), error.event
    except events.Unsliced:
        return events.Unsliced


def in_slices(body: bytes) -> Any:
    """Return the table that pieces of a text make, as a large body is read."""
    made = outcome(lambda: concatenate(list(events.slices(body, Schemas(PHYSICS), settings=SETTINGS))))
    if made is not events.Unsliced:
        return made
    return outcome(lambda: concatenate(list(events.slices_of(parse_object(body), Schemas(PHYSICS), settings=SETTINGS))))


NAMES = [*EVENT, "},{", '"},{"', "\\", "{", "]}"]
ODD = st.sampled_from([None, 1e99, "},{", '"}, {', [{}, {}], {"a": {}}, [1, "},{"], True, [], -1])
GAPS = st.sampled_from(["", " ", "\n", "\t \r\n"])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Draw a body with whitespace between events and, where it is not right, one thing that is wrong."""
    made = events_of(draw(st.integers(1, 8)))
    if draw(st.booleans()):
        made[draw(st.integers(0, len(made) - 1))][draw(st.sampled_from(NAMES))] = draw(ODD)
    text = "[" + "".join(draw(GAPS) + (", " if i else "") + json.dumps(e) for i, e in enumerate(made)) + draw(GAPS)
    tail = draw(st.sampled_from(["]}", "]}", "] }\n", "]", "]},{", '], "events": []}', '], "x": [{}]}', ",]}", ""]))
    return (draw(GAPS) + "{" + draw(GAPS) + '"events":' + draw(GAPS) + text + tail).encode()


@given(body=texts(), piece=st.integers(0, 300), step=st.integers(1, 5))
def test_a_text_that_is_cut_means_what_it_means_whole(body: bytes, piece: int, step: int) -> None:
    expected = outcome(lambda: decode(body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "_PIECE", piece)
        patch.setattr(events, "STEP", step)
        found = in_slices(body)
    if isinstance(expected, Table):
        check_equal(found, expected)
    else:
        assert found == expected


@given(data=st.data(), step=st.integers(1, 5), form=st.sampled_from([as_columns, as_nested_columns]))
def test_columns_that_are_cut_mean_what_they_mean_whole(data: Any, step: int, form: Any) -> None:
    document = orjson.loads(form(data.draw(tables(PHYSICS)), PHYSICS))
    if data.draw(st.booleans()):
        values = document["columns"][data.draw(st.sampled_from(sorted(document["columns"])))]
        values[data.draw(st.integers(0, len(values))) :] = data.draw(st.lists(ODD, max_size=1))
    body = orjson.dumps(document)
    expected = outcome(lambda: decode(body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "STEP", step)
        found = in_slices(body)
    if isinstance(expected, Table):
        check_equal(found, expected)
    else:
        assert not isinstance(found, Table)
        assert found[0] is expected[0]


def test_what_is_beyond_the_limit_of_events_is_refused_in_slices_too() -> None:
    body = orjson.dumps({"events": [EVENT] * (SETTINGS.max_events + 1)})
    with pytest.raises(TooLarge, match="may have 1000"):
        list(events.slices(body, Schemas(PHYSICS), settings=SETTINGS))

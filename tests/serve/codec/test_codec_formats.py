"""The same events through every format: equal tables, and nothing lost on the way there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from codec_strategies import (
    EVENT,
    PHYSICS,
    SETTINGS,
    WRITERS,
    as_events,
    as_keys_and_values,
    as_tfaas_json,
    as_tfaas_proto,
    check_equal,
    check_whole,
    flat,
    manifest_of,
    models_and_tables,
    root_columns,
)
from hypothesis import given, settings

from rootdata.bundle.manifest import Manifest
from rootdata.jagged import Jagged
from rootdata.table import Table, concatenate
from serve.codec import arrow, binary, events, rootfile, tfaas
from serve.codec.schema import Schemas
from serve.errors import InvalidEvents, InvalidModel
from strategies import NO_SHRINKING

DECODERS = {
    **dict.fromkeys(["events", "columns", "nested"], events.decode),
    "binary": binary.decode,
    "arrow": arrow.decode,
}


@pytest.mark.parametrize("form", WRITERS)
@given(found=models_and_tables())
def test_every_format_gives_back_the_events(form: str, found: tuple[Manifest, Table]) -> None:
    manifest, table = found
    body = WRITERS[form](table, manifest)
    decoded = DECODERS[form](body, Schemas(manifest), settings=SETTINGS)
    check_equal(decoded, table)
    check_whole(decoded, manifest)


@settings(phases=NO_SHRINKING, max_examples=25)
@given(found=models_and_tables(min_events=1))
def test_a_root_file_gives_the_events(write_tree: Callable[..., Path], found: tuple[Manifest, Table]) -> None:
    manifest, table = found
    with tempfile.TemporaryDirectory() as folder:
        path = write_tree(Path(folder) / "events.root", root_columns(table), step=3)
        pieces = list(rootfile.tables(path, Schemas(manifest), tree=None, settings=SETTINGS))
    check_equal(concatenate(pieces), table)


@given(found=models_and_tables(min_events=1, max_events=1))
def test_tfaas_gives_the_event(found: tuple[Manifest, Table]) -> None:
    manifest, table = found
    check_equal(tfaas.decode_json(as_tfaas_json(table), Schemas(manifest), settings=SETTINGS), table)


@given(found=models_and_tables(min_events=1, max_events=1))
def test_tfaas_protobuf_gives_the_event_to_float32(found: tuple[Manifest, Table]) -> None:
    manifest, table = found
    coarse = Table(num_events=1, columns={n: rounded(c) for n, c in table.columns.items()})
    body = as_tfaas_proto(*as_keys_and_values(coarse), model="m")
    check_equal(tfaas.decode_proto(body, Schemas(manifest), settings=SETTINGS), coarse)


def rounded(column: Any) -> Any:
    """Keep what a float32 can hold: all that a message of TFaaS carries."""
    if isinstance(column, Jagged):
        return Jagged(column.offsets, rounded(column.content))
    if column.dtype.kind == "b":
        return column
    return np.clip(column.astype(np.float64), -100, 100).astype(np.float32).astype(column.dtype)


@given(found=models_and_tables())
def test_decoding_looks_at_the_whole_model(found: tuple[Manifest, Table]) -> None:
    manifest, table = found
    more = manifest_of(*manifest.branches, flat("one_more"))
    with pytest.raises(InvalidEvents, match="one_more") as error:
        events.decode(WRITERS["nested"](table, manifest), Schemas(more), settings=SETTINGS)
    assert error.value.field == "one_more"


def test_an_event_by_hand() -> None:
    table = events.decode(orjson.dumps({"events": [EVENT]}), Schemas(PHYSICS), settings=SETTINGS)
    assert table.num_events == 1
    assert {n: c.dtype.name for n, c in table.columns.items() if isinstance(c, np.ndarray)} == {
        "HT": "float32", "MET_pt": "float32", "nPV": "int32", "trigger": "bool", "weight": "float64", "cov": "float64",
    }  # fmt: skip
    assert np.isnan(table.columns["MET_pt"]).tolist() == [True]
    np.testing.assert_array_equal(table.columns["cov"], [[1, 2, 3]])
    jets = table.columns["Jet_eta"]
    assert isinstance(jets, Jagged)
    assert jets.offsets.tolist() == [0, 2]
    np.testing.assert_array_equal(jets.content, np.array([0.5, np.nan], np.float32))


def test_a_collection_shares_its_offsets() -> None:
    for form in ("events", "columns", "binary", "arrow"):
        table = events.decode(orjson.dumps({"events": [EVENT] * 3}), Schemas(PHYSICS), settings=SETTINGS)
        table = DECODERS[form](WRITERS[form](table, PHYSICS), Schemas(PHYSICS), settings=SETTINGS)
        jets = [table.columns[n] for n in ("Jet_pt", "Jet_eta", "Jet_flavour")]
        assert len({id(j.offsets) for j in jets if isinstance(j, Jagged)}) == 1, form


def test_binary_columns_are_not_copied() -> None:
    body = WRITERS["binary"](
        events.decode(orjson.dumps({"events": [EVENT]}), Schemas(PHYSICS), settings=SETTINGS), PHYSICS
    )
    table = binary.decode(body, Schemas(PHYSICS), settings=SETTINGS)
    memory = np.frombuffer(body, np.uint8)
    values = [c.content if isinstance(c, Jagged) else c for c in table.columns.values()]
    assert all(np.shares_memory(v, memory) for v in values if v.size)


def test_a_model_of_tensors_takes_no_events() -> None:
    with pytest.raises(InvalidEvents, match="takes tensors, not events"):
        events.decode(b"{}", Schemas(manifest_of()), settings=SETTINGS)


@pytest.mark.parametrize("dtype", ["object", "str", "datetime64[ns]", "nonsense", "complex64", "f4,f4"])
def test_a_manifest_with_odd_types_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidModel, match="expected a number type"):
        events.decode(b"{}", Schemas(manifest_of(flat("x", dtype))), settings=SETTINGS)


def test_two_manifests_are_not_mixed_up() -> None:
    one, two = Schemas(manifest_of(flat("x"))), Schemas(manifest_of(flat("x", "int64")))
    for _ in range(2):
        for schemas, dtype in ((one, "float32"), (two, "int64")):
            table = events.decode(b'{"events": [{"x": 1}]}', schemas, settings=SETTINGS)
            assert table.columns["x"].dtype == dtype  # type: ignore[union-attr]
    assert one.of() is one.of(["unknown"])


def test_no_events_are_events(write_tree: Callable[..., Path], tmp_path: Path) -> None:
    for body in (b'{"events": []}', as_events(Table(num_events=0, columns={}), PHYSICS)):
        table = events.decode(body, Schemas(PHYSICS), settings=SETTINGS)
        check_whole(table, PHYSICS)
        assert table.num_events == 0
    path = write_tree(tmp_path / "empty.root", root_columns(table))
    assert list(rootfile.tables(path, Schemas(PHYSICS), tree=None, settings=SETTINGS)) == []

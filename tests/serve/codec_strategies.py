"""Hypothesis strategies for events as clients send them, and every way to write the same events down."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import awkward as ak
import numpy as np
import orjson
import pyarrow as pa
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput

from rootdata.bundle.manifest import BranchSpec, Manifest, OutputSpec, TensorSpec
from rootdata.jagged import Column, Jagged, offsets_of
from rootdata.table import Table
from serve.codec import binary, tfaas
from serve.settings import Settings

SETTINGS = Settings(models=Path("models"), max_body=1_000_000, max_events=1000, max_objects=50)
NUMBER_TYPES = (
    *("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)


def manifest_of(*branches: BranchSpec, inputs: tuple[TensorSpec, ...] = (), **outputs: OutputSpec) -> Manifest:
    """A manifest with these branches, and some input and output."""
    return Manifest(
        sha256="0" * 64,
        size=1,
        branches=branches,
        inputs=inputs or (TensorSpec(name="x", dtype="float32", shape=("events", 1)),),
        outputs=tuple(outputs.values())
        or (OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",)),),
    )


def flat(name: str, dtype: str = "float32") -> BranchSpec:
    return BranchSpec(name=name, dtype=dtype)


def fixed(name: str, width: int, dtype: str = "float32") -> BranchSpec:
    return BranchSpec(name=name, dtype=dtype, kind="fixed", width=width)


def jagged(name: str, counts: str | None, dtype: str = "float32") -> BranchSpec:
    return BranchSpec(name=name, dtype=dtype, kind="jagged", counts=counts)


PHYSICS = manifest_of(
    flat("HT"), flat("MET_pt"), flat("nPV", "int32"), flat("trigger", "bool"), flat("weight", "float64"),
    fixed("cov", 3, "float64"),
    jagged("Jet_pt", "jets"), jagged("Jet_eta", "jets"), jagged("Jet_flavour", "jets", "int8"),
    jagged("Muon_pt", "muons"),
)  # fmt: skip
"""All kinds of branches, two collections."""

EVENT = {
    "HT": 431.0, "MET_pt": None, "nPV": 31, "trigger": True, "weight": 0.5, "cov": [1.0, 2.0, 3.0],
    "Jet_pt": [120.5, 80.25], "Jet_eta": [0.5, None], "Jet_flavour": [5, -1], "Muon_pt": [],
}  # fmt: skip
"""One event for PHYSICS."""


def events_of(num_events: int = 3) -> list[dict[str, Any]]:
    """Events for PHYSICS that may be spoilt: the n-th has n jets."""
    return [
        {**EVENT, "HT": 100.0 + i, "Jet_pt": [50.0] * i, "Jet_eta": [0.1] * i, "Jet_flavour": [5] * i}
        for i in range(num_events)
    ]


# Tensors

TENSORS = manifest_of(
    inputs=(
        TensorSpec(name="flat", dtype="float32", shape=("events", 3), features=("a", "b", "c")),
        TensorSpec(
            name="jets", dtype="float32", shape=("events", 2, "jets"), features=("pt", "eta"), collection="jets"
        ),
        TensorSpec(name="jets_int", dtype="int64", shape=("events", 1, "jets"), features=("n",), collection="jets"),
        TensorSpec(name="jets_mask", dtype="float32", shape=("events", "jets"), collection="jets"),
        TensorSpec(name="weight", dtype="float64", shape=("events", 1), features=("w",)),
    ),
    scores=OutputSpec(name="scores", dtype="float32", shape=("events", 2), columns=("a", "b")),
    hidden=OutputSpec(name="hidden", dtype="float32", shape=("events", 1), columns=("h",)),
)
WORDS = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "bool": "BOOL", "int32": "INT32", "float16": "FP16"}


def tensors_of(events: int = 2, jets: int = 4) -> dict[str, Any]:
    """Values for TENSORS."""
    rng = np.random.default_rng(events * 100 + jets)
    return {
        "flat": rng.normal(size=(events, 3)).astype("f4"),
        "jets": rng.normal(size=(events, 2, jets)).astype("f4"),
        "jets_int": rng.integers(-5, 2**60, (events, 1, jets)),
        "jets_mask": rng.integers(0, 2, (events, jets)).astype("f4"),
        "weight": rng.normal(size=(events, 1)),
    }


def tensor_body(
    tensors: dict[str, Any], *, binary: Any = True, outputs: Any = None, **how: Any
) -> tuple[bytes, int | None]:
    """Let the client write a request."""
    inputs = []
    flags = itertools.cycle([binary] if isinstance(binary, bool) else binary)
    for (name, values), flag in zip(tensors.items(), flags, strict=False):
        tensor = InferInput(name, list(values.shape), WORDS[values.dtype.name])
        inputs.append(tensor.set_data_from_numpy(values, binary_data=flag))
    return InferenceServerClient.generate_request_body(inputs, outputs=outputs, **how)


# Random models and events


@st.composite
def manifests(draw: st.DrawFn, *, dtypes: tuple[str, ...] = NUMBER_TYPES) -> Manifest:
    """Up to four flat branches, two of fixed size, two collections; at least one branch."""
    kinds = st.sampled_from(dtypes)
    found = [flat(f"f{i}", draw(kinds)) for i in range(draw(st.integers(0, 4)))]
    found += [fixed(f"w{i}", draw(st.integers(1, 4)), draw(kinds)) for i in range(draw(st.integers(0, 2)))]
    for group in ("jets", "muons")[: draw(st.integers(0 if found else 1, 2))]:
        found += [jagged(f"{group}_{i}", group, draw(kinds)) for i in range(draw(st.integers(1, 3)))]
    return manifest_of(*draw(st.permutations(found)))


@st.composite
def tables(draw: st.DrawFn, manifest: Manifest, *, min_events: int = 0, max_events: int = 6) -> Table:
    """Events for a model; floats may be NaN, never infinite, which JSON can't say."""
    n = draw(st.integers(min_events, max_events))
    groups = sorted({b.counts for b in manifest.branches if b.counts})
    sizes = {g: np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), np.int64) for g in groups}
    offsets = {g: offsets_of(counts) for g, counts in sizes.items()}
    columns: dict[str, Column] = {}
    for b in manifest.branches:
        size = int(offsets[b.counts][-1]) if b.counts else n * b.width
        values = np.array(draw(st.lists(numbers(b.dtype), min_size=size, max_size=size)), b.dtype)
        if b.counts:
            columns[b.name] = Jagged(offsets[b.counts], values)
        else:
            columns[b.name] = values.reshape(n, b.width) if b.kind == "fixed" else values
    return Table(num_events=n, columns=columns)


def numbers(dtype: str) -> st.SearchStrategy[Any]:
    """Values of a number type, its limits among them."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return st.booleans()
    if kind.kind == "f":
        limit, bits = float(np.finfo(kind).max), cast("Literal[16, 32, 64]", kind.itemsize * 8)
        return st.floats(width=bits, allow_infinity=False) | st.sampled_from([math.nan, limit, -limit])
    limits = np.iinfo(kind)
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([int(limits.min), int(limits.max)])


def models_and_tables(**how: Any) -> st.SearchStrategy[tuple[Manifest, Table]]:
    """A model and events for it."""
    return manifests().flatmap(lambda m: st.tuples(st.just(m), tables(m, **how)))


# The ways to write them down


def plain(values: Any) -> list[Any]:
    """Turn numbers into what JSON knows."""
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()]


def rows_of(column: Column) -> list[Any]:
    """One entry an event."""
    if isinstance(column, Jagged):
        content = plain(column.content)
        return [content[a:b] for a, b in zip(column.offsets, column.offsets[1:], strict=False)]
    return plain(column) if column.ndim == 1 else [plain(row) for row in column]


def as_events(table: Table, manifest: Manifest) -> bytes:
    rows = {name: rows_of(column) for name, column in table.columns.items()}
    return orjson.dumps({"events": [{n: r[i] for n, r in rows.items()} for i in range(table.num_events)]})


def as_columns(table: Table, manifest: Manifest) -> bytes:
    grouped = [(b.counts, table.columns[b.name]) for b in manifest.branches if b.counts]
    counts = {group: column.counts.tolist() for group, column in grouped if isinstance(column, Jagged)}
    columns = {n: plain(c.content) if isinstance(c, Jagged) else rows_of(c) for n, c in table.columns.items()}
    return orjson.dumps({"counts": counts, "columns": columns})


def as_nested_columns(table: Table, manifest: Manifest) -> bytes:
    return orjson.dumps({"columns": {name: rows_of(column) for name, column in table.columns.items()}})


def as_binary(table: Table, manifest: Manifest) -> bytes:
    return binary.encode(table)


def arrow_array(column: Column) -> pa.Array:
    if isinstance(column, Jagged):
        return pa.ListArray.from_arrays(pa.array(column.offsets.astype(np.int32)), pa.array(column.content))
    if column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), column.shape[1])
    return pa.array(column)


def arrow_stream(table: pa.Table, *, rows: int = 2, compression: str | None = None) -> bytes:
    """Write a stream in batches of so many rows."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_table(table, max_chunksize=rows)
    return sink.getvalue()


def as_arrow(table: Table, manifest: Manifest) -> bytes:
    return arrow_stream(pa.table({name: arrow_array(c) for name, c in table.columns.items()}))


def root_columns(table: Table) -> dict[str, Any]:
    """Columns as uproot writes them."""
    return {n: c.to_awkward() if isinstance(c, Jagged) else c for n, c in table.columns.items()}


def as_keys_and_values(table: Table) -> tuple[list[str], list[Any]]:
    """The one event of a table, as TFaaS writes it."""
    pairs: list[tuple[str, Any]] = []
    for name, column in table.columns.items():
        (row,) = rows_of(column)
        pairs += [(f"{name}[{i}]", v) for i, v in enumerate(row)] if isinstance(row, list) else [(name, row)]
    return [k for k, _ in pairs], [v for _, v in pairs]


def as_tfaas_json(table: Table) -> bytes:
    keys, values = as_keys_and_values(table)
    return orjson.dumps({"keys": keys, "values": values, "model": "m"})


def as_tfaas_proto(keys: list[str], values: list[Any], model: str = "") -> bytes:
    row = tfaas.Row(key=keys, value=[math.nan if v is None else v for v in values], model=model)
    return row.SerializeToString()


WRITERS: Mapping[str, Callable[[Table, Manifest], bytes]] = {
    "events": as_events,
    "columns": as_columns,
    "nested": as_nested_columns,
    "binary": as_binary,
    "arrow": as_arrow,
}


def check_equal(found: Table, expected: Table) -> None:
    """Check that two tables hold the same values of the same types, NaN where NaN is."""
    assert found.num_events == expected.num_events
    assert found.columns.keys() == expected.columns.keys()
    for name, column in expected.columns.items():
        other = found.columns[name]
        if isinstance(column, Jagged):
            assert isinstance(other, Jagged)
            np.testing.assert_array_equal(other.offsets, column.offsets, err_msg=name)
            column, other = column.content, other.content
        assert isinstance(other, np.ndarray)
        assert other.dtype == column.dtype, name
        np.testing.assert_array_equal(other, column, err_msg=name)


def check_whole(table: Table, manifest: Manifest) -> None:
    """Check that what a decoder let through is what the model asks for."""
    assert table.columns.keys() == {b.name for b in manifest.branches}
    lengths: dict[str, Any] = {}
    for b in manifest.branches:
        column = table.columns[b.name]
        values = column.content if isinstance(column, Jagged) else column
        assert values.dtype == np.dtype(b.dtype)
        assert len(column) == table.num_events
        assert isinstance(column, Jagged) == (b.kind == "jagged")
        if isinstance(column, Jagged):
            assert column.offsets[0] == 0
            assert column.offsets[-1] == len(values)
            assert (column.counts >= 0).all()
            np.testing.assert_array_equal(lengths.setdefault(b.counts or b.name, column.counts), column.counts)
        elif b.kind == "fixed":
            assert values.shape == (table.num_events, b.width)


def awkward_lists(*lists: list[Any], dtype: str = "float32") -> ak.Array:
    return ak.values_astype(ak.Array(list(lists)), dtype)

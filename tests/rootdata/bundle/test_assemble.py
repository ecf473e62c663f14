"""From branches to the tensors of a graph: the same numbers as in training, and what is told of strange events."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.bundle import assemble
from rootdata.bundle.assemble import Assembler, RawFeatures, lists_of, table_of
from rootdata.bundle.manifest import BranchSpec, Manifest, OutputSpec, Range, SampleSelection, Selection, TensorSpec
from rootdata.errors import BundleError, DataError
from rootdata.events import evaluation, selection
from rootdata.jagged import Jagged
from rootdata.layouts.layout import Layout, Padded
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.location import Location
from rootdata.missing import mask_sentinels
from rootdata.options.data import DataConfig
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scaling.transform import Transform
from rootdata.table import Table, concatenate
from strategies import SENTINEL, Block, blocks, columns_of, masked, values

BRANCHES = {
    "met": BranchSpec(name="met", dtype="float32"),
    "ht": BranchSpec(name="ht", dtype="float64"),
    "id": BranchSpec(name="id", dtype="int64"),
    "tagged": BranchSpec(name="tagged", dtype="bool"),
    "cov": BranchSpec(name="cov", dtype="float32", kind="fixed", width=2),
    "Jet_pt": BranchSpec(name="Jet_pt", dtype="float32", kind="jagged", counts="jets"),
    "Jet_eta": BranchSpec(name="Jet_eta", dtype="float32", kind="jagged", counts="jets"),
    "Mu_q": BranchSpec(name="Mu_q", dtype="int32", kind="jagged", counts="muons"),
}
FLAT = {"float32": ["met", "cov[0]", "cov[1]"], "float64": ["ht", "ratio"], "int64": ["id", "tagged"]}


def tensors_of(stem: str, groups: dict[str, list[str]], axis: int | str | None) -> list[TensorSpec]:
    """Declare the inputs for features of several number types."""
    collection = None if stem == "flat" else stem
    return [
        TensorSpec(
            name=f"{stem}_{dtype}",
            dtype=dtype,
            shape=("events", len(names)) if axis is None else ("events", len(names), axis),
            features=tuple(names),
            collection=collection,
        )
        for dtype, names in groups.items()
    ]


def mask_of(collection: str, axis: int | str) -> TensorSpec:
    """Declare the mask of a collection."""
    return TensorSpec(name=f"{collection}_mask", dtype="float32", shape=("events", axis), collection=collection)


def make_manifest(*, jets: dict[str, Any] | None = None, is_fixed: bool = False, **changes: Any) -> Manifest:
    """Describe a graph of all kinds of branches; ``jets`` are options of that collection."""
    options = {"branches": ["Jet_eta", "hard", "Jet_pt"], "length": 4, "sort": "-Jet_pt", "cut": "Jet_pt > 5"}
    options |= jets or {}
    axis = options["length"] if is_fixed else "jets"
    fields: dict[str, Any] = {
        "sha256": "", "size": 0,
        "branches": tuple(BRANCHES.values()),
        "inputs": (
            *tensors_of("flat", FLAT, None),
            *tensors_of("jets", {"float32": ["Jet_eta", "Jet_pt"], "float64": ["hard"]}, axis), mask_of("jets", axis),
            *tensors_of("muons", {"int64": ["Mu_q"]}, 2), mask_of("muons", 2),
        ),
        "outputs": (OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",)),),
        "features": {
            "flat": ["met", "ht", "id", "tagged", "cov", "ratio"],
            "jagged": {"jets": options, "muons": {"branches": ["Mu_q"], "length": 2}},
            "derived": {"ratio": "max(Jet_pt) / ht", "hard": "Jet_pt * 1.0 / ht"},
            "missing": [SENTINEL],
        },
    }  # fmt: skip
    return Manifest(**(fields | changes))


def raw_columns(num_events: int, *seed: int) -> dict[str, Any]:
    """Make columns as files give them."""
    found = columns_of(num_events, seed)
    return {name: found[name] for name in BRANCHES}


def table_from(columns: dict[str, Any]) -> Table:
    """Make the table that a client would have sent."""
    num_events = len(columns["met"])
    given = {n: Jagged.from_awkward(c) if isinstance(c, ak.Array) else c for n, c in columns.items()}
    return Table(num_events=num_events, columns=given)


def slice_of(columns: dict[str, Any], start: int, stop: int) -> Table:
    """Make a table of some of the events."""
    return table_from({name: column[start:stop] for name, column in columns.items()})


# The same numbers as in training


def trained_on(config: DataConfig, columns: dict[str, Any], layout: Layout, scaling: dict[str, Transform]) -> Any:
    """Give the arrays that training makes of the columns of a file."""
    n = len(columns["met"])
    block = evaluation.Block(location=Location("file"), start=0, stop=n, num_entries=n)
    selected = selection.select(config, config.samples[0], columns, block=block)
    packed = pack(selected, layout, scaling, sample=0, file=0)
    arrays = Pool(layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    return {name: arrays[name] for name in layout.shapes}


def prepared(manifest: Manifest, tensors: assemble.Tensors, layout: Layout, scaling: dict[str, Transform]) -> Any:
    """Scale, pad and mask the tensors of a graph in numpy, as the graph should, in the tokens layout."""
    config = manifest.config()
    arrays: dict[str, Any] = {}
    parts = [("flat", layout.flat)] if layout.flat else []
    for name, features in [*parts, *((c.name, c.branches) for c in layout.collections)]:
        collection = None if name == "flat" else name
        specs = [t for t in manifest.inputs if t.collection == collection and not t.is_mask]
        found = {f: tensors[t.name][:, i] for t in specs for i, f in enumerate(t.features)}
        made = np.full((*next(iter(found.values())).shape, len(features)), layout.pad, np.float32)
        for i, feature in enumerate(features):
            scaled = np.empty(found[feature].size, np.float32)
            sentinels = () if feature in config.derived else config.missing
            scaling[feature].apply(mask_sentinels(found[feature].reshape(-1), sentinels), scaled)
            scaled = scaled.reshape(found[feature].shape)
            real = ~np.isnan(scaled)
            if collection:
                real &= tensors[f"{name}_mask"] > 0.5
            made[..., i][real] = scaled[real]
        arrays[name] = made
        if collection:
            arrays[f"{name}_mask"] = tensors[f"{name}_mask"] > 0.5
    return arrays


def assert_same(made: Any, trained: Any, layout: Layout) -> None:
    """Compare arrays of the tokens layout; those of a graph may be narrower where the rest would be padding."""
    for name in layout.shapes:
        width = made[name].shape[1] if name != "flat" else None
        np.testing.assert_array_equal(made[name], trained[name][:, :width], err_msg=name)
        if width:
            rest = trained[name][:, width:]
            assert (rest == (False if name.endswith("mask") else np.float32(layout.pad))).all()


jet_options = st.fixed_dictionaries(
    {
        "length": st.integers(1, 9),
        "sort": st.sampled_from([None, "-Jet_pt", "Jet_eta", "abs(Jet_eta)", "-hard"]),
        "cut": st.sampled_from([None, "Jet_pt > 5", "Jet_pt > 30 and abs(Jet_eta) < 2", "Jet_pt > 1e9", "Jet_pt > ht"]),
    }
)
some_scaling = st.sampled_from(
    [Transform(), Transform(shift=40.0, factor=0.025), Transform(shift=2.0, factor=-1.5, curve=SIGNED_LOG)]
)


@given(st.integers(0, 30), st.integers(0, 5), jet_options, st.booleans(), st.data())
def test_the_tensors_become_what_training_saw(
    num_events: int, seed: int, jets: dict[str, Any], is_fixed: bool, data: st.DataObject
) -> None:
    manifest = make_manifest(jets=jets, is_fixed=is_fixed)
    layout = Layout(
        kind="tokens",
        flat=("met", "ht", "id", "tagged", "cov[0]", "cov[1]", "ratio"),
        collections=(
            Padded(name="jets", branches=("Jet_eta", "hard", "Jet_pt"), length=jets["length"]),
            Padded(name="muons", branches=("Mu_q",), length=2),
        ),
        pad=data.draw(st.sampled_from([0.0, -5.0])),
    )
    names = (*layout.flat, *(b for c in layout.collections for b in c.branches))
    scaling = {name: data.draw(some_scaling) for name in names}
    columns = raw_columns(num_events, seed)
    made = prepared(manifest, Assembler(manifest)(table_from(columns)), layout, scaling)
    trained = trained_on(manifest.config(), columns, layout, scaling)
    assert_same(made, trained, layout)
    assert made["jets"].shape[1] == jets["length"] or not is_fixed


def manifest_of(block: Block, *, is_fixed: bool) -> Manifest:
    """Describe a graph for the features of a block."""
    layout, specs = block.layout, []
    held: dict[str, list[str]] = {}
    for name, column in block.events.flat.items():
        held.setdefault(column.dtype.name, []).append(name)
    specs += tensors_of("flat", held, None)
    for c in layout.collections:
        axis = c.length if is_fixed else c.name
        specs += [*tensors_of(c.name, {"float32": list(c.branches)}, axis), mask_of(c.name, axis)]
    jagged = {c.name: {"branches": list(c.branches), "length": c.length} for c in layout.collections}
    return make_manifest(
        inputs=tuple(specs),
        features={"flat": list(layout.flat), "jagged": jagged, "missing": [SENTINEL]},
        branches=(
            *(BranchSpec(name=n, dtype=c.dtype.name) for n, c in block.events.flat.items()),
            *(BranchSpec(name=b, dtype="float32", kind="jagged") for c in layout.collections for b in c.branches),
        ),
    )


@given(blocks(kind="tokens"), st.booleans())
def test_any_features_become_what_training_saw(block: Block, is_fixed: bool) -> None:
    manifest, n = manifest_of(block, is_fixed=is_fixed), len(block.events)
    selection = masked(block.events)
    given = RawFeatures(num_events=n, flat=selection.flat, objects=selection.objects)
    made = prepared(manifest, Assembler(manifest).tensors(given), block.layout, block.transforms)
    packed = pack(selection, block.layout, block.transforms, sample=0, file=0)
    arrays = Pool(block.layout, [packed]).gather(np.zeros(n, np.int64), np.arange(n))
    arrays = {name: arrays[name] for name in block.layout.shapes}
    assert_same(made, arrays, block.layout)


def test_whole_numbers_are_not_rounded() -> None:
    columns = raw_columns(3, 0) | {"id": np.array([2**62 + 1, -(2**62) - 1, 2**53 + 1])}
    tensors = Assembler(make_manifest())(table_from(columns))
    assert tensors["flat_int64"][:, 0].tolist() == [2**62 + 1, -(2**62) - 1, 2**53 + 1]
    assert tensors["flat_int64"].dtype == np.int64


def test_what_is_computed_from_whole_numbers_may_be_missing() -> None:
    spec = TensorSpec(name="flat", dtype="float64", shape=("events", 1), features=("share",))
    manifest = make_manifest(
        inputs=(spec,),
        branches=(BranchSpec(name="a", dtype="int32"), BranchSpec(name="b", dtype="int32")),
        features={"flat": ["share"], "derived": {"share": "a // b"}},
    )
    made = Assembler(manifest)(table_of(manifest, {"a": [7, 7], "b": [2, 0]}))["flat"]
    assert made[0, 0] == 3.0
    assert not math.isfinite(made[1, 0])


@pytest.mark.parametrize(("longest", "width"), [(0, 1), (1, 1), (2, 2), (3, 4), (5, 8), (9, 9), (40, 9)])
def test_tensors_are_as_wide_as_the_events_need(longest: int, width: int) -> None:
    columns = raw_columns(2, 0)
    for name in ("Jet_pt", "Jet_eta"):
        columns[name] = ak.Array([[], [50.0] * longest])
    assembler = Assembler(make_manifest(jets={"length": 9}))
    features = assembler.features(table_from(columns))
    assert assembler.widths(features) == (width, 2)
    assert assembler.tensors(features)["jets_mask"].shape == (2, width)


def test_no_events_give_empty_tensors() -> None:
    made = Assembler(make_manifest())(table_from(raw_columns(0, 0)))
    assert {len(t) for t in made.values()} == {0}


# Tables


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_joined_tables_give_joined_tensors(sizes: Sequence[int]) -> None:
    columns = raw_columns(sum(sizes), 1)
    edges = [0, *itertools.accumulate(sizes)]
    tables = [slice_of(columns, a, b) for a, b in itertools.pairwise(edges)]
    assembler = Assembler(make_manifest(is_fixed=True))
    together = assembler(concatenate(tables))
    apart = [assembler(table) for table in tables]
    for name, tensor in together.items():
        np.testing.assert_array_equal(tensor, np.concatenate([t[name] for t in apart]))
        assert tensor.dtype == apart[0][name].dtype


@given(st.integers(0, 20), st.integers(0, 3))
def test_lists_and_back(num_events: int, seed: int) -> None:
    columns = raw_columns(num_events, seed)
    columns["met"] = np.resize(np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45, SENTINEL], np.float32), num_events)
    manifest, table = make_manifest(), table_from(columns)
    plain = json.loads(json.dumps(lists_of(table), allow_nan=False))
    again = table_of(manifest, plain)
    assert again.num_events == num_events
    for name, column in table.columns.items():
        was, now = (c.content if isinstance(c, Jagged) else c for c in (column, again.columns[name]))
        assert was.dtype == now.dtype
        gone = ~np.isfinite(was) if was.dtype.kind == "f" else np.zeros(was.shape, bool)
        np.testing.assert_array_equal(now, np.where(gone, np.nan, was) if gone.any() else was)
        if isinstance(column, Jagged):
            np.testing.assert_array_equal(column.offsets, again.columns[name].offsets)


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("met", None, "branch 'met' is missing"),
        ("met", [1.0], "different numbers of events"),
        ("met", ["1.0", 2.0], "branch 'met': got '1.0'; expected float32"),
        ("met", [True, 2.0], "branch 'met': got True; expected float32"),
        ("met", [[1.0], [2.0]], "branch 'met': got [1.0]; expected float32"),
        ("met", 5, "branch 'met'"),
        ("id", [1.5, 2], "branch 'id': got 1.5; expected int64"),
        ("id", [2**63, 2], "branch 'id'"),
        ("id", [None, 2], "branch 'id': got None; expected int64"),
        ("tagged", [2, True], "branch 'tagged': got 2; expected bool"),
        ("cov", [[1.0, 2.0], [1.0]], "branch 'cov': every event has 2 numbers"),
        ("cov", [1.0, 2.0], "branch 'cov'"),
        ("Jet_pt", [1.0, 2.0], "branch 'Jet_pt'"),
        ("Jet_pt", ["12", []], "branch 'Jet_pt': got '1'; expected float32"),
        ("Jet_pt", [[[1.0]], []], "branch 'Jet_pt': got [1.0]; expected float32"),
        ("Mu_q", [[2**31], []], "branch 'Mu_q'"),
    ],
)
def test_lists_that_do_not_fit_are_refused(name: str, wrong: Any, words: str) -> None:
    plain = lists_of(table_from(raw_columns(2, 0)))
    plain = {k: v for k, v in (plain | {name: wrong}).items() if v is not None}
    with pytest.raises(BundleError) as caught:
        table_of(make_manifest(), plain)
    assert words in str(caught.value)


def test_collections_with_unequal_counts_are_refused() -> None:
    columns = raw_columns(2, 0) | {"Jet_pt": ak.Array([[1.0], []]), "Jet_eta": ak.Array([[], [1.0]])}
    with pytest.raises(DataError, match=r"'Jet_eta' has 0 objects but 'hard' has 1 in entry 0"):
        Assembler(make_manifest())(table_from(columns))


# Manifests that contradict themselves


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"branches": tuple(b for n, b in BRANCHES.items() if n != "ht")}, "'ht'"),
        ({"branches": tuple(dataclasses.replace(b, kind="flat") for b in BRANCHES.values())}, "objects"),
        ({"branches": tuple(dataclasses.replace(b, width=1) for b in BRANCHES.values())}, r"cov\[1\]"),
        ({"inputs": (TensorSpec(name="flat", dtype="float32", shape=("events", 1), features=("nope",)),)}, "'nope'"),
        ({"inputs": (mask_of("nope", 4),)}, "'nope'"),
        ({"inputs": (mask_of("jets", 3),)}, r"input 'jets_mask' is declared as \('events', 3\)"),
        ({"inputs": (TensorSpec(name="f", dtype="float32", shape=("events", 3), features=("met",)),)}, "input 'f'"),
        ({"inputs": (TensorSpec(name="f", dtype="float32", shape=("events",), features=("met",)),)}, "input 'f'"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Assembler(make_manifest(**change))


# What is told of events


def told_by_hand(
    config: DataConfig, features: RawFeatures, ranges: dict[str, Range], lengths: dict[str, int]
) -> list[dict[str, Any]]:
    """Explain event by event, in plain Python."""
    found = []
    for event in range(features.num_events):
        seen = {name: column.tolist()[event] for name, column in features.flat.items()}
        cut = {}
        for collection, objects in features.objects.items():
            a, b = objects.offsets[event], objects.offsets[event + 1]
            kept = min(b - a, lengths[collection])
            if b - a > kept:
                cut[collection] = {"objects": b - a, "kept": kept}
            seen |= {f"{n}[{i}]": column.tolist()[a + i] for n, column in objects.columns.items() for i in range(kept)}
        missing = [k for k, v in seen.items() if v is None or not math.isfinite(v)]
        limits = {k: ranges.get(k) or ranges.get(k.rsplit("[", 1)[0]) for k in seen}
        outside = {
            k: {"value": v, "low": r.low, "high": r.high}
            for k, v in seen.items()
            if (r := limits[k]) and k not in missing and not r.low <= v <= r.high
        }
        found.append({"outside": outside, "truncated": cut, "missing": missing})
    return found


@given(st.integers(0, 25), st.integers(0, 4), jet_options)
def test_what_is_told_of_events(num_events: int, seed: int, jets: dict[str, Any]) -> None:
    narrow = {"low": 20.0, "high": 60.0, "mean": 0.0, "std": 1.0}
    ranges = {name: Range(**narrow) for name in ("met", "Jet_pt", "ratio", "cov[1]", "tagged")}
    ranges["Mu_q"] = Range(low=1.0, high=1.0, mean=0.0, std=0.0)
    manifest = make_manifest(jets=jets, ranges=ranges)
    assembler = Assembler(manifest)
    features = assembler.features(table_from(raw_columns(num_events, seed)))
    told = json.loads(json.dumps(assembler.explain(features), allow_nan=False))
    by_hand = told_by_hand(manifest.config(), features, ranges, {"jets": jets["length"], "muons": 2})
    assert len(told) == num_events
    for mine, hand in zip(told, by_hand, strict=True):
        assert mine["outside"] == hand["outside"]
        assert mine["truncated"] == hand["truncated"]
        assert sorted(mine["missing"]) == sorted(hand["missing"])


@given(st.lists(values, min_size=1, max_size=5))
def test_missing_is_told_of_every_kind(found: Sequence[float]) -> None:
    spec = TensorSpec(name="flat", dtype="float32", shape=("events", 1), features=("met",))
    manifest = make_manifest(
        inputs=(spec,), branches=(BRANCHES["met"],), features={"flat": ["met"], "missing": [SENTINEL]}
    )
    assembler = Assembler(manifest)
    column: npt.NDArray[Any] = np.array(found, np.float32)
    told = assembler.explain(assembler.features(Table(num_events=len(found), columns={"met": column})))
    expected = [["met"] if not math.isfinite(v) or v == SENTINEL else [] for v in found]
    assert [event["missing"] for event in told] == expected


# What is told of cuts


def told_of_cuts(selection: Selection | None, **sent: Any) -> Any:
    """Explain three events, of which the second has no ``met``, with more branches than the model needs."""
    manifest = make_manifest(selection=selection)
    assembler, columns = Assembler(manifest), raw_columns(3, 1) | {"met": np.array([10, SENTINEL, 90], np.float32)}
    table = table_from(columns | sent)
    return [event.get("cuts") for event in assembler.explain(assembler.features(table), table)]


def samples_cut(*cuts: str | None) -> dict[str, SampleSelection]:
    return {f"s{i}": SampleSelection(cut=cut) for i, cut in enumerate(cuts)}


def test_an_event_that_fails_the_cut_is_told() -> None:
    fails = ["fails the training's cut 'met < 50'"]
    assert told_of_cuts(Selection(cut="met < 50")) == [[], fails, fails]
    assert told_of_cuts(Selection()) == [[], [], []]
    assert told_of_cuts(None) == [None] * 3


def test_an_event_is_like_training_where_it_passes_the_cut_of_one_sample() -> None:
    both = "fails the training's cut of every sample, 'met < 20' and 'met > 95'"
    assert told_of_cuts(Selection(samples=samples_cut("met < 20", "met > 95"))) == [[], [both], [both]]
    assert told_of_cuts(Selection(samples=samples_cut("met < 20", "met > 50"))) == [
        [], [both.replace("95", "50")], [],
    ]  # fmt: skip
    assert told_of_cuts(Selection(samples=samples_cut("met < 20", None))) == [[], [], []]


def test_a_cut_on_a_branch_that_was_not_sent_is_not_guessed() -> None:
    cut = "trigger == 1"
    unknown = [f"can't tell whether it passes the training's cut {cut!r}: 'trigger' was not sent"]
    assert told_of_cuts(Selection(cut=cut)) == [unknown] * 3
    told = told_of_cuts(Selection(cut=cut), trigger=np.array([1, 0, 1]))
    assert told == [[], [f"fails the training's cut {cut!r}"], []]


def test_a_cut_that_can_not_be_computed_is_told_and_no_error() -> None:
    told = told_of_cuts(Selection(cut="id * 9000000000000000000 > 0"))
    assert all("can't tell whether it passes" in sentence and "64-bit" in sentence for [sentence] in told)

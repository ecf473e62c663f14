"""Manifests: there and back, and whatever is wrong with one is one error."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.bundle.manifest import (
    MANIFEST,
    MODEL,
    BranchSpec,
    Computed,
    Manifest,
    OutputSpec,
    Parity,
    Range,
    SampleSelection,
    Scaled,
    Selection,
    Step,
    TensorSpec,
    load_manifest,
    open_bundle,
    save_manifest,
    sha256_of,
)
from rootdata.errors import BundleError


def make_manifest(**changes: Any) -> Manifest:
    """Make a manifest with every field filled."""
    fields: dict[str, Any] = {
        "sha256": "0" * 64,
        "size": 3,
        "inputs": (
            TensorSpec(name="flat", dtype="float32", shape=("events", 1), features=("MET",)),
            TensorSpec(
                name="jets", dtype="float32", shape=("events", 1, "jets"), features=("Jet_pt",), collection="jets"
            ),
            TensorSpec(name="jets_mask", dtype="float32", shape=("events", "jets"), collection="jets"),
        ),
        "outputs": (OutputSpec(name="scores", dtype="float32", shape=("events", 1), columns=("signal",)),),
        "branches": (
            BranchSpec(name="MET", dtype="float32", unit="GeV"),
            BranchSpec(name="Jet_pt", dtype="float64", kind="jagged", counts="jets"),
            BranchSpec(name="cov", dtype="int32", kind="fixed", width=3),
        ),
        "features": {
            "flat": ["MET"],
            "jagged": {"jets": {"branches": ["Jet_pt"], "length": 4, "sort": "-Jet_pt", "cut": "Jet_pt > 1"}},
            "missing": [-999.0],
        },
        "selection": Selection(
            cut="MET > 5", samples={"ttH": SampleSelection(cut="trigger == 1", label=1), "QCD": SampleSelection()},
            weight=2.5, split={"by": "hash", "train": 1.0}, branches=(BranchSpec(name="trigger", dtype="bool"),),
        ),
        "computed": (Computed(use="sort", name="jets", steps=(Step(text="Jet_pt", dtype="float64", kind="jagged"),)),),
        "scaling": {"MET": Scaled(shift=2.0, factor=0.5, log=True, dtype="float32")},
        "rules": {"sort": "missing last"},
        "ranges": {"MET": Range(low=0.0, high=9.5, mean=2.0, std=1.0, missing=0.25)},
        "metrics": {"auc": 0.875},
        "roc": {"signal": {"signal_efficiency": (0.0, 1.0), "background_efficiency": (0.0, 1.0)}},
        "scores": {"signal": {"ttH": (0.0, 2.5), "QCD": (1.0, -0.5)}},
        "training": {"seed": 42, "model": {"hidden": [4, None, True]}},
        "software": {"torch": "2.13"},
        "parity": Parity(
            num_events=1, max_difference=1e-7, columns={"MET": [None], "Jet_pt": [[1.5, 2.0]], "cov": [[1, 2, 2**60]]},
            scores=((0.5,),),
        ),
        "tags": ("b", "a"),
        "author": "Ada",
        "description": "ä → b",
        "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Manifest(**(fields | changes))


def plain_manifest() -> Any:
    """Give a manifest as JSON holds it."""
    return json.loads(json.dumps(make_manifest().to_dict()))


def write_bundle(folder: Any, *, graph: bytes = b"abc") -> Any:
    """Write a folder of a graph, which is none, and a manifest that belongs to it."""
    folder.mkdir(exist_ok=True)
    (folder / MODEL).write_bytes(graph)
    digest = sha256_of(folder / MODEL)
    save_manifest(make_manifest(sha256=digest, size=len(graph)), folder)
    return folder


# There and back


def test_plain_data_and_back() -> None:
    assert Manifest.from_dict(make_manifest().to_dict()) == make_manifest()
    assert Manifest.from_dict(plain_manifest()) == make_manifest()


def test_what_is_optional_may_be_absent() -> None:
    needed = {"schema", "sha256", "size", "inputs", "outputs"}
    manifest = Manifest.from_dict({k: v for k, v in plain_manifest().items() if k in needed})
    assert not manifest.takes_events
    assert manifest.columns == ("signal",)
    assert manifest == Manifest(sha256="0" * 64, size=3, inputs=make_manifest().inputs, outputs=make_manifest().outputs)


def test_an_older_manifest_is_read_and_does_not_say_what_it_does_not_know() -> None:
    new = ("selection", "computed", "scaling", "rules")
    older = {k: v for k, v in plain_manifest().items() if k not in new} | {"schema": 1}
    manifest = Manifest.from_dict(older)
    assert [getattr(manifest, name) for name in new] == [None] * 4
    assert manifest.schema == 1
    assert manifest.cuts == ()
    assert Manifest.from_dict(manifest.to_dict()) == manifest


def test_cuts_are_listed_once_and_those_of_all_samples_first() -> None:
    assert make_manifest().cuts == ("MET > 5", "trigger == 1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cut": "MET >"}, "manifest: selection: not an expression"),
        ({"cut": "__import__('os')"}, "manifest: selection"),
        ({"samples": {"ttH": {"cut": "a b"}}}, "manifest: selection"),
        ({"branches": [{"name": "MET", "dtype": "float32"}]}, "needs different names"),
        ({"branches": [{"name": "a", "dtype": "text"}]}, "branch 'a' is 'flat' 'text'"),
        ({"cuts": "MET > 5"}, "manifest.selection: unknown field 'cuts'"),
    ],
)
def test_a_wrong_selection_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(plain_manifest() | {"selection": change})
    assert words in str(caught.value)


def test_a_bundle_is_written_and_read(tmp_path: Any) -> None:
    folder = write_bundle(tmp_path / "b")
    loaded = open_bundle(folder)
    assert dataclasses.replace(loaded, sha256="0" * 64) == make_manifest()
    assert loaded.sha256 == sha256_of(folder / MODEL)
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, MODEL]


def test_whole_numbers_stay_and_become_real_where_these_are_meant() -> None:
    plain = plain_manifest() | {"metrics": {"auc": 1}}
    auc = Manifest.from_dict(plain).metrics["auc"]
    assert auc == 1.0
    assert type(auc) is float
    parity = Manifest.from_dict(plain).parity
    assert parity is not None
    assert parity.columns["cov"][0][2] == 2**60


def test_masks_are_told_from_values() -> None:
    assert [t.is_mask for t in make_manifest().inputs] == [False, False, True]


def test_the_options_of_the_features_are_parsed() -> None:
    config = make_manifest().config()
    assert config.flat == ("MET",)
    assert config.jagged[0].length == 4
    assert config.missing == (-999.0,)


# What is wrong


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schema", 3, "schema is 3; this version reads schemas 1 and 2; update rootdata"),
        ("schema", 0, "export the model again"),
        ("schema", "1", "schema is '1'"),
        ("schema", None, "schema is None"),
        ("schema", True, "expected int"),
        ("sha256", 5, "manifest.sha256: got 5; expected str"),
        ("size", 1.5, "manifest.size: got 1.5; expected int"),
        ("size", True, "manifest.size: got True; expected int"),
        ("inputs", [], "needs different names, at least one"),
        ("outputs", [], "needs different names, at least one"),
        ("inputs", {}, "expected list"),
        ("metrics", {"auc": "high"}, "manifest.metrics.auc: got 'high'; expected float"),
        ("metrics", {"auc": math.nan}, "manifest.metrics.auc: got nan; expected a finite number"),
        ("metrics", {"auc": 10**400}, "expected a finite number"),
        ("metrics", [1], "manifest.metrics: got [1]; expected mapping"),
        ("tags", ["a", None], "manifest.tags[1]: got None; expected str"),
        ("author", None, "manifest.author: got None; expected str"),
        ("parity", [], "manifest.parity: got []; expected an object"),
        ("features", {"flat": ["MET"], "jagged": {"jets": ["Jet_pt"]}}, "features.jagged.jets: its length"),
        ("features", {}, "manifest: features: no features"),
        ("features", {"flat": ["MET"], "flt": 1}, "unknown option 'flt'"),
        ("features", {"flat": ["MET"], "derived": {"a": "__import__('os')"}}, "manifest: features: derived.a"),
        ("features", {"flat": ["MET"], "missing": [10**400]}, "manifest: features: missing"),
        ("tagz", [], "unknown field 'tagz'; nearest: 'tags'"),
        ("x" * 10_000, [], "unknown field"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(plain_manifest() | {field: value})
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["inputs"][0].update(dtype="complex64"), "input 'flat' is complex64"),
        (lambda m: m.update(batching="some"), "batching is 'some'; allowed: events, none"),
        (lambda m: m["inputs"][0].update(shape=[4, 2]), "the first axes of inputs are [4, 'events'"),
        (lambda m: m["inputs"][0].update(shape=[]), "input 'flat'"),
        (lambda m: m["inputs"][0].update(shape=["events", *[1] * 32]), "input 'flat'"),
        (lambda m: m["inputs"][0].update(shape=["events", 1.5]), "manifest.inputs[0].shape[1]: got 1.5"),
        (lambda m: m["inputs"][0].update(shape=["events", None]), "manifest.inputs[0].shape[1]: got None"),
        (lambda m: m["inputs"][0].pop("dtype"), "manifest.inputs[0]: 'dtype' is missing"),
        (lambda m: m["inputs"].append(m["inputs"][0]), "needs different names"),
        (lambda m: m["branches"].append(m["branches"][0]), "needs different names"),
        (lambda m: m["branches"][0].update(kind="ragged"), "branch 'MET' is 'ragged'"),
        (lambda m: m["branches"][0].update(dtype="object"), "branch 'MET' is 'flat' 'object'"),
        (lambda m: m["branches"][2].update(width=0), "branch 'cov'"),
        (lambda m: m["branches"][2].update(width=10**9), "branch 'cov'"),
        (lambda m: m["ranges"]["MET"].pop("low"), "manifest.ranges.MET: 'low' is missing"),
        (lambda m: m["ranges"]["MET"].update(low=None), "manifest.ranges.MET.low: got None"),
        (lambda m: m["parity"].update(scores=[0.5]), "manifest.parity.scores[0]: got 0.5; expected list"),
        (lambda m: m["roc"].update(signal=[1.0]), "manifest.roc.signal: got [1.0]; expected mapping"),
    ],
)
def test_a_wrong_part_is_named(change: Any, words: str) -> None:
    plain = plain_manifest()
    change(plain)
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(plain)
    assert words in str(caught.value)


@pytest.mark.parametrize("plain", [None, [], "manifest", 5, {}, [1, 2], {"schema": {}}])
def test_what_is_no_manifest_is_refused(plain: Any) -> None:
    with pytest.raises(BundleError, match="export the model again"):
        Manifest.from_dict(plain)


nothing_like_it = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places_in(plain: Any) -> list[tuple[Any, Any]]:
    """List the places of everything in plain data: container and key."""
    keys = list(plain) if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else []
    return [place for key in keys for place in ((plain, key), *places_in(plain[key]))]


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """Manifests with a few places dropped, replaced, exchanged or added to."""
    plain = plain_manifest()
    for _ in range(draw(st.integers(1, 3))):
        places = places_in(plain)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        what = draw(st.sampled_from(["drop", "replace", "add", "double", "copy"]))
        if what == "drop":
            del container[key]
        elif what == "replace":
            container[key] = draw(nothing_like_it)
        elif what == "copy":
            other, its = places[draw(st.integers(0, len(places) - 1))]
            container[key] = copy.deepcopy(other[its])
        elif isinstance(container, dict):
            container[draw(st.text(max_size=5))] = draw(nothing_like_it)
        else:
            container.append(copy.deepcopy(container[key]) if what == "double" else draw(nothing_like_it))
    return plain


@given(spoilt())
def test_a_spoilt_manifest_is_read_or_refused_in_words(plain: Any) -> None:
    try:
        manifest = Manifest.from_dict(plain)
    except BundleError:
        return
    assert Manifest.from_dict(manifest.to_dict()) == manifest
    if manifest.takes_events:
        assert manifest.config().features


def nested(depth: int) -> Any:
    """Make lists in lists."""
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("depth", [60, 300, 950, 100_000])
@pytest.mark.parametrize("field", ["features", "training", "tags", "sha256", "deep", "schema"])
def test_deep_nesting_is_refused_in_words(field: str, depth: int) -> None:
    value = {"flat": nested(depth)} if field in {"features", "training"} else nested(depth)
    with pytest.raises(BundleError, match="nested deeper than 50 levels"):
        Manifest.from_dict(plain_manifest() | {field: value})


# Files


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'{"schema": 1}', b'{"schema": NaN}', b"\x00" * 9,
        b'{"schema": 1, "size": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused_with_its_path(tmp_path: Any, content: bytes) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"b/manifest\.json: "):
        open_bundle(folder)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_never_ends_in_another_error(at: int, change: int) -> None:
    content = bytearray(json.dumps(plain_manifest()).encode())
    content[at % len(content)] ^= change
    with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError, BundleError):
        Manifest.from_dict(json.loads(bytes(content)))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_know_are_refused(tmp_path: Any, word: str) -> None:
    folder = write_bundle(tmp_path / "b")
    path = folder / MANIFEST
    path.write_text(path.read_text().replace("0.875", word))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1j: 2}])
def test_what_json_has_no_word_for_is_not_written(tmp_path: Any, value: Any) -> None:
    with pytest.raises(BundleError, match="can't be written as JSON"):
        save_manifest(make_manifest(training={"a": value}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_graph_is_refused(tmp_path: Any) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / MODEL).write_bytes(b"abd")
    with pytest.raises(BundleError, match="checksum differs"):
        open_bundle(folder)
    assert load_manifest(folder).size == 3


def test_an_absent_graph_or_folder_is_refused(tmp_path: Any) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / MODEL).unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: the graph can't be read"):
        open_bundle(folder)
    for place in (tmp_path / "none", folder / MANIFEST):
        with pytest.raises(BundleError, match="can't be read"):
            open_bundle(place)

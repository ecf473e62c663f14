"""What a graph takes: number types, groups of counts, names of columns."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from bundles_for_tests import make_data

from rootdata.bundle.manifest import BranchSpec
from rootdata.bundle.parity import cut_columns, real_events
from rootdata.bundle.signature import _count_groups, _inputs, draft, score_columns
from rootdata.errors import BundleError, ConfigError
from rootdata.jagged import Jagged, offsets_of
from rootdata.options.data import DataConfig, parse_data
from rootdata.options.parsed import described
from rootdata.scaling.curves import SIGNED_LOG
from rootdata.scan.scanned import transforms_of


def of_counts(*counts: int) -> Jagged:
    return Jagged(offsets_of(np.array(counts)), np.zeros(sum(counts), np.float32))


@pytest.mark.parametrize(
    ("dtype", "held"),
    [
        ("float32", "float32"), ("float64", "float64"), ("bool", "int64"), ("int8", "int64"), ("uint8", "int64"),
        ("int32", "int64"), ("uint32", "int64"), ("int64", "int64"), ("uint64", "float64"),
    ],
)  # fmt: skip
def test_a_tensor_type_holds_what_the_branch_does(dtype: str, held: str) -> None:
    (spec,) = _inputs("jets", {"a": np.dtype(dtype)}, "jets")
    assert spec.dtype == held
    assert spec.name == ("jets" if held == "float32" else f"jets_{held}")
    assert spec.shape == ("events", 1, "jets")
    largest = np.finfo(dtype).max if "float" in dtype else True if dtype == "bool" else np.iinfo(dtype).max
    exact = np.array([largest], dtype).astype(held)
    assert exact[0] == largest or dtype == "uint64"


def test_a_draft_says_what_is_sent(samples: Any) -> None:
    data = make_data(samples)
    made = draft(data.data, data.specs, real_events(data.data, data.specs, 50), columns=["signal"])
    assert made.branches == (
        BranchSpec(name="met", dtype="float32"),
        BranchSpec(name="id", dtype="int64"),
        BranchSpec(name="ht", dtype="float64"),
        BranchSpec(name="nlep", dtype="uint8"),
        BranchSpec(name="tagged", dtype="bool"),
        BranchSpec(name="cov", dtype="float32", kind="fixed", width=2),
        BranchSpec(name="Jet_pt", dtype="float32", kind="jagged", counts="jets"),
        BranchSpec(name="Mu_q", dtype="int32", kind="jagged", counts="values"),
        BranchSpec(name="Jet_eta", dtype="float32", kind="jagged", counts="jets"),
    )
    assert {t.name: (t.features, t.shape) for t in made.inputs} == {
        "flat": (("met", "cov[0]", "cov[1]", "hardest"), ("events", 4)),
        "flat_int64": (("id", "nlep", "tagged"), ("events", 3)),
        "flat_float64": (("ht", "pairs"), ("events", 2)),
        "jets": (("Jet_eta", "Jet_pt"), ("events", 2, "jets")),
        "jets_float64": (("share",), ("events", 1, "jets")),
        "jets_mask": ((), ("events", "jets")),
        "values_int64": (("Mu_q",), ("events", 1, "values")),
        "values_mask": ((), ("events", "values")),
    }
    met = data.specs.columns["met"]
    assert (made.ranges["met"].low, made.ranges["met"].high) == (met.low, met.high)
    assert 0.05 < made.ranges["met"].missing < 0.15
    assert made.features["jagged"]["jets"]["length"] == 4
    fixed = draft(data.data, data.specs, real_events(data.data, data.specs, 5), columns=["a"], is_fixed=True)
    assert {t.shape[-1] for t in fixed.inputs if t.collection == "jets"} == {4}


def test_lengths_that_were_learnt_are_written(samples: Any) -> None:
    data = make_data(samples, jagged={"jets": ["Jet_pt"]}, scale="none", derived=None, flat=["met"])
    made = draft(data.data, data.specs, real_events(data.data, data.specs, 5), columns=["a"])
    assert made.features["jagged"]["jets"]["length"] == data.shapes["jets"][0] > 4
    assert made.config().jagged[0].length == data.shapes["jets"][0]


def test_a_draft_takes_along_every_option_that_decides_what_an_event_becomes(samples: Any) -> None:
    data = make_data(samples, cut="met > 1", weight="met", classes=["QCD", "ttH"], split={"train": 0.5, "val": 0.5})
    made = draft(data.data, data.specs, real_events(data.data, data.specs, 5), columns=["a"])
    kept, trained = described(made.config(), "inputs"), described(data.data, "inputs")
    assert kept == trained | {"scale": kept["scale"]}  # which the graph does
    assert {"flat", "jagged", "derived", "missing", "pad", "layout", "classes"} <= made.features.keys()
    assert not {"samples", "cut", "label", "weight", "split", "fraction", "scale"} & made.features.keys()
    undecided = {f.name for f in dataclasses.fields(DataConfig)} - trained.keys()
    beside = {"targets", "observers", "observe_training", "quantiles", "clip"}  # of the inputs, or silent
    beside |= {"weights", "luminosity", "sum_of_weights", "balance", "reweight", "parameters", "folds", "fold"}
    assert undecided == {"samples", "cut", "label", "weight", "split", "fraction", "on_bad_file"} | beside


def test_branches_that_share_counts_are_told() -> None:
    options = {"samples": {"a": "a.root"}, "jagged": {"jets": {"branches": ["Jet_pt"]}, "mu": {"branches": ["Mu_q"]}}}
    columns = {
        "Jet_pt": of_counts(1, 2), "Jet_btag": of_counts(1, 2), "Jet_cells": of_counts(3, 3), "Mu_q": of_counts(1, 2),
        "Other": of_counts(1, 2),
    }  # fmt: skip
    assert _count_groups(parse_data(options).jagged, columns) == {
        "Jet_pt": "jets", "Jet_btag": "jets", "Jet_cells": "Jet_cells", "Mu_q": "mu", "Other": "Other",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["events", "scores"])
def test_a_name_that_a_graph_needs_is_no_collection(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is taken"):
        parse_data({"samples": {"a": "a.root"}, "jagged": {name: ["Jet_pt"]}})


def test_inputs_with_the_same_name_are_refused(samples: Any) -> None:
    jagged = {"a": {"branches": ["Mu_q"], "length": 1}, "a_int64": {"branches": ["Jet_pt"], "length": 1}}
    data = make_data(samples, jagged=jagged, scale="none", derived=None, flat=["met"])
    with pytest.raises(BundleError, match="collection 'a_int64': this name is taken"):
        draft(data.data, data.specs, real_events(data.data, data.specs, 5), columns=["a"])


@pytest.mark.parametrize(
    ("asked", "width", "classes", "names"),
    [
        (None, 1, ("b", "s"), ("s",)), (None, 2, ("b", "s"), ("b", "s")), (None, 3, ("a", "b", "c"), ("a", "b", "c")),
        (["mass"], 1, ("b", "s"), ("mass",)), (["x", "y"], 2, ("a", "b", "c"), ("x", "y")),
    ],
)  # fmt: skip
def test_scores_have_names(asked: Any, width: int, classes: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert score_columns(asked, width, classes) == names


@pytest.mark.parametrize(("asked", "width"), [(None, 1), (None, 2), (["a"], 2), (["a", "a"], 2)])
def test_scores_without_names_of_their_own_are_refused(asked: Any, width: int) -> None:
    with pytest.raises(BundleError, match="give each a name of its own"):
        score_columns(asked, width, ("a", "b", "c"))


# What a colleague needs


def test_a_draft_says_which_events_are_trained_on(samples: Any) -> None:
    cut = {
        f"s{i}": {"files": str(samples / f"{i}.root"), "label": i, "cut": c} for i, c in enumerate((None, "gen > 0.6"))
    }
    data = make_data(samples, samples=cut, cut="fine", derived={"fine": "met < 200", "share": "Jet_pt / sum(Jet_pt)",
                     "hardest": "max(Jet_pt)", "pairs": "count(Mu_q) // nlep"})  # fmt: skip
    real = real_events(data.data, data.specs, 20)
    others = cut_columns(data.data, data.specs)
    assert list(others) == ["gen"]
    selection = draft(data.data, data.specs, real, columns=["signal"], cut_columns=others).selection
    assert selection is not None
    assert selection.cut == "fine"
    assert {name: (s.cut, s.label) for name, s in selection.samples.items()} == {
        "s0": (None, 0),
        "s1": ("gen > 0.6", 1),
    }
    assert [(b.name, b.dtype) for b in selection.branches] == [("gen", "float32")]


def test_a_draft_says_the_type_of_each_step_and_the_scaling_of_each_feature(samples: Any) -> None:
    data = make_data(samples)
    manifest = draft(data.data, data.specs, real_events(data.data, data.specs, 20), columns=["signal"])
    steps = {(c.use, c.name): [(s.text, s.dtype, s.kind) for s in c.steps] for c in manifest.computed or ()}
    assert steps["derived", "share"] == [
        ("Jet_pt", "float32", "jagged"), ("sum(Jet_pt)", "float64", "flat"),
        ("Jet_pt / sum(Jet_pt)", "float64", "jagged"),
    ]  # fmt: skip
    assert steps["derived", "pairs"][-1] == ("count(Mu_q) // nlep", "int64", "flat")
    assert steps["cut", "jets"][-1] == ("Jet_pt > 10", "bool", "jagged")
    assert steps["sort", "jets"] == [("Jet_pt", "float32", "jagged")]
    fitted = transforms_of(data.data, data.specs)
    assert {n: (s.shift, s.factor, s.log) for n, s in (manifest.scaling or {}).items()} == {
        n: (t.shift, t.factor, t.curve is SIGNED_LOG) for n, t in fitted.items()
    }
    assert {n: s.dtype for n, s in (manifest.scaling or {}).items() if n in {"met", "ht", "nlep", "pairs"}} == {
        "met": "float32", "ht": "float64", "nlep": "float64", "pairs": "float64",
    }  # fmt: skip
    assert set(manifest.rules or ()) >= {"missing", "cut", "sort", "length", "mask"}


def test_inputs_are_float32_throughout_where_that_is_asked_for(samples: Any) -> None:
    data = make_data(samples, flat=["met", "ht", "nlep", "tagged", "pairs"], scale="standard")
    real = real_events(data.data, data.specs, 20)
    manifest = draft(data.data, data.specs, real, columns=["signal"], float32=True)
    assert {t.name: t.dtype for t in manifest.inputs} == dict.fromkeys(
        ("flat", "jets", "jets_mask", "values", "values_mask"), "float32"
    )


@pytest.mark.parametrize(
    ("feature", "derived", "words"),
    [
        (
            "id",
            "",
            "float32: feature 'id' is int64 and goes from .* exact up to 2\\*\\*24 = 16777216 there; leave float32 out",
        ),
        ("large", "nlep + 16777216", "float32: feature 'large' is int64"),
        ("narrow", "172.5 + ht * 1e-9", "float32: feature 'narrow' is float64 .* rounding would move it by"),
    ],
)
def test_what_float32_does_not_hold_is_refused(samples: Any, feature: str, derived: str, words: str) -> None:
    more = {feature: derived} if derived else {}
    data = make_data(
        samples,
        flat=["met", feature],
        derived={"share": "Jet_pt / sum(Jet_pt)", **more},
        scale="none" if feature == "id" else "standard",
    )
    real = real_events(data.data, data.specs, 20)
    with pytest.raises(BundleError, match=words):
        draft(data.data, data.specs, real, columns=["signal"], float32=True)

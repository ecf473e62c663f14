"""What a graph takes: number types, groups of counts, names of columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bundles_for_tests import make_data

from rootdata.bundle import BranchSpec
from rootdata.config import parse_data
from rootdata.contract import _count_groups, _inputs, draft, score_columns
from rootdata.errors import BundleError, ConfigError
from rootdata.jagged import Jagged, offsets_of
from rootdata.probe import real_events


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

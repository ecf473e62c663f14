"""``preprocess.json``, and a small emulation of the code of CMSSW that fills a graph by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles_for_tests import make_data, scores_of, scores_of_table
from torch import nn

from rootdata.bundle import cmssw
from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.export import export
from rootdata.bundle.manifest import PREPROCESS
from rootdata.bundle.parity import real_events
from rootdata.bundle.signature import draft
from strategies import SENTINEL

Values = Mapping[str, Sequence[float]]


def center_norm_pad(values: Sequence[float], variable: Mapping[str, float], length: int) -> npt.NDArray[np.float32]:
    """Do to one variable of an event what ``btagbtvdeep::center_norm_pad`` does, in single precision."""
    single = np.float32
    assert variable["lower_bound"] <= variable["pad"] <= variable["upper_bound"]
    made = np.full(length, variable["pad"], single)
    for i, value in enumerate(values[:length]):
        is_bad = not np.isfinite(value) or abs(value) > 1e32
        kept = single(variable["replace_inf_value"] if is_bad else value)
        shifted = (kept - single(variable["median"])) * single(variable["norm_factor"])
        made[i] = np.clip(shifted, single(variable["lower_bound"]), single(variable["upper_bound"]))
    return made


def make_inputs(params: Mapping[str, Any], event: Mapping[str, Values]) -> dict[str, npt.NDArray[np.float32]]:
    """Fill the inputs for one event: variable by variable, one after the other in memory."""
    made = {}
    for name in params["input_names"]:
        group = params[name]
        parts = [
            center_norm_pad(event[name][v], group["var_infos"][v], group["var_length"]) for v in group["var_names"]
        ]
        shape = params["input_shapes"][name]
        made[name] = np.concatenate(parts).reshape([n if n > 0 else group["var_length"] for n in shape])
    return made


@pytest.fixture(scope="module")
def single(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bundle of float32 features alone, as CMSSW can fill them."""
    jagged = {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}}
    data = make_data(samples, layout="vector", derived=None, flat=["met", "cov"], scale="standard", jagged=jagged)
    folder = tmp_path_factory.mktemp("single") / "bundle"
    network = nn.Linear(data.shapes["x"][0], 1)
    return folder, export(network, data, folder, call=lambda n, b: n(b["x"])[:, 0])


@pytest.mark.long
def test_the_file_has_what_cmssw_asks_for(single: Any) -> None:
    folder, manifest = single
    params = json.loads((folder / PREPROCESS).read_text())
    assert params == cmssw.preprocessing(manifest)
    assert params["input_names"] == ["flat", "jets", "jets_mask"]
    assert params["output_names"] == ["signal"]
    assert params["input_shapes"] == {"flat": [1, 3], "jets": [1, 2, 3], "jets_mask": [1, 3]}
    assert params["flat"]["var_names"] == ["met", "cov[0]", "cov[1]"]
    assert [params[n]["var_length"] for n in params["input_names"]] == [1, 3, 3]
    for name in params["input_names"]:
        assert set(params[name]["var_infos"]) == set(params[name]["var_names"])
        for variable in params[name]["var_infos"].values():
            assert {k: type(v) for k, v in variable.items()} == dict.fromkeys(
                ("median", "norm_factor", "replace_inf_value", "lower_bound", "upper_bound", "pad"), float
            )


@pytest.mark.long
def test_cmssw_s_filling_gives_the_same_scores(single: Any) -> None:
    folder, manifest = single
    params, columns = json.loads((folder / PREPROCESS).read_text()), manifest.parity.columns
    expected = scores_of_table(folder, table_of(manifest, columns))
    for i in range(len(columns["met"])):
        real = [float("nan") if v is None else v for v in (columns["met"][i], *columns["cov"][i])]
        jets = {n: [float("inf") if v is None else v for v in columns[n][i]] for n in ("Jet_pt", "Jet_eta")}
        event: dict[str, Values] = {
            "flat": {"met": real[:1], "cov[0]": real[1:2], "cov[1]": real[2:]},
            "jets": jets,
            "jets_mask": {"jets_mask": [1.0] * len(jets["Jet_pt"])},
        }
        found = scores_of(folder, make_inputs(params, event))
        assert abs(found[0, 0] - expected[i, 0]) < 1e-6


@pytest.mark.long
def test_missing_values_become_what_stands_for_them(single: Any) -> None:
    variable = cmssw.preprocessing(single[1])["flat"]["var_infos"]["met"]
    assert variable["replace_inf_value"] == SENTINEL


@pytest.mark.long
def test_an_open_axis_is_written_as_such(sets: Any) -> None:
    params = cmssw.preprocessing(sets.manifest)
    assert params["input_shapes"]["jets"] == [1, 2, -1]
    assert params["jets"]["var_length"] == params["jets_mask"]["var_length"] == 4
    shapes = {n: t.shape[1:] for n, t in Assembler(sets.manifest)(table_of(sets.manifest, {
        b.name: [] for b in sets.manifest.branches})).items()}  # fmt: skip
    assert {n: len(s) - 1 for n, s in params["input_shapes"].items()} == {n: len(s) for n, s in shapes.items()}


def test_float32_throughout_is_one_input_a_collection(samples: Any) -> None:
    data = make_data(samples, scale="none", flat=["nlep", "met", "tagged", "ht", "pairs"])
    manifest = draft(data.data, data.specs, real_events(data.data, data.specs, 20), columns=["signal"], float32=True)
    params = cmssw.preprocessing(manifest)
    assert params["input_names"] == ["flat", "jets", "jets_mask", "values", "values_mask"]
    assert params["flat"]["var_names"] == ["nlep", "met", "tagged", "ht", "pairs"]
    assert {v["median"] for v in params["flat"]["var_infos"].values()} == {0.0}

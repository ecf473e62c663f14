"""Which numbers stand for no value may be said of each branch: from the first pass to the graph all go by it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
from files_for_tests import options, scanned, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootdata.bundle import cmssw
from rootdata.bundle.assemble import Assembler
from rootdata.bundle.graph.deployed import Deployed
from rootdata.bundle.manifest import Manifest
from rootdata.bundle.parity import real_events, training_batch
from rootdata.bundle.signature import draft
from rootdata.loading.dataset import RootDataset
from rootdata.options.data import parse_data
from rootdata.scan.scanned import Scanned

VALUES = [-999, -1, 0, 3, 7]
BRANCHES = ("met", "n", "cov", "Jet_pt", "Jet_tag")
numbers = st.lists(st.sampled_from(VALUES), max_size=3)
by_branch = st.dictionaries(st.sampled_from([*BRANCHES, "default"]), numbers)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every pair of values of two branches, and one behind the other in the rest."""
    pairs = np.array(list(itertools.product(VALUES, VALUES)))
    counts = np.arange(len(pairs)) % 3
    content = np.resize(np.array([*VALUES, np.nan]), counts.sum())
    return write(
        tmp_path_factory.mktemp("missing") / "a.root",
        {
            "met": pairs[:, 0].astype("f4"),
            "n": pairs[:, 1].astype("i8"),
            "cov": np.resize(VALUES, (len(pairs), 2)).astype("f8"),
            "Jet": {
                "pt": ak.unflatten(content.astype("f4"), counts),
                "tag": ak.unflatten(np.resize(VALUES[::-1], counts.sum()).astype("i4"), counts),
            },
        },
    )


def plain(file: Path, missing: Any, **changes: Any) -> dict[str, Any]:
    return options(
        file,
        flat=["met", "n", "cov", "both"],
        derived={"both": "met + n"},
        jagged={"jets": {"branches": ["Jet_pt", "Jet_tag"], "length": 2}},
        missing=missing,
        pad=-5.0,
        **changes,
    )


def by_hand(events: Any, missing: dict[str, list[int]]) -> list[dict[str, Any]]:
    """Say of each event which of its values there are, None where there is none."""

    def known(branch: str, value: Any) -> Any:
        own = missing.get(branch, missing.get("default", []))
        return None if value != value or value in own else value

    found = []
    for event in events.to_list():
        made = {"met": known("met", event["met"]), "n": known("n", event["n"])}
        made |= {f"cov[{i}]": known("cov", value) for i, value in enumerate(event["cov"])}
        made["both"] = None if None in {made["met"], made["n"]} else made["met"] + made["n"]
        for branch, i in itertools.product(("Jet_pt", "Jet_tag"), range(2)):
            made[f"{branch}[{i}]"] = known(branch, event[branch][i]) if i < len(event[branch]) else None
        found.append(made)
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(missing=by_branch)
def test_training_statistics_and_graph_agree_with_a_count_by_hand(file: Path, missing: dict[str, list[int]]) -> None:
    import uproot

    config = parse_data(plain(file, missing, layout="vector"))
    specs = scanned(plain(file, missing, layout="vector"))
    events = by_hand(uproot.open(file)["Events"].arrays(), missing)
    layout, table = Scanned(config=config, specs=specs).layout, real_events(config, specs, 1000)
    trained = training_batch(config, specs, table)
    for column, name in enumerate(layout.feature_names):
        values = [event[name] for event in events]
        assert trained["mask"][:, column].tolist() == [value is not None for value in values], name
        expected = [-5.0 if value is None else value for value in values]
        assert trained["x"][:, column].tolist() == expected, name
        if not name.startswith("Jet"):
            assert specs.columns[name].missing == values.count(None), name
    manifest = Manifest.from_dict(json.loads(json.dumps(draft(config, specs, table, columns=["a"]).to_dict())))
    assert manifest.config().missing == config.missing
    deployed = Deployed(
        torch.nn.Identity(), lambda network, batch: batch["x"], layout=layout, specs=manifest.inputs,
        transforms=Scanned(config=config, specs=specs).transforms, missing=manifest.config().missing,
        derived=config.derived, activation="none",
    )  # fmt: skip
    tensors = Assembler(manifest)(table)
    batch = deployed.batch(*(torch.from_numpy(tensors[spec.name]) for spec in manifest.inputs))
    for name, values in batch.items():
        np.testing.assert_array_equal(values.numpy(), trained[name], err_msg=name)
    written = cmssw.preprocessing(manifest)
    for spec in manifest.inputs:
        for name in spec.features:
            first = next(iter(config.missing_of(name)), 0.0)
            assert written[spec.name]["var_infos"][name]["replace_inf_value"] == first


def test_cuts_and_sorting_go_by_it(file: Path) -> None:
    chosen = {"met": [3], "n": [7], "default": []}
    cut = plain(file, chosen, cut="met > -1 and n >= 0")
    batches = list(RootDataset(cut, "train"))
    pairs = {tuple(row) for batch in batches for row in batch["x"][:, :2].tolist()}
    assert pairs == set(itertools.product([0.0, 7.0], [0.0, 3.0]))


def test_other_numbers_are_other_specs(file: Path) -> None:
    prints = {
        scanned(plain(file, missing)).fingerprint
        for missing in ([3], {"met": [3]}, {"met": [3], "default": [3]}, {"n": [3]}, {"default": [3]})
    }
    assert len(prints) == 4

"""A served model gives friend trees the scores that its bundle gives, by its address alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import uproot
from models import make_bundle
from servers import Handle

from rootdata.analysis.friends.predict import predict
from rootdata.errors import BundleError
from serve.client.waiting import Client
from serve.scorer import ServedModel


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file of events, some of which have no jets, and one has more than the model takes."""
    path, rng = tmp_path_factory.mktemp("events") / "x.root", np.random.default_rng(1)
    counts = [0, 12, *rng.integers(0, 6, 998)]
    jets = {name: [rng.exponential(50, n).astype("f4") for n in counts] for name in ("pt", "eta")}
    with uproot.recreate(path) as file:
        types = {"HT": "f8", "MET_pt": "f4", "Jet": "var * {pt: float32, eta: float32}"}
        tree = file.mktree("Events", types)
        objects = [
            [{"pt": p, "eta": e} for p, e in zip(pt, eta, strict=True)]
            for pt, eta in zip(jets["pt"], jets["eta"], strict=True)
        ]
        tree.extend({"HT": rng.normal(300, 50, 1000), "MET_pt": rng.exponential(50, 1000).astype("f4"), "Jet": objects})
    return path


def test_the_scores_are_those_of_the_bundle(server: Handle, bundle: Path, events: Path, tmp_path: Path) -> None:
    (here,) = predict(bundle, str(events), out=tmp_path / "here").written
    (there,) = predict(f"{server.url}/models/ttH", str(events), out=tmp_path / "there").written
    trees = [uproot.open(path)["Friends"].arrays(library="np") for path in (here, there)]
    assert list(trees[0]) == list(trees[1]) == ["entry", "selected", "score_signal"]
    assert np.ptp(trees[0]["score_signal"]) > 0.01
    np.testing.assert_allclose(trees[1]["score_signal"], trees[0]["score_signal"], atol=1e-6)
    # It is the same model: either goes on with what the other began.
    assert predict(bundle, str(events), out=tmp_path / "there").skipped == (there,)


@pytest.mark.long
def test_a_version_and_an_alias_are_addresses_too(server: Handle, client: Client, tmp_path: Path) -> None:
    for seed in (1, 2):
        client.upload("twice", make_bundle(tmp_path / str(seed), jets=True, seed=seed))
    client.set_alias("twice", "first", 1)
    try:
        place = f"{server.url}/models/twice"
        names = {"": 2, "/versions/1": 1, "/versions/2": 2, "/aliases/first": 1}
        for tail, version in names.items():
            model = ServedModel(place + tail)
            assert model.name == f"{place}/versions/{version}"
            model.close()
        with pytest.raises(BundleError, match="no alias 'last'; known: 'first'"):
            ServedModel(f"{place}/aliases/last")
    finally:
        client.delete("twice")


def test_an_address_that_leads_nowhere_is_told(server: Handle, tmp_path: Path) -> None:
    for address, told in (
        (server.url, "expected the address of a model"),
        (f"{server.url}/models/unknown", "'unknown'"),
        ("http://127.0.0.1:9/models/ttH", "no connection|refused"),
    ):
        with pytest.raises(BundleError, match=told):
            predict(address, str(tmp_path), out=tmp_path)

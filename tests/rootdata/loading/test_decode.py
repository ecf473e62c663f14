"""Batches come back as the events of the files, in physical units, in every layout."""

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from bundles_for_tests import make_data, write_samples

from rootdata.errors import ShapeError

IMAGE = {
    "x": {"column": "Jet_eta", "bins": 900, "range": [-9, 9]},
    "y": {"column": "Jet_pt", "bins": 1000, "range": [0, 2000]},
    "channels": ["sum(Jet_pt)", "count"],
}  # fmt: skip
JETS = {"branches": ["Jet_eta", "Jet_pt"], "length": 4, "image": IMAGE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_tree):
    return write_samples(tmp_path_factory.mktemp("decode"), write_tree)


@pytest.fixture(scope="module")
def files(folder):
    return [uproot.open(folder / f"{i}.root")["Events"].arrays() for i in range(2)]


def decoded(folder, files, **options):
    """Decode the test part, a batch at a time; give the same events as the files have them, too."""
    options = {"jagged": {"jets": JETS}, "flat": ["ht", "nlep"], "derived": None, "scale": "standard"} | options
    data = make_data(folder, **options, batch_size=40)
    batches = list(data.predict_dataloader())
    index = torch.cat([batch["index"] for batch in batches]).tolist()
    events = ak.concatenate([data.decode(batch) for batch in batches])
    return events, ak.concatenate([files[sample][entry : entry + 1] for sample, _, entry in index])


@pytest.mark.parametrize("layout", ["vector", "tokens", "jagged", pytest.param("image", marks=pytest.mark.long)])
@pytest.mark.parametrize("scale", ["standard", "log", "minmax"])
def test_flat_features_come_back(folder, files, layout, scale):
    events, expected = decoded(folder, files, layout=layout, scale=scale)
    for name in ("ht", "nlep"):
        np.testing.assert_allclose(events[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["vector", "tokens", "jagged"])
def test_objects_come_back_as_many_as_there_were(folder, files, layout):
    events, expected = decoded(folder, files, layout=layout)
    leading = expected.Jet_pt[:, :4]
    assert ak.num(events.jets.Jet_pt).to_list() == ak.num(leading).to_list()
    np.testing.assert_allclose(ak.flatten(events.jets.Jet_pt), ak.flatten(leading), rtol=1e-4, atol=1e-4)


def test_all_objects_come_back_of_a_jagged_batch(folder, files):
    events, expected = decoded(folder, files, layout="jagged", jagged={"jets": {"branches": ["Jet_eta", "Jet_pt"]}})
    for name in ("Jet_eta", "Jet_pt"):
        assert ak.num(events.jets[name]).to_list() == ak.num(expected[name]).to_list()
        np.testing.assert_allclose(ak.flatten(events.jets[name]), ak.flatten(expected[name]), rtol=1e-4, atol=1e-4)
    assert "left out" not in ak.parameters(events)["__doc__"]


@pytest.mark.long
def test_cells_come_back_with_what_was_in_them(folder, files):
    events, expected = decoded(folder, files, layout="image")
    placed = ~np.isnan(expected.Jet_eta[:, :4])
    leading = expected.Jet_pt[:, :4]
    assert ak.sum(events.jets["count"], axis=1).to_list() == ak.sum(placed, axis=1).to_list()
    sums = ak.sum(ak.where(placed, leading, 0), axis=1)
    np.testing.assert_allclose(ak.sum(events.jets["sum(Jet_pt)"], axis=1), sums, rtol=1e-4, atol=1e-4)
    single = ak.num(events.jets.Jet_eta) == ak.sum(placed, axis=1)  # nobody shares a cell
    found = ak.sort(events.jets.Jet_eta[single])
    wanted = ak.sort(expected.Jet_eta[:, :4][placed][single])
    np.testing.assert_allclose(ak.flatten(found), ak.flatten(wanted), atol=0.0101)  # half a cell


def test_what_a_network_gives_in_the_place_of_a_batch_is_decoded(folder):
    data = make_data(folder, jagged={"jets": JETS}, flat=["ht"], derived=None, scale="standard", batch_size=40)
    batch = next(iter(data.predict_dataloader()))
    output = {"flat": batch["flat"].clone().requires_grad_(), "jets": batch["jets"] * 1.0,
              "jets_mask": batch["jets_mask"].float() * 0.9}  # fmt: skip
    assert ak.almost_equal(data.decode(output), data.decode(batch))
    with pytest.raises(ShapeError, match="jets_mask: got nothing; the tokens layout has"):
        data.decode({"flat": batch["flat"], "jets": batch["jets"]})

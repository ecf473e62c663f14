"""The summary fits the terminal, and cuts no name so that two look alike."""

import json

import awkward as ak
import numpy as np
import pytest
from files_for_tests import make_events, write
from rich.console import Console

import rootdata
from rootdata.scan.specs import Specs


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_that_begin_alike_stay_apart_in_a_narrow_terminal(tmp_path, width):
    events = make_events(300)
    names = [f"AnalysisLargeRJetsAuxDyn_JetConstitScaleMomentum_version{i}" for i in range(3)]
    path = write(tmp_path / "a.root", events | {name: events["met"] + i for i, name in enumerate(names)})
    data = rootdata.RootDataModule({"a": {"files": str(path)}}, flat=names, label="is_signal == 1", batch_size=50)
    data.prepare_data()
    console = Console(width=width)
    with console.capture() as capture:
        console.print(data.summary())
    first = "".join(line.strip().split("  ")[0] for line in capture.get().splitlines())
    assert all(name in first for name in names)
    assert max(map(len, capture.get().splitlines())) <= width


def test_a_feature_without_a_value_is_told_as_such(tmp_path):
    path = write(tmp_path / "a.root", make_events(100))
    cut = {"jets": {"branches": ["Jet_pt"], "length": 3, "cut": "Jet_pt > 1e9"}}
    data = rootdata.RootDataModule({"a": {"files": str(path), "label": 0}}, flat=["met"], jagged=cut)
    assert data.specs.columns["Jet_pt"].count == 0
    console = Console(width=100)
    with console.capture() as capture:
        console.print(data.summary())
    (line,) = [line.split() for line in capture.get().splitlines() if line.split()[:1] == ["Jet_pt"]]
    assert line == ["Jet_pt", "none", "standard"]


def drawn(tmp_path, axes):
    """Scan an image of a few events with known objects: training events are all but the last."""
    eta = ak.Array([[0.1, 0.2, 1.5], [np.nan, 0.1], [], [3.0, 0.1, 0.15], [9.0]])
    events = {"event": np.arange(5), "Jet": {"eta": eta, "phi": ak.full_like(eta, 0.3)}}
    path = write(tmp_path / "a.root", events)
    image = {"x": {"column": "Jet_eta", "bins": 4, **axes}, "y": {"column": "Jet_phi", "bins": 1}}
    return rootdata.RootDataModule(
        {"a": {"files": str(path), "label": 0}}, jagged={"jets": {"branches": ["Jet_eta", "Jet_phi"], "image": image}},
        layout="image", split={"by": "event", "val": [], "test": [4]}, batch_size=2,
    )  # fmt: skip


def test_objects_outside_and_objects_that_share_a_cell_are_counted_and_told(tmp_path):
    data = drawn(tmp_path, {"range": [-2, 2]})
    assert data.specs.drawn == {
        "jets": (8, 2, 2)
    }  # outside are 3.0 and NaN; of 0.1 to 0.2 one goes first in each event
    assert Specs.from_dict(json.loads(json.dumps(data.specs.to_dict()))) == data.specs
    console = Console(width=100)
    with console.capture() as capture:
        console.print(data.summary())
    words = " ".join(capture.get().split())
    assert "drawn into 4 x 1 cells of Jet_eta and Jet_phi, 25.000% of the objects outside" in words
    assert "outside, 25.000% in a cell that another one fills" in words
    assert "axis" in words


def test_a_grid_that_is_learnt_holds_all_training_objects_and_stays(tmp_path):
    data = drawn(tmp_path, {})
    assert data.specs.drawn["jets"] == (8, 1, 2)  # one has no eta
    grid = data.scanned.layout.collections[0].grid
    assert (grid.x.low, grid.x.high) == (pytest.approx(0.1), 3.0)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(data.summary())
    assert "about 25.000%" in " ".join(capture.get().split())
    batch = next(iter(data.test_dataloader()))
    assert batch["jets"].sum() == 0  # 9.0 is beyond
    assert sum(float(b["jets"].sum()) for b in data.predict_dataloader()) == 0
    assert sum(float(b["jets"].sum()) for b in data.train_dataloader()) == 7

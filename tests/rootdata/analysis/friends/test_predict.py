"""Scores beside the events: the same as in training, entry by entry, whatever was there before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uproot
from files_for_tests import files_below, make_events, write

from rootdata.analysis.friends.predict import predict
from rootdata.training import metrics

TEST = 2  # the number of the part


def arrays(path: Path, tree: str = "Friends") -> dict[str, Any]:
    """Read a tree with uproot alone."""
    return dict(uproot.open(path)[tree].arrays(library="np"))


@pytest.fixture(scope="module")
def friends(analysis, tmp_path_factory) -> Path:
    """The scores of all files, with the part that each event is in."""
    folder = tmp_path_factory.mktemp("friends")
    predict(analysis.bundle, str(analysis.events), out=folder, parts=True, workers=2)
    return folder


def test_each_entry_has_its_row(analysis, friends):
    for number in range(4):
        events, found = arrays(analysis.events / f"{number}.root", "Events"), arrays(friends / f"{number}_Friend.root")
        assert found["entry"].tolist() == list(range(len(events["met"])))
        assert found["event"].tolist() == events["event"].tolist()
        assert found["selected"].tolist() == (events["met"] > 10).tolist()
        assert (found["score_signal"][~found["selected"]] == -1).all()
        assert ((found["score_signal"] > 0) == found["selected"]).all()


def test_scores_and_parts_are_those_of_training(analysis, friends):
    found = [arrays(friends / f"{number}_Friend.root") for number in range(4)]
    seen = 0
    for batch in analysis.data.test_dataloader():
        with torch.no_grad():
            scores = analysis.network.scores(batch).numpy()
        for (_, file, entry), score in zip(batch["index"].tolist(), scores.tolist(), strict=True):
            assert found[file]["score_signal"][entry] == pytest.approx(score, abs=2e-6)
            assert found[file]["part"][entry] == TEST
            seen += 1
    assert seen == sum(int(((f["part"] == TEST) & f["selected"]).sum()) for f in found)


def test_the_area_under_the_curve_is_that_of_the_report(analysis, friends):
    told = json.loads((analysis.run / "metrics.json").read_text())
    columns: dict[str, list[Any]] = {"score": [], "label": [], "weight": []}
    for number in range(4):
        events, found = arrays(analysis.events / f"{number}.root", "Events"), arrays(friends / f"{number}_Friend.root")
        rows = found["selected"] & (found["part"] == TEST)
        columns["score"].append(found["score_signal"][rows])
        columns["label"].append(events["is_signal"][rows])
        columns["weight"].append(events["weight"][rows])
    score, label, weight = (np.concatenate(parts) for parts in columns.values())
    assert told["events"] == len(score)
    assert metrics.auc(score, label, weight=weight) == pytest.approx(told["auc"], abs=1e-6)


def test_what_is_there_is_left_and_what_changed_is_made_again(analysis, tmp_path):
    write(tmp_path / "in/x.root", make_events(50, 7))
    write(tmp_path / "in/y.root", make_events(60, 8))
    first = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path)
    assert [len(first.written), len(first.skipped)] == [2, 0]
    before = {path: path.stat().st_mtime_ns for path in first.written}
    write(tmp_path / "in/y.root", make_events(61, 9))
    again = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path)
    assert [path.name for path in again.skipped] == ["x_Friend.root"]
    assert again.skipped[0].stat().st_mtime_ns == before[again.skipped[0]]
    assert arrays(tmp_path / "y_Friend.root")["event"].tolist() == list(range(9000, 9061))
    assert files_below(tmp_path) == ["in", "in/x.root", "in/y.root", "x_Friend.root", "y_Friend.root"]
    others = predict(analysis.bundle, f"{tmp_path}/in/*.root", out=tmp_path, observers=["met"])
    assert len(others.written) == 2
    assert set(arrays(tmp_path / "x_Friend.root")) == {"entry", "selected", "score_signal", "met"}


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("events", [0, 1, 40])
def test_empty_and_unselected_files_are_aligned_too(analysis, tmp_path, kind, events):
    none = {**make_events(events, 1), "met": np.zeros(events, np.float32)}
    write(tmp_path / "none.root", none, kind=kind)
    predict(analysis.bundle, str(tmp_path / "none.root"), out=tmp_path / "out", kind=kind)
    found = arrays(tmp_path / "out/none_Friend.root")
    assert found["entry"].tolist() == list(range(events))
    assert found["score_signal"].tolist() == [-1.0] * events
    assert found["event"].dtype == np.int64

"""What measures training and scaling: it runs, and its figures are those of what it claims to measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import uproot
from benchmarks import scaling, scaling_data, train

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rntuple", [False, True])
def test_the_files_are_what_they_are_called(tmp_path: Path, rntuple: bool) -> None:
    data = scaling_data.Data(events=600, files=3, branches=4, mean=2, cluster=150, rntuple=rntuple)
    paths = scaling_data.make(tmp_path, data)
    assert [uproot.open(path)["Events"].num_entries for path in paths] == [200] * 3
    assert scaling_data.make(tmp_path, data) == paths
    chosen = scaling_data.options(paths, data)
    assert len(chosen["flat"]) + len(chosen["jagged"]["Jet"]["branches"]) == 4


def test_an_axis_is_measured_reported_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTDATA_CACHE", str(tmp_path))
    before = os.sched_getaffinity(0)
    points = scaling.axes(400, tiny=2)
    chosen = {"branches": points["branches"], "tiny files": points["tiny files"]}
    result = scaling.report(
        [{axis: {k: scaling.measure(p, tmp_path) for k, p in a.items()} for axis, a in chosen.items()}]
    )
    assert os.sched_getaffinity(0) == before
    rows = [row for axis in result["table"].values() for row in axis.values()]
    assert [row["events"] for row in rows] == [400, 400, 400, 200]
    assert all(value > 0 for row in rows for value in row.values())
    point = result["table"]["branches"]["74"]
    hours = result["hours a TB"]
    assert hours["epoch"] * 3600 * point["epoch, bytes/cpu"] == pytest.approx(1e12)
    assert hours["both"] == pytest.approx(hours["first pass"] + hours["epoch"])
    assert scaling.plot(result, tmp_path).stat().st_size > 10_000


def test_batches_from_memory_hold_every_event_once() -> None:
    tensors = {"x": torch.arange(25.0).unsqueeze(1), "label": torch.arange(25)}
    loader = train.InMemory(tensors, batch=10)
    batches = list(loader)
    assert [len(b["label"]) for b in batches] == [10, 10, 5]
    assert len(loader) == 3
    assert all(torch.equal(b["x"][:, 0].long(), b["label"]) for b in batches)
    assert sorted(torch.cat([b["label"] for b in batches]).tolist()) == list(range(25))


def test_padded_objects_do_not_reach_the_transformer() -> None:
    model = train.Transformer({"flat": (3,), "jets": (5, 2), "jets_mask": (5,)}).eval()
    mask = torch.arange(5) < torch.tensor([[0], [2], [5]])
    batch = {"flat": torch.randn(3, 3), "jets": torch.randn(3, 5, 2), "jets_mask": mask}
    other = {**batch, "jets": torch.where(mask.unsqueeze(-1), batch["jets"], torch.tensor(7.0))}
    changed = {**batch, "jets": torch.where(mask.unsqueeze(-1), torch.tensor(7.0), batch["jets"])}
    torch.testing.assert_close(model(batch), model(other))
    assert (model(batch) != model(changed)).tolist() == [False, True, True]


@pytest.mark.long
def test_training_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    small = ["--folder", str(tmp_path), "--events", "15000", "--rounds", "1", "--case", "dnn, 4096"]
    run("benchmarks.train", *small, "--json", str(figures))
    result = json.loads(figures.read_text())
    case = result["cases"]["dnn, 4096"]
    assert case["in memory, events/s"] > 0
    for epoch in train.EPOCHS:
        row = case[epoch]
        assert 0 <= row["waiting"] < 1
        assert row["overhead, µs a batch"] > 0
        assert row["events/s"] > 0
    assert set(result["plain"]) == {str(size) for size in train.PLAIN_BATCHES}
    assert all(value > 0 for value in result["plain"].values())


@pytest.mark.long
def test_scaling_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    small = ["--folder", str(tmp_path), "--quick", "--axis", "readers", "--axis", "files"]
    run("benchmarks.scaling", *small, "--json", str(figures), "--plots", str(tmp_path / "plots"))
    table = json.loads(figures.read_text())["table"]
    assert list(table["readers"]) == ["threads, 1 core", "threads, 2 cores", "1 thread"]
    assert list(table["files"]) == ["1", "4", "16", "64"]
    assert all(value > 0 for axis in table.values() for row in axis.values() for value in row.values())
    assert (tmp_path / "plots" / "scaling.png").exists()

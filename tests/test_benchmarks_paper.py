"""The paper's validation by one command: three ways agree in what they are, and the tables are of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.paper import throughput, trainings

from rootdata.options.parts import PARTS

pytestmark = pytest.mark.long


def test_three_ways_learn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTDATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trainings, "EPOCHS", 2)
    result = trainings.run(tmp_path, events=6000, seeds=1)
    assert list(result["ways"]) == list(trainings.WAYS)
    last = {way: [np.array(parts[part])[0, -1] for part in PARTS] for way, parts in result["ways"].items()}
    for train, val, test in last.values():
        assert min(train, val, test) > 0.75
    assert abs(last["inside"][2] - last["by hand"][2]) < 0.06  # 1,200 test events
    assert result["trees"] > 0.85
    rows = list(trainings.lines(result))
    assert len(rows) == 2 + len(trainings.WAYS) + 1
    assert f"{last['inside'][2]:.4f}" in rows[2]
    trainings.draw(result, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_by_hand_reads_the_events_that_the_stream_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rootdata.loading.datamodule import RootDataModule

    monkeypatch.setenv("ROOTDATA_CACHE", str(tmp_path / "cache"))
    options = trainings.compose(tmp_path, 2000) | {"scale": "none"}
    x, label = trainings.read_all(options)
    streamed = trainings.in_parts(RootDataModule(**options))
    together = np.concatenate([part.x.numpy() for part in streamed.values()])
    assert sum(part.label.sum() for part in streamed.values()) == label.sum()
    np.testing.assert_allclose(np.sort(np.nan_to_num(x), axis=0), np.sort(together, axis=0), rtol=1e-6)


def test_throughput_and_projection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("XRootD")
    monkeypatch.setattr(throughput, "LARGER", 2)
    found = {
        "by chunk": throughput.by_chunk(tmp_path, events=2000, chunks=(500, 2000)),
        "projection": throughput.projected(tmp_path, events=2000),
    }
    for rows in found["by chunk"]["table"].values():
        assert [row["chunks"]["events"] for row in rows.values()] == [2000, 2000]
    assert found["projection"]["tried on"] == 4000
    text = "\n".join(throughput.lines(found))
    assert "root://, 20 ms" in text
    assert "predicted" in text
    throughput.draw(found, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 10_000
    json.dumps(found)

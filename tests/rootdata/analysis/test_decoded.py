"""Decoded events lie beside the original ones in a ROOT file, as many objects of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import uproot
from files_for_tests import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rootdata.analysis import decoded
from rootdata.analysis.decoded import DecodedFile, DecodedWriter, write_decoded
from rootdata.errors import ConfigError, FileError, ShapeError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models.autoencoder import Autoencoder
from strategies import NO_SHRINKING

LENGTH = 3
IMAGE = {"x": "Jet_eta", "y": "Jet_pt"}
QUIET: dict[str, Any] = {
    "logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu",
    "enable_checkpointing": False,
}  # fmt: skip


def write_events(path: Path, jets: list[int], muons: list[int]) -> Path:
    """Write events of as many jets and muons; numbers that nothing else has."""
    of = {"Jet": np.array(jets, int), "Mu": np.array(muons, int)}
    total = sum(jets)
    return write(
        path,
        {
            "met": np.arange(len(jets), dtype="f4") + 0.5,
            "cov": np.arange(2 * len(jets), dtype="f4").reshape(-1, 2),
            "Jet": {
                "pt": ak.unflatten(np.arange(total, dtype="f4") + 20, of["Jet"]),
                "eta": ak.unflatten(np.arange(total, dtype="f4") / 100, of["Jet"]),
            },
            "Mu": {"pt": ak.unflatten(np.arange(sum(muons), dtype="f4") + 5, of["Mu"])},
        },
    )


def data_of(files: list[Path], **changes: Any) -> RootDataModule:
    options: dict[str, Any] = {
        "samples": {"a": {"files": list(map(str, files))}},
        "flat": ["met", "cov"],
        "jagged": {
            "jets": {"branches": ["Jet_pt", "Jet_eta"], "length": LENGTH},
            "muons": {"branches": ["Mu_pt"], "length": "auto"},
        },
        "scale": {"default": {"shift": 3.0, "factor": 0.5}},
        "split": {"train": 1.0},
        "batch_size": 16,
        **changes,
    }
    return RootDataModule(**options)


def changed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stand for a network: other values, and masks that nobody is to believe."""
    return {
        n: ~v if n.endswith("mask") else v + 1.0 for n, v in batch.items() if v.dtype in {torch.bool, torch.float32}
    }


def pairs(data: RootDataModule) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    for batch in data.predict_dataloader():
        yield batch, changed(batch)


multiplicities = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=40)


@pytest.mark.parametrize("layout", ["vector", "tokens", "jagged"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=6, phases=NO_SHRINKING)
@given(events=multiplicities, others=multiplicities)
def test_counts_are_those_of_the_input_whatever_they_are(
    tmp_path: Path, layout: str, events: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    groups = [[*events, (2, 1), (0, 0)], [], others]  # an empty file among them; `fit` needs something
    files = [
        write_events(tmp_path / f"{i}.root", [j for j, _ in group], [m for _, m in group])
        for i, group in enumerate(groups)
    ]
    data = data_of(files, layout=layout)
    path = write_decoded(tmp_path / "decoded.root", data, pairs(data))
    with uproot.open(path) as opened:
        tree = opened["Events"]
        found, inputs = tree.arrays(), json.loads(opened["inputs"])
        assert "jets: objects after the first 3 of an event are left out" in tree.title
    assert inputs == {"samples": ["a"], "files": [f"{file}:Events" for file in files]}
    assert len(found) == sum(map(len, groups))
    originals = [uproot.open(file)["Events"].arrays() for file in files]
    for event in found:
        given = originals[event.file][event.entry]
        for branch, count, length in (
            ("Jet_pt", "n_jets", LENGTH),
            ("Jet_eta", "n_jets", LENGTH),
            ("Mu_pt", "n_muons", 9),
        ):
            kept = given[branch][:length].to_list()
            assert event[count] == len(kept) == len(event[f"{branch}_decoded"])
            assert event[branch].to_list() == pytest.approx(kept, rel=1e-5, abs=1e-5)
            assert event[f"{branch}_decoded"].to_list() == pytest.approx([x + 2 for x in kept], rel=1e-5, abs=1e-5)
        assert [event.met_decoded, event.cov_1] == pytest.approx([given.met + 2, given.cov[1]], rel=1e-5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = [0, 1, 5, 2, 3] * 40
    return write_events(tmp_path_factory.mktemp("decoded") / "a.root", counts, [1] * len(counts))


def test_without_events_there_is_a_tree_without_events(file: Path, tmp_path: Path) -> None:
    path = write_decoded(tmp_path / "none.root", data_of([file]), [])
    tree = uproot.open(path)["Events"]
    assert tree.num_entries == 0
    assert {"sample", "file", "entry", "met", "cov_0_decoded", "n_jets", "Jet_pt", "Jet_pt_decoded"} <= set(tree.keys())


def test_a_network_that_gives_no_numbers_loses_no_objects(file: Path, tmp_path: Path) -> None:
    data = data_of([file], layout="vector")
    spoilt = ((b, {n: v * float("nan") if v.is_floating_point() else v for n, v in o.items()}) for b, o in pairs(data))
    tree = uproot.open(write_decoded(tmp_path / "nan.root", data, spoilt))["Events"]
    assert ak.num(tree["Jet_pt_decoded"].array()).to_list() == tree["n_jets"].array().to_list()


def test_memory_is_that_of_a_piece(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "AT_ONCE", 32)
    data, most = data_of([file]), 0
    with DecodedFile(tmp_path / "a.root", data) as made:
        for pair in pairs(data):
            made.add(*pair)
            most = max(most, made._n_waiting)
    assert most < 32
    tree = uproot.open(made.path)["Events"]
    assert (tree.num_entries, made.num_events) == (200, 200)
    assert sorted(tree["entry"].array().to_list()) == list(range(200))


def test_a_file_that_is_not_finished_is_not_there(file: Path, tmp_path: Path) -> None:
    data, path = data_of([file]), tmp_path / "decoded.root"
    write_decoded(path, data, pairs(data))
    before = path.read_bytes()
    broken = [next(pairs(data)), ({"met": torch.zeros(1)}, {})]
    with pytest.raises(ConfigError, match="the batches have no 'index'"):
        write_decoded(path, data, broken)
    batch, output = next(pairs(data))
    with pytest.raises(ShapeError, match="x: got nothing"):
        write_decoded(path, data, [(batch, {n: v for n, v in output.items() if n != "x"})])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["decoded.root"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"layout": "image", "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "image": IMAGE}}},
            "collection 'jets' is drawn into an image, of which a filled cell comes back and no object; take layout",
        ),
        ({"flat": ["entry"], "derived": {"entry": "met + 1"}}, "feature 'entry' would be called 'entry'"),
        (
            {"flat": ["a.b", "a_b"], "derived": {"a.b": "met * 2", "a_b": "met * 3"}},
            "feature 'a_b' would be called 'a_b', as that of 'a.b'",
        ),
        (
            {"flat": ["met", "met_decoded"], "derived": {"met_decoded": "met * 2"}},
            "feature 'met_decoded' would be called 'met_decoded', as that of 'met'",
        ),
    ],
)  # fmt: skip
def test_what_can_t_be_written_is_refused(file: Path, tmp_path: Path, changes: Any, words: str) -> None:
    data = data_of([file], **changes)
    with pytest.raises(ConfigError, match=words):
        DecodedFile(tmp_path / "a.root", data)


def test_a_place_that_can_t_be_written_is_named(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match=r"taken/a.root can't be written .*; choose another place"):
        write_decoded(tmp_path / "taken" / "a.root", data_of([file]), [])


def test_a_trainer_writes_what_it_tests(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_of([file], split={"train": 0.5, "val": 0.0, "test": 0.5})
    network, writer = Autoencoder(data.shapes, hidden=[4], latent=2), DecodedWriter(tmp_path / "decoded.root")
    trainer = pl.Trainer(callbacks=[writer], **QUIET)
    trainer.test(network, datamodule=data, verbose=False)
    n = data.specs.num_events("test")
    assert (
        f"decoded.root: {n} events, each beside what it was decoded to. jets: objects after" in capsys.readouterr().out
    )
    first = uproot.open(writer.path)["Events"].arrays()
    trainer.predict(network, datamodule=data, return_predictions=False)
    second = uproot.open(writer.path)["Events"].arrays()
    for found in (first, second):
        assert len(found) == n
        assert ak.num(found.Jet_pt).to_list() == ak.num(found.Jet_pt_decoded).to_list() == found.n_jets.to_list()
    assert sorted(first.entry.to_list()) == sorted(second.entry.to_list())


class Plain(pl.LightningModule):
    """Gives nothing back."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing."""


def test_a_network_that_gives_nothing_back_is_refused_before_anything_runs(file: Path, tmp_path: Path) -> None:
    trainer = pl.Trainer(callbacks=[DecodedWriter(tmp_path / "a.root")], **QUIET)
    with pytest.raises(ConfigError, match=r"Plain has no method reconstruct\(batch\)"):
        trainer.test(Plain(), datamodule=data_of([file]), verbose=False)
    assert not list(tmp_path.iterdir())

"""From the folder of a training to a bundle, by ``train.py`` and by ``python -m rootdata export``."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from bundles_for_tests import branches_of, scores_of_table

from forks_for_tests import run_script
from rootdata.__main__ import main
from rootdata.app import rebuild
from rootdata.bundle.manifest import MODEL, open_bundle
from rootdata.errors import BundleError, FileError
from rootdata.models import DNN
from strategies import columns_of

ROOT = Path(__file__).parents[3]


def train(folder: Path, *words: str) -> str:
    """Run ``train.py`` for a step in a folder, and return what it printed."""
    quick = [
        "data=mine", "data.batch_size=64", "trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false",
        "~callbacks.progress", "trainer.num_sanity_val_steps=0", "model.hidden=[8]",
        "callbacks.score_report.plots=false",
    ]  # fmt: skip
    return run_script(folder, "--config-dir", str(folder / "configs"), *quick, *words)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> Path:
    """A folder with somebody's files and data config."""
    folder = tmp_path_factory.mktemp("own")
    samples = {}
    for i in range(2):
        path = write_tree(folder / f"{i}.root", columns_of(300, [i]))
        samples[f"s{i}"] = {"files": str(path), "label": i}
    config = {
        "samples": samples,
        "flat": ["met", "ht"],
        "missing": [-999.0],
        "jagged": {"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4}},
    }
    (folder / "configs" / "data").mkdir(parents=True)
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def run(own: Path) -> Path:
    """The outputs of a training."""
    printed = train(own, "hydra.run.dir=runs/first")
    assert "runs/first/bundle" in printed
    return own / "runs" / "first"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of these outputs, to be spoilt."""
    for name in ("checkpoints", "config.yaml", "specs.json", "metrics.json", "roc.json"):
        source = run / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def best_of(folder: Path) -> Path:
    """Find the best checkpoint."""
    return next(p for p in (folder / "checkpoints").glob("*.ckpt") if p.name != "last.ckpt")


def refused(capsys: pytest.CaptureFixture[str], checkpoint: Path, *words: str) -> str:
    """Export a checkpoint that can't be, and return what it said; it is one sentence, and nothing is written."""
    before = sorted(checkpoint.parent.rglob("*"))
    assert main(["export", str(checkpoint), *words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("rootdata: ")
    assert "\n" not in said
    assert "Traceback" not in said
    assert sorted(checkpoint.parent.rglob("*")) == before
    return said


# train.py


@pytest.mark.long
def test_a_training_ends_with_a_bundle(own: Path, run: Path) -> None:
    manifest = open_bundle(run / "bundle")
    network = DNN.load_from_checkpoint(best_of(run), weights_only=True).eval()
    _, data, folder = rebuild.rebuild(best_of(run))
    assert folder == run
    batches = list(data.test_dataloader())
    with torch.no_grad():
        expected = torch.cat([network.scores(b) for b in batches]).numpy()
    table = branches_of(data, torch.cat([b["index"] for b in batches]).numpy(), [b.name for b in manifest.branches])
    assert np.abs(scores_of_table(run / "bundle", table)[:, 0] - expected).max() < 1e-6
    metrics = json.loads((run / "metrics.json").read_text())
    assert manifest.metrics["auc"] == metrics["auc"]
    assert manifest.training["model"]["hidden"] == [8]
    (curve,) = manifest.roc.values()
    assert set(curve) == {"signal_efficiency", "background_efficiency"}
    assert len({len(v) for v in curve.values()}) == 1
    (samples,) = manifest.scores.values()
    assert sum(map(sum, samples.values())) == pytest.approx(sum(len(b["label"]) for b in batches))


@pytest.mark.long
def test_the_newest_training_has_a_link(own: Path, run: Path) -> None:
    link = own / "outputs" / "mine_dnn" / "latest"
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == run.resolve()


@pytest.mark.long
def test_a_training_may_end_without_a_bundle(own: Path, run: Path) -> None:
    printed = train(own, "hydra.run.dir=runs/second", "export=false")
    assert "bundle" not in printed
    assert not (own / "runs" / "second" / "bundle").exists()
    assert (own / "outputs" / "mine_dnn" / "latest").resolve() == run.resolve()


def test_a_link_is_turned_and_a_folder_is_left_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rebuild.point(tmp_path / "links" / "latest", at=tmp_path / name)
        assert (tmp_path / "links" / "latest").resolve() == tmp_path / name
    rebuild.point(tmp_path / "a", at=tmp_path / "b")
    assert not (tmp_path / "a").is_symlink()
    (tmp_path / "b").rmdir()
    rebuild.point(tmp_path / "links" / "latest", at=tmp_path / "a")  # the old one leads nowhere
    assert (tmp_path / "links" / "latest").resolve() == tmp_path / "a"
    assert [p.name for p in (tmp_path / "links").iterdir()] == ["latest"]


# python -m rootdata export


@pytest.mark.long
def test_a_checkpoint_becomes_the_bundle_that_the_training_wrote(
    run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--author", "Ada", "--description", "again", "--tag", "a", "--tag", "b", "--events", "50"]
    assert main(["export", str(best_of(copy)), *words]) == 0
    assert "scores differ from torch by at most" in capsys.readouterr().out
    again, first = open_bundle(copy / "bundle"), open_bundle(run / "bundle")
    assert (again.author, again.description, again.tags) == ("Ada", "again", ("a", "b"))
    assert (again.inputs, again.branches, again.ranges) == (first.inputs, first.branches, first.ranges)
    assert (again.metrics, again.roc, again.training) == (first.metrics, first.roc, first.training)
    assert (copy / "bundle" / MODEL).read_bytes() == (run / "bundle" / MODEL).read_bytes()
    assert again.parity is not None
    assert again.parity.num_events == 50


@pytest.mark.long
def test_wrong_paths_are_one_sentence(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refused(capsys, copy / "checkpoints" / "nope.ckpt")
    assert "holds no scores of folds" in refused(capsys, copy / "checkpoints")
    assert "--events: got 0" in refused(capsys, best_of(copy), "--events", "0")
    alone = tmp_path / "far" / "away" / "x.ckpt"
    alone.parent.mkdir(parents=True)
    shutil.copy(best_of(copy), alone)
    assert "train.py did not write it" in refused(capsys, alone)
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "file").touch()
    assert "is there and no bundle" in refused(capsys, best_of(copy), "--out", str(tmp_path / "busy"))


@pytest.mark.long
@pytest.mark.parametrize("keep", [0, 1, 100, 3000, -1])
def test_a_truncated_checkpoint_is_one_sentence(copy: Path, capsys: pytest.CaptureFixture[str], keep: int) -> None:
    path = best_of(copy)
    path.write_bytes(path.read_bytes()[:keep])
    assert "is no checkpoint of Lightning" in refused(capsys, path)


@pytest.mark.long
@pytest.mark.parametrize(
    "content", [b"text", b"\x80\x02.", b"\x80\x04K\x01.", b"\x80\x02}q\x00.", pickle.dumps({"state_dict": 5}), b"PK"]
)
def test_what_is_no_checkpoint_is_one_sentence(copy: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    path = best_of(copy)
    path.write_bytes(content)
    assert "is no checkpoint of Lightning" in refused(capsys, path)


@pytest.mark.long
@pytest.mark.parametrize("content", [{"state_dict": 5}, {"state_dict": {"a": 5}}, {}, [1], torch.zeros(3)])
def test_other_checkpoints_are_one_sentence(copy: Path, capsys: pytest.CaptureFixture[str], content: Any) -> None:
    path = best_of(copy)
    torch.save(content, path)
    said = refused(capsys, path)
    assert "is no checkpoint of Lightning" in said or "does not fit the network" in said


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["torch", "pickle", "old torch"])
def test_a_pickle_is_never_executed(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path, mark = best_of(copy), tmp_path / "executed"
    content = {"state_dict": {}, "more": Bomb(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    assert zipfile.is_zipfile(path) == (kind == "torch")
    assert "is no checkpoint of Lightning" in refused(capsys, path)
    assert not mark.exists()


def change(path: Path, **values: Any) -> None:
    """Change dotted keys of a configuration; None removes one."""
    config = yaml.safe_load(path.read_text())
    for key, value in values.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
        else:
            node[last] = value
    path.write_text(yaml.safe_dump(config))


@pytest.mark.long
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model__hidden": [9]}, "does not fit the network of its config.yaml"),
        ({"model__hidden": "many"}, "'model.hidden': got 'many'; takes a list"),
        ({"model___target_": "rootdata.models.Nope"}, "_target_ 'rootdata.models.Nope' can't be imported"),
        ({"model": None}, "does not say what `data` and `model` are"),
        ({"data": 5}, "does not say what `data` and `model` are"),
        ({"data__flat": ["met"]}, "specs"),
        ({"data__cut": "met >"}, "cut: "),
        ({"data__layout": "tokens"}, "layout 'vector'"),
        ({"data__batch_size": "${oc.env:NOPE}"}, "NOPE"),
    ],
)
def test_a_changed_configuration_is_one_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], words: str
) -> None:
    change(copy / "config.yaml", **values)
    assert main(["export", str(best_of(copy))]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (copy / "bundle").exists()


@pytest.mark.long
@pytest.mark.parametrize("content", ["a: [", "5", "", "- 1", "\x00"])
@pytest.mark.parametrize("name", ["config.yaml", "specs.json", "metrics.json", "roc.json"])
def test_a_damaged_file_of_the_run_is_one_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    if name != "config.yaml" and content == "5":
        content = "{"
    (copy / name).write_text(content)
    said = refused(capsys, best_of(copy))
    assert str(copy / name) in said


@pytest.mark.long
def test_a_run_without_a_test_has_no_report(copy: Path) -> None:
    (copy / "metrics.json").unlink()
    (copy / "roc.json").unlink()
    assert set(rebuild.report_of(copy)) == {"training"}
    change(copy / "config.yaml", trainer__gradient_clip_val=float("inf"))
    assert rebuild.report_of(copy)["training"]["trainer"]["gradient_clip_val"] == "Infinity"


def test_errors_are_of_the_tree(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        rebuild.rebuild(tmp_path / "x.ckpt")
    with pytest.raises(BundleError, match="does not fit"):
        rebuild.load_weights(torch.nn.Linear(1, 1), {"weight": torch.zeros(2, 2)}, where=tmp_path)

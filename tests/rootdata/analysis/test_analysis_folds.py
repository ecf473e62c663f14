"""Scores of all folds in one file: whole, in order, and of the networks that never saw the events."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import uproot
from omegaconf import OmegaConf
from rich.console import Console

from rootdata.analysis import folds
from rootdata.analysis.folds import FoldScores, ScoredFold, columns_of, joined, scored_folds, spread_of
from rootdata.analysis.report import make
from rootdata.analysis.report.config import ReportConfig
from rootdata.analysis.report.page import TABLES
from rootdata.analysis.report.tested import FILE, ScoredRun
from rootdata.errors import ConfigError, DataError
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.models import DNN
from rootdata.options.parts import PARTS
from rootdata.training.metrics import auc

COUNT, NUM_EVENTS, NUM_FEATURES = 4, 400, 40
ROOT = Path(__file__).parents[3]
PYTHIA = ROOT.parent / "shared" / "data" / "tth_pythia"


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, write_tree: Any) -> Path:
    """A folder of folds that a trainer tested; the networks are untrained."""
    folder = tmp_path_factory.mktemp("tested")
    rng = np.random.default_rng(1)
    for label in (0, 1):
        columns = {"met": rng.normal(label, 1, 150).astype("f4"), "event": np.arange(150) * 5 + label}
        write_tree(folder / f"{label}.root", columns, step=50)
    for fold in (2, 0, 1):
        data = RootDataModule(
            {name: {"files": str(folder / f"{label}.root"), "label": label} for label, name in enumerate(("b", "s"))},
            flat=["met"], folds={"count": 3, "by": "event // 2"}, fold=fold, observers=["event", "met"], batch_size=64,
        )  # fmt: skip
        torch.manual_seed(fold)
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        own = FoldScores(folder / f"fold_{fold}")
        trainer = pl.Trainer(accelerator="cpu", callbacks=[own], enable_checkpointing=False, **quiet)
        trainer.test(DNN(data.shapes, hidden=[4]), datamodule=data, verbose=False)
    return folder


def test_every_event_is_once_in_the_file_with_what_goes_with_it(tested: Path, tmp_path: Path) -> None:
    found = scored_folds(tested)
    assert [fold.number for fold in found] == [0, 1, 2]
    arrays = joined(found)
    folds.write(columns_of(arrays, found[0].about), tmp_path / "oof.root", about=found[0].about)
    with uproot.open(tmp_path / "oof.root") as file:
        events = file[folds.TREE].arrays(library="np")
        told = json.loads(str(file[folds.ABOUT]))
    assert list(events) == [
        *("sample", "file", "entry", "fold", "label", "weight", "score_signal", "observers_event", "observers_met")
    ]
    assert told["samples"] == ["b", "s"]
    assert events["sample"].tolist() == events["label"].tolist() == [0] * 150 + [1] * 150
    assert events["entry"].tolist() == [*range(150)] * 2
    assert events["observers_event"].tolist() == [5 * i + label for label in (0, 1) for i in range(150)]
    assert events["fold"].tolist() == (events["observers_event"] // 2 % 3).tolist()
    assert events["observers_met"].dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["oof.root"]


def test_a_report_of_all_folds_is_of_their_events(tested: Path, tmp_path: Path) -> None:
    arrays, run = joined(scored_folds(tested)), ScoredRun.load(tested)
    assert run.scores is not None
    np.testing.assert_array_equal(run.scores.score, arrays["score"].astype("f8"))
    np.testing.assert_array_equal(run.observers["event"], arrays["observers/event"])
    assert (run.about["folds"], run.scores.sample_names, "index" in run.test) == (3, ("b", "s"), False)
    shutil.copytree(tested, tmp_path / "run")
    spread = spread_of([{"auc": 0.1 * (fold + 5)} for fold in range(3)])
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"folds": spread}))
    (tmp_path / "run" / "fold_0" / "metrics.csv").write_text("epoch,val/auc\n0,0.5\n")
    found = {sheet.name: sheet.numbers for sheet in make.sheets_of(run, tmp_path / "run", ReportConfig.parse())}
    assert found["roc"]["classes"]["signal"]["auc"] == pytest.approx(auc(arrays["score"], arrays["label"]))
    assert found["folds"] == spread
    assert "learning" not in found  # the epochs of one fold are none of another
    text = "".join(TABLES["folds"](found["folds"]))
    assert re.findall(r"<t[hd][^>]*>([^<]+)", text) == [
        *("test of", "auc", "fold 0", "0.5", "fold 1", "0.6", "fold 2", "0.7", "mean ± spread", "0.60 ± 0.10")
    ]
    (tmp_path / "run" / "fold_1" / folds.FOLD_SCORES).unlink()
    with pytest.raises(ConfigError, match="of 3 folds 1 not tested yet"):
        ScoredRun.load(tmp_path / "run")


def test_training_and_test_of_all_folds_share_no_event(tested: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tested, run)
    arrays = joined(scored_folds(run))
    place = arrays["index"][:, 0] * 150 + arrays["index"][:, 2]
    for fold in range(3):  # the score says whose it is
        kept = {key: arrays[key][arrays["fold"] != fold] for key in ("label", "weight", "index")}
        sample, score = kept["index"][:, 0], place[arrays["fold"] != fold].astype("f4")
        about = {"classes": ["background", "signal"], "samples": ["b", "s"], "targets": []}
        train = {**kept, "sample": sample, "score": score}
        ScoredRun(about=about, test=train, train=train).save(run / f"fold_{fold}" / FILE)
    found = ScoredRun.load(run)
    assert found.training is not None
    assert found.beside_training is not None
    taken = found.training.score
    assert len(np.unique(taken)) == len(taken)
    assert np.sort([*taken, *place[found.apart]]).tolist() == list(range(300))
    assert len(found.beside_training.score) == 300 - len(taken)
    assert 100 < len(taken) < 200
    np.testing.assert_array_equal(found.training.label, taken >= 150)
    (sheet,) = (one for one in make.sheets_of(found, run, ReportConfig.parse()) if one.name == "overtraining")
    assert (
        f"{len(taken)} training events and {300 - len(taken)} other test events. Each event counts once" in sheet.text
    )
    ScoredRun(about=about, test=train, train={k: v for k, v in train.items() if k != "index"}).save(
        run / "fold_2" / FILE
    )
    assert ScoredRun.load(run).training is None  # where it is not known which events they are


def test_what_is_not_whole_is_refused(tested: Path, tmp_path: Path) -> None:
    found = scored_folds(tested)
    with pytest.raises(ConfigError, match="holds no scores of folds"):
        scored_folds(tmp_path)
    for fold in (0, 2):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / folds.FOLD_SCORES).write_bytes(
            (tested / f"fold_{fold}" / folds.FOLD_SCORES).read_bytes()
        )
    with pytest.raises(ConfigError, match="of 3 folds 1 not tested yet; the same command with resume=auto does"):
        scored_folds(tmp_path)
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / folds.FOLD_SCORES).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"fold_1/fold_scores.npz can't be read"):
        scored_folds(tmp_path)
    twice = dataclasses.replace(found[1], arrays=found[0].arrays)
    with pytest.raises(DataError, match="folds 0 and 1 share entry"):
        joined([found[0], twice, found[2]])
    half = {name: values[::2] for name, values in found[1].arrays.items()}
    with pytest.raises(DataError, match="300 are selected; test them without limits"):
        joined([found[0], dataclasses.replace(found[1], arrays=half), found[2]])


# Out of fold


@pytest.fixture(scope="module")
def learnt() -> tuple[Any, Any, Any, Any]:
    """Events, and a linear network for each fold, fitted to the others so closely that it knows what it saw."""
    rng = np.random.default_rng(5)
    label = rng.integers(0, 2, NUM_EVENTS)
    x = rng.normal(size=(NUM_EVENTS, NUM_FEATURES)) + 0.12 * label[:, None]
    fold = np.arange(NUM_EVENTS) % COUNT
    train = [(fold != f) & (fold != (f + 1) % COUNT) for f in range(COUNT)]
    weights = [np.linalg.lstsq(np.c_[x[t], np.ones(t.sum())], label[t], rcond=None)[0] for t in train]
    scores = np.array([np.c_[x, np.ones(NUM_EVENTS)] @ w for w in weights])
    return label, fold, scores, [auc(scores[f][fold == f], label[fold == f]) for f in range(COUNT)]


def of_folds(label: Any, fold: Any, chosen: Any) -> list[ScoredFold]:
    entry = np.arange(NUM_EVENTS)
    about = {"folds": COUNT, "files": ["a"], "samples": ["all"], "events": NUM_EVENTS}
    rows = [fold == f for f in range(COUNT)]
    return [
        ScoredFold(folder=Path(), about={**about, "fold": f}, arrays={
            "index": np.stack([0 * entry, 0 * entry, entry], axis=1)[r], "label": label[r], "score": chosen[r],
        })
        for f, r in enumerate(rows)
    ]  # fmt: skip


def is_out_of_fold(areas: list[float], together: float, *, close: float = 0.02) -> bool:
    return abs(together - float(np.mean(areas))) < close


def test_scores_out_of_fold_are_as_good_as_those_of_the_folds_and_no_better(learnt: Any) -> None:
    label, fold, scores, areas = learnt
    places = np.arange(NUM_EVENTS)
    arrays = joined(of_folds(label, fold, scores[fold, places]))
    assert is_out_of_fold(areas, auc(arrays["score"], arrays["label"]))
    assert not is_out_of_fold(areas, auc(scores.mean(axis=0), label))  # networks that saw the events among them
    assert not is_out_of_fold(areas, auc(scores[(fold + 1) % COUNT, places], label))  # off by one
    assert not is_out_of_fold(areas, auc(scores[(fold - 2) % COUNT, places], label))


@pytest.mark.long
@pytest.mark.skipif(not PYTHIA.exists(), reason="the shared data folder is not here")
def test_real_events_show_whose_scores_they_are() -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    options = OmegaConf.load(ROOT / "configs" / "data" / "ttH_pythia.yaml")
    plain: dict[str, Any] = {
        "samples": samples_of(options),
        "flat": list(options.flat), "folds": 5, "scale": "none", "batch_size": 20_000,
    }  # fmt: skip
    areas, found, everywhere = [], [], []
    for fold in range(5):
        train, val, test = (part_of(plain, fold, part) for part in PARTS)
        learning, watched = (lightgbm.Dataset(p["x"], p["label"], params={"verbose": -1}) for p in (train, val))
        booster = lightgbm.train(
            {"objective": "binary", "num_leaves": 31, "learning_rate": 0.1, "num_threads": 1, "verbose": -1},
            learning, num_boost_round=300, valid_sets=[watched],
            callbacks=[lightgbm.early_stopping(30, verbose=False)],
        )  # fmt: skip
        test["score"] = booster.predict(test["x"])
        areas.append(auc(test["score"], test["label"]))
        found.append(
            ScoredFold(
                folder=Path(),
                about={"fold": fold, "folds": 5, "events": len(train["x"]) + len(val["x"]) + len(test["x"])},
                arrays={k: test[k] for k in ("index", "label", "score")},
            )
        )
        every = {k: np.concatenate([train[k], val[k], test[k]]) for k in test if k != "score"}
        order = np.lexsort(every["index"].T[::-1])
        everywhere.append(booster.predict(every["x"][order]))
    arrays, scores = joined(found), np.array(everywhere)
    label, fold, places = arrays["label"], arrays["fold"], np.arange(scores.shape[1])
    np.testing.assert_array_equal(scores[fold, places], arrays["score"])
    assert is_out_of_fold(areas, auc(arrays["score"], label), close=0.002)
    assert not is_out_of_fold(areas, auc(scores.mean(axis=0), label), close=0.002)
    assert not is_out_of_fold(areas, auc(scores[(fold + 1) % 5, places], label), close=0.002)


def samples_of(options: Any) -> dict[str, Any]:
    names = OmegaConf.to_container(options.samples, resolve=False)
    return {name: {**one, "files": one["files"].replace("${data.folder}", str(PYTHIA))} for name, one in names.items()}


def part_of(plain: dict[str, Any], fold: int, part: str) -> dict[str, Any]:
    batches = list(RootDataset({**plain, "fold": fold}, part, index=True, ordered=True))
    return {name: torch.cat([batch[name] for batch in batches]).numpy() for name in ("x", "label", "index")}


def test_figures_are_told_as_mean_and_spread() -> None:
    spread = spread_of([{"auc": 0.9, "events": 3, "loss": 1.0}, {"auc": 0.8, "events": 4, "loss": None}, {"auc": 0.7}])
    assert list(spread) == ["auc"]
    assert spread["auc"]["mean"] == pytest.approx(0.8)
    assert spread["auc"]["spread"] == pytest.approx(0.1)
    Console(width=120, file=(text := io.StringIO())).print(folds.table_of(spread, {"auc": 0.81}))
    assert {"0.8 ± 0.1", "0.81", "0.7"} <= {word.strip() for word in text.getvalue().split("│")}

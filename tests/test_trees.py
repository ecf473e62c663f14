"""Trees as a user trains them: by the script, stopped and gone on with, exported from a checkpoint, served."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from forks_for_tests import forking, make_home
from rootdata.__main__ import main
from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.manifest import MODEL, open_bundle
from serve.models.session import Model, answer_of

pytest.importorskip("lightgbm", reason="needs lightgbm")
pytest.importorskip("xgboost", reason="needs xgboost")

TINY = 2e-6
WORDS = [
    "data=mine", "trainer=cpu", "trainer.enable_progress_bar=false", "~callbacks.progress", "model.trees=4",
    "trainer.enable_model_summary=false", "trainer.num_sanity_val_steps=0", "trainer.max_epochs=3",
    "callbacks.early_stopping.patience=100", "hydra.run.dir=OUT",
]  # fmt: skip
PATIENCE = 120


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, write_tree: object) -> Path:
    return make_home(tmp_path_factory.mktemp("trees"), write_tree)  # type: ignore[arg-type]


def words_for(folder: Path, model: str, *more: str) -> list[str]:
    return [*[word.replace("OUT", str(folder)) for word in WORDS], f"model={model}", *more]


@pytest.mark.long
@pytest.mark.parametrize("model", ["xgboost", "lightgbm"])
def test_a_training_is_reported_exported_and_served(home: Path, model: str, tmp_path: Path) -> None:
    with forking(home, words_for(tmp_path / "out", model), printed=tmp_path / "printed") as start:
        _, status = start()
        assert status() == 0, (tmp_path / "printed").read_text()[-3000:]
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["auc"] > 0.9
    assert {"report.html", "roc.json", "scores.json", "bundle"} <= {p.name for p in (tmp_path / "out").iterdir()}
    # the bundle of a checkpoint, without the training
    main(["export", str(tmp_path / "out" / "checkpoints" / "last.ckpt"), "--out", str(tmp_path / "again")])
    for folder in (tmp_path / "out" / "bundle", tmp_path / "again"):
        manifest = open_bundle(folder)
        assert manifest.parity.max_difference <= TINY
        assert manifest.training["model"]["trees"] == 4 or folder.name == "again"
        served = Model("trees", 1, manifest, folder / MODEL)
        tensors = Assembler(manifest)(table_of(manifest, manifest.parity.columns))
        scores = answer_of(served.run(tensors), manifest)
        np.testing.assert_allclose(scores, manifest.parity.scores, atol=TINY)


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=["SIGTERM", "SIGKILL", "SIGINT"])
def test_a_training_that_was_stopped_goes_on(home: Path, tmp_path: Path, how: signal.Signals) -> None:
    printed = tmp_path / "printed"
    long, longer = "trainer.max_epochs=400", "trainer.max_epochs=30"  # the first is not waited for
    with forking(home, [], printed=printed) as start:
        number, status = start(*words_for(tmp_path / "part" / "out", "xgboost", long))
        last, deadline = tmp_path / "part" / "out" / "checkpoints" / "last.ckpt", time.monotonic() + PATIENCE
        while not last.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(number, how)
        assert status() == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
        _, status = start(*words_for(tmp_path / "part" / "next", "xgboost", longer, "resume=auto"))
        assert status() == 0, printed.read_text()[-3000:]
    text = printed.read_text()
    assert re.search(r"resume=auto: going on from epoch \d+, step \d+", text)
    assert not list((tmp_path / "part" / "out").glob(".bins*"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model=xgboost", "data.layout=tokens", "data.pad=0"), r"XGBoost needs a batch with one row 'x' per event"),
        (("model=xgboost", "+model.params.dept=3"), r"xgboost refuses its options: Parameters: .* \"dept\""),
        (("model=lightgbm", "model.leafs=3"), r"'model\.leafs' is not an option; nearest: 'model\.leaves'|leafs"),
        (("model=dnn", "data.pad=nan"), r"pad: got nan, and DNN would compute NaN from it"),
        (("model=sklearn", "+model.estimator.max_itr=3"), r"'model\.estimator\.max_itr' is not an option; nearest"),
        (
            ("model=sklearn", "model.estimator._target_=sklearn.linear_model.Perceptron"),
            r"Perceptron gives no probabilities",
        ),
        (("model=sklearn", "model.estimator._target_=sklearn.neighbors.NearestCentroid"), r"pad: got nan"),
    ],
)
def test_what_is_wrong_is_one_sentence_before_the_training(
    home: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    own = [word.replace("OUT", str(tmp_path / "out")) for word in WORDS if "trees" not in word]
    with forking(home, own, printed=tmp_path / "printed") as start:
        _, status = start(*words)
        assert status() == 2
    said = (tmp_path / "printed").read_text().strip().splitlines()
    assert re.search(told, said[-1]), said[-3:]
    assert not list((tmp_path / "out").rglob("*.ckpt"))

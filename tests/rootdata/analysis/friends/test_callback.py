"""What Lightning tests or predicts stands beside the events, entry by entry."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import uproot
from files_for_tests import files_below

from rootdata.analysis.friends.callback import FriendWriter
from rootdata.analysis.friends.predict import predict
from rootdata.errors import ConfigError, DataError, FileError
from rootdata.loading.datamodule import RootDataModule
from rootdata.training import metrics


def arrays(path):
    return uproot.open(path)["Friends"].arrays(library="np")


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=list(callbacks), **quiet, **options)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        yield


def test_a_test_writes_the_scores_of_its_events(analysis, tmp_path):
    predict(analysis.bundle, str(analysis.events), out=tmp_path, parts=True)
    scores, labels, weights = [], [], []
    for number in range(4):
        found = arrays(analysis.run / f"friends/{number}_Friend.root")
        expected = arrays(tmp_path / f"{number}_Friend.root")
        given = expected["selected"] & (expected["part"] == 2)
        assert found["entry"].tolist() == expected["entry"].tolist()
        assert found["selected"].tolist() == given.tolist()
        assert found["score_signal"][given] == pytest.approx(expected["score_signal"][given], abs=2e-6)
        assert found["event"][given].tolist() == expected["event"][given].tolist()
        assert set(found["score_signal"][~given].tolist()) == {-1.0}
        assert not found["weight"][~given].any()
        scores.append(found["score_signal"][given])
        labels.append(found["label"][given])
        weights.append(found["weight"][given])
    told = json.loads((analysis.run / "metrics.json").read_text())
    area = metrics.auc(*map(np.concatenate, (scores, labels)), weight=np.concatenate(weights))
    assert area == pytest.approx(told["auc"], abs=1e-6)
    assert [p.name for p in Path(analysis.run, "friends").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"observers": {"weight": "met"}}, "weight"),
        ({"observers": {"Label": "met"}}, "label"),
        ({"observers": {"score_signal": "met"}}, "score_signal"),
        ({"observers": {"met+1": "met + 1", "met-1": "met - 1"}}, "met_1"),
        ({"weights": {"up": "weight * 2"}, "observers": {"weight_up": "met"}}, "weight_up"),
        ({"classes": ["a b", "a-b", "c"]}, "score_a_b"),
    ],
)
def test_two_columns_of_one_name_are_refused_before_anything_is_read(analysis, tmp_path, changes, name):
    data = RootDataModule(
        {"all": {"files": str(analysis.events / "0.root")}}, flat=["met"], label="is_signal", **changes
    )
    network = Scores(width=1)
    with pytest.raises(ConfigError, match=f"two columns of the friend tree would be called '{name}'"):
        FriendWriter(tmp_path).setup(SimpleNamespace(datamodule=data), network, "fit")


class Scores(pl.LightningModule):
    """A network of somebody's own, which returns its scores alone."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(width, dtype=torch.float32))

    def predict_step(self, batch):
        """Return scores that tell the entry."""
        return batch["index"][:, 2:].float() + self.weight


def test_scores_alone_are_enough(analysis, tmp_path):
    writer = FriendWriter(tmp_path, kind="RNTuple", name="own", fill=-7)
    trainer(writer).predict(Scores(width=2), datamodule=analysis.data, return_predictions=False)
    assert [path.name for path in writer.paths] == [f"{n}_Friend.root" for n in range(4)]
    found = uproot.open(writer.paths[3])["own"].arrays(library="np")
    rows = found["selected"]
    assert 0 < rows.sum() < len(rows)
    assert found["score_background"].tolist() == np.where(rows, found["entry"], -7).tolist()
    assert found["score_signal"].tolist() == np.where(rows, found["entry"] + 1, -7).tolist()


class Regression(Scores):
    """A network that predicts a target, too."""

    targets = ("met [GeV]",)

    def predict_step(self, batch):
        """Return scores, and predictions of the target."""
        entry = batch["index"][:, 2:].float()
        return {"score": entry, "predictions": entry + 0.5}


def test_predictions_of_targets_are_filled_as_scores_are(analysis, tmp_path):
    writer = FriendWriter(tmp_path, fill=-7)
    trainer(writer).predict(Regression(width=1), datamodule=analysis.data, return_predictions=False)
    found = arrays(writer.paths[3])
    assert found["met_GeV"].tolist() == np.where(found["selected"], found["entry"] + 0.5, -7).tolist()


def test_another_model_is_not_written_over(analysis, tmp_path):
    def go(width, **how):
        return trainer(FriendWriter(tmp_path, **how), limit_predict_batches=1).predict(
            Scores(width=width), datamodule=analysis.data
        )

    go(1)
    go(1)
    with pytest.raises(FileError, match=r"holds scores of another model, 'Scores'; .* force=true"):
        go(2)
    go(2, force=True)
    assert "score_background" in arrays(tmp_path / "0_Friend.root")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("o" * 300, "o can't be written .File name too long"), ("taken", "taken can't be written .File exists")],
)
def test_a_folder_that_can_not_be_is_told_in_a_sentence(analysis, tmp_path, name, sentence):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(FileError, match=sentence) as error:
        trainer(FriendWriter(tmp_path / name)).predict(Scores(width=1), datamodule=analysis.data)
    assert "\n" not in str(error.value)
    assert files_below(tmp_path) == ["taken"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", None])
def test_what_is_no_name_of_a_folder_is_refused(name):
    with pytest.raises(ConfigError, match=r"folder: got .*, which can't be the name of a folder"):
        FriendWriter(name)


def test_an_entry_of_two_samples_stands_there_once_where_they_agree(analysis, tmp_path):
    path = f"{analysis.events}/0.root"

    def go(**labels):
        cuts = {"low": "met < 60", "high": "met > 40"}
        samples = {name: {"files": path, "cut": cut, "label": labels[name]} for name, cut in cuts.items()}
        samples["other"] = {"files": f"{analysis.events}/1.root", "label": 0}
        data = RootDataModule(samples, flat=["met"], batch_size=64)
        data.prepare_data()
        trainer(FriendWriter(tmp_path, force=True)).predict(Scores(width=1), datamodule=data, return_predictions=False)

    go(low=1, high=1)
    assert set(arrays(tmp_path / "0_Friend.root")["label"].tolist()) == {-1, 1}
    with pytest.raises(
        DataError, match=r"entry \d+ of \S*0.root is in the samples 'low' and 'high' with another label"
    ):
        go(low=0, high=1)
    assert files_below(tmp_path) == ["0_Friend.root", "1_Friend.root"]


def test_without_a_data_module_nobody_knows_the_files(tmp_path):
    loader = torch.utils.data.DataLoader([{"x": torch.zeros(1)}])
    with pytest.raises(ConfigError, match="has no RootDataModule"):
        trainer(FriendWriter(tmp_path)).predict(Scores(width=1), loader)


@pytest.mark.long
def test_two_ranks_write_what_one_does(analysis, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    trainer(FriendWriter(one)).predict(Scores(width=1), datamodule=analysis.data, return_predictions=False)
    ddp = {"strategy": "ddp_spawn", "devices": 2}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=ResourceWarning)
        trainer(FriendWriter(two), **ddp).predict(Scores(width=1), datamodule=analysis.data, return_predictions=False)
    assert files_below(two) == files_below(one) == [f"{number}_Friend.root" for number in range(4)]
    for number in range(4):
        found, expected = arrays(two / f"{number}_Friend.root"), arrays(one / f"{number}_Friend.root")
        assert list(found) == list(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in found)

"""What a training needs, in any trainer: the table of whole runs is in ``tests/test_wrong_configurations.py``."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rootdata.errors import ConfigError, DataError
from rootdata.loading.datamodule import RootDataModule
from rootdata.models import DNN
from rootdata.training.ready import ReadyCheck


@pytest.fixture(scope="module")
def files(tmp_path_factory, write_tree):
    """Two samples of 200 events with ``x``, and ``w``, of which half are 1 and half -1."""
    folder, rng = tmp_path_factory.mktemp("ready"), np.random.default_rng(0)
    for name in "ab":
        write_tree(folder / f"{name}.root", {"x": rng.normal(size=200), "w": np.tile([1.0, -1.0], 100)}, step=50)
    return folder


def module(files, **options):
    samples = {name: {"files": str(files / f"{name}.root"), "label": label} for label, name in enumerate("ab")}
    defaults = {"flat": ["x"], "batch_size": 50, "split": {"train": 1.0}}
    return RootDataModule(samples, **{**defaults, **options})


class Own(pl.LightningModule):
    """A network of somebody's own, which takes no labels."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch["x"]).square().mean()
        self.log("mine", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, network, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": bool(callbacks), "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    pl.Trainer(**(quiet | options), callbacks=list(callbacks)).fit(network, data)


pytestmark = pytest.mark.filterwarnings("ignore:.*(val_dataloader|Total length of|does not have many workers|LeafSpec)")


def test_weights_of_both_signs_must_not_cancel(files):
    with pytest.raises(DataError, match=r"class 0 .*: the weights of all its 200 training events add up to 0"):
        fit(module(files, weight="w"), DNN({"x": (1,)}))
    with pytest.raises(DataError, match=r"class 0 .*: the weights of all its 200 training events add up to -20;"):
        fit(module(files, weight="w - 0.1"), DNN({"x": (1,)}))  # a density below 0
    fit(module(files, weight="w + 0.01"), DNN({"x": (1,)}))


@pytest.mark.parametrize(
    ("weight", "monitor", "reason"),
    [
        ("where(x > 0, 0, 1)", "val/loss", "monitors 'val/loss', and all events of the val part weigh 0"),
        (
            "where(x > 0, w, 1)",
            "val/auc",
            r"monitors 'val/auc', and the weights of all 100 events of class 0 \('background'\)",
        ),
    ],
)
def test_a_figure_of_events_that_weigh_nothing_is_not_waited_for(tmp_path, write_tree, weight, monitor, reason):
    columns = {"x": np.tile([-1.0, -2.0, 1.0, 2.0], 50), "w": np.tile([1.0, 1.0, 1.0, -1.0], 50)}
    for name in "ab":
        write_tree(tmp_path / f"{name}.root", columns, step=50)
    data = module(tmp_path, weight=weight, split={"by": "x > 0", "val": [1]})
    with pytest.raises(DataError, match=reason):
        fit(data, DNN({"x": (1,)}), ReadyCheck(), pl.callbacks.ModelCheckpoint(tmp_path / "kept", monitor=monitor))


@pytest.mark.parametrize("network", [lambda: DNN({"x": (1,)}), Own])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weight": "w * 0"}, r"training events are 0; check `weight`"),
        ({"batch_size": 1000, "drop_last": True}, r"the 400 events are fewer than a batch of 1000"),
    ],
)
def test_any_network_needs_weights_and_batches(files, network, options, reason):
    with pytest.raises(DataError, match=reason):
        fit(module(files, **options), network())


def test_a_test_of_events_that_weigh_nothing_is_warned_of(files):
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", callbacks=[ReadyCheck()])
    with pytest.warns(UserWarning, match="all events of the test part weigh 0: its figures have no value"):
        trainer.test(
            DNN({"x": (1,)}),
            module(files, weight="where(x > 0, 0, 1)", split={"by": "x > 0", "test": [1]}),
            verbose=False,
        )


def test_a_network_of_ones_own_may_do_without_labels_and_log_what_it_likes(files, tmp_path):
    data = RootDataModule({"all": str(files)}, flat=["x"], batch_size=50, split={"train": 1.0})
    saves = pl.callbacks.ModelCheckpoint(tmp_path, monitor="mine", save_on_train_epoch_end=True)
    fit(data, Own(), ReadyCheck(), saves)
    assert list(tmp_path.iterdir())


def test_what_nobody_logs_is_not_waited_for(files, tmp_path):
    saves = pl.callbacks.ModelCheckpoint(tmp_path, monitor="val/acc")
    with pytest.raises(
        ConfigError, match=r"ModelCheckpoint monitors 'val/acc', which nobody computes; nearest: 'val/auc'"
    ):
        fit(module(files), DNN({"x": (1,)}), ReadyCheck(), saves)


def test_a_regression_alone_has_no_area_to_monitor(files):
    network = DNN({"x": (1,)}, heads={"y": {"kind": "regression", "loss": "mse"}})
    data = module(files, targets={"y": "2 * x"}, split={"train": 0.5, "val": 0.5})
    stopping = pl.callbacks.EarlyStopping(monitor="val/auc", mode="max")
    with pytest.raises(ConfigError, match=r"'val/auc', which nobody computes; .*'val/"):
        fit(data, network, ReadyCheck(), stopping)
    fit(data, network, ReadyCheck(), pl.callbacks.EarlyStopping(monitor="val/rmse"), enable_checkpointing=False)

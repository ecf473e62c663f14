"""Training is stopped at every kind of place and goes on as if nothing had happened."""

import datetime as dt
import itertools
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from rootdata.errors import ResumeError
from rootdata.loading.datamodule import RootDataModule
from strategies import DataSet, FileShape

FILES = DataSet(((FileShape(170, (40,)), FileShape(60, (30,))), (FileShape(120, (45,), "rntuple"),)))
OPTIONS = {
    "flat": ["ht"],
    "jagged": {"jets": {"branches": ["Jet_pt"], "length": 3}},
    "batch_size": 32,
    "chunk_size": 64,
    "split": {"by": "entries", "train": 0.7, "val": 0.3},
    "index": True,
}
BATCHES = 8  # of an epoch: 245 events


# Callbacks that kept the checkpoints of a first run are not there in the second.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    # Said by Lightning whenever an OnExceptionCheckpoint is there.
    pytest.mark.filterwarnings("ignore:.*was called without a model"),
    pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available"),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return FILES.write(tmp_path_factory.mktemp("data"), write_tree)


@pytest.fixture(autouse=True)
def _many_blocks(small_blocks):
    """The files here have several blocks each."""


class Net(pl.LightningModule):
    """Notes the events of every batch that it learnt from."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.constant_(self.layer.bias, 0.0)
        self.log_of_events, self.fails_at = [], fails_at
        self.validated_after = []

    def training_step(self, batch, batch_idx):
        assert set(batch) == {"x", "mask", "label", "weight", "index"}
        assert type(batch) is dict
        if len(self.log_of_events) == self.fails_at:
            raise RuntimeError("out of memory")
        self.log_of_events.append(batch["index"].tolist())
        score = self.layer(batch["x"].nan_to_num()).squeeze(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(score, (batch["label"] > 0).to(score.dtype))

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch["x"].nan_to_num()).mean(), batch_size=len(batch["label"]))

    def on_validation_epoch_end(self):
        self.validated_after.append(len(self.log_of_events))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Saver(Callback):
    """Saves at one hook, each time, under the number of batches that were learnt from."""

    def __init__(self, hook, folder):
        self.folder, self.saved = folder, {}
        setattr(self, hook, self.save)

    def save(self, trainer, module, *_):
        if trainer.sanity_checking:
            return
        done = len(module.log_of_events)
        self.saved[done] = self.folder / f"{done}.ckpt"
        trainer.save_checkpoint(self.saved[done])


def run(samples, tmp_path, *, net=None, callbacks=(), ckpt_path=None, data=(), kind=RootDataModule, **options):
    net = net or Net()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=list(callbacks),
        **{"max_epochs": 3, "num_sanity_val_steps": 1, **options},
    )  # fmt: skip
    trainer.fit(net, kind(samples, **{**OPTIONS, **dict(data)}), ckpt_path=ckpt_path)
    return net


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


HOOKS = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")
LIMITS = ({}, {"limit_train_batches": 5}, {"limit_train_batches": 0.5})
LENGTHS = ({"max_epochs": 3}, {"max_epochs": -1, "max_steps": 11})
ACCUMULATION = (1, 2)
VALIDATION = ({}, {"val_check_interval": 2}, {"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2})
MATRIX = list(itertools.product(HOOKS, LIMITS, LENGTHS, ACCUMULATION, VALIDATION))


def check_resumes(samples, tmp_path, case, *, every):
    """Resume from every checkpoint of a run: the rest of the events is that of the run, and so are the weights."""
    hook, limit, length, accumulation, validation = case
    options = {**limit, **length, **validation, "accumulate_grad_batches": accumulation}
    saver = Saver(hook, tmp_path)
    whole = run(samples, tmp_path, callbacks=[saver], **options)
    for done in list(saver.saved)[::every]:
        net = run(samples, tmp_path, ckpt_path=saver.saved[done], **options)
        rest = whole.log_of_events[done:]
        assert net.log_of_events == rest, (case, done)
        if hook == "on_train_epoch_end":  # others are inside an epoch, which validates at its own places
            validated = [done + n for n in net.validated_after if n]
            assert validated == [n for n in whole.validated_after if n > done], (case, done)
        per_epoch = {"limit_train_batches": BATCHES, **limit}["limit_train_batches"]
        per_epoch = int(per_epoch * BATCHES) if isinstance(per_epoch, float) else per_epoch
        if done % per_epoch % accumulation == 0:  # no gradient was pending, which no checkpoint holds
            assert torch.equal(weights(net), weights(whole)), (case, done)


@pytest.mark.parametrize("case", MATRIX[::29], ids=str)
def test_a_resumed_training_sees_what_the_unbroken_one_saw(samples, tmp_path, case):
    check_resumes(samples, tmp_path, case, every=5)


@pytest.mark.long
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.matrix) for part in range(1, 6))])
def test_the_whole_matrix_of_resumes(samples, tmp_path, part):
    for case in MATRIX[part::6]:
        check_resumes(samples, tmp_path, case, every=3)


def test_the_epochs_are_shuffled_each_in_its_own_way(samples, tmp_path):
    seen = run(samples, tmp_path).log_of_events
    assert len(seen) == 3 * BATCHES
    epochs = [sorted(e for batch in seen[i : i + BATCHES] for e in batch) for i in range(0, len(seen), BATCHES)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len({str(seen[i]) for i in range(0, len(seen), BATCHES)}) == 3


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (0, 4)])
def test_other_readers_and_queues_change_nothing(samples, tmp_path, before, after):
    saver = Saver("on_train_batch_end", tmp_path)
    data = {"num_workers": before, "prefetch": 3}
    whole = run(samples, tmp_path, callbacks=[saver], data=data, max_epochs=2)
    net = run(samples, tmp_path, ckpt_path=saver.saved[5], data={"num_workers": after, "prefetch": 0}, max_epochs=2)
    assert net.log_of_events == whole.log_of_events[5:]
    assert torch.equal(weights(net), weights(whole))


@pytest.mark.parametrize("fails_at", [0, 5, BATCHES, 2 * BATCHES - 1])
def test_a_checkpoint_made_by_an_exception_gives_the_failed_batch_again(samples, tmp_path, fails_at):
    whole = run(samples, tmp_path, max_epochs=2)
    keeper = OnExceptionCheckpoint(tmp_path, "broken")
    with pytest.raises(RuntimeError, match="out of memory"):
        run(samples, tmp_path, net=Net(fails_at), callbacks=[keeper], max_epochs=2)
    net = run(samples, tmp_path, ckpt_path=tmp_path / "broken.ckpt", max_epochs=2)
    assert net.log_of_events == whole.log_of_events[fails_at:]
    assert torch.equal(weights(net), weights(whole))


def test_the_last_checkpoint_by_time_goes_on(samples, tmp_path):
    saver = ModelCheckpoint(tmp_path, train_time_interval=dt.timedelta(microseconds=1), save_last=True)
    stopped = run(samples, tmp_path, callbacks=[saver], max_epochs=-1, max_steps=13)
    assert len(stopped.log_of_events) == 13
    whole = run(samples, tmp_path, max_epochs=3)
    net = run(samples, tmp_path, ckpt_path=saver.last_model_path, max_epochs=3)
    assert net.log_of_events == whole.log_of_events[13:]
    assert torch.equal(weights(net), weights(whole))


@pytest.mark.parametrize("steps", [3, BATCHES, BATCHES + 4])
def test_an_epoch_that_a_limit_of_steps_ended_early_is_gone_on_with(samples, tmp_path, steps):
    saver = Saver("on_train_epoch_end", tmp_path)
    run(samples, tmp_path, callbacks=[saver], max_steps=steps)
    whole = run(samples, tmp_path)
    net = run(samples, tmp_path, ckpt_path=saver.saved[steps])
    assert net.log_of_events == whole.log_of_events[steps:]
    assert [steps + n for n in net.validated_after if n] == [n for n in whole.validated_after if n > steps]
    assert torch.equal(weights(net), weights(whole))


class OneCycle(Net):
    """Asks for the number of steps before training, which makes Lightning drop the state of loaders."""

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.02, total_steps=self.trainer.estimated_stepping_batches
        )
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]


def test_a_schedule_over_all_steps_goes_on(samples, tmp_path):
    saver = Saver("on_train_batch_end", tmp_path)
    whole = run(samples, tmp_path, net=OneCycle(), callbacks=[saver])
    net = run(samples, tmp_path, net=OneCycle(), ckpt_path=saver.saved[13])
    assert net.log_of_events == whole.log_of_events[13:]
    assert torch.equal(weights(net), weights(whole))


def test_resuming_twice_is_resuming_once(samples, tmp_path):
    whole = run(samples, tmp_path)
    first = Saver("on_train_batch_end", tmp_path)
    run(samples, tmp_path, callbacks=[first], max_epochs=1)
    second = Saver("on_train_batch_end", tmp_path)
    run(samples, tmp_path, callbacks=[second], ckpt_path=first.saved[3], max_epochs=2)
    net = run(samples, tmp_path, ckpt_path=second.saved[9])  # nine more, twelve in all
    assert net.log_of_events == whole.log_of_events[12:]


def test_a_training_that_is_over_goes_on_with_more_epochs(samples, tmp_path):
    saver = Saver("on_train_epoch_end", tmp_path)
    run(samples, tmp_path, callbacks=[saver], max_epochs=1)
    net = run(samples, tmp_path, ckpt_path=saver.saved[BATCHES], max_epochs=3)
    assert net.log_of_events == run(samples, tmp_path).log_of_events[BATCHES:]


# What a trainer makes of batches and loaders

PRECISIONS = {
    "32-true": torch.float32, "64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16,
    "16-mixed": torch.float32, "bf16-mixed": torch.float32,
}  # fmt: skip


class Typed(Net):
    """Notes of which types the tensors are."""

    def training_step(self, batch, batch_idx):
        self.dtypes = {name: values.dtype for name, values in batch.items()}
        return super().training_step(batch, batch_idx)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:You passed .*precision='16-mixed'")  # which on a CPU is that of bfloat16
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_place_outlives_any_precision_and_whole_numbers_stay_whole(samples, tmp_path, precision):
    saver, kind = Saver("on_train_batch_end", tmp_path), PRECISIONS[precision]
    whole = run(samples, tmp_path, net=Typed(), callbacks=[saver], precision=precision, max_epochs=2)
    exact = {"mask": torch.bool, "label": torch.int64, "index": torch.int64}
    assert whole.dtypes == {"x": kind, "weight": kind, **exact}
    for done in (3, BATCHES, BATCHES + 2):
        net = run(samples, tmp_path, net=Typed(), ckpt_path=saver.saved[done], precision=precision, max_epochs=2)
        assert net.log_of_events == whole.log_of_events[done:]
        if precision == "64-true":  # Lightning loads weights in single precision
            torch.testing.assert_close(weights(net), weights(whole), atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(weights(net), weights(whole), atol=0, rtol=0, equal_nan=True)


class Rebuilding(Precision):
    """Makes another kind of thing of every batch."""

    def convert_input(self, data):
        return SimpleNamespace(**{name: values.clone() for name, values in data.items()})


class OnNamespaces(Net):
    """Takes that kind of thing."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return vars(batch)


@pytest.mark.filterwarnings("ignore:You have overridden `transfer_batch_to_device` in `LightningModule`")
def test_the_place_outlives_a_plug_in_that_rebuilds_batches(samples, tmp_path):
    saver = Saver("on_train_batch_end", tmp_path)
    whole = run(samples, tmp_path, net=OnNamespaces(), callbacks=[saver], plugins=[Rebuilding()])
    assert len(whole.log_of_events) == 3 * BATCHES
    for done in (3, BATCHES, BATCHES + 2):
        net = run(samples, tmp_path, net=OnNamespaces(), ckpt_path=saver.saved[done], plugins=[Rebuilding()])
        assert net.log_of_events == whole.log_of_events[done:]


class OfTwo(Net):
    """Takes batches out of a dict of them."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["events"], batch_idx)


def beside(mode, others):
    """Make a kind of data module whose events come beside those of another loader."""

    class Beside(RootDataModule):
        def train_dataloader(self):
            other = DataLoader(others, batch_size=None)
            return CombinedLoader({"other": other, "events": super().train_dataloader()}, mode)

    return Beside


class Endless(IterableDataset):
    """A data set without a length: a trainer takes one batch ahead of its time."""

    def __iter__(self):
        return itertools.count()


COMBINED = {
    "shorter": ("min_size", range(5)),
    "longer": ("min_size", range(50)),
    "shorter, again and again": ("max_size_cycle", range(5)),
    "longer, so that events come again and again": ("max_size_cycle", range(11)),
    "without a length": ("min_size", Endless()),
}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")  # of the other loader
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("other", COMBINED)
def test_a_resumed_training_with_another_loader_beside(samples, tmp_path, other, hook):
    saver, kind = Saver(hook, tmp_path), beside(*COMBINED[other])
    whole = run(samples, tmp_path, net=OfTwo(), callbacks=[saver], kind=kind, max_epochs=2)
    places = list(saver.saved)
    for done in places[:: 1 + len(places) // 5]:
        net = run(samples, tmp_path, net=OfTwo(), ckpt_path=saver.saved[done], kind=kind, max_epochs=2)
        assert net.log_of_events == whole.log_of_events[done:], done


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 42, now 1"),
        ({"batch_size": 16}, "batch_size was 32, now 16"),
        ({"cut": "ht > 5"}, "cut was None"),
        ({"flat": ["ht", "nlep"]}, "flat had 1, now 2"),
    ],
)
def test_other_events_are_refused_in_training_alone(samples, tmp_path, change, named):
    saver = Saver("on_train_batch_end", tmp_path)
    net = run(samples, tmp_path, callbacks=[saver], max_epochs=1)
    with pytest.raises(ResumeError, match=named):
        run(samples, tmp_path, ckpt_path=saver.saved[3], data=change, max_epochs=2)
    if "flat" not in change:  # which the network itself could not take
        quiet = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
        quiet.validate(net, RootDataModule(samples, **{**OPTIONS, **change}), ckpt_path=saver.saved[3], verbose=False)

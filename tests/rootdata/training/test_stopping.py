import os
import signal
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from trainings_for_tests import STEPS, Dropping, bits, train, write_numbers

from rootdata.loading.datamodule import RootDataModule
from rootdata.shutdown.ranks import EndOnSignal, ranks_here
from rootdata.shutdown.signals import Ending, Stopped
from rootdata.training.seeding import SeededSteps
from rootdata.training.stopping import SaveWhenStopped

AT = STEPS + 4  # in the middle of the second epoch
LAST = STEPS - 1  # of the first epoch


class StopError(RuntimeError):
    """Raised by the tests."""


class Stopping(Dropping):
    """A network that fails at a place of a step."""

    def __init__(self, place=None, *, at=AT, **options):
        super().__init__(**options)
        self.place, self.at = place, at

    def fail(self, place, *, is_ready=True):
        counts = self.trainer.fit_loop.epoch_loop.batch_progress.current
        number = self.trainer.current_epoch * STEPS + counts.ready - is_ready
        if self.place == place and number == self.at:
            raise StopError

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.fail("fetched", is_ready=False)
        return batch

    def training_step(self, batch, batch_idx):
        self.fail("before")
        loss = super().training_step(batch, batch_idx)
        self.fail("forward")
        return loss

    def on_after_backward(self):
        self.fail("backward")

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)
        self.fail("step")

    def on_train_batch_end(self, *_):
        self.fail("after")


class Terminated(Stopping):
    """A network that gets SIGTERM at a place of a step."""

    def fail(self, place, **options):
        try:
            super().fail(place, **options)
        except StopError:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def file(tmp_path_factory, write_tree):
    return write_numbers(tmp_path_factory.mktemp("numbers"), write_tree)


def callbacks(path):
    return [SaveWhenStopped(path), SeededSteps(7)]


def stopped(file, path, network):
    with pytest.raises(StopError):
        train(file, callbacks(path), network=network)
    return path.exists()


@pytest.fixture(scope="module")
def unbroken(file):
    numbers = Numbers()
    return bits(train(file, [SeededSteps(7), numbers])), numbers.seen


class Numbers(pl.Callback):
    """Notes how the trainer numbers its batches."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx))


HOOKED = pytest.mark.filterwarnings("ignore:.*overridden `on_before_batch_transfer`")
PLACES = ["fetched", "before", "forward", "backward", "after"]


@HOOKED
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("at", [1, LAST, AT, 2 * STEPS - 1])
def test_what_was_stopped_goes_on_as_if_it_had_not_been(file, tmp_path, unbroken, place, at):
    path, numbers = tmp_path / "folder" / "stopped.ckpt", Numbers()
    torch.manual_seed(1)
    assert stopped(file, path, Stopping(place, at=at))
    assert bits(train(file, [*callbacks(path), numbers], ckpt_path=path)) == unbroken[0]
    assert numbers.seen == unbroken[1][at + (place == "after") :]
    assert not path.exists()  # all is well


@HOOKED
@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("second", PLACES)
def test_what_was_stopped_twice_goes_on_as_if_it_had_not_been(file, tmp_path, unbroken, first, second):
    path, numbers = tmp_path / "folder" / "stopped.ckpt", Numbers()
    torch.manual_seed(1)
    assert stopped(file, path, Stopping(first, at=3))
    with pytest.raises(StopError):
        train(file, callbacks(path), network=Stopping(second, at=LAST), ckpt_path=path)
    assert bits(train(file, [*callbacks(path), numbers], ckpt_path=path)) == unbroken[0]
    assert numbers.seen == unbroken[1][LAST + (second == "after") :]


def test_half_changed_weights_are_not_saved(file, tmp_path):
    assert not stopped(file, tmp_path / "stopped.ckpt", Stopping("step"))


@pytest.mark.parametrize(("place", "is_saved"), [("forward", False), ("after", True)])
def test_means_that_changed_in_the_forward_pass_are_not_saved(file, tmp_path, place, is_saved):
    assert stopped(file, tmp_path / "stopped.ckpt", Stopping(place, norm=True)) is is_saved


def test_an_error_before_the_first_step_comes_through(tmp_path):
    with pytest.raises(OSError, match="absent"):
        train(tmp_path / "absent.root", callbacks(tmp_path / "stopped.ckpt"))
    assert not list(tmp_path.iterdir())


def test_a_test_leaves_what_a_stopped_training_left(tmp_path):
    path = tmp_path / "stopped.ckpt"
    path.touch()
    SaveWhenStopped(path).teardown(pl.Trainer(logger=False, accelerator="cpu"), Dropping(), "test")
    assert path.exists()


def test_sigterm_saves_between_two_steps(file, tmp_path):
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        train(file, callbacks(path), network=Terminated("forward"))
    assert torch.load(path, weights_only=True)["global_step"] == AT + 1


# Signals, in a process without other ranks


@pytest.fixture(autouse=True)
def _plain_signals():
    """Signals that nobody has taken over, or told to be ignored; whoever runs the tests has them back afterwards."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


class Once(Dropping):
    """Gets a signal at one of its hooks, and can do everything that a trainer asks for."""

    def __init__(self, hook, signum, *, batch=0):
        super().__init__()
        self.signum, self.batch, self.hook = signum, batch, hook
        setattr(self, hook, self.get)

    def get(self, *arguments):
        number = arguments[-1] if arguments and isinstance(arguments[-1], int) else self.batch
        if number == self.batch and not self.trainer.sanity_checking:
            signal.raise_signal(self.signum)

    def validation_step(self, batch, batch_idx):
        self.network(batch["x"])

    test_step = predict_step = validation_step


def carry_out(file, stage, hook, signum, *, batch=0, kind=pl, folder):
    trainer = kind.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[EndOnSignal()], enable_checkpointing=False, logger=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    share = {"train": 0.5, "val": 0.25, "test": 0.25}
    data = RootDataModule({"a": str(file)}, flat=["x0", "x1", "x2", "x3"], batch_size=25, label="0", split=share)
    getattr(trainer, stage)(Once(hook, signum, batch=batch), datamodule=data)


HOOKS = [
    ("fit", "on_fit_start"), ("fit", "on_train_start"), ("fit", "on_train_batch_start"), ("fit", "on_train_epoch_end"),
    ("fit", "on_validation_batch_start"), ("fit", "on_train_end"), ("validate", "on_validation_batch_start"),
    ("validate", "on_validation_end"), ("test", "on_test_batch_start"), ("test", "on_test_end"),
    ("predict", "on_predict_batch_start"), ("predict", "on_predict_end"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|predict returned None)")
@pytest.mark.parametrize(("stage", "hook"), HOOKS)
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])  # the second is Lightning's
def test_no_signal_is_forgotten_at_any_stage(file, tmp_path, stage, hook, signum, status):
    with pytest.raises(SystemExit) as caught:
        carry_out(file, stage, hook, signum, folder=tmp_path)
    assert caught.value.code == status
    assert Ending.current() is None


@pytest.mark.parametrize("batch", [0, 5])
def test_the_last_batch_of_a_test_is_like_the_others(file, tmp_path, batch):
    with pytest.raises(Stopped):
        carry_out(file, "test", "on_test_batch_end", signal.SIGTERM, batch=batch, folder=tmp_path)


def test_it_works_in_the_other_distribution_of_lightning(file, tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def test_step(self, batch, batch_idx):
            signal.raise_signal(signal.SIGTERM)

    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[EndOnSignal()], logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    data = RootDataModule({"a": str(file)}, flat=["x0", "x1", "x2", "x3"], batch_size=500, label="0")
    with pytest.raises(Stopped):
        trainer.test(Net(), datamodule=data, verbose=False)


def test_signals_are_given_back_after_a_training(file):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    train(file, [EndOnSignal(), *callbacks(file.with_name("stopped.ckpt"))])
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    assert Ending.current() is None


def test_sigterm_waits_for_the_step_as_without_it(file, tmp_path):
    path = tmp_path / "stopped.ckpt"
    torch.manual_seed(1)
    with pytest.raises(SystemExit) as caught:
        train(file, [EndOnSignal(), *callbacks(path)], network=Terminated("forward"))
    assert caught.value.code == 143
    assert torch.load(path, weights_only=True)["global_step"] == AT + 1
    assert bits(train(file, callbacks(path), ckpt_path=path)) == bits(train(file, callbacks(path)))


def test_the_door_into_lightning_is_there():
    """What ``EndOnSignal`` replaces is no public part of Lightning."""
    connector = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)._signal_connector
    assert callable(connector._sigterm_notifier_fn)
    assert connector.received_sigterm is False


def test_one_process_is_all_ranks_here(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert ranks_here(1) == [os.getpid()]
    finally:
        torch.distributed.destroy_process_group()


REQUEUED = """
import os, signal, sys
import pytorch_lightning as pl, torch
from pytorch_lightning.plugins.environments import SLURMEnvironment
from rootdata.shutdown.ranks import EndOnSignal

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

loader = torch.utils.data.DataLoader(torch.zeros(8, 1, 1), batch_size=None)
trainer = pl.Trainer(
    accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[EndOnSignal()], default_root_dir=sys.argv[1], max_epochs=1,
    plugins=[SLURMEnvironment()],
)
trainer.fit(Net(), loader)
"""


@pytest.mark.long
def test_slurm_requeues_on_sigusr1_as_lightning_has_it(tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked.txt\n')
    scontrol.chmod(0o755)
    slurm = {
        "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "training", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "SLURM_NNODES": "1",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", REQUEUED, str(tmp_path)], env={**os.environ, **slurm}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 143, done.stderr
    assert (tmp_path / "asked.txt").read_text() == "requeue 7\n"
    assert torch.load(tmp_path / "hpc_ckpt_1.ckpt", weights_only=True)["global_step"] == 2

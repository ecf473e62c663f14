import signal

import pytest
import pytorch_lightning as pl
import torch
from trainings_for_tests import STEPS, Dropping, bits, train, write_numbers

from rootdata.seeding import SeededSteps
from rootdata.stopping import SaveWhenStopped

AT = STEPS + 4  # in the middle of the second epoch


class StopError(RuntimeError):
    """Raised by the tests."""


class Stopping(Dropping):
    """A network that fails at a place of a step."""

    def __init__(self, place=None, **options):
        super().__init__(**options)
        self.place = place

    def fail(self, place):
        if self.place == place and self.trainer.fit_loop.epoch_loop.total_batch_idx == AT:
            raise StopError

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


@pytest.fixture(scope="module")
def file(tmp_path_factory, write_tree):
    return write_numbers(tmp_path_factory.mktemp("numbers"), write_tree)


def callbacks(path):
    return [SaveWhenStopped(path), SeededSteps(7)]


def stopped(file, path, network):
    with pytest.raises(StopError):
        train(file, callbacks(path), network=network)
    return path.exists()


@pytest.mark.parametrize("place", ["before", "forward", "backward", "after"])
def test_what_was_stopped_goes_on_as_if_it_had_not_been(file, tmp_path, place):
    path = tmp_path / "folder" / "stopped.ckpt"
    torch.manual_seed(1)
    assert stopped(file, path, Stopping(place))
    assert bits(train(file, callbacks(path), ckpt_path=path)) == bits(train(file, callbacks(path)))
    assert not path.exists()  # all is well


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
    class Term(Stopping):
        def fail(self, place):
            if place == "forward" and self.trainer.fit_loop.epoch_loop.total_batch_idx == AT:
                signal.raise_signal(signal.SIGTERM)

    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        train(file, callbacks(path), network=Term())
    assert torch.load(path, weights_only=True)["global_step"] == AT + 1

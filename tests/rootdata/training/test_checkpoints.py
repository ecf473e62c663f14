"""Checkpoints on disks that fill up, and of processes that are killed."""

import importlib.util
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import files_below
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import AsyncCheckpointIO
from trainings_for_tests import STEPS, bits, train, write_numbers

from rootdata.errors import FileError
from rootdata.training.checkpoints import AtomicCheckpointIO
from rootdata.training.seeding import SeededSteps
from rootdata.training.stopping import SaveWhenStopped


@pytest.fixture(scope="module")
def file(tmp_path_factory, write_tree):
    return write_numbers(tmp_path_factory.mktemp("numbers"), write_tree)


def last(folder):
    """Save every three steps, under one name."""
    return ModelCheckpoint(folder, "last", every_n_train_steps=3, enable_version_counter=False)


class Fill(pl.Callback):
    """Leave no room on a disk from a step on."""

    def __init__(self, place, *, step):
        self.place, self.step = place, step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            room = os.statvfs(self.place).f_bavail * os.statvfs(self.place).f_bsize
            (self.place / "filler").write_bytes(bytes(room))


def test_a_disk_that_fills_leaves_the_checkpoint_before_and_one_sentence(file, mount, tmp_path):
    place = mount("1m")
    assert place.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
    path, stopped = place / "last.ckpt", place / "stopped.ckpt"
    seeded = SeededSteps(7)
    callbacks = [seeded, last(place), Fill(place, step=STEPS + 1), SaveWhenStopped(stopped)]
    with (
        pytest.warns(UserWarning, match=r"checkpoint .*stopped\.ckpt can't be written"),
        pytest.raises(FileError) as told,
    ):
        train(file, callbacks, plugins=AtomicCheckpointIO())
    assert str(told.value) == (
        f"checkpoint {path} can't be written (No space left on device); the ones before are whole; make room or choose "
        "another place, and go on from the last"
    )
    assert files_below(place) == ["filler", "last.ckpt"]
    assert torch.load(path, weights_only=True)["global_step"] == STEPS
    (place / "filler").unlink()
    again = train(file, [seeded, last(place)], plugins=AtomicCheckpointIO(), ckpt_path=path)
    assert bits(again) == bits(train(file, [seeded, last(tmp_path)]))


def test_whatever_room_is_left_a_checkpoint_is_the_old_one_or_the_new(mount):
    place, io = mount("1m"), AtomicCheckpointIO()
    path, seen = place / "a.ckpt", []
    content = {"weights": [torch.full((1000,), 2.0) for _ in range(15)], "words": list(range(2000))}
    for free in range(0, 120_000, 4096):
        io.save_checkpoint({"old": 1}, path)
        room = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
        (place / "filler").write_bytes(bytes(room - free))
        try:
            io.save_checkpoint(content, path)
        except FileError:
            seen.append("old")
        else:
            seen.append("new")
        assert set(torch.load(path)) == ({"old"} if seen[-1] == "old" else {"weights", "words"})
        assert files_below(place) == ["a.ckpt", "filler"]
        (place / "filler").unlink()
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"old", "new"}


def save_until_killed(path, begun):
    try:
        os.write(begun, b"x")
        content = {"weights": torch.ones(300_000), "number": 0}
        while True:
            content["number"] += 1
            AtomicCheckpointIO().save_checkpoint(content, path)
    finally:
        os._exit(1)


@pytest.mark.long
def test_killed_while_it_saves_it_leaves_the_one_before_and_nothing_more_after_the_next(tmp_path):
    path, moments, left = tmp_path / "a.ckpt", random.Random(5), []
    while len(left) < 20 or (sum(left) <= 3 and len(left) < 500):  # some have to be in the midst of it
        AtomicCheckpointIO().save_checkpoint({"number": 0}, path)
        assert files_below(tmp_path) == ["a.ckpt"]
        begins, begun = os.pipe()
        pid = os.fork()
        if not pid:
            save_until_killed(path, begun)
        os.read(begins, 1)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        os.close(begins)
        os.close(begun)
        assert torch.load(path, weights_only=True)["number"] >= 0
        left.append(len(files_below(tmp_path)) - 1)
    assert sum(left) > 3


def test_an_error_that_is_no_disks_is_told_as_it_is(tmp_path):
    with pytest.raises(AttributeError, match="local object"):
        AtomicCheckpointIO().save_checkpoint({"hook": lambda: None}, tmp_path / "a.ckpt")
    assert files_below(tmp_path) == []


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"file/a\.ckpt can't be written \(.*; the ones before are whole"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "file" / "a.ckpt")


def test_what_is_no_local_path_is_left_to_lightning(tmp_path):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"a": 1}, "memory://rootdata/a.ckpt")
    assert io.load_checkpoint("memory://rootdata/a.ckpt", weights_only=True) == {"a": 1}
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"a": 1})


def test_a_checkpoint_is_read_and_removed_as_lightning_does(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "deep" / "a.ckpt"
    io.save_checkpoint({"a": torch.ones(3)}, str(path))
    assert io.load_checkpoint(path)["a"].tolist() == [1, 1, 1]
    io.remove_checkpoint(path)
    assert files_below(tmp_path) == ["deep"]


def test_it_may_save_beside_the_training(file, tmp_path):
    train(file, [last(tmp_path)], plugins=AsyncCheckpointIO(AtomicCheckpointIO()))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2 * STEPS


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="the other distribution is not installed")
def test_it_serves_the_trainers_of_both_distributions():
    import lightning

    for trainer in (pl.Trainer, lightning.Trainer):
        io = AtomicCheckpointIO()
        made = trainer(plugins=io, logger=False, accelerator="cpu", enable_checkpointing=False)
        assert made.strategy.checkpoint_io is io

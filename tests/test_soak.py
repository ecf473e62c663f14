"""A training that is killed again and again, and resumed by the same command, against one that is left alone."""

import json
import os
import random
import signal
import time

import pytest
import torch

from forks_for_tests import forking, make_home

KILLS = 20
PATIENCE = 120  # seconds for what takes one

WORDS = [
    "data=mine", "data.batch_size=50", "data.chunk_size=200", "data.index=true", "model.hidden=[16,16]",
    "model.dropout=0.3", "trainer=cpu", "trainer.max_epochs=6", "+trainer.gradient_clip_algorithm=norm",
    "trainer.gradient_clip_val=1.0", "trainer.val_check_interval=11", "trainer.enable_progress_bar=false",
    "trainer.enable_model_summary=false", "~callbacks.progress", "callbacks.score_report.plots=false",
    "trainer.num_sanity_val_steps=0", "callbacks.early_stopping.patience=100", "export=false",
    "paths.latest=null", "resume=auto",
    "callbacks.recent.train_time_interval=null", "+callbacks.recent.every_n_train_steps=3",
    "+callbacks.log._target_=soak_log.EventLog",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_tree):
    return make_home(tmp_path_factory.mktemp("soak"), write_tree)


@pytest.fixture(scope="module")
def start(home):
    """Start train.py with further words; return its process number and a function that waits for its status."""
    with forking(home, WORDS, printed=home / "printed.txt") as start:
        yield start


class Run:
    """A training that may take several processes: each is given a folder of its own, and all write one log."""

    def __init__(self, folder, start):
        self.folder, self.log, self.number = folder, folder / "log.jsonl", 0
        folder.mkdir()
        self._start = start

    def process(self, *words):
        """Start a process; return its number, and a function that waits for its status."""
        self.number += 1
        own = [f"hydra.run.dir={self.folder}/{self.number:02d}", f"+callbacks.log.path={self.log}"]
        return self._start(*own, *words)

    def count(self, kind):
        return self.log.read_bytes().count(f'["{kind}"'.encode()) if self.log.exists() else 0

    def batches(self):
        """Map (epoch, batch) to all that was logged for it."""
        found = {}
        for kind, *content in map(json.loads, self.log.read_text().splitlines()):
            if kind == "train":
                found.setdefault(tuple(content[:2]), []).append(content[2:])
        return found

    def outcome(self):
        """Return weights, state of the optimizer, and what the test gave; all processes wrote into one folder."""
        (path,) = self.folder.glob("*/checkpoints/last.ckpt")
        content = torch.load(path, weights_only=True)
        metrics = json.loads((path.parents[1] / "metrics.json").read_text())
        return bits([content["state_dict"], content["optimizer_states"]]), metrics


def bits(value):
    """Replace tensors by lists, which are equal or not."""
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(inner) for inner in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.fixture(scope="module")
def unbroken(home, start):
    """A training that nobody disturbed, and the seconds that it took."""
    run, begin = Run(home / "unbroken", start), time.monotonic()
    finish(run)
    return run, time.monotonic() - begin


def finish(run, *words, status=0):
    _, wait = run.process(*words)
    assert wait() == status, (run.folder.parent / "printed.txt").read_text()[-3000:]


def wait_for(run, kind, *, n_events, pid):
    """Wait until a process has logged so many more events of a kind."""
    goal, deadline = run.count(kind) + n_events, time.monotonic() + PATIENCE
    while run.count(kind) < goal:
        assert time.monotonic() < deadline, (kind, (run.folder.parent / "printed.txt").read_text()[-3000:])
        os.kill(pid, 0)
        time.sleep(0.001)


def assert_same(run, unbroken):
    """Check that every batch, each time it was seen, and all that came of them, are those of an unbroken training."""
    expected, got = unbroken.batches(), run.batches()
    assert got.keys() == expected.keys()
    for place, (content,) in expected.items():
        assert all(again == content for again in got[place]), place
    assert run.outcome() == unbroken.outcome()


@pytest.mark.long
def test_killed_at_twenty_moments_it_ends_as_if_nothing_had_happened(home, start, unbroken):
    whole, seconds = unbroken
    run, moments = Run(home / "killed", start), random.Random(20)
    kinds = ["start"] * 4 + ["train"] * 8 + ["validation"] * 4 + ["saving"] * 4
    assert len(kinds) == KILLS
    moments.shuffle(kinds)
    for kind in kinds:
        pid, wait = run.process()
        if kind == "start":
            time.sleep(moments.uniform(0, seconds / 4))
        else:
            wait_for(run, kind, n_events=moments.randint(1, 4), pid=pid)
            time.sleep(moments.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        assert wait() == -signal.SIGKILL
    finish(run)
    assert_same(run, whole)
    assert run.count("train") > whole.count("train") > 150  # what no checkpoint held was done again
    assert len(list(run.folder.glob("*/checkpoints/recent_*.ckpt"))) <= 2  # the last, and the one resumed from


@pytest.mark.long
def test_stopped_by_ctrl_c_and_sigterm_it_ends_as_if_nothing_had_happened(home, start, unbroken):
    run = Run(home / "stopped", start)
    for signum, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        pid, wait = run.process("callbacks.recent.every_n_train_steps=1000")
        wait_for(run, "train", n_events=15, pid=pid)
        os.kill(pid, signum)
        assert wait() == status, (home / "printed.txt").read_text()[-3000:]
    finish(run)
    assert_same(run, unbroken[0])


@pytest.mark.long
@pytest.mark.parametrize("words", [[], ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=1"]])
def test_what_is_finished_is_tested_again(home, start, words):
    run = Run(home / f"finished{len(words)}", start)
    finish(run, "trainer.max_epochs=2", *words)
    batches, outcome = run.batches(), run.outcome()
    finish(run, "trainer.max_epochs=2", *words)
    assert run.batches() == batches
    assert run.outcome() == outcome

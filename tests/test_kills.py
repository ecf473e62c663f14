"""Trainings that are killed at any moment, started in pairs, or meet a full disk: what is left belongs together."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import threading
import time

import pytest
import torch
import yaml
from matplotlib.image import imread

from forks_for_tests import forking, make_home
from rootdata.app import rebuild
from rootdata.bundle.manifest import open_bundle
from rootdata.training import metrics

pytestmark = pytest.mark.matrix

PATIENCE = 120  # seconds for what takes one
WORDS = [
    "data=mine", "data.batch_size=100", "data.chunk_size=400", "model.dropout=0.3", "trainer=cpu",
    "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
    "trainer.log_every_n_steps=1", "trainer.num_sanity_val_steps=0", "~callbacks.progress",
    "callbacks.recent.train_time_interval=null", "+callbacks.recent.every_n_train_steps=3",
    "+callbacks.log._target_=soak_log.EventLog", "data.index=true", "callbacks.score_report.plots=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_tree):
    return make_home(tmp_path_factory.mktemp("kills"), write_tree)


def training(home, number):
    """Start train.py, logging to a file of this number, from a process of its own."""
    log = f"+callbacks.log.path={home}/log{number}"
    return forking(home, [*WORDS, log], printed=home / f"{number}.txt")


@pytest.fixture
def start(home):
    with training(home, 0) as start:
        yield start


@pytest.fixture(scope="module")
def starts(home):
    """Start train.py from two processes, so that two trainings run at the same time."""
    with training(home, 0) as one, training(home, 1) as other:
        yield [one, other]


# What is left


READERS = {
    ".ckpt": lambda path: torch.load(path, weights_only=True)["loops"],
    ".json": lambda path: json.loads(path.read_text()),
    ".yaml": lambda path: yaml.safe_load(path.read_text()),
    ".png": imread,
    ".onnx": lambda path: open_bundle(path.parent),
    ".csv": lambda path: whole_lines(path.read_text()),
}


def whole_lines(text):
    assert text.endswith("\n")
    rows = list(csv.reader(text.splitlines()))
    assert {len(row) for row in rows} == {len(rows[0])}
    return rows


class Outputs:
    """What trainings leave below a folder; files that were looked at before are not read again."""

    def __init__(self, folder):
        self.folder, self._seen = folder, set()

    def check_whole(self):
        """Read every file under its final name."""
        for path in self.folder.rglob("*"):
            if path.name.startswith(".") or any(part.endswith(".partial") for part in path.parts) or path.is_dir():
                continue
            status = path.stat()
            stamp = (path, status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp not in self._seen and path.suffix != ".log":
                assert READERS[path.suffix](path) is not None, path
                self._seen.add(stamp)

    def runs(self):
        return sorted(path.parent for path in self.folder.rglob("config.yaml") if path.parent.name != ".hydra")

    def check_nothing_is_left(self):
        left = [p for p in self.folder.rglob("*") if ".partial" in p.name or p.name.endswith("lock")]
        assert left == []


def check_belongs_together(run):
    """Compare configuration, checkpoints, metrics and bundle of a training; return its seed."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    seed, rate = config["seed"], config["model"]["lr"]
    checkpoints = list((run / "checkpoints").glob("*.ckpt"))
    for path in checkpoints:
        assert torch.load(path, weights_only=True)["hyper_parameters"]["lr"] == rate, path
    if (run / "metrics.json").exists():
        best = max(p for p in checkpoints if p.name.startswith("epoch"))
        written = json.loads((run / "metrics.json").read_text())
        network, data, _ = rebuild.rebuild(best)
        network.eval()
        with torch.no_grad():
            batches = list(data.test_dataloader())
            scores = torch.cat([network.scores(batch) for batch in batches]).numpy()
        label = torch.cat([batch["label"] for batch in batches]).numpy()
        assert metrics.auc(scores, label) == pytest.approx(written["auc"], abs=1e-6)
        if (run / "bundle").exists():
            manifest = open_bundle(run / "bundle")
            assert manifest.metrics["auc"] == written["auc"]
            assert (manifest.training["seed"], manifest.training["model"]["lr"]) == (seed, rate)
    return seed


def told(folder):
    """Return the seed that Hydra was told."""
    words = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    return int(next(word for word in words if word.startswith("seed=")).removeprefix("seed="))


def words_of(seed):
    return [f"seed={seed}", f"model.lr={seed}e-3"]


# Kills


def count(log, kind):
    return log.read_bytes().count(f'["{kind}"'.encode()) if log.exists() else 0


def wait_for(log, kind, *, n_events, pid):
    """Wait until a process has logged so many more events of a kind, or has ended."""
    goal, deadline = count(log, kind) + n_events, time.monotonic() + PATIENCE
    while count(log, kind) < goal:
        assert time.monotonic() < deadline
        os.kill(pid, 0)
        time.sleep(0.001)


@pytest.mark.timeout(3600)  # it starts sixty-three trainings
def test_killed_at_sixty_moments_nothing_is_half_written_or_mixed(home, start):
    outputs, log, moments = Outputs(home / "outputs"), home / "log0", random.Random(60)
    begin = time.monotonic()
    _, wait = start(*words_of(9))
    assert wait() == 0, (home / "0.txt").read_text()[-3000:]
    seconds = time.monotonic() - begin
    kinds = ["start"] * 15 + ["train"] * 15 + ["saving"] * 15 + ["tested"] * 15
    moments.shuffle(kinds)
    for number, kind in enumerate(kinds):
        # Two configurations that go on, and others that begin anew each time.
        seed, further = (number % 2 + 1, ["resume=auto"]) if number % 4 < 2 else (number + 10, [])
        pid, wait = start(*words_of(seed), *further)
        if kind == "start":
            time.sleep(moments.uniform(0, seconds / 4))
        else:
            most = {"train": 12, "saving": 4, "tested": 1}[kind]
            with contextlib.suppress(ProcessLookupError):  # one that went on may have less to do
                wait_for(log, kind, n_events=moments.randint(1, most), pid=pid)
            time.sleep(moments.uniform(0, seconds / 4 if kind == "tested" else 0.02))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        assert wait() in {-signal.SIGKILL, 0}, (home / "0.txt").read_text()[-3000:]
        outputs.check_whole()
    for seed in (1, 2):
        _, wait = start(*words_of(seed), "resume=auto")
        assert wait() == 0, (home / "0.txt").read_text()[-3000:]
    outputs.check_whole()
    outputs.check_nothing_is_left()
    runs = outputs.runs()
    assert len(runs) > 20
    for run in runs:
        assert check_belongs_together(run) == told(run)


# Pairs


def together(starts, *words):
    """Start two trainings at once; return their statuses."""
    ready, statuses = threading.Barrier(2), [0, 0]

    def run(number):
        ready.wait()
        statuses[number] = starts[number](*words[number])[1]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


WAYS = {
    "at the same time": "hydra.run.dir=pairs/{}/${{now:%Y}}",
    "in one folder": "hydra.run.dir=pairs/{}/run",
    "with one folder for the outputs": "paths.output_dir=pairs/{}/run",
    "in one folder, to go on": "hydra.run.dir=pairs/{}/run",
}


@pytest.mark.parametrize("number", range(20))
def test_twenty_pairs_are_two_trainings_or_one(home, starts, number):
    way = list(WAYS)[number % len(WAYS)]
    place = WAYS[way].format(number)
    further = ["resume=auto"] if way.endswith("go on") else []
    seeds = (5, 5) if further else (number + 1, number + 101)
    statuses = together(starts, *([*words_of(seed), place, *further] for seed in seeds))
    outputs = Outputs(home / "pairs" / str(number))
    outputs.check_whole()
    outputs.check_nothing_is_left()
    if way == "at the same time":
        assert statuses == [0, 0]
        assert {check_belongs_together(run) for run in outputs.runs()} == set(seeds)
        assert all(check_belongs_together(run) == told(run) for run in outputs.runs())
        return
    assert sorted(statuses) == [0, 2]
    (run,) = outputs.runs()
    assert check_belongs_together(run) == seeds[statuses.index(0)]
    said = (home / f"{statuses.index(2)}.txt").read_text()
    assert f"{run} is in use by another training (process " in said.splitlines()[-1]


def test_what_was_killed_is_gone_on_with_by_one(home, starts):
    words = [*words_of(3), "resume=auto", "trainer.max_epochs=8"]
    place = [f"hydra.run.dir=twins/{name}" for name in ("first", "second", "third")]
    pid, wait = starts[0](*words, place[0])
    wait_for(home / "log0", "saving", n_events=4, pid=pid)
    os.kill(pid, signal.SIGKILL)
    wait()
    assert sorted(together(starts, [*words, place[1]], [*words, place[2]])) == [0, 2]
    said = "".join((home / f"{n}.txt").read_text().splitlines()[-1] for n in range(2))
    assert "(process " in said
    (run,) = Outputs(home / "twins").runs()
    assert (run.name, check_belongs_together(run)) == ("first", 3)


# A full disk


def test_a_disk_that_fills_ends_a_training_in_a_sentence_and_spoils_nothing(home, start, mount):
    place = mount("7m")
    words = [*words_of(4), "model.hidden=[380,380]", "trainer.max_epochs=3", "resume=auto", "callbacks.recent=null"]
    words += ["callbacks.checkpoint.save_top_k=-1", "callbacks.early_stopping.patience=9", f"hydra.run.dir={place}/run"]
    begin = len((home / "0.txt").read_text())
    assert start(*words)[1]() == 2
    said = (home / "0.txt").read_text()[begin:]
    assert "can't be written (No space left on device); the ones before are whole" in said.splitlines()[-1]
    assert "Traceback" not in said
    outputs = Outputs(place)
    outputs.check_whole()
    outputs.check_nothing_is_left()
    assert list(place.rglob("*.ckpt"))
    subprocess.run(["mount", "-o", "remount,size=40m", place], check=True)
    assert start(*words)[1]() == 0, (home / "0.txt").read_text()[-3000:]
    outputs.check_whole()
    (run,) = outputs.runs()
    assert check_belongs_together(run) == 4

"""Strategies and precisions of Lightning, and signals in the midst: the right events in the right types, and an end."""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import strategies_for_tests
from ranks_for_tests import has_members, until
from rootdata.io import trees
from rootdata.loading.dataset import RootDataset
from rootdata.training import resume
from strategies_for_tests import Job

SOURCES = Path(strategies_for_tests.__file__).parents[1] / "src"
BATCHES = 10
STRATEGIES = {"auto": 1, "ddp": 2, "ddp_spawn": 2, "ddp_fork": 2}
PRECISIONS = {
    "32-true": "float32", "64-true": "float64", "16-true": "float16", "bf16-true": "bfloat16",
    "16-mixed": "float32", "bf16-mixed": "float32", "plugin": "float32",
}  # fmt: skip
SIGNALS = (0, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_tree):
    """Options of data with ten training batches."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(5)
    for name in "ab":
        write_tree(folder / f"{name}.root", {f"x{i}": rng.normal(size=300).astype("f4") for i in range(3)}, step=50)
    return {
        "samples": {name: {"files": str(folder / f"{name}.root"), "label": int(name == "a")} for name in "ab"},
        "flat": ["x0", "x1", "x2"], "batch_size": 40, "chunk_size": 160, "index": True,
        "split": {"by": "entries", "train": 2 / 3, "val": 1 / 6, "test": 1 / 6},
    }  # fmt: skip


@pytest.fixture(scope="module")
def expected(data):
    """The events of each training batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "BLOCK_ENTRIES", 1)
        dataset = RootDataset({name: value for name, value in data.items() if name != "index"}, index=True)
        found = [Counter(map(tuple, batch["index"].tolist())) for batch in dataset.batches(0)]
    assert len(found) == BATCHES
    return found


def run(folder, data, **options):
    """Run a job; return status, what was printed, and whether something was left."""
    path = folder / "job.json"
    path.write_text(json.dumps(dataclasses.asdict(Job(folder=str(folder), data=data, **options))))
    sources = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, strategies_for_tests.__file__, str(path)], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1", "ROOTDATA_CACHE": str(folder / "cache")},
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=120)
        is_left = not until(lambda: not has_members(process.pid), seconds=10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, printed, is_left


def seen(folder, world):
    """Return what each rank noted, in turn."""
    return [
        [json.loads(line) for line in (folder / f"seen_{rank}.jsonl").read_text().splitlines()] for rank in range(world)
    ]


def check_events(notes, expected, *, first, precision):
    """Check that the ranks saw together every batch from a first one on, in the right types."""
    assert len({len(own) for own in notes}) == 1
    for own in zip(*notes, strict=True):
        (number,) = {note["number"] for note in own}
        assert sum((Counter(map(tuple, note["events"])) for note in own), Counter()) == expected[number]
        for note in own:
            assert note["types"] == {
                "x": f"torch.{PRECISIONS[precision]}", "weight": f"torch.{PRECISIONS[precision]}",
                "mask": "torch.bool", "label": "torch.int64", "index": "torch.int64",
            }  # fmt: skip
    assert [note["number"] for note in notes[0]] == list(range(first, BATCHES))


def newest(folder):
    """Return the checkpoint that got furthest, all of which are whole, and the batches that it holds."""
    found = [resume.read(path, folder=folder) for path in folder.glob("*.ckpt")]
    best = max(found, key=lambda one: one.step)
    return str(best.path), best.step


FEW = [("auto", "bf16-true", signal.SIGTERM)]
MATRIX = [
    case if case in FEW else pytest.param(*case, marks=pytest.mark.matrix)
    for case in [*itertools.product(STRATEGIES, PRECISIONS, SIGNALS), ("ddp_notebook", "32-true", signal.SIGTERM)]
]


@pytest.mark.long
@pytest.mark.parametrize(("strategy", "precision", "signum"), MATRIX)
def test_every_event_comes_in_its_type_and_all_end(data, expected, tmp_path, strategy, precision, signum):
    world = STRATEGIES.get(strategy, 2)
    options = {"strategy": strategy, "world": world, "precision": precision}
    status, printed, is_left = run(tmp_path, data, signum=signum, **options)
    assert not is_left, printed
    if not signum:
        assert status == 0, printed
        check_events(seen(tmp_path, world), expected, first=0, precision=precision)
        return
    assert status > 0, printed
    path, done = newest(tmp_path)
    assert 4 <= done <= 6
    for note in tmp_path.glob("seen_*.jsonl"):
        note.unlink()
    status, printed, is_left = run(tmp_path, data, ckpt_path=path, **options)
    assert (status, is_left) == (0, False), printed
    check_events(seen(tmp_path, world), expected, first=done, precision=precision)


@pytest.mark.matrix
@pytest.mark.parametrize("then", ["predict", "validate"])
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_what_comes_after_the_training_is_ended_too(data, tmp_path, strategy, then):
    world = STRATEGIES[strategy]
    status, printed, is_left = run(tmp_path, data, strategy=strategy, world=world, signum=signal.SIGTERM, then=then)
    assert status in ({143} if world == 1 else {1, 143}), printed
    assert not is_left


@pytest.mark.matrix
def test_what_needs_gpus_is_refused_before_it_begins(data, tmp_path):
    status, printed, is_left = run(tmp_path, data, strategy="fsdp", world=2)
    assert status == 1
    assert "FSDP" in printed.splitlines()[-1]
    assert not is_left

"""SIGTERM and Ctrl-C at any moment of ``train.py``, in one process and in several: all end, soon and in order."""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from endings_for_tests import MOMENTS, ROOT, Run, Runs
from ranks_for_tests import until
from rootdata.bundle.manifest import open_bundle
from rootdata.training import resume

SOON = 20  # seconds, on a machine that does other things, too; it takes 1, where a rank has to be ended 5 to 10
WORDS = [
    "data=mine", "data.batch_size=40", "data.chunk_size=160", "model.hidden=[8]", "model.dropout=0.3",
    "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false",
    "~callbacks.progress", "callbacks.score_report.plots=false", "paths.latest=null", "resume=auto",
    "hydra.run.dir=out/1",
]  # fmt: skip
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, write_tree):
    """A folder with ROOT files and a configuration for them."""
    folder, rng = tmp_path_factory.mktemp("endings"), np.random.default_rng(5)
    for name, shift in (("a", 1.0), ("b", 0.0)):
        write_tree(
            folder / f"{name}.root", {f"x{i}": rng.normal(shift, 1, 400).astype("f4") for i in range(3)}, step=50
        )
    samples = {name: {"files": str(folder / f"{name}.root"), "label": int(name == "a")} for name in "ab"}
    (folder / "configs" / "data").mkdir(parents=True)
    config = {"samples": samples, "flat": ["x0", "x1", "x2"]}
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def runs(home):
    """Whoever carries out runs; it has imported everything."""
    server = Runs(home)
    yield server
    server.close()


@pytest.fixture
def carry_out(runs, home, tmp_path):
    """Carry out a run in a folder of its own."""

    def run(*words, world=1, **options):
        several = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={world}"]
        others = several if world > 1 else ["trainer=cpu"]
        words = ["--config-dir", str(home / "configs"), *WORDS, *others, *words]
        return runs.carry_out(Run(folder=str(tmp_path), words=words, world=world, **options))

    return run


def also(*values):
    """Mark a case that the ordinary tests leave out."""
    return pytest.param(*values, marks=pytest.mark.matrix)


def assert_ended(report, signum, folder, *, also_by=(), is_late=False):
    """Check that all ranks ended by a signal, soon, with one sentence, and left what can be gone on with.

    After the test only the first rank has something to do: ``is_late``.
    """
    signals = {signum, *also_by}
    allowed = [signals, {-128, *signals} if is_late else signals]
    assert all(s - 128 in a for s, a in zip(report["statuses"], allowed, strict=False)), report["printed"]
    assert report["seconds"] < SOON
    assert not report["left"]
    assert report["printed"].count("train.py: ") == 1, report["printed"]
    assert any(f"train.py: stopped by {NAMES[one]}" in report["printed"] for one in signals)
    assert "Traceback" not in report["printed"], report["printed"]
    for path in folder.rglob("*.ckpt"):
        assert resume.read(path, folder=folder)
    assert not [path for path in folder.rglob("*") if path.suffix in {".tmp", ".part", ".partial"}]


ALONE = {("step", signal.SIGTERM), ("test's end", signal.SIGTERM), ("first pass", signal.SIGTERM)}


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "signum"),
    [case if case in ALONE else also(*case) for case in itertools.product(MOMENTS, NAMES)],
)
def test_one_process_ends_at_any_moment(carry_out, tmp_path, moment, signum):
    report = carry_out(moment=moment, signum=signum)
    assert_ended(report, signum, tmp_path)


WHO = [(0, (0,)), (0, (1,)), (1, (1,)), (0, (0, 1))]  # who sends it, and to whom
RANKS = {("step", signal.SIGTERM, 1, (1,)), ("validation", signal.SIGTERM, 0, (0,)), ("step", signal.SIGINT, 0, (1,))}


@pytest.mark.long
@pytest.mark.parametrize(
    ("moment", "signum", "by", "to"),
    [
        case if case in RANKS else also(*case)
        for case in ((m, s, *who) for m, s, who in itertools.product(MOMENTS, NAMES, WHO))
        if not (case[0] == "saving" and case[2] == 1)
        if not (case[0] in {"test's end", "export"} and case[2:] != (0, (0,)))
    ],
)
def test_all_ranks_end_when_one_gets_a_signal(carry_out, tmp_path, moment, signum, by, to):
    # Before they have met, ranks are ended by who started them.
    are_strangers = moment in {"preparing", "first pass"}
    by = None if moment == "first pass" else by  # which one rank makes for all
    report = carry_out(world=2, moment=moment, signum=signum, by=by, to=to, has_agent=are_strangers)
    is_late = moment in {"test's end", "export"}
    assert_ended(report, signum, tmp_path, also_by=[signal.SIGTERM] if are_strangers else [], is_late=is_late)


# What becomes of the network


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16-true", also("64-true"), also("16-mixed"), also("bf16-mixed")])
def test_a_training_in_any_precision_ends_with_a_bundle(carry_out, tmp_path, precision):
    report = carry_out(f"trainer.precision={precision}")
    assert report["statuses"] == [0], report["printed"]
    manifest = open_bundle(tmp_path / "out" / "1" / "bundle")
    assert manifest.parity.max_difference < 1e-6
    assert {t.dtype for t in manifest.inputs} == {"float32"}


@pytest.mark.long
@pytest.mark.parametrize("world", [1, also(2)])
def test_what_can_not_be_exported_is_refused_by_all_ranks_before_the_first_batch(carry_out, tmp_path, world):
    report = carry_out("model._target_=endings_for_tests.unwritable", world=world)
    assert report["statuses"] == [2] * world, report["printed"]
    assert report["printed"].count("can't be written as an ONNX graph") == world
    assert "export=false trains it without a bundle" in report["printed"]
    assert "Traceback" not in report["printed"]
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.matrix
def test_it_is_trained_where_no_bundle_is_asked_for(carry_out, tmp_path):
    report = carry_out("model._target_=endings_for_tests.unwritable", "export=false")
    assert report["statuses"] == [0], report["printed"]
    assert list(tmp_path.rglob("last.ckpt"))


@pytest.mark.matrix
def test_ranks_that_were_stopped_go_on_as_if_they_had_not_been(carry_out, runs, home, tmp_path):
    """The second run of the same command has no signal, and ends where an unbroken one ends."""
    words = ["export=false", "model.dropout=0"]
    stopped = carry_out(*words, world=2, moment="step's end", by=1, to=(1,), after=15)
    assert_ended(stopped, signal.SIGTERM, tmp_path)
    assert carry_out(*words, world=2)["statuses"] == [0, 0]
    last = torch.load(tmp_path / "out" / "1" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    unbroken = carry_out(*words, "hydra.run.dir=out/2", "resume=null", world=2)
    assert unbroken["statuses"] == [0, 0], unbroken["printed"]
    expected = torch.load(tmp_path / "out" / "2" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, values in expected.items():
        torch.testing.assert_close(last[name], values, atol=0, rtol=0)


# In a script of one's own

OWN = """
import os, signal, sys
import pytorch_lightning as pl
from rootdata import RootDataModule
from rootdata.models import DNN

class Stopped(DNN):
    def on_train_batch_start(self, batch, batch_idx):
        if (self.global_rank, batch_idx) == (int(sys.argv[2]), 3):
            os.kill(os.getpid(), int(sys.argv[3]))

if __name__ == "__main__":
    names = enumerate(("other", "signal"))
    samples = {name: {"files": f"{sys.argv[1]}/{name}_*.root", "label": label} for label, name in names}
    data = RootDataModule(samples, flat=["x0", "x1"], batch_size=50)
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1000, logger=False,
                         enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(Stopped({"x": (2,)}), data)
"""


@pytest.mark.long
@pytest.mark.parametrize(("by", "signum"), [(1, signal.SIGTERM), (0, signal.SIGINT)])
def test_ranks_of_a_script_of_ones_own_end_together(home, tmp_path, by, signum):
    (tmp_path / "own.py").write_text(OWN)
    with started(["own.py", str(home), str(by), str(int(signum))], home, tmp_path) as process:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode != 0, printed
        assert until(lambda: not of_session(process.pid), seconds=SOON)


# Started by Lightning, and by torchrun


def command(home, tmp_path, *, moment, signum, by):
    """Return what a shell would be given for two ranks, one of which gets a signal of its own at a moment."""
    words = ["--config-dir", str(home / "configs"), *WORDS, "trainer=ddp", "trainer.accelerator=cpu"]
    words = [str(ROOT / "train.py"), *words, "trainer.devices=2", "export=false"]
    if moment:
        run = Run(folder=str(tmp_path), words=[], moment=moment, signum=signum, by=by, to=None)
        (tmp_path / "run.json").write_text(json.dumps(dataclasses.asdict(run)))
        options = {"_target_": "endings_for_tests.moment", "at": moment, "run": str(tmp_path / "run.json")}
        words += [f"+callbacks.moment.{name}={value}" for name, value in options.items()]
    return words


@contextlib.contextmanager
def started(words, home, tmp_path):
    """Start a program in a session of its own, of which nothing may be left."""
    paths = [str(ROOT / "src"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "ROOTDATA_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env={**os.environ, **environment}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        for pid in of_session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def of_session(session):
    """Return the processes of a session that go on, and their children, which torchrun gives sessions of their own."""
    alive = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                alive[int(stat.parent.name)] = (int(parent), int(its_session))
    own = {pid for pid, (_, its_session) in alive.items() if its_session == session}
    while more := {pid for pid, (parent, _) in alive.items() if parent in own} - own:
        own |= more
    return own


def children_of(process):
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.matrix
@pytest.mark.parametrize("signum", NAMES)
@pytest.mark.parametrize("moment", ["sanity check", "step", "saving", "validation", "test"])
@pytest.mark.parametrize("by", [0, 1])
def test_ranks_that_lightning_started_end_together(home, tmp_path, moment, by, signum):
    if moment == "saving" and by:
        pytest.skip("the first rank saves")
    with started(command(home, tmp_path, moment=moment, signum=signum, by=by), home, tmp_path) as process:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 128 + signum, printed
        assert printed.count("train.py: stopped by") == 1, printed
        assert "Traceback" not in printed, printed
        assert until(lambda: not of_session(process.pid), seconds=SOON)


@pytest.mark.matrix
@pytest.mark.parametrize("target", ["first", "second", "both"])
def test_ranks_that_lightning_is_starting_end_together(home, tmp_path, target):
    with started(command(home, tmp_path, moment=None, signum=None, by=None), home, tmp_path) as process:
        assert until(lambda: children_of(process.pid), seconds=60)
        (child,) = children_of(process.pid)
        for pid in {"first": [process.pid], "second": [child], "both": [process.pid, child]}[target]:
            os.kill(pid, signal.SIGTERM)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 143, printed
        assert printed.count("train.py: stopped by SIGTERM") == 1, printed
        assert until(lambda: not of_session(process.pid), seconds=SOON)


@pytest.mark.long
@pytest.mark.parametrize("how", ["agent", "agent is killed", "rank"])
def test_ranks_of_torchrun_end_together(home, tmp_path, how):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    signum = signal.SIGTERM if how == "rank" else 0  # which only says that steps have begun
    words = [*command(home, tmp_path, moment="step", signum=signum, by=1), "trainer.max_epochs=100000"]
    words += ["callbacks.early_stopping.patience=100000"]
    with started([*torchrun, *words], home, tmp_path) as process:
        if how != "rank":
            assert until((tmp_path / "sent.txt").exists, seconds=90)
            ranks = of_session(process.pid) - {process.pid}
            os.kill(process.pid, signal.SIGTERM if how == "agent" else signal.SIGKILL)
            assert until(lambda: not [pid for pid in ranks if Path(f"/proc/{pid}").exists()], seconds=2 * SOON)
        printed, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        assert printed.count("train.py: stopped by SIGTERM") == 1, printed
        assert until(lambda: not of_session(process.pid), seconds=SOON)

"""How trainings end: by themselves, by an error, by Ctrl-C; and what is left of them then.

The trainings run in a process of their own, which is this file as a script, one after the other: what one leaves, the
next one sees.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import resource_tracker
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

SOURCES = Path(__file__).parents[1] / "src"
ENDS = (
    "end", "step_fails", "file_truncated", "validation_fails", "ctrl_c_alone", "ctrl_c_group", "ctrl_c_validation",
    "ctrl_c_silent", "loop_breaks", "loop_ctrl_c", "loader_breaks",
)  # fmt: skip
MOMENTS = 6
RAISES = {
    "step_fails": ("ValueError",),
    "validation_fails": ("ValueError",),
    "file_truncated": ("FileError",),
    **dict.fromkeys(["ctrl_c_alone", "ctrl_c_group", "ctrl_c_validation", "ctrl_c_silent"], ("SystemExit",)),
    "ctrl_c_any_time": ("SystemExit", "KeyboardInterrupt"),  # the second before the trainer has begun
    "loop_ctrl_c": ("KeyboardInterrupt",),
}


# In the process of the trainings


def what_is_there():
    """List what could be left of a training."""
    me = f"/proc/{os.getpid()}"
    links = [path for path in Path(me, "fd").iterdir() if path.is_symlink()]
    return {
        # fsspec keeps a loop and its threads for as long as a process lives.
        "threads": sorted(t.name for t in threading.enumerate() if not t.name.startswith(("asyncio", "fsspec"))),
        "processes": sorted(c for path in Path(me, "task").iterdir() for c in _children(path)),
        "files": sorted(target for link in links if (target := _target(link)).endswith((".root", ".part", ".tmp"))),
        "pipes": sum(_target(link).startswith(("pipe:", "socket:")) for link in links),
        "temporary": sorted(str(path) for path in Path(tempfile.gettempdir()).rglob("*")),
        "shared_memory": sorted(path.name for path in Path("/dev/shm").iterdir() if str(os.getpid()) in path.name),
    }


def _target(link):
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def _children(thread):
    """List the processes that a thread began; none if it has ended, whose children another thread has then."""
    try:
        return (thread / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


class Trainings:
    def __init__(self, folder):
        self.folder = folder
        self.signalled = self.answered = 0.0
        self.moments = np.random.default_rng(20)

    def data(self, *, folder=None, **options):
        from rootdata import RootDataModule

        return RootDataModule(
            {"s": {"files": str(folder or self.folder), "label": 0}},
            flat=["x"],
            jagged={"jets": {"branches": ["Jet_pt"], "length": 3}},
            split={"train": 0.7, "val": 0.3},
            batch_size=64,
            chunk_size=256,
            **options,
        )

    def net(self, hook=None, validation_hook=None):
        import pytorch_lightning as pl
        import torch

        class Net(pl.LightningModule):
            def __init__(self, width):
                super().__init__()
                self.layer = torch.nn.Linear(width, 1)

            def training_step(self, batch, number):
                if number == 3 and hook:
                    hook()
                return self.layer(batch["x"]).square().mean()

            def validation_step(self, batch, number):
                if number == 1 and validation_hook and not self.trainer.sanity_checking:
                    validation_hook()

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)

        return Net(4)

    def fit(self, data, net, *, epochs=2):
        import pytorch_lightning as pl

        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False, enable_model_summary=False,
            enable_progress_bar=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(net, data)

    def interrupt(self, *, to_the_group=False):
        self.signalled = time.monotonic()
        os.killpg(0, signal.SIGINT) if to_the_group else os.kill(os.getpid(), signal.SIGINT)

    # Each way to end

    def end(self):
        self.fit(self.data(), self.net())

    def step_fails(self):
        self.fit(self.data(), self.net(fail))

    def validation_fails(self):
        self.fit(self.data(), self.net(None, fail))

    def file_truncated(self):
        """A file is cut while it is read."""
        copy = Path(shutil.copytree(self.folder, self.folder.with_name("copy")))
        size = (copy / "b.root").stat().st_size
        self.fit(self.data(folder=copy), self.net(lambda: os.truncate(copy / "b.root", size // 2)))

    def ctrl_c_alone(self):
        self.fit(self.data(), self.net(self.interrupt))

    def ctrl_c_group(self):
        self.fit(self.data(), self.net(lambda: self.interrupt(to_the_group=True)))

    def ctrl_c_validation(self):
        self.fit(self.data(), self.net(None, lambda: self.interrupt(to_the_group=True)))

    def ctrl_c_any_time(self):
        """Epochs are short: it comes while processes start, read, or end."""
        delay = float(self.moments.uniform(0.05, 0.4))
        timer = threading.Timer(delay, lambda: self.interrupt(to_the_group=True))
        timer.start()
        try:
            self.fit(self.data(), self.net(), epochs=-1)
        finally:
            timer.join()

    def ctrl_c_silent(self):
        """It comes while a server does not answer."""
        from servers_for_tests import HTTPServer, Proxy

        timer = threading.Timer(0.5, lambda: self.interrupt(to_the_group=True))

        def fall_silent():
            proxy.is_silent = True
            timer.start()

        with HTTPServer(self.folder) as server, Proxy(server.port) as proxy:
            data = self.data(folder=f"http://127.0.0.1:{proxy.port}/b.root", prefetch=0)
            try:
                self.fit(data, self.net(fall_silent), epochs=-1)
            finally:
                self.answered = time.monotonic()
                timer.join()

    def loop_breaks(self):
        for number, _ in enumerate(self.dataset()):
            if number == 3:
                break

    def loop_ctrl_c(self):
        for number, _ in enumerate(self.dataset()):
            if number == 3:
                self.interrupt(to_the_group=True)

    def loader_breaks(self):
        """The other way to have processes: those of a DataLoader."""
        from torch.utils.data import DataLoader

        for number, _ in enumerate(DataLoader(self.dataset(), batch_size=None, num_workers=2)):
            if number == 3:
                break

    def dataset(self):
        from rootdata import RootDataset

        options = {
            "samples": {"s": {"files": str(self.folder), "label": 0}}, "flat": ["x"], "split": {"train": 1.0},
            "batch_size": 64, "chunk_size": 256,
        }  # fmt: skip
        return RootDataset(options)

    def run(self, way):
        """End a training in one way, and report."""
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from the first one on
        resource_tracker.ensure_running()  # Python's own for spawned processes: it lives as long as this one
        before, error, kinds, trace = what_is_there(), "", [], ""
        try:
            getattr(self, way)()
        except BaseException as raised:  # noqa: BLE001 - whatever it is, it is reported
            error, trace = str(raised), traceback.format_exc()
            kinds = [kind.__name__ for kind in type(raised).__mro__]
        seconds = (self.answered or time.monotonic()) - self.signalled if self.signalled else None
        self.signalled = self.answered = 0.0
        deadline = time.monotonic() + 1  # a moment for the threads of torch's own queues
        while (after := what_is_there()) != before and time.monotonic() < deadline:
            time.sleep(0.02)
        left = {kind: [before[kind], after[kind]] for kind in before if before[kind] != after[kind]}
        return {"error": error, "kinds": kinds, "trace": trace, "seconds": seconds, "left": left}


def fail():
    raise ValueError("loss is nan")


def main(folder):
    import warnings

    import fsspec.asyn

    from rootdata.io import trees

    trees.BLOCK_ENTRIES = 1  # blocks end with baskets: several a file
    warnings.simplefilter("ignore")
    trainings = Trainings(Path(folder))
    fsspec.asyn.get_loop()  # what libraries start once and keep
    trainings.run("end")
    for way in [*ENDS, *["ctrl_c_any_time"] * MOMENTS]:
        os.write(1, f"{json.dumps([way, trainings.run(way)])}\n".encode())


# In the tests


@pytest.fixture(scope="module")
def reports(tmp_path_factory, write_tree):
    """What every training reported, and what was printed as an error."""
    folder = tmp_path_factory.mktemp("shutdown")
    rng = np.random.default_rng(1)
    for name in "ab":
        jets = ak.unflatten(rng.normal(size=4000).astype("f4"), rng.multinomial(4000, [1 / 2000] * 2000))
        (folder / "data").mkdir(exist_ok=True)
        write_tree(folder / "data" / f"{name}.root", {"x": rng.normal(size=2000), "Jet_pt": jets}, step=100)
    (folder / "temporary").mkdir()
    environment = {
        "PYTHONPATH": os.pathsep.join([str(SOURCES), str(Path(__file__).parent / "rootdata")]),
        "TMPDIR": str(folder / "temporary"),
        "ROOTDATA_CACHE": str(folder / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder / "data")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment}, start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    found = {}
    for line in out.splitlines():
        if line.startswith("["):
            way, report = json.loads(line)
            found.setdefault(way, []).append(report)
    return found, errors


@pytest.mark.long
@pytest.mark.parametrize("way", [*ENDS, "ctrl_c_any_time"])
def test_nothing_is_left_and_ctrl_c_is_answered_within_a_second(reports, way):
    for report in reports[0][way]:
        assert report["left"] == {}, report["trace"]
        expected = RAISES.get(way, ())
        assert bool(report["kinds"]) == bool(expected), report["trace"]
        assert not expected or set(expected) & set(report["kinds"]), report["trace"]
        if "ctrl_c" in way:
            assert report["seconds"] < 1


@pytest.mark.long
def test_the_error_names_the_file(reports):
    (report,) = reports[0]["file_truncated"]
    assert "b.root is not as the first pass saw it" in report["error"]


@pytest.mark.long
def test_nobody_complains(reports):
    found = [line for line in reports[1].splitlines() if "Traceback" in line or "Exception ignored" in line]
    assert found == [], reports[1]


if __name__ == "__main__":
    main(sys.argv[1])

"""Whole runs of ``train.py``, each a process of its own, without the seconds that its imports take."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]
PATHS = (str(ROOT / "src"), str(ROOT), str(ROOT / "tests"))

# Imports once, then forks a process for every line of words: each is a whole run of train.py.
SERVER = """
import gc, json, logging, os, signal, sys
logging.getLogger().addHandler(logging.NullHandler())  # as by Hydra, before Lightning looks for one
import matplotlib.figure, pytorch_lightning, torch, torchmetrics.classification, uproot
import rich.progress
import rootdata.training.callbacks, rootdata.loading.datamodule, rootdata.layouts.kernels
import rootdata.models, rootdata.app.rebuild
import hist, mplhep, networkx, onnxruntime, s3fs
import torch.onnx._internal.exporter._registration as exporter
import exporter_for_tests
import train
torch.set_num_threads(1)
exporter_for_tests.keep_operators()
exporter.ONNXRegistry.from_torchlib()
gc.collect(), gc.freeze()  # what is shared stays shared, and no collection goes through it
print("ready", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(told["folder"]), os.environ.update(told["environment"])
        sys.path[:0] = told["path"]
        for number, place in ((1, told["out"]), (2, told["err"])):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.argv = [train.__file__, *told["words"]]
        code = 1
        try:
            train.main()
            code = 0
        except SystemExit as leave:
            code = leave.code
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush(), os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

# Every event of every batch, written at once, and what else goes on.
LOG = """
import json, os
import pytorch_lightning as pl

class EventLog(pl.Callback):
    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def write(self, *content):
        os.write(self.file, (json.dumps(content) + "\\n").encode())
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        loss = outputs["loss"].item().hex()
        self.write("train", trainer.current_epoch, batch_idx, batch["index"].tolist(), loss)
    def on_validation_batch_start(self, *_):
        self.write("validation")
    def on_save_checkpoint(self, *_):
        self.write("saving")
    def on_test_end(self, *_):
        self.write("tested")
"""

Server = subprocess.Popen[str]
Start = Callable[..., tuple[int, Callable[[], int]]]


def make_home(folder: Path, write_tree: Callable[..., Path]) -> Path:
    """Fill a folder with ROOT files, ``data=mine`` for them, and a callback that writes a log."""
    rng = np.random.default_rng(5)
    for name, shift in (("signal", 1.0), ("other", 0.0)):
        for number in range(2):
            columns = {f"x{i}": rng.normal(shift, 1, 600).astype("f4") for i in range(4)}
            write_tree(folder / f"{name}_{number}.root", columns, step=100)
    samples = {n: {"files": str(folder / f"{n}_*.root"), "label": int(n == "signal")} for n in ("signal", "other")}
    (folder / "configs" / "data").mkdir(parents=True)
    config = {"samples": samples, "flat": [f"x{i}" for i in range(4)]}
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(config))
    (folder / "soak_log.py").write_text(LOG)
    return folder


@contextlib.contextmanager
def forking(home: Path, words: list[str], *, printed: Path) -> Iterator[Start]:
    """Give a function that starts ``train.py``; it returns its number, and a function that waits for its status.

    What was not waited for is killed in the end.

    Parameters
    ----------
    printed : where all that it prints is added
    """
    own, begun = {"ROOTDATA_CACHE": str(home / "cache")}, list[Run]()

    def fork(*further: str) -> tuple[int, Callable[[], int]]:
        told = ["--config-dir", str(home / "configs"), *words, *further]
        begun.append(_fork(_server(), told, folder=home, out=printed, err=printed, path=[home], environment=own))
        return begun[-1].number, begun[-1].status

    try:
        yield fork
    finally:
        for run in begun:
            run.end()


def run_script(folder: Path, *words: str, status: int = 0) -> str:
    """Run ``train.py`` in a folder; return what it printed, or, where it is to fail, what it complained of."""
    own = {"ROOTDATA_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    with tempfile.TemporaryDirectory() as beside:
        texts = [Path(beside) / name for name in ("out", "err")]
        ended = _fork(_server(), words, folder=folder, out=texts[0], err=texts[1], environment=own).status()
        out, err = (text.read_text() for text in texts)
    assert ended == status, out[-3000:] + err[-3000:]
    return out if status == 0 else err.strip()


class Run:
    """A process that a server has forked, which is free for another one when that has ended."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._status: int | None = None
        self.number = int(server.stdout.readline())

    def status(self) -> int:
        """Wait until it has ended."""
        if self._status is None:
            self._status = int(self._server.stdout.readline())
            FREE.append(self._server)
        return self._status

    def end(self) -> None:
        """Kill it where it still runs."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)
            self.status()


FREE: list[Server] = []  # of this process's tests; they end as their input does


def _server() -> Server:
    """Take a free one, or start one."""
    if FREE:
        return FREE.pop()
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], env=known, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout.readline() == "ready\n"
    return server


def _fork(
    server: Server,
    words: Sequence[str],
    *,
    folder: Path,
    out: Path,
    err: Path,
    environment: dict[str, str],
    path: Sequence[Path] = (),
) -> Run:
    places = {"folder": str(folder), "out": str(out), "err": str(err), "path": [str(place) for place in path]}
    print(json.dumps({"words": words, "environment": environment, **places}), file=server.stdin, flush=True)
    return Run(server)

"""Whole runs of ``train.py``, each a process of its own, without the seconds that its imports take."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).parents[1]

# Imports once, then forks a process for every line of words: each is a whole run of train.py.
SERVER = """
import json, os, signal, sys
import matplotlib.figure, pytorch_lightning, torch, torchmetrics.classification, uproot
import rich.progress
import rootdata.training.callbacks, rootdata.loading.datamodule, rootdata.layouts.kernels
import rootdata.models, rootdata.app.rebuild
import train
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    log, *words = json.loads(line)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.argv = ["train.py", *words]
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
def forking(home: Path, words: list[str], *, printed: Path, **environment: str) -> Iterator[Start]:
    """Give a function that starts ``train.py``; it returns its number, and a function that waits for its status.

    Parameters
    ----------
    printed : where all that it prints is added
    environment : of the processes
    """
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(home)])
    known = {**os.environ, "PYTHONPATH": paths, "ROOTDATA_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=home, env={**known, **environment}, **pipes) as server:
        assert server.stdout.readline() == "ready\n"

        def fork(*further: str) -> tuple[int, Callable[[], int]]:
            line = [str(printed), "--config-dir", str(home / "configs"), *words, *further]
            print(json.dumps(line), file=server.stdin, flush=True)
            return int(server.stdout.readline()), lambda: int(server.stdout.readline())

        yield fork
        server.stdin.close()

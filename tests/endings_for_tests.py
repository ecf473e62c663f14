"""Runs of ``train.py`` that get a signal at a chosen moment; a server forks them from a process that has imported all.

As a script it is the server: each line is a run, each answer says how its ranks ended.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ranks_for_tests import free_port, left_of, wait_for

ROOT = Path(__file__).parents[1]
HOOKS = {
    "setup": "setup", "sanity check": "on_sanity_check_start", "step": "on_train_batch_start",
    "backward": "on_after_backward", "step's end": "on_train_batch_end", "saving": "on_save_checkpoint",
    "validation": "on_validation_batch_start", "validation's end": "on_validation_end",
    "training's end": "on_train_end", "test": "on_test_batch_start", "test's end": "on_test_end",
}  # fmt: skip
MOMENTS = ("preparing", "first pass", "loaders", *HOOKS, "export")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run of ``train.py``.

    Parameters
    ----------
    folder : of what it prints, ``rank_<n>.txt``; the command's working folder
    words : of the command line
    world : ranks, as torchrun starts them; 1 is a process alone
    moment : when the signal is sent, None for never
    signum : which
    by : the rank that sends it, None for whichever is there first
    to : the ranks that get it, None for the one that sends it
    after : how often its moment comes before
    has_agent : whether somebody ends the other ranks when one has failed, as torchrun does
    """

    folder: str
    words: list[str]
    world: int = 1
    moment: str | None = None
    signum: int = signal.SIGTERM
    by: int | None = 0
    to: tuple[int, ...] | None = (0,)
    after: int = 0
    has_agent: bool = False
    within: float = 60


# In a rank


def send(run):
    """Send the signal, once, if it is for this rank to do, and write down when."""
    sent = Path(run.folder, "sent.txt")
    if sent.exists() or run.by not in {None, int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))}:
        return
    ranks = [int(path.read_text()) for path in sorted(Path(run.folder).glob("pid_*"))]
    sent.write_text(repr(time.time()))
    for process in [os.getpid()] if run.to is None else [ranks[rank] for rank in run.to]:
        os.kill(process, run.signum)


def moment(at, run):
    """Make a callback that sends the signal of a run when its hook is called."""
    import pytorch_lightning as pl

    what, calls = Run(**json.loads(Path(run).read_text())), 0

    def called(*_, **__):
        nonlocal calls
        calls += 1
        if calls > what.after:
            send(what)

    return type("Moment", (pl.Callback,), {HOOKS[at]: called})()


def unwritable(shapes, classes, **_):
    """Make a network that trains and that no graph can be made of."""
    from rootdata.models import DNN

    class Unwritable(DNN):
        def forward(self, batch):
            return super().forward(batch) * len(batch["x"].unique().tolist()) ** 0

    return Unwritable(shapes, classes=classes, hidden=[8])


def lay_in_wait(run):
    """Let the signal be sent when something of ours, or torch's, is called."""
    import torch

    from rootdata.loading.datamodule import RootDataModule
    from rootdata.scan import first_pass

    places = {
        "preparing": (RootDataModule, "prepare_data"), "first pass": (first_pass, "check_suits"),
        "loaders": (RootDataModule, "train_dataloader"), "export": (torch.onnx, "export"),
    }  # fmt: skip
    owner, name = places[run.moment]
    inner = getattr(owner, name)

    def called(*arguments, **options):
        send(run)
        return inner(*arguments, **options)

    setattr(owner, name, called)


# In the server


def serve():
    """Carry out the run of every line."""
    import matplotlib.figure  # noqa: F401
    import omegaconf  # noqa: F401
    import rich.progress  # noqa: F401
    import torch
    import torch.onnx
    import torchmetrics.classification  # noqa: F401
    import uproot  # noqa: F401

    import rootdata.app.rebuild
    import rootdata.layouts.kernels
    import rootdata.loading.datamodule
    import rootdata.models
    import rootdata.training.callbacks
    import rootdata.training.stopping  # noqa: F401
    import train  # noqa: F401

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(carry_out(Run(**json.loads(line)))), flush=True)


def carry_out(run):
    """Run the ranks, and report their statuses, how long after the signal the last one ended, and what is left."""
    port, folder = free_port(), Path(run.folder)
    ranks: list[int] = []
    for old in (*folder.glob("pid_*"), folder / "sent.txt"):  # of a run before
        old.unlink(missing_ok=True)
    for rank in range(run.world):
        process = os.fork()
        if not process:
            become(run, rank, port)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it did so itself, or is gone
            os.setpgid(process, ranks[0] if ranks else process)
        ranks.append(process)
    for rank, process in enumerate(ranks):
        (folder / f"new_{rank}").write_text(str(process))
        (folder / f"new_{rank}").rename(folder / f"pid_{rank}")
    ended = wait_for(ranks, seconds=run.within, has_agent=run.has_agent)
    sent = folder / "sent.txt"
    seconds = time.time() - float(sent.read_text()) if sent.exists() else None
    return {"statuses": [ended.get(rank) for rank in ranks], "seconds": seconds, "left": left_of(ranks[0])}


def become(run, rank, port):
    """Go on as a rank."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(0, 0) if rank == 0 else None
    if run.world > 1:
        here = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run.world, "LOCAL_WORLD_SIZE": run.world, "GROUP_RANK": 0,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "run",
        }  # fmt: skip
        os.environ.update({name: str(value) for name, value in here.items()})
    os.chdir(run.folder)
    out = os.open(f"rank_{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if run.moment == "first pass":
        os.environ["ROOTDATA_CACHE"] = str(Path("cache").absolute())  # in which there are no specs
    own = []
    if run.moment in HOOKS:
        Path("run.json").write_text(json.dumps(dataclasses.asdict(run)))
        options = {"_target_": "endings_for_tests.moment", "at": run.moment, "run": str(Path("run.json").absolute())}
        own = [f"+callbacks.moment.{name}={value!r}" for name, value in options.items()]
    sys.argv = [str(ROOT / "train.py"), *run.words, *own]
    status: Any = 1
    try:
        if run.moment and run.moment not in HOOKS:
            lay_in_wait(run)
        import train

        while len(list(Path().glob("pid_*"))) < run.world:
            time.sleep(0.001)
        train.main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code
    except BaseException:  # noqa: BLE001 - the status tells
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


class Runs:
    """The server, from outside.

    Parameters
    ----------
    home : folder of the caches
    """

    def __init__(self, home):
        paths = [str(ROOT / "src"), str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        settings = {"PYTHONPATH": os.pathsep.join(paths), "ROOTDATA_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **settings, "COLUMNS": "200"},
        )  # fmt: skip
        assert self._process.stdout.readline() == "ready\n"

    def carry_out(self, run):
        """Carry out a run; return what the server says, with what the ranks printed."""
        Path(run.folder).mkdir(exist_ok=True)
        self._process.stdin.write(json.dumps(dataclasses.asdict(run)) + "\n")
        self._process.stdin.flush()
        report = json.loads(self._process.stdout.readline())
        printed = [Path(run.folder, f"rank_{rank}.txt").read_text() for rank in range(run.world)]
        return {**report, "printed": "".join(printed)}

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
    os._exit(0)

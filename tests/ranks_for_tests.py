"""Processes that train together, as torchrun starts them, and a server that forks them from one that has imported all.

As a script it is one rank, ``torchrun ... ranks_for_tests.py JOB.json``; without an argument it is the server.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[1] / "src"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training of ``world`` processes.

    Parameters
    ----------
    folder : of what the ranks note: ``rank_<n>.json`` and ``.txt``, the numbers of blocks that were read
    data, trainer : options of ``RootDataModule`` and of the ``Trainer``
    save_at : number of steps after which a checkpoint is saved
    ends : ``[rank, step, "kill" or "raise"]``
    asks_first : the data are asked for their shapes before there is a trainer, as scripts do
    within : seconds after which the server ends it
    """

    folder: str
    data: dict[str, Any]
    world: int = 1
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    save_at: int | None = None
    ckpt_path: str | None = None
    ends: tuple[Any, ...] | None = None
    asks_first: bool = False
    within: float = 120


# In a rank


def train_as_rank(job):
    """Train, validate, test and predict; note every event, the figures and the weights."""
    import pytorch_lightning as pl
    import torch

    from rootdata.io import trees
    from rootdata.loading.datamodule import RootDataModule
    from rootdata.training.callbacks import ScoreReport

    folder, rank = Path(job.folder), int(os.environ["RANK"])
    trees.BLOCK_ENTRIES = 1  # type: ignore[attr-defined]  # blocks end with baskets: many a file
    _note_reads(folder)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    data = RootDataModule(**job.data)
    shapes = data.shapes if job.asks_first else {}
    notes: dict[str, Any] = {"train": [], "val": [], "test": [], "val_loss": [], "val_synced": [], "shapes": shapes}
    log, report = _log(notes, job), ScoreReport(folder, plots=False)
    trainer = pl.Trainer(
        accelerator="cpu", strategy="ddp", devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=job.world // int(os.environ["LOCAL_WORLD_SIZE"]), callbacks=[log, report], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=folder, **{"max_epochs": 2, **job.trainer},
    )  # fmt: skip
    net = _net(len(data.data.flat))
    trainer.fit(net, data, ckpt_path=job.ckpt_path)
    notes |= {
        "weights": torch.cat([p.detach().flatten() for p in net.parameters()]).tolist(),
        "amplification": trainer.train_dataloader.events.read_amplification(),
        "batches": [len(trainer.train_dataloader), trainer.num_training_batches, trainer.global_step],
        "files": [f.path for f in data.specs.files],
        "skipped": [f.path for f in data.specs.skipped],
    }
    trainer.test(net, data, verbose=False)
    predicted: list[Any] = trainer.predict(net, data)
    notes |= {"report": report.metrics, "predict": [batch.tolist() for batch in predicted]}
    (folder / f"rank_{rank}.json").write_text(json.dumps(notes))


def _note_reads(folder):
    """Write down each block that a reader is asked for, also in reading processes, and each first pass."""
    from rootdata.loading import stream
    from rootdata.scan import lookup

    file = os.open(folder / "reads.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    rank, read, pass_over = os.environ["RANK"], stream.EventReader.__call__, lookup.scan_folds  # type: ignore[attr-defined]

    def noted(self, number):
        os.write(file, f"{rank} {self._recipe.part} {number}\n".encode())
        return read(self, number)

    def noted_scan(*arguments, **options):
        os.write(file, f"{rank} scan 0\n".encode())
        return pass_over(*arguments, **options)

    stream.EventReader.__call__, lookup.scan_folds = noted, noted_scan  # type: ignore[method-assign, attr-defined]


def _log(notes, job):
    import pytorch_lightning as pl

    class Log(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, number):
            if job.ends and [trainer.global_rank, trainer.global_step] == list(job.ends[:2]):
                if job.ends[2] == "raise":
                    raise ValueError("loss is nan")
                os.kill(os.getpid(), signal.SIGKILL)

        def on_train_batch_end(self, trainer, module, outputs, batch, number):
            notes["train"].append(batch["index"].tolist())
            if trainer.global_step == job.save_at:
                trainer.save_checkpoint(Path(job.folder) / "saved.ckpt")

        def on_validation_batch_end(self, trainer, module, outputs, batch, number, loader=0):
            notes["val"].append(batch["index"].tolist())

        def on_validation_end(self, trainer, module):
            for name in ("loss", "synced"):
                notes[f"val_{name}"].append(float(trainer.callback_metrics[f"val/{name}"]))

        def on_test_batch_end(self, trainer, module, outputs, batch, number, loader=0):
            notes["test"].append(batch["index"].tolist())

    return Log()


def _net(width):
    import pytorch_lightning as pl
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
    from torchmetrics import MeanMetric

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
            self.loss = MeanMetric()

        def forward(self, batch):
            return self.layers(batch["x"]).squeeze(1)

        def training_step(self, batch, number):
            return cross_entropy(self(batch), batch["label"].float())

        def validation_step(self, batch, number):
            loss = cross_entropy(self(batch), batch["label"].float())
            self.loss.update(loss, weight=len(batch["label"]))
            self.log("val/loss", self.loss, batch_size=len(batch["label"]))
            self.log("val/synced", loss, sync_dist=True, batch_size=len(batch["label"]))

        def test_step(self, batch, number):
            return {"score": self(batch).sigmoid(), "label": batch["label"], "index": batch["index"]}

        def predict_step(self, batch, number):
            return batch["index"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Net()


def _run(job):
    """Be a rank from beginning to end; return the exit status."""
    try:
        train_as_rank(job)
    except BaseException:  # noqa: BLE001 - the status tells
        traceback.print_exc()
        return 1
    return 0


# In the server


def serve():
    """Run the job of every line."""
    import omegaconf  # noqa: F401
    import pytorch_lightning  # noqa: F401
    import uproot  # noqa: F401

    import rootdata.layouts.kernels
    import rootdata.loading.datamodule
    import rootdata.training.callbacks  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_train(Job(**json.loads(line)))), flush=True)


def _train(job):
    began, port = time.monotonic(), free_port()
    ranks: list[int] = []
    for rank in range(job.world):
        process = os.fork()
        if not process:
            _become(job, rank, port)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it did so itself, or is gone
            os.setpgid(process, ranks[0] if ranks else process)
        ranks.append(process)
    ended = wait_for(ranks, seconds=job.within)
    seconds = time.monotonic() - began
    return {"statuses": [ended.get(rank) for rank in ranks], "seconds": seconds, "left": left_of(ranks[0])}


def _become(job, rank, port):
    """Go on as a rank."""
    folder = Path(job.folder)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(0, 0) if rank == 0 else None
    here = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.world, "LOCAL_WORLD_SIZE": job.world, "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "job",
        "ROOTDATA_CACHE": folder / "cache",
    }  # fmt: skip
    os.environ.update({name: str(value) for name, value in here.items()})
    out = os.open(folder / f"rank_{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    status = _run(job)
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


def wait_for(ranks, *, seconds, has_agent=False):
    """Return the exit status of every rank that ends in time; an agent ends the others when one has failed."""
    ended = {}

    def have_ended():
        for rank in ranks:
            if rank not in ended:
                process, status = os.waitpid(rank, os.WNOHANG)
                ended.update({rank: os.waitstatus_to_exitcode(status)} if process else {})
                if process and status and has_agent:
                    for other in set(ranks) - set(ended):
                        os.kill(other, signal.SIGTERM)
        return len(ended) == len(ranks)

    until(have_ended, seconds=seconds)
    return ended


def left_of(group):
    """Say whether a process of the group outlives the ranks by more than readers take to see that they are gone."""
    if until(lambda: not has_members(group), seconds=10):
        return False
    os.killpg(group, signal.SIGKILL)
    return True


def has_members(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def until(is_so, *, seconds):
    """Wait for something to become true, for so long at most; return whether it did."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# In the tests


class Ranks:
    """The server, from outside."""

    def __init__(self):
        path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout.readline() == "ready\n"

    def run(self, job):
        """Run a job; return what each rank noted, in their order, and how they ended."""
        Path(job.folder).mkdir(exist_ok=True)
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
        os._exit(0)  # taking libraries apart takes seconds
    else:
        sys.exit(_run(Job(**json.loads(Path(sys.argv[1]).read_text()))))

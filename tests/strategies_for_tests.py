"""Somebody's own Lightning code, as a program: ten batches by a strategy, in a precision, and a signal in the middle.

``python strategies_for_tests.py JOB.json``; what each rank saw is in ``seen_<rank>.jsonl`` of the job's folder.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision

from rootdata import RootDataModule
from rootdata.io import trees
from rootdata.shutdown.ranks import EndOnSignal
from rootdata.training.stopping import SaveWhenStopped

if __name__ in {"__main__", "__mp_main__"}:  # a rank that is spawned imports this, and runs no `main`
    trees.BLOCK_ENTRIES = 1  # type: ignore[attr-defined]  # blocks end with baskets: several in each file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training of ten batches.

    Parameters
    ----------
    folder : of what is written
    data : options of ``RootDataModule``
    precision : of the trainer, or ``plugin`` for one that rebuilds batches
    signum : what the last rank gets in its fifth step, 0 for nothing
    ckpt_path : the checkpoint to go on from
    then : ``fit`` alone, or ``predict`` or ``validate``, in the second batch of which the signal is sent
    """

    folder: str
    data: dict[str, Any]
    strategy: str = "auto"
    world: int = 1
    precision: str = "32-true"
    signum: int = 0
    ckpt_path: str | None = None
    then: str = "fit"


class Rebuilding(Precision):
    """Makes another kind of thing of every batch."""

    def convert_input(self, data):
        return SimpleNamespace(**data)


class Net(pl.LightningModule):
    """Takes tensors of whatever type."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return dict(vars(batch) if isinstance(batch, SimpleNamespace) else batch)

    def training_step(self, batch, number):
        score = self.layer(batch["x"]).squeeze(1)
        return torch.nn.functional.binary_cross_entropy_with_logits(score.float(), batch["label"].float())

    def validation_step(self, batch, number):
        self.log("val/loss", self.training_step(batch, number))

    def predict_step(self, batch, number):
        return self.layer(batch["x"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(pl.Callback):
    """Notes each batch, and sends the signal."""

    def __init__(self, job):
        self.job = job

    def send(self, trainer, when):
        if self.job.signum and self.job.then == when and trainer.global_rank == self.job.world - 1:
            os.kill(os.getpid(), self.job.signum)

    def on_train_batch_start(self, trainer, module, batch, number):
        if number == 4:
            self.send(trainer, "fit")

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        types = {name: str(values.dtype) for name, values in batch.items()}
        note = {"number": number, "events": batch["index"].tolist(), "types": types, "weights": str(module.dtype)}
        with Path(self.job.folder, f"seen_{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")

    def on_validation_batch_start(self, trainer, module, batch, number, dataloader_idx=0):
        if number == 1 and trainer.state.fn == "validate":
            self.send(trainer, "validate")

    def on_predict_batch_start(self, trainer, module, batch, number, dataloader_idx=0):
        if number == 1:
            self.send(trainer, "predict")


def main(job):
    """Train, and do what comes then."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder = Path(job.folder)
    kind = {"plugins": [Rebuilding()]} if job.precision == "plugin" else {"precision": job.precision}
    saver = pl.callbacks.ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu", strategy=job.strategy, devices=job.world, max_epochs=1, logger=False, **kind,
        callbacks=[EndOnSignal(), Seen(job), saver, SaveWhenStopped(folder / "stopped.ckpt")],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    net, data = Net(), RootDataModule(**job.data)
    trainer.fit(net, data, ckpt_path=job.ckpt_path)
    if job.then == "predict":
        trainer.predict(net, data)
    if job.then == "validate":
        trainer.validate(net, data, verbose=False)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(Job(**json.loads(Path(sys.argv[1]).read_text())))

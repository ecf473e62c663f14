"""Files of events, and a network on them: exported once, tested once."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write

from rootdata.analysis.friends.callback import FriendWriter
from rootdata.bundle.export import export
from rootdata.loading.datamodule import RootDataModule
from rootdata.models import DNN
from rootdata.training.callbacks import ScoreReport

OBSERVERS = ["event"]
CUT = "met > 10"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Analysis:
    """Files, the bundle of a network, and what Lightning said of its test."""

    events: Path
    bundle: Path
    data: RootDataModule
    network: DNN
    run: Path


@pytest.fixture(scope="session")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Two samples of two files each, one of them an RNTuple, and a network that was tested on a part of them."""
    folder = tmp_path_factory.mktemp("analysis")
    for number in range(4):
        kind = "RNTuple" if number == 3 else "TTree"
        write(folder / f"events/{number}.root", make_events(400 + 100 * number, number), steps=(150, 300), kind=kind)
    samples = {"a": [f"{folder}/events/0.root", f"{folder}/events/1.root"], "b": f"{folder}/events/[23].root"}
    data = RootDataModule(
        samples, flat=["met"], jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 3}}, label="is_signal",
        cut=CUT, weight="weight", observers=OBSERVERS, batch_size=64,
    )  # fmt: skip
    data.prepare_data()
    torch.manual_seed(0)
    network = DNN(data.shapes).eval()
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [ScoreReport(folder / "run", plots=False), FriendWriter(folder / "run/friends")]
    trainer = pl.Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=callbacks, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.test(network, datamodule=data, verbose=False)
    export(network, data, folder / "bundle", num_events=50, training={"data": {"observers": OBSERVERS}})
    return Analysis(events=folder / "events", bundle=folder / "bundle", data=data, network=network, run=folder / "run")

"""Memory of boosted trees: ``python -m benchmarks.trees data/ttH_350000_seed42 --model xgboost --times 10``.

The files of a folder of ``data=ttH`` are taken so many times, under names of their own, and a few rounds are trained on
them. Told is the peak of the resident set above what the imports take: all of it, and what of it is anonymous, without
the pages of files, which the kernel takes back where others want memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import yaml

from rootdata.loading.datamodule import RootDataModule
from rootdata.models.estimators.lgbm import LightGBM
from rootdata.models.estimators.xgb import XGBoost

CONFIGS = Path(__file__).parents[1] / "configs"
MODELS = {"xgboost": XGBoost, "lightgbm": LightGBM}
SAMPLES = {"QCD": "QCD_Pt_*", "ttbar": "TTToHadronic", "ttH_unmatched": "ttH_unmatched", "ttH_signal": "ttH_signal"}
SIGNAL = "ttH_signal"
EVERY = 0.01  # seconds between two looks


def resident_mb() -> tuple[float, float]:
    """Return the resident memory of this process, all of it and the anonymous part, in MB."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024


class Peak(threading.Thread):
    """Looks at the memory from its start to its :meth:`stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._start = self._peak = resident_mb()
        self._is_over = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self._is_over.wait(EVERY):
            now = resident_mb()
            self._peak = max(now[0], self._peak[0]), max(now[1], self._peak[1])

    def stop(self) -> tuple[float, float]:
        """Return the peaks above the start."""
        self._is_over.set()
        self.join()
        return self._peak[0] - self._start[0], self._peak[1] - self._start[1]


def copied(folder: Path, times: int, *, place: Path) -> dict[str, dict[str, object]]:
    """Copy the files of a folder so many times, and name their samples: a copy's name deals its events anew."""
    for path in sorted(folder.glob("*.root")):
        for number in range(times):
            shutil.copy(path, place / f"{path.stem}-{number}.root")
    return {
        name: {"files": str(place / f"{pattern}-*.root"), "label": int(name == SIGNAL)}
        for name, pattern in SAMPLES.items()
    }


def measure(folder: Path, *, model: str, times: int, rounds: int) -> dict[str, object]:
    """Train a few rounds."""
    importlib.import_module(model)
    plain = yaml.safe_load((CONFIGS / "data" / "ttH.yaml").read_text())
    wanted = yaml.safe_load((CONFIGS / "model" / f"{model}.yaml").read_text())
    reading = {name: wanted[name] for name in ("layout", "scale", "pad", "batch_size", "chunk_size")}
    lists = {name: {key: of[key] for key in ("branches", "length")} for name, of in plain["jagged"].items()}
    with tempfile.TemporaryDirectory() as place:
        samples = copied(folder, times, place=Path(place))
        peak, start = Peak(), time.perf_counter()
        peak.start()
        data = RootDataModule(
            samples=samples, flat=plain["flat"], jagged=lists, split={"train": 0.64, "val": 0.16, "test": 0.2},
            **reading,
        )  # fmt: skip
        network = MODELS[model](data.shapes, trees=rounds)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", default_root_dir=place, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(network, datamodule=data)
        whole, anonymous = peak.stop()
    return {
        "model": model, "events": sum(file.entries for file in data.specs.files), "inputs": network.n_inputs,
        "training_events": data.specs.num_events("train"), "rounds": rounds, "peak_mb": round(whole),
        "anonymous_mb": round(anonymous), "seconds": round(time.perf_counter() - start),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trees", description=__doc__)
    parser.add_argument("folder", type=Path, help="of the files of data=ttH")
    parser.add_argument("--model", choices=MODELS, default="xgboost")
    parser.add_argument("--times", type=int, default=1, help="that each file is taken")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    print(json.dumps(measure(arguments.folder, model=arguments.model, times=arguments.times, rounds=arguments.rounds)))


if __name__ == "__main__":
    main()

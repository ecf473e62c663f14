"""weaver-core: ``SimpleIterDataset`` under torch's ``DataLoader``, as its ``weaver`` command makes them.

Settings: ``fetch`` is ``--fetch-step``, the fraction of every file that is read and mixed at a time (0.01 if not said);
``memory`` is ``--in-memory``, which reads all once and mixes all. There is no worker process, only its reading thread.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.adapter import Epoch, Request, answer


def configuration(request: Request) -> dict[str, Any]:
    """Return the data configuration: no selection, no weights, no scaling, classes by the names of the files."""
    signal = {f"{Path(path).name}$": 1 for path in request["signal"]}
    return {
        "treename": "Events",
        "file_magic": {"is_signal": signal},
        "new_variables": {"is_background": "1 - is_signal"},
        "preprocess": {"method": "manual"},
        "inputs": {
            "flat": {"length": None, "vars": [[name, None] for name in request["flat"]]},
            "jagged": {"length": request["length"], "vars": [[name, None] for name in request["jagged"]]},
        },
        "labels": {"type": "simple", "value": ["is_background", "is_signal"]},
    }


def build(request: Request) -> Epoch:
    """Make the loader."""
    import yaml
    from torch.utils.data import DataLoader
    from weaver.utils.dataset import SimpleIterDataset

    in_memory = request["setting"].get("memory", False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.yaml"
        path.write_text(yaml.safe_dump(configuration(request)))
        events = SimpleIterDataset(
            {name: request[name] for name in ("background", "signal")},
            str(path),
            for_training=True,
            fetch_step=request["setting"].get("fetch", 1),
            infinity_mode=in_memory,
            in_memory=in_memory,
            name="train",
        )
    loader = DataLoader(events, batch_size=request["batch_size"], drop_last=True)
    steps = request["events"] // request["batch_size"]

    def epoch() -> Iterator[Any]:
        for inputs, _, _ in itertools.islice(loader, steps):
            yield inputs["flat"][:, :2]

    return epoch


if __name__ == "__main__":
    answer("weaver.utils.dataset", build)

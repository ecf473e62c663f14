"""f9columnar: a source of ROOT files in partitions, a file each, which are read side by side and mixed.

Settings: ``layout`` is ``padding`` or ``varlen``; the second packs the objects and pads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers.adapter import Epoch, Request, answer


def configuration(request: Request) -> dict[str, Any]:
    """Return the configuration of the source; it has no label, the partition of an event tells its class."""
    return {
        "name": "events",
        "id": 0,
        "data": {
            "reader": "root",
            "paths": [*request["background"], *request["signal"]],
            "key": "Events",
            "step_size": request["cluster"],
        },
        "collate": {
            "modalities": {"flat": request["flat"], "jagged": request["jagged"]},
            "layout": request["setting"]["layout"],
            "combine_varlen_objects": False,  # orders objects of several collections; here is one
            "max_lengths": {"jagged": request["length"]} if request["setting"]["layout"] == "padding" else None,
        },
        "sampling": {"batch_size": request["batch_size"]},
        "partitioned": {
            "partitions": None,
            "partition_mode": "max_size",
            "partition_batch_size": request["batch_size"],
            "shuffle_partitions": True,
            "shuffle_batch_partitions": True,
            "partition_drop_last_batch": True,
        },
    }


def build(request: Request) -> Epoch:
    """Make the loader."""
    from f9columnar.ml.sources import CombinedSourcesBuilder

    config = {"sources": [configuration(request)], "mixing": {"combined_mode": "max_size"}}
    loader = CombinedSourcesBuilder(config).build()
    first, second = request["flat"][:2]

    def epoch() -> Iterator[Any]:
        import torch

        for batch, _, _ in loader:
            columns, _, _ = batch["events"][0]["flat"]
            yield torch.stack([columns[first], columns[second]], dim=1)

    return epoch


if __name__ == "__main__":
    answer("f9columnar.ml.sources", build)

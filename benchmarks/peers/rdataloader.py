"""ROOT's ``RDataLoader``, from the wheel ``root``.

Settings: ``batches`` is ``batches_in_memory``, what it mixes at a time; ``eager`` reads all at the start.

ROOT takes a file that uproot wrote for one cluster, whatever its baskets, and the files of these benchmarks
are such: without ``eager`` a batch then comes from one file. Files that ROOT wrote are mixed better.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers.adapter import Epoch, Request, answer


def build(request: Request) -> Epoch:
    """Make the loader: one data frame, whose clusters it mixes, with the label of an event by its file."""
    import ROOT

    frame = ROOT.RDataFrame("Events", [*request["background"], *request["signal"]])
    is_signal = " || ".join(f'rdfsampleinfo_.Contains("{path}")' for path in request["signal"])
    loader = ROOT.Experimental.ML.RDataLoader(
        frame.DefinePerSample("label", f"({is_signal}) ? 1.0f : 0.0f"),
        batch_size=request["batch_size"],
        batches_in_memory=request["setting"].get("batches", 10),
        columns=[*request["flat"], *request["jagged"], "label"],
        max_vec_sizes=dict.fromkeys(request["jagged"], request["length"]),
        target="label",
        shuffle=True,
        drop_remainder=True,
        load_eager=request["setting"].get("eager", False),
    )

    def epoch() -> Iterator[Any]:
        for inputs, _ in loader.as_torch():
            yield inputs[:, :2]

    return epoch


if __name__ == "__main__":
    answer("ROOT", build)

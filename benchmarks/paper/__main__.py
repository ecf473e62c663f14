"""``python -m benchmarks.paper`` does all of it; ``--only trainings`` or ``--only throughput`` a part."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper import throughput, trainings

PARTS = ("trainings", "throughput")


def main() -> None:
    """Measure, print tables, draw, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("--events", type=int, default=350_000, help="of the trainings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the ttH samples are, or are made")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rootdata-benchmarks")
    parser.add_argument("--chunk-events", type=int, default=1_000_000, help="of the throughput by chunk size")
    parser.add_argument("--model-events", type=int, default=50_000, help="of the largest set that costs are fitted on")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--only", choices=PARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only != "throughput":
        found = trainings.run(given.data.absolute(), events=given.events, seeds=given.seeds)
        _report("tth_paper", found, trainings, given.out)
    if given.only != "trainings":
        measured = {
            "by chunk": throughput.by_chunk(given.folder, events=given.chunk_events, chunks=throughput.CHUNKS),
            "projection": throughput.projected(given.folder, events=given.model_events),
        }
        _report("paper_throughput", measured, throughput, given.out)


def _report(name: str, result: dict[str, Any], what: Any, out: Path) -> None:
    print("\n".join(what.lines(result)), flush=True)
    what.draw(result, out / f"{name}.png")
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

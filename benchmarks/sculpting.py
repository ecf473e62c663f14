"""Columns of background before and after a cut on the scores of some trainings, beside each other.

``python -m benchmarks.sculpting FOLDER [FOLDER ...] --out picture.png``, of the folders of trainings of networks with
``model.decorrelate``; with ``strength=0`` that is one without any decorrelation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from rootdata.training.pictures import new_figure
from rootdata.training.reports.sculpting import Sculpting, draw_one


def draw(folders: Sequence[Path], out: Path) -> None:
    """Draw a panel for each column of each training, with its strength and its AUC."""
    panels = []
    for folder in folders:
        plain = json.loads((folder / "sculpting.json").read_text())
        area = json.loads((folder / "metrics.json").read_text())["auc"]
        strength = OmegaConf.load(folder / "config.yaml").model.decorrelate.get("strength", 10)
        title = f"strength {strength:g}: AUC {area:.4f}"
        panels += [(name, Sculpting.from_dict(one), title) for name, one in plain.items()]
    figure, all_axes = new_figure(len(panels))
    for axes, (name, one, title) in zip(all_axes, panels, strict=True):
        draw_one(axes, one, name=name, title=title)
    top = max(axes.get_ylim()[1] for axes in all_axes)
    for axes in all_axes if len({name for name, _, _ in panels}) == 1 else []:
        axes.set_ylim(0, top)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Draw, and print the divergences."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sculpting", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/tth_sculpting.png"))
    arguments = parser.parse_args()
    for folder in arguments.folders:
        if not (folder / "sculpting.json").is_file():
            parser.error(f"{folder} has no sculpting.json, which the test of a training with model.decorrelate writes")
    draw(arguments.folders, arguments.out)
    for folder in arguments.folders:
        metrics = json.loads((folder / "metrics.json").read_text())
        print(f"{folder}: AUC {metrics['auc']:.4f}, sculpting {metrics['sculpting']}")


if __name__ == "__main__":
    main()

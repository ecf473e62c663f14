"""Draw the spectra of signal and background in test events: as they are, flat, and background like signal.

``python examples/reweighting.py --out reweighting.png`` makes simulated events for it; with ``--pythia FOLDER`` it
takes those that ``rootdata simulate --generator pythia`` made. What events are multiplied by is learnt from training
events.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from rootdata import RootDataset, tth

mpl.use("agg")
NAMES = ("pt", "eta")
EDGES: tuple[list[float], ...] = ([300, 350, 400, 450, 500, 600, 800], [-2.4, -1.6, -0.8, 0, 0.8, 1.6, 2.4])
TITLES = {"as they are": None, "flat in given bins": "flat", "background like signal": "signal"}
UNITS = {"pt": "leading fat jet $p_T$ [GeV]", "eta": "leading fat jet $\\eta$"}


def read(folder: Path, columns: dict[str, str], reweight: dict[str, Any] | None) -> tuple[dict[str, Any], Any]:
    """Read the test events of all samples, and the factor of each."""
    background = [str(folder / name) for name in ("QCD_Pt_*.root", "TTToHadronic.root", "ttH_unmatched.root")]
    options: dict[str, Any] = {
        "samples": {
            "background": {"files": background, "label": 0},
            "ttH": {"files": str(folder / "ttH_signal.root"), "label": 1},
        },
        "flat": ["HT"],
        "cut": f"isfinite({columns['pt']})",
        "observers": columns,
        "reweight": reweight,
    }
    data = RootDataset(options, "test")
    batches = list(data)
    found = {name: np.concatenate([b[name].numpy() for b in batches]) for name in batches[0]}
    weighting = data.specs.weighting
    values = [found[f"observers/{name}"].astype(float) for name in NAMES]
    return found, np.ones(len(values[0])) if weighting is None else weighting.factors(found["label"], values)


def draw(folder: Path, columns: dict[str, str], path: Path) -> None:
    """Draw a column for each way to weigh events, and a row for each variable."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(len(NAMES), len(TITLES), sharex="row")
    for column, (title, to) in enumerate(TITLES.items()):
        bins: list[Any] = list(EDGES) if to == "flat" else [15, 12]
        asked = to and {"variables": [columns[name] for name in NAMES], "bins": bins, "to": to}
        events, factors = read(folder, columns, asked or None)
        for row, (name, edges) in enumerate(zip(NAMES, EDGES, strict=True)):
            axes, fine = panels[row][column], np.array(edges, float)
            if to != "flat":
                fine = np.linspace(fine[0], fine[-1], 25)
            for label, word in enumerate(("background", "signal")):
                own = events["label"] == label
                heights, _ = np.histogram(events[f"observers/{name}"][own], bins=fine, weights=factors[own])
                density = heights if to == "flat" else heights / np.diff(fine)
                axes.stairs(density / density.mean(), fine, label=word, lw=1.8, color=("C0", "C3")[label])
            axes.set(xlabel=UNITS[name], ylim=(0, None))
            axes.set_ylabel("weight of a bin / mean" if to == "flat" else "density / mean")
        panels[0][column].set_title(title)
    panels[0][0].legend(frameon=False)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Make the events where none are given, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reweighting.png"))
    parser.add_argument("--pythia", type=Path, help="folder of the events with real showers")
    parser.add_argument("--events", type=int, default=20_000)
    arguments = parser.parse_args()
    if arguments.pythia is not None:
        draw(arguments.pythia, {"pt": "fj_pt", "eta": "fj_eta"}, arguments.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        tth.ensure(folder, n_events=arguments.events, seed=42)
        draw(Path(folder), {"pt": "FatJet_pt[0]", "eta": "FatJet_eta[0]"}, arguments.out)


if __name__ == "__main__":
    main()

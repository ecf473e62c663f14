"""Draw an event: its jets, the channels of its image, and what comes back of it.

``python examples/event_image.py --out event_image.png`` makes a few simulated ttH events for it.
"""

import argparse
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

from rootdata import RootDataModule, tth

mpl.use("agg")
AXES = {
    "x": {"column": "Jet_eta", "bins": 16, "range": [-2.5, 2.5]},
    "y": {"column": "Jet_phi", "bins": 16},
}
CHANNELS = ["count", "sum(Jet_pt)", "max(Jet_btag)"]
BRANCHES = ["Jet_eta", "Jet_phi", "Jet_pt", "Jet_btag"]


def data_of(folder: Path) -> RootDataModule:
    """Read the same jets twice: as objects, and as an image."""
    image = {"branches": BRANCHES, "image": {**AXES, "channels": CHANNELS}, "form": "image"}
    return RootDataModule(
        {"ttH": {"files": str(folder / "ttH_signal.root"), "label": 1}},
        jagged={"jets": {"branches": BRANCHES, "form": "tokens"}, "drawn": image},
        layout="tokens",
        split={"train": 1.0},
        batch_size=32,
    )


def draw(data: RootDataModule, path: Path) -> None:
    """Draw the event of the first batch that has most jets."""
    from matplotlib.figure import Figure

    batch = next(iter(data.predict_dataloader()))
    events = data.decode(batch)
    number = int(np.argmax(batch["jets_mask"].sum(1)))
    jets, cells, channels = events.jets[number], events.drawn[number], batch["drawn"][number]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(CHANNELS), sharex=True, sharey=True)
    first.scatter(jets.Jet_eta, jets.Jet_phi, s=jets.Jet_pt, alpha=0.6, label="jets, by $p_T$")
    first.scatter(cells.Jet_eta, cells.Jet_phi, marker="x", color="black", label="decoded")
    first.set(title="the event, and decoded", xlabel="Jet_eta", ylabel="Jet_phi")
    first.legend(loc="center left", fontsize="small")
    edges = (-2.5, 2.5, -np.pi, np.pi)
    for axes, channel, name in zip(others, channels.numpy(), CHANNELS, strict=True):
        shown = axes.imshow(channel, origin="lower", extent=edges, aspect="auto", cmap="viridis")
        figure.colorbar(shown, ax=axes)
        axes.set(title=f"{name}, scaled" if name != "count" else name, xlabel="Jet_eta")
    figure.savefig(path, dpi=80)


def main() -> None:
    """Make the events, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("event_image.png"))
    parser.add_argument("--events", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tth.ensure(folder, n_events=arguments.events, seed=42)
        draw(data_of(Path(folder)), arguments.out)


if __name__ == "__main__":
    main()

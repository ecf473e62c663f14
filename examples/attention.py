"""Draw what a transformer looks at in an event: which jet attends to which, and what the score is without a jet.

``python examples/attention.py --out attention.png`` makes simulated ttH events, and trains on them for a minute or two.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytorch_lightning as pl
import torch

from rootdata import RootDataModule, tth
from rootdata.models import Transformer

mpl.use("agg")
MOMENTA = ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"]
MEDIUM = 0.4941  # of the b-tag score, see docs/tth.md
B_JET, OTHER = "#bd1f01", "#3f90da"


def data_of(folder: Path) -> RootDataModule:
    """Read jets of ttH, and of the two backgrounds."""
    signal = {"ttH": {"files": str(folder / "ttH_signal.root"), "label": 1}}
    others = {"QCD": str(folder / "QCD_Pt_*.root"), "ttbar": str(folder / "TTToHadronic.root")}
    return RootDataModule(
        {**{name: {"files": files, "label": 0} for name, files in others.items()}, **signal},
        flat=["HT", "sphericity"],
        jagged={"jets": {"branches": [*MOMENTA, "Jet_btag"], "length": 10}},
        layout="tokens",
        quantiles=True,
        batch_size=256,
    )


def train(data: RootDataModule, *, epochs: int) -> Transformer:
    """Train with features of pairs."""
    pl.seed_everything(1)
    network = Transformer(data.shapes, pairwise={"jets": MOMENTA}, layers=1, attention_heads=2, dropout=0.2)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet).fit(network, datamodule=data)
    return network.eval()


def without_each(network: Transformer, event: dict[str, torch.Tensor], n_jets: int) -> np.ndarray:
    """Score an event once as it is, and once without each of its jets."""
    copies = {name: values.repeat(n_jets + 1, *[1] * (values.ndim - 1)) for name, values in event.items()}
    copies["jets_mask"][range(1, n_jets + 1), range(n_jets)] = False
    with torch.no_grad():
        return network.scores(copies).numpy()


def draw(network: Transformer, data: RootDataModule, path: Path) -> None:
    """Draw a signal event of six jets or more whose score is near 0.8, so that there is something to lose."""
    from matplotlib.figure import Figure

    batch = next(b for b in data.test_dataloader() if (b["jets_mask"].sum(1)[b["label"] == 1] > 5).any())
    with torch.no_grad():
        is_meant = (batch["label"] == 1) & (batch["jets_mask"].sum(1) > 5)
        number = int(torch.where(is_meant, (network.scores(batch) - 0.8).abs(), torch.inf).argmin())
    event = {name: batch[name][number : number + 1] for name in data.shapes}
    jets, weights = data.decode(event).jets[0], network.attention(event)[0]
    n_jets = len(jets)
    attention = weights[-1, 0].mean(0).numpy()[1 : 1 + n_jets, 1 : 1 + n_jets]  # of all heads; the event's own left out
    tags = [", b" if tag > MEDIUM else "" for tag in jets.Jet_btag]
    names = [f"jet {i + 1} ({jets.Jet_pt[i]:.0f} GeV{tag})" for i, tag in enumerate(tags)]

    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_jets(left, jets, attention)
    shown = middle.imshow(100 * attention, cmap="viridis", vmin=0)
    figure.colorbar(shown, ax=middle, label="attention [%]")
    middle.set(title="how much a jet (row) takes of each", xlabel="jet", yticks=range(n_jets), yticklabels=names)
    middle.set(xticks=range(n_jets), xticklabels=range(1, n_jets + 1))
    whole, *others = without_each(network, event, n_jets)
    colours = [B_JET if b > MEDIUM else OTHER for b in jets.Jet_btag]
    right.barh(range(n_jets), others, color=colours)
    right.axvline(whole, color="black", label=f"with all jets: {whole:.2f}")
    right.set(title="score without one of the jets", xlabel="score", xlim=(0, 1.05))
    right.set(yticks=range(n_jets), yticklabels=[f"without {name}" for name in names])
    right.invert_yaxis()
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize="small")
    figure.savefig(path, dpi=80)


def _draw_jets(axes: Any, jets: Any, attention: np.ndarray) -> None:
    """Draw jets where they are, and a line between two that take more of each other than pairs do in the mean."""
    eta, phi, size = (np.asarray(jets[name]) for name in ("Jet_eta", "Jet_phi", "Jet_pt"))
    both = attention + attention.T
    pairs = [(a, b) for a in range(len(eta)) for b in range(a)]
    mean, most = np.mean([both[pair] for pair in pairs]), max(both[pair] for pair in pairs)
    for a, b in (pair for pair in pairs if both[pair] > mean):
        turn = phi[b] - phi[a]
        turn -= 2 * np.pi * np.round(turn / (2 * np.pi))  # the short way around
        width = 1 + 7 * (both[a, b] - mean) / (most - mean)
        for start, end, way in ((a, b, turn), (b, a, -turn)):  # twice, for lines that leave at one edge
            axes.plot([eta[start], eta[end]], [phi[start], phi[start] + way], lw=width, color="0.65", zorder=1)
    is_b = np.asarray(jets.Jet_btag) > MEDIUM
    for which, colour, label in ((is_b, B_JET, "jet with a medium b tag, area by $p_T$"), (~is_b, OTHER, "other jet")):
        axes.scatter(eta[which], phi[which], s=2 * size[which], color=colour, label=label, zorder=2)
    for i in range(len(eta)):
        axes.annotate(str(i + 1), (eta[i], phi[i]), ha="center", va="center", color="white", zorder=3, weight="bold")
    axes.plot([], [], color="0.65", lw=4, label="attention above the mean of pairs, thick where most")
    axes.set(title=f"a ttH event of {len(eta)} jets", xlabel="$\\eta$", ylabel="$\\phi$ [rad]")
    axes.set(xlim=(-2.6, 2.6), ylim=(-np.pi, np.pi))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize="small", markerscale=0.5)


def main() -> None:
    """Make the events, train, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("attention.png"))
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tth.ensure(folder, n_events=arguments.events, seed=42)
        data = data_of(Path(folder))
        draw(train(data, epochs=arguments.epochs), data, arguments.out)


if __name__ == "__main__":
    main()

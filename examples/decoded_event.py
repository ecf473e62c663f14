"""Draw an event beside what an autoencoder makes of it, both as they lie in the file that ``DecodedWriter`` writes.

``python examples/decoded_event.py --out decoded_event.png`` makes a few simulated ttH events, and trains on them.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import awkward as ak
import matplotlib as mpl
import numpy as np
import pytorch_lightning as pl
import uproot

from rootdata import RootDataModule, tth
from rootdata.analysis.decoded import DecodedWriter
from rootdata.models import Autoencoder

mpl.use("agg")


def data_of(folder: Path) -> RootDataModule:
    """Read jets without a label."""
    return RootDataModule(
        {"all": {"files": str(folder / "*.root")}},
        flat=["HT", "mbb", "sphericity"],
        jagged={"jets": {"branches": ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_btag"], "length": 8}},
        scale={"Jet_pt": "log", "HT": "log"},
        layout="tokens",
        batch_size=64,
    )


def decode(data: RootDataModule, folder: Path, *, epochs: int) -> Path:
    """Train an autoencoder, and write the events of its test."""
    pl.seed_everything(1)
    network, writer = Autoencoder(data.shapes, hidden=[128], latent=24, lr=3e-3), DecodedWriter(folder / "decoded.root")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[writer], enable_model_summary=False, **quiet)
    trainer.fit(network, datamodule=data)
    trainer.test(network, datamodule=data, verbose=False)
    return writer.path


def draw(file: Path, path: Path) -> None:
    """Draw the event with most jets, and the momenta of the leading jets of all."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter

    with uproot.open(file) as opened:
        events = opened["Events"].arrays()
    event = events[int(np.argmax(events.n_jets))]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(event.Jet_eta, event.Jet_phi, s=event.Jet_pt, alpha=0.5, label="jets, by $p_T$")
    sizes = np.maximum(ak.to_numpy(event.Jet_pt_decoded), 1)
    decoded: dict[str, Any] = {"s": sizes, "facecolors": "none", "edgecolors": "black", "label": "decoded"}
    left.scatter(event.Jet_eta_decoded, event.Jet_phi_decoded, **decoded)
    pairs = zip(event.Jet_eta, event.Jet_phi, event.Jet_eta_decoded, event.Jet_phi_decoded, strict=True)
    for eta, phi, eta_decoded, phi_decoded in pairs:
        left.plot([eta, eta_decoded], [phi, phi_decoded], color="0.6", lw=0.8)
    left.set(title=f"an event of {event.n_jets} jets", xlabel="Jet_eta", ylabel="Jet_phi")
    left.legend(loc="best", fontsize="small")
    found = ak.flatten(events.Jet_pt), ak.flatten(events.Jet_pt_decoded)
    right.scatter(*(column[::10] for column in found), s=2, alpha=0.3)
    right.plot([10, 1000], [10, 1000], color="0.5", lw=1)
    right.set(title="a tenth of the jets of the test events", xlabel="Jet_pt [GeV]", ylabel="Jet_pt_decoded [GeV]")
    right.set(xscale="log", yscale="log", xlim=(20, 800), ylim=(20, 800))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_locator(FixedLocator([30, 100, 300]))
        axis.set_major_formatter("{x:.0f}")
        axis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=80)


def main() -> None:
    """Make the events, train, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("decoded_event.png"))
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tth.ensure(folder, n_events=arguments.events, seed=42)
        draw(decode(data_of(Path(folder)), Path(folder), epochs=arguments.epochs), arguments.out)


if __name__ == "__main__":
    main()

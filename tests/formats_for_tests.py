"""Tiny files with the names and types of five formats: what is measured, and truth that nobody may train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

FORMATS = ("nanoaod", "physlite", "delphes", "edm4hep", "lhcb")
TREES = {
    "nanoaod": "Events",
    "physlite": "CollectionTree",
    "delphes": "Delphes",
    "edm4hep": "events",
    "lhcb": "DecayTree",
}
# Collections and their branches, each with the size of its values; lists of a format share a separator.
_LISTS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "nanoaod": {
        "Jet_": {"pt": 50, "eta": 1, "phi": 1, "mass": 9, "btagDeepFlavB": 0.3},
        "FatJet_": {"pt": 300, "eta": 1, "phi": 1, "mass": 80, "tau1": 0.3, "tau2": 0.2},
        "Muon_": {"pt": 30, "eta": 1, "phi": 1, "charge": 1, "pfRelIso04_all": 0.1},
        "Electron_": {"pt": 30, "eta": 1, "phi": 1, "charge": 1, "pfRelIso03_all": 0.1},
        "GenJet_": {"pt": 50, "eta": 1, "phi": 1},
    },
    "physlite": {
        "AnalysisJetsAuxDyn.": {"pt": 5e4, "eta": 1, "phi": 1, "m": 9e3, "EMFrac": 0.5, "Width": 0.1},
        "AnalysisElectronsAuxDyn.": {"pt": 3e4, "eta": 1, "phi": 1, "charge": 1},
        "AnalysisMuonsAuxDyn.": {"pt": 3e4, "eta": 1, "phi": 1, "charge": 1},
        "AnalysisTauJetsAuxDyn.": {"pt": 3e4, "eta": 1, "phi": 1},
        "TruthElectronsAuxDyn.": {"px": 3e4, "py": 3e4},
    },
    "delphes": {
        "Particle.": {"PT": 50, "Eta": 1, "Phi": 1},
        "Jet.": {"PT": 50, "Eta": 1, "Phi": 1, "Mass": 9, "BTag": 1, "NCharged": 9, "NNeutrals": 9},
        "Electron.": {"PT": 30, "Eta": 1, "Phi": 1, "Charge": 1},
        "Muon.": {"PT": 30, "Eta": 1, "Phi": 1, "Charge": 1},
        "Photon.": {"PT": 30, "Eta": 1, "Phi": 1},
        "MissingET.": {"MET": 60, "Phi": 1},
        "ScalarHT.": {"HT": 300},
    },
    "edm4hep": {
        "MCParticles.": {"PDG": 20, "charge": 1},
        "ReconstructedParticles.": {
            "energy": 20, "momentum.x": 9, "momentum.y": 9, "momentum.z": 9, "charge": 1, "mass": 0.2,
        },
        "Jet.": {"energy": 50, "momentum.x": 20, "momentum.y": 20, "momentum.z": 20, "mass": 9},
        "MissingET.": {"energy": 20, "momentum.x": 9, "momentum.y": 9},
    },
    "lhcb": {},
}  # fmt: skip
_FLAT: Mapping[str, Mapping[str, float]] = {
    "nanoaod": {"PuppiMET_pt": 60, "PuppiMET_phi": 1, "PV_npvsGood": 20, "genWeight": 1, "Pileup_nTrueInt": 30},
    "physlite": {"EventInfoAuxDyn.averageInteractionsPerCrossing": 30},
    "delphes": {},
    "edm4hep": {},
    "lhcb": {
        **{f"B0_{name}": size for name, size in {"PT": 9e3, "IPCHI2_OWNPV": 4, "FDCHI2_OWNPV": 500}.items()},
        "B0_ENDVERTEX_CHI2": 4, "B0_TRUEP_X": 3e3,
        **{f"{p}_{n}": size for p in ("Kplus", "piminus") for n, size in
           {"PT": 3e3, "IPCHI2_OWNPV": 90, "PIDK": 20}.items()},
    },
}  # fmt: skip
_SIGNED = ("eta", "phi", "charge", "momentum.x", "momentum.y", "momentum.z", "PIDK", "PDG", "px", "py")
_WHOLE = ("charge", "btag", "ncharged", "nneutrals", "pv_npvsgood", "pdg")
_ALONE = ("MissingET.", "ScalarHT.")  # lists with one object in each event


def write(path: Path, name: str, *, is_signal: bool, num_events: int = 600, kind: str = "TTree") -> Path:
    """Write a file of a format; signal has more objects, and harder ones.

    Parameters
    ----------
    name : of the format
    kind : ``TTree`` or ``RNTuple``
    """
    rng = np.random.default_rng([FORMATS.index(name), is_signal])
    columns: dict[str, Any] = {b: _values(rng, b, size, num_events, is_signal) for b, size in _FLAT[name].items()}
    for head, branches in _LISTS[name].items():
        counts = np.ones(num_events, int) if head in _ALONE else rng.poisson(3 + is_signal, num_events)
        lists = {b: _values(rng, b, size, counts.sum(), is_signal) for b, size in branches.items()}
        columns |= {f"{head}{b}": ak.unflatten(values, counts) for b, values in lists.items()}
    if name == "lhcb":
        columns |= _candidates(rng, num_events, is_signal=is_signal)
    with uproot.recreate(path) as file:
        if kind == "RNTuple":
            file.mkrntuple(TREES[name], columns)
        else:
            tree = file.mktree(TREES[name], {n: _type_of(c) for n, c in columns.items()})
            tree.extend(columns)
    return path


def _values(rng: np.random.Generator, name: str, size: float, number: int, is_signal: bool) -> Any:
    lowered = name.lower()
    scale = size * (1.5 if is_signal else 1.0)
    is_signed = lowered.endswith(tuple(word.lower() for word in _SIGNED))
    values = rng.normal(0, size, number) if is_signed else rng.exponential(scale, number)
    return values.round().astype("i4") if lowered.endswith(_WHOLE) else values.astype("f4")


def _candidates(rng: np.random.Generator, number: int, *, is_signal: bool) -> dict[str, Any]:
    """Make the direction, the mass and the background category; data have no category, and any mass."""
    return {
        "B0_DIRA_OWNPV": 1 - rng.exponential(1e-5 if is_signal else 1e-4, number),
        "B0_M": rng.normal(5280, 20, number) if is_signal else rng.uniform(5000, 6000, number),
        "B0_BKGCAT": rng.choice([0, 50, 60], number).astype("i4") if is_signal else np.zeros(number, "i4") - 1,
    }


def _type_of(column: Any) -> Any:
    return column.dtype if isinstance(column, np.ndarray) else ak.type(column).content

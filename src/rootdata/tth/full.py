"""The ``full`` set: events before selection with the width of an analysis ntuple, 22 flat and 52 jagged branches.

For the reading of wide files of any size. Beside what the selection uses there are identification variables, subjets
and leptons, drawn without physics of their own. Never train on ``gen_isHiggsMatched``, ``Jet_hadronFlavour``,
``FatJet_nBHadrons`` (truth), ``genWeight`` or ``run``, ``luminosityBlock``, ``event`` (identifiers).
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from rootdata.errors import ConfigError
from rootdata.tth.events import SimulatedEvents, SimulatedObjects
from rootdata.tth.fast import BLOCK_EVENTS, matched
from rootdata.tth.physics import analysis, detector
from rootdata.tth.physics.analysis import FatJets, Jets
from rootdata.tth.physics.arrays import Array, Bools, Floats, choose, exponential, normal, sigmoid, uniform
from rootdata.tth.physics.detector import Clusters
from rootdata.tth.physics.kinematics import wrap_phi
from rootdata.tth.physics.process import simulate
from rootdata.tth.samples import PROCESSES
from rootdata.tth.sets import bar
from rootdata.tth.write import Note, TreeWriter, holds, new_set

NO_MASS: Final = -1.0  # mbb where there is no candidate
EVENTS_PER_LUMINOSITY_BLOCK: Final = 1000
MAX_LEPTONS: Final = 4
MEAN_FRACTIONS: Final = (0.60, 0.11, 0.26, 0.03)  # energy of charged and neutral hadrons, photons, the rest
MEAN_ELECTRONS: Final = 0.05
MEAN_MUONS: Final = 0.12


def generate_full(folder: str | Path, n_events: int, *, seed: int = 1, progress: bool = False) -> list[Path]:
    """Make the ``full`` set: a ROOT file of each process, in memory that doesn't grow with ``n_events``.

    Parameters
    ----------
    folder : to be made; where it has the same set already, nothing is done
    n_events : of all files together, shared out evenly
    seed : of all random numbers
    progress : show a bar

    Returns
    -------
    the eight files

    Raises
    ------
    ConfigError
        If there are fewer events than files.
    DataError
        If the folder has something else in it.
    """
    folder, note = Path(folder), Note(generator="fast", set="full", n_events=n_events, seed=seed)
    if n_events < len(PROCESSES):
        raise ConfigError(f"n_events: {n_events}; allowed: {len(PROCESSES)} or more, one for each file")
    names = [f"{process}.root" for process in PROCESSES]
    if holds(folder, note):
        return [folder / name for name in names]
    with new_set(folder, note, files=names) as partial, bar(n_events, is_shown=progress) as advance:
        for i, process in enumerate(PROCESSES):
            limit = n_events // len(PROCESSES) + (i < n_events % len(PROCESSES))
            with TreeWriter(partial / names[i], limit=limit) as writer:
                for block in count():
                    advance(writer.add(full_block(process, seed=seed, block=block)), process)
                    if not writer.missing:
                        break
    return [folder / name for name in names]


def full_block(process: str, *, seed: int, block: int) -> SimulatedEvents:
    """Simulate one block of a process with all that its file holds.

    Parameters
    ----------
    process : one of ``samples.PROCESSES``
    seed : of all random numbers, together with process and block
    block : number of the block, from 0; each has ``BLOCK_EVENTS`` events
    """
    rng = np.random.default_rng([seed, PROCESSES.index(process), block])
    hard = simulate(rng, process, n_events=BLOCK_EVENTS)
    partons = detector.observe(rng, hard.partons)
    fat_clusters, clusters = detector.cluster_fat_jets(rng, partons), detector.cluster_jets(rng, partons)
    fat_jets, jets = detector.resolve_fat_jets(rng, fat_clusters), detector.tag_jets(rng, clusters)
    n_vertices = rng.poisson(detector.PILEUP_MEAN, BLOCK_EVENTS)
    met, met_phi = detector.missing_momentum(rng, clusters, n_vertices=n_vertices)
    candidate = analysis.find_candidate(jets, fat_jets)
    columns = analysis.variables(jets, fat_jets, candidate, met=met)
    is_matched = matched(hard, jets, candidate, rows=np.arange(BLOCK_EVENTS))
    flat = {
        **_identifiers(block),
        "genWeight": np.ones(BLOCK_EVENTS, np.float32),
        "PV_npvs": n_vertices.astype(np.int32),
        "rho": np.maximum(0.55 * n_vertices.astype(np.float32) + 1.5 * normal(rng, BLOCK_EVENTS), 0),
        "MET_phi": met_phi,
        "MET_significance": met / np.sqrt(np.maximum(columns["HT"], 50)),
        **{name: columns[name] for name in ("MET_pt", "HT", "nBJet", "sphericity", "aplanarity", "centrality")},
        "HLT_PFHT_6j_2b": (columns["HT"] > 420) & (columns["nJet"] >= 6) & (columns["nBJet"] >= 2),
        "mbb": choose(candidate.exists, columns["mbb"], NO_MASS),
        "gen_isHiggsMatched": is_matched,
    }
    collections = {
        "Jet": _jets(rng, jets, clusters),
        "FatJet": _fat_jets(rng, fat_jets, fat_clusters),
        "SubJet": _subjets(rng, fat_jets),
        "Electron": _leptons(rng, MEAN_ELECTRONS),
        "Muon": _leptons(rng, MEAN_MUONS),
    }
    return SimulatedEvents(flat, collections)


def _identifiers(block: int) -> dict[str, Array]:
    event = block * BLOCK_EVENTS + np.arange(BLOCK_EVENTS)
    return {
        "run": np.ones(BLOCK_EVENTS, np.uint32),
        "luminosityBlock": (event // EVENTS_PER_LUMINOSITY_BLOCK + 1).astype(np.uint32),
        "event": event.astype(np.uint64),
    }


def _jets(rng: np.random.Generator, jets: Jets, clusters: Clusters) -> SimulatedObjects:
    shape = jets.pt.shape
    charged, neutral, photon, rest = _fractions(rng, shape)
    columns = {name: getattr(jets, name) for name in ("pt", "eta", "phi", "mass", "btag", "qgl")} | {
        "cvsl": uniform(rng, shape),
        "ptD": np.clip(0.36 + 0.09 * normal(rng, shape), 0.1, 1),
        "nConst": detector.count_constituents(rng, clusters),
        "chf": charged,
        "nhf": neutral,
        "phf": photon,
        "elf": rest * (uniform(rng, shape) < 0.05),
        "muf": rest * (uniform(rng, shape) < 0.05),
        "hadronFlavour": clusters.flavour.astype(np.int32),
        "puIdDisc": np.clip(1 - 0.2 * exponential(rng, shape), -1, 1),
    }
    return SimulatedObjects(columns, jets.is_real)


def _fat_jets(rng: np.random.Generator, fat_jets: FatJets, clusters: Clusters) -> SimulatedObjects:
    shape = fat_jets.pt.shape
    charged, neutral, photon, _ = _fractions(rng, shape)
    two_bottoms = choose(clusters.n_bottom >= 2, 1.4, choose(clusters.n_bottom == 1, -1.6, -3.2))
    columns = {
        name: getattr(fat_jets, name) for name in ("pt", "eta", "phi", "mass", "msoftdrop", "tau1", "tau2", "tau3")
    }
    columns |= {f"{name}Sub{i}": getattr(fat_jets, f"{name}_sub{i}") for name in ("btag", "mass", "pt") for i in (0, 1)}
    columns |= {
        "btagHbb": sigmoid(two_bottoms + 1.7 * normal(rng, shape)),
        "nConst": detector.count_constituents(rng, clusters),
        "chf": charged,
        "nhf": neutral,
        "phf": photon,
        "nBHadrons": clusters.n_bottom.astype(np.int32),
    }
    return SimulatedObjects(columns, fat_jets.is_real)


def _subjets(rng: np.random.Generator, fat_jets: FatJets) -> SimulatedObjects:
    """List the two subjets of each boosted jet, and which boosted jet each belongs to."""
    n_events, n_fat_jets = fat_jets.pt.shape
    shape = n_events, 2 * n_fat_jets
    pairs = {
        name: (getattr(fat_jets, f"{name}_sub0"), getattr(fat_jets, f"{name}_sub1")) for name in ("pt", "mass", "btag")
    }
    columns = {name: np.stack(pair, axis=2).reshape(shape) for name, pair in pairs.items()}
    columns["eta"] = np.repeat(fat_jets.eta, 2, axis=1) + 0.12 * normal(rng, shape)
    columns["phi"] = wrap_phi(np.repeat(fat_jets.phi, 2, axis=1) + 0.12 * normal(rng, shape))
    columns["fatJetIdx"] = np.broadcast_to(np.repeat(np.arange(n_fat_jets, dtype=np.int32), 2), shape)
    return SimulatedObjects(columns, np.repeat(fat_jets.is_real, 2, axis=1))


def _leptons(rng: np.random.Generator, mean: float) -> SimulatedObjects:
    """Draw a few soft, badly isolated leptons, as in jets."""
    shape = BLOCK_EVENTS, MAX_LEPTONS
    columns = {
        "pt": 10 + 12 * exponential(rng, shape),
        "eta": 2.4 * (2 * uniform(rng, shape) - 1),
        "phi": 2 * np.pi * (uniform(rng, shape) - 0.5),
        "charge": np.where(uniform(rng, shape) < 0.5, np.int32(-1), np.int32(1)),
        "pfRelIso": 2 * exponential(rng, shape),
    }
    return SimulatedObjects(columns, _first(rng.poisson(mean, BLOCK_EVENTS)))


def _first(counts: Array) -> Bools:
    return np.arange(MAX_LEPTONS) < counts[:, None]


def _fractions(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draw four energy fractions (4, *shape) that add up to one."""
    means = np.array(MEAN_FRACTIONS, np.float32).reshape(4, *(1 for _ in shape))
    parts = uniform(rng, (4, *shape)) * means
    fractions: Floats = parts / parts.sum(axis=0)
    return fractions

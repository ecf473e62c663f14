"""The fast generator: selected ttH(bb) and background events in numpy, about a thousand times faster than Pythia."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from rootdata.errors import DataError
from rootdata.tth.physics import analysis, detector
from rootdata.tth.physics.arrays import Array, Bools, select
from rootdata.tth.physics.process import HardEvents, simulate
from rootdata.tth.samples import PROCESSES
from rootdata.tth.sets import Selected, make_selected, selected_events
from rootdata.tth.write import Note, holds

#: Events simulated at once: their arrays stay in a core's cache.
BLOCK_EVENTS: Final = 4_000


def generate(folder: str | Path, n_events: int = 100_000, *, seed: int = 1, progress: bool = True) -> list[Path]:
    """Make the ``selected`` set: nine ROOT files of ttH(bb) signal and its backgrounds.

    The same numbers give the same events, bit for bit, and the files of a larger set begin with the events of a
    smaller one. The folder appears when all of it is written.

    Parameters
    ----------
    folder : to be made; absent or empty
    n_events : of all files together, shared out by ``samples.SHARES``
    seed : of all random numbers
    progress : show a bar

    Returns
    -------
    the nine files, signal first

    Raises
    ------
    ConfigError
        If ``n_events`` is too small.
    DataError
        If the folder has something in it.
    """
    folder, note = Path(folder), _note(n_events, seed)
    if holds(folder, note):
        raise DataError(f"folder '{folder}' holds this set already; use ensure() to keep it, or delete it")
    return _make(folder, note, progress=progress)


def ensure(folder: str | Path, n_events: int = 100_000, *, seed: int = 1, progress: bool = True) -> list[Path]:
    """Make the ``selected`` set unless the folder has it already; see :func:`generate`.

    Parameters
    ----------
    folder : absent, empty, or with just this set
    n_events : of all files together, shared out by ``samples.SHARES``
    seed : of all random numbers
    progress : show a bar

    Raises
    ------
    DataError
        If the folder has another set, or anything else, in it.
    """
    return _make(Path(folder), _note(n_events, seed), progress=progress)


def selected_blocks(process: str, *, seed: int) -> Iterator[Selected]:
    """Simulate a process block by block, without end."""
    for block in count():
        yield select_block(process, seed=seed, block=block)


def select_block(process: str, *, seed: int, block: int) -> Selected:
    """Simulate one block of a process and keep the events that the analysis selects.

    What can't pass is dropped as early as it is known, before more random numbers are spent on it.

    Parameters
    ----------
    process : one of ``samples.PROCESSES``
    seed : of all random numbers, together with process and block
    block : number of the block, from 0; each has ``BLOCK_EVENTS`` events before the selection
    """
    rng = np.random.default_rng([seed, PROCESSES.index(process), block])
    hard = simulate(rng, process, n_events=BLOCK_EVENTS)
    partons, event = detector.observe(rng, hard.partons), block * BLOCK_EVENTS + np.arange(BLOCK_EVENTS)

    clusters = detector.cluster_fat_jets(rng, partons)
    hard_enough = np.any(clusters.is_real & (clusters.pt > analysis.MIN_LEADING_FAT_PT), axis=1)
    clusters, partons, event = select(clusters, hard_enough), detector.keep(partons, hard_enough), event[hard_enough]
    fat_jets = detector.resolve_fat_jets(rng, clusters)
    boosted = analysis.has_boosted_jet(fat_jets)
    fat_jets, partons, event = select(fat_jets, boosted), detector.keep(partons, boosted), event[boosted]

    clusters = detector.cluster_jets(rng, partons)
    busy = analysis.has_jets(clusters.pt, clusters.is_real)
    clusters, fat_jets, event = select(clusters, busy), select(fat_jets, busy), event[busy]
    jets = detector.tag_jets(rng, clusters)
    candidate = analysis.find_candidate(jets, fat_jets)
    passes = analysis.is_selected(jets, fat_jets, candidate)
    clusters, jets, fat_jets = select(clusters, passes), select(jets, passes), select(fat_jets, passes)
    candidate = select(candidate, passes)

    met, _ = detector.missing_momentum(rng, clusters, n_vertices=rng.poisson(detector.PILEUP_MEAN, len(jets.pt)))
    columns = analysis.variables(jets, fat_jets, candidate, met=met)
    is_signal = matched(hard, jets, candidate, rows=event[passes] % BLOCK_EVENTS)
    return Selected(selected_events(columns, jets=jets, fat_jets=fat_jets, event=event[passes]), is_signal)


def matched(hard: HardEvents, jets: analysis.Jets, candidate: analysis.Candidate, *, rows: Array) -> Bools:
    """Tell which events have their Higgs boson found.

    Parameters
    ----------
    hard : the generated events
    jets : of the selected ones
    candidate : of the selected ones
    rows : (n_selected,) positions of the selected events in ``hard``
    """
    if hard.higgs_b_eta is None or hard.higgs_b_phi is None:
        return np.zeros(len(rows), bool)
    return analysis.is_matched(jets, candidate, eta=hard.higgs_b_eta[:, rows].T, phi=hard.higgs_b_phi[:, rows].T)


def _note(n_events: int, seed: int) -> Note:
    return Note(generator="fast", set="selected", n_events=n_events, seed=seed)


def _make(folder: Path, note: Note, *, progress: bool) -> list[Path]:
    return make_selected(folder, note, blocks=lambda name: selected_blocks(name, seed=note.seed), progress=progress)

"""What the files of the ttH(bb) set are called, how many events each holds, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rootdata.errors import ConfigError

TREE: Final = "Events"
SIGNAL: Final = "ttH_signal"
UNMATCHED: Final = "ttH_unmatched"
TTH: Final = "ttH"
TTBAR: Final = "TTToHadronic"

#: Range of the hard scatter's transverse momentum in each QCD process, GeV; the last ends where the spectrum is empty.
QCD_PT_HAT: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "QCD_Pt_240to300": (240, 300),
        "QCD_Pt_300to470": (300, 470),
        "QCD_Pt_470to600": (470, 600),
        "QCD_Pt_600to800": (600, 800),
        "QCD_Pt_800to1000": (800, 1000),
        "QCD_Pt_1000toInf": (1000, 3000),
    }
)

#: Processes that are simulated; their positions seed their random streams, so append, never reorder.
PROCESSES: Final = (TTH, TTBAR, *QCD_PT_HAT)

#: Share of each file among the selected events. Signal over background is 0.108, as in the MLaaS4HEP paper
#: (Giommi, Kuznetsov, Bonacorsi, Spiga 2023); ttH whose Higgs boson is not found is background.
SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {
        SIGNAL: 0.0975,
        UNMATCHED: 0.12,
        TTBAR: 0.30,
        "QCD_Pt_240to300": 0.015,
        "QCD_Pt_300to470": 0.11,
        "QCD_Pt_470to600": 0.105,
        "QCD_Pt_600to800": 0.10,
        "QCD_Pt_800to1000": 0.085,
        "QCD_Pt_1000toInf": 0.0675,
    }
)

#: The 27 flat variables of a selected event with their units; ``docs/tth.md`` says what each means.
VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "HT": "GeV", "MET_pt": "GeV", "nJet": "", "nBJet": "", "sphericity": "", "aplanarity": "", "centrality": "",
        "mbb": "GeV", "ptbb": "GeV", "dRbb": "", "dEtabb": "", "btag_b1": "", "btag_b2": "", "pt_b1": "GeV",
        "pt_b2": "GeV", "qgl_b1": "", "qgl_b2": "", "fj_pt": "GeV", "fj_eta": "", "fj_msoftdrop": "GeV",
        "fj_tau21": "", "fj_tau32": "", "fj_btagSub": "", "fj_massSub0": "GeV", "fj_massSub1": "GeV",
        "dR_bb_fj": "", "mTopCand": "GeV",
    }
)  # fmt: skip
INTEGERS: Final = frozenset({"nJet", "nBJet"})

#: Every file holds at least one event from here on: the smallest share is 1.5 %.
MIN_EVENTS: Final = 100


def files_of(process: str) -> tuple[str, ...]:
    """Name the files, without suffix, that the selected events of a process go to.

    Examples
    --------
    >>> files_of("ttH")
    ('ttH_signal', 'ttH_unmatched')
    """
    return (SIGNAL, UNMATCHED) if process == TTH else (process,)


def file_counts(n_events: int) -> dict[str, int]:
    """Share ``n_events`` out among the files: largest remainder, so that the sum is exact.

    Raises
    ------
    ConfigError
        If there are too few events for every file to get one.

    Examples
    --------
    >>> file_counts(100_000)["ttH_signal"]
    9750
    """
    if n_events < MIN_EVENTS:
        raise ConfigError(
            f"n_events: {n_events}; allowed: {MIN_EVENTS} or more, so that each of the nine files has events"
        )
    exact = {name: share * n_events for name, share in SHARES.items()}
    counts = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: n_events - sum(counts.values())]:
        counts[name] += 1
    return counts

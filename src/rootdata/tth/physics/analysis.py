"""The analysis of boosted all-hadronic events: jets in, selection, Higgs candidate and 27 variables out.

Both generators use it, so their events differ in physics only. Arrays are (n_events, n_objects), objects by falling pt,
with a mask ``is_real`` that is True where an object exists; what stands elsewhere has no meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from rootdata.tth.physics.arrays import Array, Bools, Floats, Ints, choose
from rootdata.tth.physics.kinematics import delta_r2, four_momentum, invariant_mass, pt_eta_phi
from rootdata.tth.physics.process import TOP_MASS

# Working points of the b-tag score (those of CMS DeepCSV, 2017) and the acceptance of jets, GeV.
LOOSE: Final = 0.1522
MEDIUM: Final = 0.4941
MAX_ETA: Final = 2.4
MIN_JET_PT: Final = 30.0
MIN_FAT_PT: Final = 200.0

# Selection of boosted all-hadronic events, GeV.
MIN_LEADING_FAT_PT: Final = 300.0
MIN_SOFTDROP: Final = 20.0
MIN_JETS: Final = 4
MIN_HT: Final = 450.0

RADIUS: Final = 0.4
FAT_RADIUS: Final = 0.8
N_CANDIDATES: Final = 5  # jets that are tried for the Higgs boson (by b-tag), and for a top (by pt)
NO_CANDIDATE: Final = 1e9


@dataclass(frozen=True, slots=True)
class Jets:
    """Jets of radius 0.4: pt and mass in GeV, scores btag and qgl (1 for a quark) in (0, 1)."""

    pt: Floats
    eta: Floats
    phi: Floats
    mass: Floats
    btag: Floats
    qgl: Floats
    is_real: Bools


@dataclass(frozen=True, slots=True)
class FatJets:
    """Boosted jets of radius 0.8, their substructure, and their two soft-drop subjets; pt and masses in GeV."""

    pt: Floats
    eta: Floats
    phi: Floats
    mass: Floats
    msoftdrop: Floats
    tau1: Floats
    tau2: Floats
    tau3: Floats
    btag_sub0: Floats
    btag_sub1: Floats
    mass_sub0: Floats
    mass_sub1: Floats
    pt_sub0: Floats
    pt_sub1: Floats
    is_real: Bools

    @property
    def btag_sub(self) -> Floats:
        """The better b-tag score of the two subjets."""
        return np.maximum(self.btag_sub0, self.btag_sub1)

    @property
    def tau21(self) -> Floats:
        """Low for two prongs and more."""
        return self.tau2 / self.tau1

    @property
    def tau32(self) -> Floats:
        """Low for three prongs and more."""
        return self.tau3 / self.tau2


@dataclass(frozen=True, slots=True)
class Candidate:
    """The pair of jets taken for H -> bb: indices (n_events,) by falling b-tag, and whether there is such a pair."""

    first: Ints
    second: Ints
    exists: Bools


def in_acceptance(pt: Floats, eta: Floats, *, min_pt: float) -> Bools:
    """Tell which jets count.

    Parameters
    ----------
    pt : GeV, of any shape
    eta : of the same shape; below ``MAX_ETA`` on either side
    min_pt : GeV
    """
    return (pt > min_pt) & (np.abs(eta) < MAX_ETA)


def has_boosted_jet(fat_jets: FatJets) -> Bools:
    """Tell which events have a massive boosted jet."""
    passes = (fat_jets.pt > MIN_LEADING_FAT_PT) & (fat_jets.msoftdrop > MIN_SOFTDROP)
    return np.asarray((fat_jets.is_real & passes).any(axis=1))


def has_jets(pt: Floats, is_real: Bools) -> Bools:
    """Tell which events have enough jets and transverse energy."""
    n_jets, ht = is_real.sum(axis=1), np.where(is_real, pt, 0).sum(axis=1)
    return np.asarray((n_jets >= MIN_JETS) & (ht > MIN_HT))


def is_selected(jets: Jets, fat_jets: FatJets, candidate: Candidate) -> Bools:
    """Apply the whole selection: a boosted jet, four jets, HT, and a pair whose better b-tag is at least loose.

    Parameters
    ----------
    jets : (n_events, n_jets)
    fat_jets : (n_events, n_fat_jets)
    candidate : of the same events
    """
    is_tagged = _at(jets.btag, candidate.first) > LOOSE
    return has_boosted_jet(fat_jets) & has_jets(jets.pt, jets.is_real) & candidate.exists & is_tagged


def find_candidate(jets: Jets, fat_jets: FatJets) -> Candidate:
    """Pick the Higgs candidate among the jets outside the leading boosted jet.

    Of the five best b-tags: the closest pair of which both pass the medium working point; without
    one, the pair with the largest sum of scores.
    """
    outside = _outside(jets, fat_jets)
    by_tag = np.argsort(np.where(outside, -jets.btag, 1), axis=1)[:, :N_CANDIDATES]
    eta, phi, btag, usable = (np.take_along_axis(a, by_tag, 1) for a in (jets.eta, jets.phi, jets.btag, outside))
    a, b = _subsets(2)
    both_medium = (btag[:, a] > MEDIUM) & (btag[:, b] > MEDIUM)
    distance = np.sqrt(delta_r2(eta[:, a], phi[:, a], eta[:, b], phi[:, b]))
    cost = np.where(both_medium, distance, 100 - 50 * (btag[:, a] + btag[:, b]))
    cost = np.where(usable[:, a] & usable[:, b], cost, NO_CANDIDATE)
    best = cost.argmin(axis=1)
    return Candidate(_at(by_tag, a[best]), _at(by_tag, b[best]), _at(cost, best) < NO_CANDIDATE)


def is_matched(jets: Jets, candidate: Candidate, *, eta: Floats, phi: Floats) -> Bools:
    """Tell where the candidate's two jets, both b-tagged at least loosely, are those of the Higgs boson's quarks.

    Parameters
    ----------
    jets : (n_events, n_jets)
    candidate : of the same events
    eta, phi : (n_events, 2) directions of the two b quarks
    """
    nearest = [_nearest_jet(jets, eta[:, i], phi[:, i]) for i in range(2)]
    straight = (nearest[0] == candidate.first) & (nearest[1] == candidate.second)
    crossed = (nearest[0] == candidate.second) & (nearest[1] == candidate.first)
    is_tagged = _at(jets.btag, candidate.second) > LOOSE
    return np.asarray(candidate.exists & is_tagged & (straight | crossed))


def variables(jets: Jets, fat_jets: FatJets, candidate: Candidate, *, met: Floats) -> dict[str, Array]:
    """Compute the 27 variables of ``samples.VARIABLES``.

    Parameters
    ----------
    jets : (n_events, n_jets)
    fat_jets : (n_events, n_fat_jets)
    candidate : of the same events
    met : (n_events,) missing transverse momentum, GeV

    Returns
    -------
    (n_events,) float32 each, int32 for counts; those of the candidate have no meaning where it doesn't exist
    """
    momenta = _momenta(jets)
    columns = (
        event_variables(jets, momenta)
        | {"MET_pt": met}
        | candidate_variables(jets, fat_jets, candidate, momenta)
        | fat_jet_variables(fat_jets)
        | {"mTopCand": top_candidate(jets, fat_jets, candidate, momenta)}
    )
    return {
        name: np.asarray(values, np.int32 if values.dtype.kind == "i" else np.float32)
        for name, values in columns.items()
    }


def event_variables(jets: Jets, momenta: Floats) -> dict[str, Array]:
    """Compute sums, counts and shapes of events; ``momenta`` (4, n_events, n_jets) are zero where no jet is."""
    ht = np.where(jets.is_real, jets.pt, 0).sum(axis=1)
    smallest, middle, _ = sphericity_eigenvalues(momenta[:3])
    return {
        "HT": ht,
        "nJet": jets.is_real.sum(axis=1),
        "nBJet": (jets.is_real & (jets.btag > MEDIUM)).sum(axis=1),
        "sphericity": np.clip(1.5 * (smallest + middle), 0, 1),
        "aplanarity": np.clip(1.5 * smallest, 0, 0.5),
        "centrality": ht / np.maximum(momenta[3].sum(axis=1), 1),
    }


def candidate_variables(jets: Jets, fat_jets: FatJets, candidate: Candidate, momenta: Floats) -> dict[str, Array]:
    """Compute what describes the Higgs candidate and its two jets.

    Parameters
    ----------
    jets : (n_events, n_jets)
    fat_jets : of the same events; the hardest one counts
    candidate : of the same events
    momenta : (4, n_events, n_jets) px, py, pz, E of the jets, GeV
    """
    first, second = candidate.first, candidate.second
    pair = _momentum_at(momenta, first) + _momentum_at(momenta, second)
    pt, eta, phi = pt_eta_phi(pair)
    eta1, phi1, eta2, phi2 = (_at(a, i) for i in (first, second) for a in (jets.eta, jets.phi))
    result = {
        "mbb": invariant_mass(pair),
        "ptbb": pt,
        "dRbb": np.sqrt(delta_r2(eta1, phi1, eta2, phi2)),
        "dEtabb": np.abs(eta1 - eta2),
        "dR_bb_fj": np.sqrt(delta_r2(eta, phi, fat_jets.eta[:, 0], fat_jets.phi[:, 0])),
    }
    for label, index in (("b1", first), ("b2", second)):
        result |= {f"{name}_{label}": _at(getattr(jets, name), index) for name in ("btag", "pt", "qgl")}
    return result


def fat_jet_variables(fat_jets: FatJets) -> dict[str, Array]:
    """Describe the leading boosted jet."""
    columns = {
        "pt": fat_jets.pt,
        "eta": fat_jets.eta,
        "msoftdrop": fat_jets.msoftdrop,
        "tau21": fat_jets.tau21,
        "tau32": fat_jets.tau32,
        "btagSub": fat_jets.btag_sub,
        "massSub0": fat_jets.mass_sub0,
        "massSub1": fat_jets.mass_sub1,
    }
    return {f"fj_{name}": values[:, 0] for name, values in columns.items()}


def top_candidate(jets: Jets, fat_jets: FatJets, candidate: Candidate, momenta: Floats) -> Floats:
    """Return the mass (GeV) nearest to the top's of any three of the five hardest jets left; 0 where fewer are left.

    Parameters
    ----------
    jets : (n_events, n_jets)
    fat_jets : of the same events; jets within the hardest one are left out
    candidate : of the same events; its two jets are left out
    momenta : (4, n_events, n_jets) px, py, pz, E of the jets, GeV
    """
    rest = _outside(jets, fat_jets)
    events = np.arange(len(rest))
    rest[events, candidate.first] = rest[events, candidate.second] = False
    hardest = np.argsort(~rest, axis=1, kind="stable")[:, :N_CANDIDATES]
    usable = np.take_along_axis(rest, hardest, 1)
    p = np.take_along_axis(momenta, hardest[None], 2)
    a, b, c = _subsets(3)
    mass = invariant_mass(p[:, :, a] + p[:, :, b] + p[:, :, c])
    off = np.where(usable[:, a] & usable[:, b] & usable[:, c], np.abs(mass - TOP_MASS), NO_CANDIDATE)
    best = off.argmin(axis=1)
    return choose(_at(off, best) < NO_CANDIDATE, _at(mass, best), 0)


def sphericity_eigenvalues(p: Floats) -> tuple[Array, Array, Array]:
    """Return the eigenvalues, smallest first, of the normalised momentum tensor (Bjorken and Brodsky 1970).

    In closed form, for a symmetric 3x3 matrix of trace 1 (Smith 1961), since a loop of LAPACK calls would cost more
    than all the rest of the analysis.

    Parameters
    ----------
    p : (3, n_events, n_objects) momenta, GeV
    """
    xx, yy, zz, xy, xz, yz = (np.einsum("nk,nk->n", p[i], p[j]).astype(np.float64) for i, j in _TENSOR)
    trace = np.maximum(xx + yy + zz, 1e-6)
    xx, yy, zz, xy, xz, yz = (element / trace for element in (xx, yy, zz, xy, xz, yz))
    minors = (xx * yy - xy**2) + (xx * zz - xz**2) + (yy * zz - yz**2)
    determinant = xx * (yy * zz - yz**2) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    radius = np.sqrt(np.maximum(1 - 3 * minors, 1e-12))
    angle = np.arccos(np.clip((2 - 9 * minors + 27 * determinant) / (2 * radius**3), -1, 1)) / 3
    middle, smallest = ((1 + 2 * radius * np.cos(angle - 2 * np.pi * k / 3)) / 3 for k in (1, 2))
    largest = (1 + 2 * radius * np.cos(angle)) / 3
    return np.minimum(smallest, middle), np.maximum(smallest, middle), largest


_TENSOR: Final = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def _momenta(jets: Jets) -> Floats:
    pt, mass = np.where(jets.is_real, jets.pt, 0), np.where(jets.is_real, jets.mass, 0)
    return four_momentum(pt, np.where(jets.is_real, jets.eta, 0), jets.phi, mass)


def _outside(jets: Jets, fat_jets: FatJets) -> Bools:
    """Tell which jets are real and not within the leading boosted jet."""
    d_r2 = delta_r2(jets.eta, jets.phi, fat_jets.eta[:, :1], fat_jets.phi[:, :1])
    return jets.is_real & ((d_r2 > FAT_RADIUS**2) | ~fat_jets.is_real[:, :1])


def _nearest_jet(jets: Jets, eta: Floats, phi: Floats) -> Ints:
    """Return the index of the jet nearest to a direction (n_events,), -1 where none is within its radius."""
    d_r2 = np.where(jets.is_real, delta_r2(jets.eta, jets.phi, eta[:, None], phi[:, None]), np.inf)
    return np.where(d_r2.min(axis=1) < RADIUS**2, d_r2.argmin(axis=1), -1)


def _subsets(size: int) -> tuple[Ints, ...]:
    return tuple(np.array(list(combinations(range(N_CANDIDATES), size))).T)


def _at(values: Array, index: Ints) -> Array:
    """Take one object from each event."""
    return values[np.arange(len(values)), index]


def _momentum_at(momenta: Floats, index: Ints) -> Floats:
    return momenta[:, np.arange(momenta.shape[1]), index]

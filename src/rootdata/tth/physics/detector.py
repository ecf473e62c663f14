"""From partons to what a detector reports: cone jets, resolution, b-tags, substructure, missing momentum.

Every constant is tuned by hand to selected events of Pythia 8 as ``pythia.py`` smears them; none is an experiment's.
Clustering has its arrays as (n_partons, n_events), results are (n_events, n_objects) by falling pt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rootdata.tth.physics.analysis import (
    FAT_RADIUS,
    MIN_FAT_PT,
    MIN_JET_PT,
    RADIUS,
    FatJets,
    Jets,
    in_acceptance,
)
from rootdata.tth.physics.arrays import Bools, Floats, Ints, choose, exponential, normal, order, sigmoid, uniform
from rootdata.tth.physics.kinematics import delta_r2, four_momentum, invariant_mass, pt_eta_phi
from rootdata.tth.physics.process import BOTTOM, CHARM, GLUON, LIGHT, Partons

# What is kept of an event: its hardest partons, the cones that are tried, the jets.
MAX_PARTONS: Final = 18
MAX_VISIBLE_ETA: Final = 3.2
MIN_VISIBLE_PT: Final = 4.0
MAX_JETS: Final = 10
MAX_FAT_JETS: Final = 3
JET_SEEDS: Final = 14
FAT_JET_SEEDS: Final = 6

PARTON_MASS: Final = 0.01  # GeV, so that a lone parton stays time-like in float32
PRONG_SHARE: Final = 0.12  # of a jet's pt, from which a parton counts as a prong
PILEUP_MEAN: Final = 33  # vertices in a bunch crossing, LHC 2017
PILEUP_MET: Final = 1.9  # GeV of fake missing momentum per component and square root of a vertex
JET_MET: Final = 0.045  # of a jet's pt goes wrong, per component


@dataclass(frozen=True, slots=True)
class Clusters:
    """Jets before tagging: what is measured, what neutrinos took, and what their partons were.

    Momenta and masses are in GeV; ``parton_mass`` lacks the soft radiation that ``mass`` has, ``width`` is the
    pt-weighted mean distance from the seed.
    """

    pt: Floats
    eta: Floats
    phi: Floats
    mass: Floats
    parton_mass: Floats
    neutrino_pt: Floats
    width: Floats
    n_bottom: Ints
    n_charm: Ints
    n_prongs: Ints
    is_gluon: Bools
    is_real: Bools

    @property
    def flavour(self) -> Ints:
        """PDG code of the heaviest quark in each jet; 0 without one."""
        return np.where(self.n_bottom > 0, np.int8(BOTTOM), np.where(self.n_charm > 0, np.int8(CHARM), np.int8(0)))


def observe(rng: np.random.Generator, partons: Partons) -> Partons:
    """Keep the 18 hardest partons that a detector sees, by falling pt, with a few percent of their momentum lost."""
    loss = 0.015 + np.abs(0.03 * normal(rng, partons.pt.shape))
    pt = partons.pt * (1 - loss)
    pt *= (np.abs(partons.eta) < MAX_VISIBLE_ETA) & (pt > MIN_VISIBLE_PT)
    n_events = pt.shape[1]
    hardest = np.argsort(-pt.T, axis=1)[:, :MAX_PARTONS].T
    index = hardest * n_events + np.arange(n_events)
    return Partons(*(a.ravel().take(index) for a in (pt, partons.eta, partons.phi, partons.flavour)))


def cones(partons: Partons, *, radius: float, n_seeds: int) -> Iterator[tuple[int, Bools, Floats]]:
    """Cluster like anti-kT does where jets are apart: the hardest free parton takes all free ones within ``radius``.

    Parameters
    ----------
    partons : by falling pt, (n_partons, n_events)
    radius : in the eta-phi plane
    n_seeds : how many of the hardest partons may start a jet

    Yields
    ------
    seed, members, distance2
        For each seed in turn which partons it took and their squared distances from it, both
        (n_partons - seed, n_events): partons before the seed are never free.
    """
    free = partons.pt > 0
    for seed in range(n_seeds):
        distance2 = delta_r2(partons.eta[seed:], partons.phi[seed:], partons.eta[seed], partons.phi[seed])
        members = (distance2 < radius * radius) & free[seed:] & free[seed]
        free[seed:] &= ~members
        yield seed, members, distance2


def cluster(rng: np.random.Generator, partons: Partons, *, radius: float, n_seeds: int, n_jets: int) -> Clusters:
    """Make jets of partons: clustered, then measured; the ``n_jets`` hardest.

    Parameters
    ----------
    rng : of the smearing
    partons : by falling pt, (n_partons, n_events)
    radius : of a jet, in the eta-phi plane
    n_seeds : how many of the hardest partons may start a jet
    n_jets : jets that are kept of an event, at most ``n_seeds``

    Returns
    -------
    (n_events, n_jets), in the order of clustered, not of measured pt
    """
    sums = _sum_cones(partons, radius=radius, n_seeds=n_seeds)
    pt2 = sums[0] * sums[0] + sums[1] * sums[1]
    n_events = pt2.shape[1]
    hardest = np.argsort(-pt2.T, axis=1)[:, :n_jets]
    index = hardest * n_events + np.arange(n_events)[:, None]
    total = sums[:4].reshape(4, -1).take(index, axis=1)
    pt, eta, phi = pt_eta_phi(total)
    pt = np.maximum(pt, 1)
    n_bottom, n_charm, n_prongs, width = (values.ravel().take(index) for values in sums[4:])
    is_gluon = (partons.flavour[:n_seeds] == GLUON).ravel().take(index)
    response, soft_mass = _measure(rng, pt, is_gluon=is_gluon, radius=radius)
    parton_mass = invariant_mass(total) * response
    return Clusters(
        pt=pt * response,
        eta=eta,
        phi=phi,
        mass=np.hypot(parton_mass, soft_mass),
        parton_mass=parton_mass,
        neutrino_pt=np.zeros_like(pt),
        width=width / pt,
        n_bottom=n_bottom.astype(np.int8),
        n_charm=n_charm.astype(np.int8),
        n_prongs=n_prongs.astype(np.int8),
        is_gluon=is_gluon,
        is_real=np.ones(pt.shape, bool),
    )


def _sum_cones(partons: Partons, *, radius: float, n_seeds: int) -> Floats:
    """Sum what is in each cone, (8, n_seeds, n_events).

    Four-momentum, numbers of b quarks, c quarks and prongs, and pt times distance.
    """
    momenta = four_momentum(partons.pt, partons.eta, partons.phi, PARTON_MASS)
    features = np.concatenate([momenta, [partons.flavour == BOTTOM, partons.flavour == CHARM]])
    sums = np.empty((8, n_seeds, partons.pt.shape[1]), np.float32)
    for seed, members, distance2 in cones(partons, radius=radius, n_seeds=n_seeds):
        mask, pt = members.astype(np.float32), partons.pt[seed:]
        sums[:6, seed] = np.einsum("ckn,kn->cn", features[:, seed:], mask)
        is_prong = pt > PRONG_SHARE * np.einsum("kn,kn->n", pt, mask)
        sums[6, seed] = np.einsum("kn,kn->n", is_prong.astype(np.float32), mask)
        sums[7, seed] = np.einsum("kn,kn->n", pt * np.sqrt(distance2), mask)
    return sums


def resolution(pt: Floats) -> Floats:
    """Return the relative width of the measured pt of jets: constant, stochastic and noise terms (GeV)."""
    return np.sqrt(0.05**2 + 0.75**2 / pt + 4.5**2 / (pt * pt))


def _measure(rng: np.random.Generator, pt: Floats, *, is_gluon: Bools, radius: float) -> tuple[Floats, Floats]:
    """Draw measured over true pt, and the mass (GeV) from soft radiation, which the few partons lack."""
    narrower = 0.85 if radius == FAT_RADIUS else 1.0
    response = np.clip(1 + narrower * resolution(pt) * normal(rng, pt.shape), 0.2, 2)
    soft_mass = 0.16 * radius * pt * np.exp(0.35 * normal(rng, pt.shape)) * choose(is_gluon, 1.25, 1)
    return response, soft_mass


def count_constituents(rng: np.random.Generator, clusters: Clusters) -> Ints:
    """Draw the numbers of particles in jets, which grow with the logarithm of pt and are larger for gluons."""
    mean = 1 + 6.5 * np.log(np.maximum(clusters.pt, 12) / 5) * choose(clusters.is_gluon, 1.45, 1)
    return np.maximum(1, np.rint(mean * np.exp(0.28 * normal(rng, mean.shape)))).astype(np.int32)


def cluster_fat_jets(rng: np.random.Generator, partons: Partons) -> Clusters:
    """Make the three hardest boosted jets, (n_events, 3) by falling pt, those in acceptance first."""
    clusters = cluster(rng, partons, radius=FAT_RADIUS, n_seeds=FAT_JET_SEEDS, n_jets=MAX_FAT_JETS)
    return _accept(clusters, min_pt=MIN_FAT_PT)


def cluster_jets(rng: np.random.Generator, partons: Partons) -> Clusters:
    """Make the ten hardest jets, (n_events, 10) by falling pt, those in acceptance first."""
    clusters = cluster(rng, partons, radius=RADIUS, n_seeds=JET_SEEDS, n_jets=MAX_JETS)
    seen = _seen_of_bottom(rng, clusters.n_bottom > 0)
    lost = np.maximum(1 - seen, 0) * clusters.pt
    return _accept(
        replace(clusters, pt=clusters.pt * seen, mass=clusters.mass * seen, neutrino_pt=lost), min_pt=MIN_JET_PT
    )


def _seen_of_bottom(rng: np.random.Generator, is_bottom: Bools) -> Floats:
    """Draw what is seen of b jets: 36 % decay with a neutrino that takes up to 45 %, and the response is broader."""
    is_leptonic = uniform(rng, is_bottom.shape) < 0.36
    kept = 1 - 0.45 * uniform(rng, is_bottom.shape) * is_leptonic
    return choose(is_bottom, kept * (1 + 0.07 * normal(rng, is_bottom.shape)), 1)


def _accept(clusters: Clusters, *, min_pt: float) -> Clusters:
    is_real = in_acceptance(clusters.pt, clusters.eta, min_pt=min_pt)
    return order(replace(clusters, is_real=is_real), np.where(is_real, clusters.pt, 0))


def tag_jets(rng: np.random.Generator, clusters: Clusters) -> Jets:
    """Give jets their b-tag and quark-gluon scores."""
    btag = btag_score(rng, clusters.flavour, clusters.pt, clusters.eta)
    qgl = quark_score(rng, clusters.is_gluon, clusters.width)
    return Jets(clusters.pt, clusters.eta, clusters.phi, clusters.mass, btag, qgl, clusters.is_real)


def btag_score(rng: np.random.Generator, flavour: Ints, pt: Floats, eta: Floats) -> Floats:
    """Draw b-tag scores in (0, 1) for jets of a true flavour: best near 100 GeV, worse at large pseudorapidity.

    Parameters
    ----------
    rng : of the scores
    flavour : PDG code of the heaviest quark in a jet; 0 without one
    pt, eta : of the jets, GeV and pseudorapidity, of the shape of ``flavour``
    """
    log_pt = np.log(np.maximum(pt, 30) / 100)
    is_bottom, is_charm = flavour == BOTTOM, flavour == CHARM
    bottom_mean = 0.95 - 0.35 * log_pt * log_pt - 0.3 * (np.abs(eta) > 1.8)
    mean = choose(is_bottom, bottom_mean, choose(is_charm, -1.55, -3.45 + 0.25 * log_pt))
    width = choose(is_bottom, 2.25, choose(is_charm, 1.45, 1.55))
    return sigmoid(mean + width * normal(rng, pt.shape))


def quark_score(rng: np.random.Generator, is_gluon: Bools, width: Floats) -> Floats:
    """Draw quark-gluon scores in (0, 1): higher for quarks and for narrow jets.

    Parameters
    ----------
    rng : of the scores
    is_gluon : True where a gluon started the jet
    width : of the jet, pt-weighted mean distance from its seed, of the same shape
    """
    mean = choose(is_gluon, -0.6, 0.15) - 2.5 * (width - 0.08)
    return sigmoid(mean + 0.85 * normal(rng, width.shape))


def resolve_fat_jets(rng: np.random.Generator, clusters: Clusters) -> FatJets:
    """Give boosted jets their substructure, which follows from their number of hard prongs."""
    shape = clusters.pt.shape
    msoftdrop = _softdrop_mass(rng, clusters)
    tau1, tau2, tau3 = _subjettiness(rng, clusters)
    flavours = _subjet_flavours(rng, clusters.n_bottom, clusters.n_charm)
    softer = np.clip(0.5 - 0.38 * uniform(rng, shape) ** 1.5, 0.1, 0.5)
    pt_subs = [0.95 * clusters.pt * share for share in (1 - softer, softer)]
    btag_subs = [btag_score(rng, f, pt, clusters.eta) for f, pt in zip(flavours, pt_subs, strict=True)]
    mass_sub0 = msoftdrop * np.clip(0.28 + 0.14 * np.abs(normal(rng, shape)), 0.05, 0.8)
    mass_sub1 = msoftdrop * 0.11 * np.exp(0.5 * normal(rng, shape))
    return FatJets(
        pt=clusters.pt,
        eta=clusters.eta,
        phi=clusters.phi,
        mass=clusters.mass,
        msoftdrop=msoftdrop,
        tau1=tau1,
        tau2=tau2,
        tau3=tau3,
        btag_sub0=btag_subs[0],
        btag_sub1=btag_subs[1],
        mass_sub0=mass_sub0,
        mass_sub1=mass_sub1,
        pt_sub0=pt_subs[0],
        pt_sub1=pt_subs[1],
        is_real=clusters.is_real,
    )


def _softdrop_mass(rng: np.random.Generator, clusters: Clusters) -> Floats:
    """Draw the soft-drop mass (GeV): that of the prongs, or of soft radiation where there is one prong only."""
    shape = clusters.pt.shape
    remnant = 0.055 * FAT_RADIUS * clusters.pt * exponential(rng, shape)
    hard = clusters.parton_mass * (1 + 0.06 * normal(rng, shape))
    return choose(clusters.n_prongs > 1, np.sqrt(hard * hard + 0.3 * remnant * remnant), remnant)


def _subjettiness(rng: np.random.Generator, clusters: Clusters) -> tuple[Floats, Floats, Floats]:
    """Draw tau1 from mass over pt, tau2 and tau3 from ratios that drop where there are as many prongs."""
    shape = clusters.pt.shape
    n_prongs = np.clip(clusters.n_prongs, 1, 3) - 1
    mean21 = np.array([0.66, 0.40, 0.42], np.float32)[n_prongs]
    mean32 = np.array([0.80, 0.74, 0.50], np.float32)[n_prongs]
    tau1 = np.clip(clusters.mass / np.maximum(clusters.pt, 1) * (0.95 + 0.2 * normal(rng, shape)), 0.02, 0.7)
    tau2 = tau1 * np.clip(mean21 + 0.15 * normal(rng, shape), 0.05, 0.98)
    return tau1, tau2, tau2 * np.clip(mean32 + 0.13 * normal(rng, shape), 0.05, 0.98)


def _subjet_flavours(rng: np.random.Generator, n_bottom: Ints, n_charm: Ints) -> tuple[Ints, Ints]:
    """Deal the heavy quarks of boosted jets out to two subjets: two b quarks to both, a single one to either."""
    shape = n_bottom.shape
    first_bottom = (n_bottom > 1) | ((n_bottom == 1) & (uniform(rng, shape) < 0.5))
    second_bottom = (n_bottom > 1) | ((n_bottom == 1) & ~first_bottom)
    first_charm = ~first_bottom & (n_charm > 0) & (uniform(rng, shape) < 0.5)
    second_charm = ~second_bottom & (n_charm > 0) & ~first_charm
    return _flavour(first_bottom, first_charm), _flavour(second_bottom, second_charm)


def _flavour(is_bottom: Bools, is_charm: Bools) -> Ints:
    return np.where(is_bottom, np.int8(BOTTOM), np.where(is_charm, np.int8(CHARM), np.int8(LIGHT)))


def missing_momentum(rng: np.random.Generator, clusters: Clusters, *, n_vertices: Ints) -> tuple[Floats, Floats]:
    """Return the missing transverse momentum (n_events,), GeV, and its azimuth: neutrinos, pile-up, jets.

    Parameters
    ----------
    rng : of the mismeasurement of jets, and of pile-up
    clusters : (n_events, n_jets)
    n_vertices : (n_events,) of pile-up, which adds noise
    """
    components = []
    for direction in (np.cos(clusters.phi), np.sin(clusters.phi)):
        wrong = clusters.neutrino_pt + JET_MET * clusters.pt * normal(rng, clusters.pt.shape)
        noise = pileup_noise(rng, n_vertices)
        components.append((wrong * direction * clusters.is_real).sum(axis=1) + noise)
    x, y = components
    return np.hypot(x, y), np.arctan2(y, x)


def pileup_noise(rng: np.random.Generator, n_vertices: Ints) -> Floats:
    """Draw one component of the missing momentum (GeV) that pile-up fakes."""
    return PILEUP_MET * np.sqrt(n_vertices.astype(np.float32)) * normal(rng, len(n_vertices))


def keep(partons: Partons, kept: Bools) -> Partons:
    """Keep the partons of the events where ``kept`` (n_events,) is True."""
    return Partons(*(a[:, kept] for a in (partons.pt, partons.eta, partons.phi, partons.flavour)))

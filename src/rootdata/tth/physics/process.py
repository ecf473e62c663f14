"""Hard processes at parton level: ttH, ttbar and QCD dijets at 13 TeV with decays, splittings, initial radiation.

Spectra and probabilities are tuned by hand, not derived, so that the selected events look like those of Pythia 8
(``docs/tth.md`` compares them). Arrays are (n_partons, n_events): the few partons on axis 0, so that every step is a
contiguous sweep over events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rootdata.tth.physics.arrays import Array, Bools, Floats, Ints, choose, exponential, normal, uniform
from rootdata.tth.physics.kinematics import TWO_PI, pt_eta_phi, two_body_decay
from rootdata.tth.samples import QCD_PT_HAT, TTBAR, TTH

# PDG particle codes; LIGHT stands for u, d and s.
LIGHT: Final = 1
CHARM: Final = 4
BOTTOM: Final = 5
GLUON: Final = 21

# Masses and widths in GeV (Particle Data Group 2022, rounded).
TOP_MASS: Final = 172.5
TOP_WIDTH: Final = 1.4
W_MASS: Final = 80.4
W_WIDTH: Final = 2.1
HIGGS_MASS: Final = 125.0
BOTTOM_MASS: Final = 4.8

# Probability that the Higgs boson is the hardest of the three heavy particles; otherwise either of the two softer ones.
HIGGS_LEADS: Final = 0.27

# QCD: dN/dpT^ falls as pT^-5.6; the heavy quark pairs made in the hard scatter are a small part of it.
QCD_POWER: Final = -4.6
QCD_BOTTOM_PAIRS: Final = 0.012
QCD_CHARM_PAIRS: Final = 0.02

# Initial-state radiation: number and softest pT (GeV) of its jets, exponent of the spectrum's integral, rapidity width.
ISR_MEAN: Final = 2.7
ISR_MAX: Final = 5
ISR_MIN_PT: Final = 15.0
ISR_POWER: Final = 1.55
ISR_RAPIDITY: Final = 1.7
ISR_HEAVY: Final = 0.08
ISR_BOTTOM_OF_HEAVY: Final = 0.45


@dataclass(frozen=True, slots=True)
class Partons:
    """Final partons: pt (GeV), eta, phi and flavour (PDG code), each (n_partons, n_events); pt 0 where absent."""

    pt: Floats
    eta: Floats
    phi: Floats
    flavour: Ints


@dataclass(frozen=True, slots=True)
class HardEvents:
    """Partons of events, and the directions (2, n_events) of the b quarks from the Higgs boson where there is one."""

    partons: Partons
    higgs_b_eta: Floats | None = None
    higgs_b_phi: Floats | None = None


@dataclass(frozen=True, slots=True)
class Splitting:
    """One generation of final-state radiation: probability for a gluon, largest angle, probability of g -> bb."""

    probability: float
    max_angle: float
    to_bottom: float


# Each generation is rarer and narrower than the one before (angular ordering).
TOP_SHOWER: Final = (Splitting(0.66, 1.1, 0.035),)
QCD_SHOWER: Final = (Splitting(0.97, 1.5, 0.028), Splitting(0.75, 1.2, 0.022), Splitting(0.45, 0.8, 0.015))
MIN_ANGLE: Final = 0.03
MIN_SPLIT_PT: Final = 25.0
QUARK_OVER_GLUON: Final = 0.65  # quarks radiate less: colour factor 4/3 against 3, softened by the cut on angle
CHARM_OVER_BOTTOM: Final = 1.4


def simulate(rng: np.random.Generator, process: str, *, n_events: int) -> HardEvents:
    """Simulate the partons of a process.

    Parameters
    ----------
    rng : of everything in the events
    process : one of ``samples.PROCESSES``
    n_events : before any selection
    """
    if process == TTH:
        return simulate_tth(rng, n_events)
    if process == TTBAR:
        return simulate_ttbar(rng, n_events)
    return simulate_qcd(rng, n_events, pt_hat=QCD_PT_HAT[process])


def simulate_tth(rng: np.random.Generator, n_events: int) -> HardEvents:
    """Simulate ttH, H -> bb, with both tops decaying to quarks."""
    lead, px, py = _transverse_three(rng, n_events)
    higgs_slot = _slot_of_higgs(rng, n_events)
    is_higgs = np.arange(3)[:, None] == higgs_slot
    top_mass = breit_wigner(rng, TOP_MASS, width=TOP_WIDTH, shape=(3, n_events))
    rapidity = 0.75 * normal(rng, n_events) + 0.62 * normal(rng, (3, n_events))
    heavy = _on_shell(px, py, rapidity, mass=choose(is_higgs, HIGGS_MASS, top_mass))
    higgs, *tops = (heavy[:, (higgs_slot + i) % 3, np.arange(n_events)] for i in range(3))
    higgs_quarks = two_body_decay(rng, higgs, masses=(BOTTOM_MASS, BOTTOM_MASS))
    quarks = [*higgs_quarks, *(quark for top in tops for quark in _decay_top(rng, top))]
    partons = _to_partons(rng, quarks, is_bottom=[True, True, True, False, False, True, False, False])
    truth = partons.eta[:2], partons.phi[:2]
    return HardEvents(_radiate(rng, partons, TOP_SHOWER, max_isr_pt=0.6 * lead), *truth)


def simulate_ttbar(rng: np.random.Generator, n_events: int) -> HardEvents:
    """Simulate a top pair with both tops decaying to quarks."""
    lead, phi = 280 + 92 * exponential(rng, n_events), TWO_PI * uniform(rng, n_events)
    px, py = _balance(rng, lead, phi, recoil=60)
    rapidity = 0.75 * normal(rng, n_events) + 0.55 * normal(rng, (2, n_events))
    masses = breit_wigner(rng, TOP_MASS, width=TOP_WIDTH, shape=(2, n_events))
    tops = _on_shell(px, py, rapidity, mass=masses)
    quarks = [quark for i in range(2) for quark in _decay_top(rng, tops[:, i])]
    partons = _to_partons(rng, quarks, is_bottom=[True, False, False, True, False, False])
    return HardEvents(_radiate(rng, partons, TOP_SHOWER, max_isr_pt=0.6 * lead))


def simulate_qcd(rng: np.random.Generator, n_events: int, *, pt_hat: tuple[float, float]) -> HardEvents:
    """Simulate two partons back to back, and their showers.

    Parameters
    ----------
    rng : of everything in the events
    n_events : before any selection
    pt_hat : smallest and largest transverse momentum of the hard scatter, GeV
    """
    low, high = (edge**QCD_POWER for edge in pt_hat)
    lead = ((low + (high - low) * uniform(rng, n_events).astype(np.float64)) ** (1 / QCD_POWER)).astype(np.float32)
    px, py = _balance(rng, lead, TWO_PI * uniform(rng, n_events), recoil=35)
    rapidity = 0.55 * normal(rng, n_events) + 0.75 * normal(rng, (2, n_events))
    partons = Partons(np.hypot(px, py), rapidity, np.arctan2(py, px), _qcd_flavours(rng, lead))
    return HardEvents(_radiate(rng, partons, QCD_SHOWER, max_isr_pt=0.7 * lead))


def breit_wigner(rng: np.random.Generator, mass: float, *, width: float, shape: int | tuple[int, ...]) -> Floats:
    """Draw resonance masses (GeV), cut at eight widths and within 96 % of the distribution.

    Parameters
    ----------
    rng : of the masses
    mass : of the pole, GeV
    width : full width at half maximum, GeV
    shape : of the result
    """
    quantile = 0.96 * (uniform(rng, shape) - 0.5)
    return np.clip(mass + width / 2 * np.tan(np.pi * quantile), mass - 8 * width, mass + 8 * width)


def split(rng: np.random.Generator, partons: Partons, step: Splitting) -> Partons:
    """Let each parton split once, collinearly: (k, n_events) become (2k, n_events).

    The angle is distributed as dtheta/theta and the softer one's share of momentum as dz/z. Where there is no
    splitting the second parton has no momentum. The pT-weighted direction is conserved.

    Parameters
    ----------
    rng : of which partons split, how, and into what
    partons : (k, n_events)
    step : probabilities and largest angle of this generation
    """
    shape = partons.pt.shape
    is_gluon = partons.flavour == GLUON
    probability = step.probability * choose(is_gluon, 1, QUARK_OVER_GLUON)
    splits = (uniform(rng, shape) < probability) & (partons.pt > MIN_SPLIT_PT)
    to_bottom, to_charm = _heavy_pairs(rng, splits & is_gluon, probability=step.to_bottom)
    share = _soft_share(rng, partons.pt, splits=splits, is_heavy=to_bottom | to_charm)
    angle = MIN_ANGLE * (step.max_angle / MIN_ANGLE) ** uniform(rng, shape)
    turn = TWO_PI * uniform(rng, shape)
    d_eta, d_phi = angle * np.cos(turn), angle * np.sin(turn)
    return Partons(
        np.concatenate([partons.pt * (1 - share), partons.pt * share]),
        np.concatenate([partons.eta - share * d_eta, partons.eta + (1 - share) * d_eta]),
        np.concatenate([partons.phi - share * d_phi, partons.phi + (1 - share) * d_phi]),
        np.concatenate([_relabel(to_bottom, to_charm, default) for default in (partons.flavour, GLUON)]),
    )


def initial_radiation(rng: np.random.Generator, max_pt: Floats) -> Partons:
    """Draw up to five jets of initial-state radiation: steep up to ``max_pt`` (n_events,) GeV, wide in rapidity."""
    shape = ISR_MAX, len(max_pt)
    exists = np.arange(ISR_MAX)[:, None] < rng.poisson(ISR_MEAN, len(max_pt))
    pt = ISR_MIN_PT * (1 - 0.9995 * uniform(rng, shape)) ** (-1 / ISR_POWER)
    is_bottom = uniform(rng, shape) < ISR_BOTTOM_OF_HEAVY
    is_heavy = uniform(rng, shape) < ISR_HEAVY
    flavour = _relabel(is_heavy & is_bottom, is_heavy & ~is_bottom, GLUON)
    return Partons(
        np.minimum(pt, max_pt) * exists, ISR_RAPIDITY * normal(rng, shape), TWO_PI * uniform(rng, shape), flavour
    )


def _radiate(
    rng: np.random.Generator, partons: Partons, shower: tuple[Splitting, ...], *, max_isr_pt: Floats
) -> Partons:
    for step in shower:
        partons = split(rng, partons, step)
    extra = initial_radiation(rng, max_isr_pt)
    return Partons(
        np.concatenate([partons.pt, extra.pt]),
        np.concatenate([partons.eta, extra.eta]),
        np.concatenate([partons.phi, extra.phi]),
        np.concatenate([partons.flavour, extra.flavour]),
    )


def _heavy_pairs(rng: np.random.Generator, splits: Bools, *, probability: float) -> tuple[Bools, Bools]:
    chance = uniform(rng, splits.shape)
    to_bottom = splits & (chance < probability)
    return to_bottom, splits & ~to_bottom & (chance < (1 + CHARM_OVER_BOTTOM) * probability)


def _soft_share(rng: np.random.Generator, pt: Floats, *, splits: Bools, is_heavy: Bools) -> Floats:
    """Draw the softer parton's share: 1/z from 12 GeV upwards, flat for heavy quark pairs, 0 without a splitting."""
    smallest = np.minimum(np.maximum(12 / np.maximum(pt, 15), 0.03), 0.45)
    share = smallest * (0.5 / smallest) ** uniform(rng, pt.shape)
    return choose(splits, choose(is_heavy, 0.1 + 0.4 * uniform(rng, pt.shape), share), 0)


def _relabel(is_bottom: Bools, is_charm: Bools, default: Array | int) -> Ints:
    return np.where(is_bottom, np.int8(BOTTOM), np.where(is_charm, np.int8(CHARM), np.asarray(default, np.int8)))


def _transverse_three(rng: np.random.Generator, n: int) -> tuple[Floats, Floats, Floats]:
    """Draw the transverse momenta (3, n) of three heavy particles; the first leads, the others share the recoil."""
    lead, phi = 270 + 118 * exponential(rng, n), TWO_PI * uniform(rng, n)
    px, py = _balance(rng, lead, phi, recoil=55)
    share, kick = 0.1 + 0.8 * uniform(rng, n), 95 * normal(rng, n)
    kick_x, kick_y = -kick * np.sin(phi), kick * np.cos(phi)
    shares = share, 1 - share
    return (
        lead,
        np.stack([px[0], shares[0] * px[1] + kick_x, shares[1] * px[1] - kick_x]),
        np.stack([py[0], shares[0] * py[1] + kick_y, shares[1] * py[1] - kick_y]),
    )


def _balance(rng: np.random.Generator, lead: Floats, phi: Floats, *, recoil: float) -> tuple[Floats, Floats]:
    """Return px, py (2, n) of a leading system and of what balances it but for a kick of mean ``recoil`` GeV."""
    kick, angle = recoil * exponential(rng, len(lead)), TWO_PI * uniform(rng, len(lead))
    px, py = lead * np.cos(phi), lead * np.sin(phi)
    return np.stack([px, kick * np.cos(angle) - px]), np.stack([py, kick * np.sin(angle) - py])


def _slot_of_higgs(rng: np.random.Generator, n: int) -> Ints:
    return np.searchsorted([HIGGS_LEADS, (1 + HIGGS_LEADS) / 2], uniform(rng, n), side="right")


def _on_shell(px: Floats, py: Floats, rapidity: Floats, *, mass: Floats) -> Floats:
    """Return four-momenta (4, ...) from transverse momenta and rapidities."""
    transverse_mass = np.sqrt(px * px + py * py + mass * mass)
    return np.stack([px, py, transverse_mass * np.sinh(rapidity), transverse_mass * np.cosh(rapidity)])


def _decay_top(rng: np.random.Generator, top: Floats) -> tuple[Floats, ...]:
    """Decay t -> b W, W -> q q', and return the three quarks, (4, n) each."""
    w_mass = breit_wigner(rng, W_MASS, width=W_WIDTH, shape=top.shape[1])
    bottom, w_boson = two_body_decay(rng, top, masses=(BOTTOM_MASS, w_mass))
    return (bottom, *two_body_decay(rng, w_boson, masses=(1.0, 0.3)))


def _to_partons(rng: np.random.Generator, quarks: list[Floats], *, is_bottom: list[bool]) -> Partons:
    """Turn four-momenta into partons; the first quark after each b from a top is charm in half of the W decays."""
    pt, eta, phi = pt_eta_phi(np.stack(quarks, axis=1))
    flavour = np.empty(pt.shape, np.int8)
    for row, bottom in enumerate(is_bottom):
        flavour[row] = BOTTOM if bottom else LIGHT
        if not bottom and is_bottom[row - 1]:
            flavour[row] = np.where(uniform(rng, pt.shape[1]) < 0.5, CHARM, LIGHT)
    return Partons(pt, eta, phi, flavour)


def _qcd_flavours(rng: np.random.Generator, lead: Floats) -> Ints:
    """Draw the flavours (2, n) of a dijet event: heavy pairs, else gluons, which give way to quarks at high pT."""
    gluon_fraction = np.clip(0.62 - 0.25 * np.log(lead / 300) / np.log(4), 0.2, 0.7)
    light = np.where(uniform(rng, (2, len(lead))) < gluon_fraction, np.int8(GLUON), np.int8(LIGHT))
    is_bottom = uniform(rng, len(lead)) < QCD_BOTTOM_PAIRS
    is_charm = ~is_bottom & (uniform(rng, len(lead)) < QCD_CHARM_PAIRS)
    return _relabel(is_bottom, is_charm, light)

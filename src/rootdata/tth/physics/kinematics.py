"""Relativistic kinematics on arrays: angles, four-momenta and two-body decays.

Four-momenta have their components (px, py, pz, E) on axis 0, in GeV; every other axis is free. Precision follows the
input.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rootdata.tth.physics.arrays import Floats, uniform

TWO_PI: Final = 2 * np.pi


def wrap_phi(phi: Floats) -> Floats:
    """Bring an azimuth, or a difference of two, into [-pi, pi]."""
    return phi - TWO_PI * np.rint(phi / TWO_PI)


def delta_r2(eta1: Floats, phi1: Floats, eta2: Floats, phi2: Floats) -> Floats:
    """Return the squared distance in the eta-phi plane.

    Parameters
    ----------
    eta1, phi1 : pseudorapidity and azimuth (radians) of one direction
    eta2, phi2 : of the other, of a shape that broadcasts with it
    """
    d_eta, d_phi = eta1 - eta2, wrap_phi(phi1 - phi2)
    distance2: Floats = d_eta * d_eta + d_phi * d_phi
    return distance2


def four_momentum(pt: Floats, eta: Floats, phi: Floats, mass: Floats | float) -> Floats:
    """Return (px, py, pz, E) of shape (4, ...) from collider coordinates.

    Parameters
    ----------
    pt, eta, phi, mass : (...) GeV, pseudorapidity, azimuth in radians, GeV; the mass may be one number for all
    """
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return np.stack([px, py, pz, np.sqrt(px * px + py * py + pz * pz + mass * mass)])


def pt_eta_phi(p: Floats) -> tuple[Floats, Floats, Floats]:
    """Return transverse momentum (GeV), pseudorapidity and azimuth of four-momenta (4, ...)."""
    pt = np.sqrt(p[0] * p[0] + p[1] * p[1])
    return pt, np.arcsinh(p[2] / np.maximum(pt, 1e-6)), np.arctan2(p[1], p[0])


def invariant_mass(p: Floats) -> Floats:
    """Return the mass (GeV) of four-momenta (4, ...); 0 where rounding makes a light one space-like."""
    mass2 = p[3] * p[3] - p[0] * p[0] - p[1] * p[1] - p[2] * p[2]
    mass: Floats = np.sqrt(np.maximum(mass2, 0))
    return mass


def two_body_decay(rng: np.random.Generator, parent: Floats, *, masses: tuple[Any, Any]) -> tuple[Floats, Floats]:
    """Decay particles into two, isotropically in their rest frames.

    Parameters
    ----------
    rng : of the directions
    parent : (4, n) GeV; a parent lighter than its daughters decays as if just at threshold
    masses : of the daughters, numbers or (n,), GeV

    Returns
    -------
    first, second : (4, n) GeV, which add up to ``parent``
    """
    m1, m2 = masses
    mass = np.maximum(invariant_mass(parent), m1 + m2 + 1e-3)
    momentum = two_body_momentum(mass, m1, m2) * isotropic(rng, parent.shape[1])
    energy = np.sqrt((momentum * momentum).sum(axis=0) + m1 * m1)
    first = boost(np.concatenate([momentum, energy[None]]), parent[:3] / parent[3], gamma=parent[3] / mass)
    return first, parent - first


def two_body_momentum(mass: Floats, m1: Any, m2: Any) -> Floats:
    """Return the momentum of either daughter in the rest frame (Kallen's triangle function over 2M), GeV.

    Parameters
    ----------
    mass : (n,) of the parent, GeV; at least the sum of the others
    m1, m2 : of the daughters, numbers or (n,), GeV
    """
    kallen = (mass * mass - (m1 + m2) ** 2) * (mass * mass - (m1 - m2) ** 2)
    momentum: Floats = np.sqrt(np.maximum(kallen, 0)) / (2 * mass)
    return momentum


def isotropic(rng: np.random.Generator, n: int) -> Floats:
    """Draw (3, n) unit vectors, uniform on the sphere."""
    cosine = 2 * uniform(rng, n) - 1
    sine, phi = np.sqrt(1 - cosine * cosine), TWO_PI * uniform(rng, n)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine])


def boost(p: Floats, beta: Floats, *, gamma: Floats) -> Floats:
    """Boost rest-frame four-momenta (4, n) into the frame where the rest frame moves with velocity ``beta`` (3, n).

    Parameters
    ----------
    p : (4, n) px, py, pz, E
    beta : (3, n) in units of the speed of light
    gamma : (n,) energy over mass, which float32 can't tell from a ``beta`` near 1
    """
    beta2 = np.maximum((beta * beta).sum(axis=0), 1e-12)
    along = (beta * p[:3]).sum(axis=0)
    shift = (gamma - 1) * along / beta2 + gamma * p[3]
    return np.concatenate([p[:3] + shift * beta, (gamma * (p[3] + along))[None]])

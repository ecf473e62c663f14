"""Angles, distances and invariant masses from (pt, eta, phi, mass), in GeV and radians.

Pure functions of numbers or arrays that broadcast; computed in float64 whatever the columns' width.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
FourVector = tuple[Floats, Floats, Floats, Floats]

_TURN = 2 * np.pi


def deltaphi(phi1: npt.ArrayLike, phi2: npt.ArrayLike) -> Floats:
    """Turn from ``phi2`` to ``phi1`` the short way round.

    Returns
    -------
    phi1 - phi2 in (-pi, pi], however many turns they are apart

    Examples
    --------
    >>> float(deltaphi(3.0, -3.0).round(4))
    -0.2832
    """
    with np.errstate(over="ignore"):
        difference = np.asarray(np.subtract(phi1, phi2, dtype=np.float64))
    # Every step is exact: a remainder is, and so is the difference of numbers within a factor of 2.
    far = np.abs(difference) >= _TURN
    if far.any():
        if np.isinf(difference).any():
            apart = np.subtract(*(np.fmod(phi, _TURN, dtype=np.float64) for phi in (phi1, phi2)))
            difference = np.where(np.isinf(difference), apart, difference)
        difference = np.fmod(difference, _TURN, out=difference.copy(), where=far)
    turned = np.where(difference > np.pi, difference - _TURN, difference)
    return np.where(turned <= -np.pi, turned + _TURN, turned)


def deltar(eta1: npt.ArrayLike, phi1: npt.ArrayLike, eta2: npt.ArrayLike, phi2: npt.ArrayLike) -> Floats:
    """Measure the distance of two directions in the eta-phi plane.

    Parameters
    ----------
    eta1, phi1 : pseudorapidity and azimuth (radians) of one direction, of any shape
    eta2, phi2 : of the other, of a shape that broadcasts with it
    """
    distance: Floats = np.hypot(np.subtract(eta1, eta2, dtype=np.float64), deltaphi(phi1, phi2))
    return distance


def four_vector(pt: npt.ArrayLike, eta: npt.ArrayLike, phi: npt.ArrayLike, mass: npt.ArrayLike) -> FourVector:
    """Give (energy, px, py, pz), all of the shape that the arguments broadcast to.

    Parameters
    ----------
    pt, eta, phi, mass : GeV, pseudorapidity, radians, GeV; of shapes that broadcast with each other
    """
    pt, eta, phi, mass = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (pt, eta, phi, mass)))
    pz = pt * np.sinh(eta)
    return np.sqrt(pt**2 + pz**2 + mass**2), pt * np.cos(phi), pt * np.sin(phi), pz


def mass_of(energy: Floats, px: Floats, py: Floats, pz: Floats) -> Floats:
    """Give the invariant mass of four-vectors, 0 where rounding makes the square negative.

    Parameters
    ----------
    energy, px, py, pz : GeV, of one shape
    """
    mass: Floats = np.sqrt(np.maximum(energy**2 - (px**2 + py**2 + pz**2), 0.0))
    return mass


def pair_mass(
    pt1: npt.ArrayLike,
    eta1: npt.ArrayLike,
    phi1: npt.ArrayLike,
    mass1: npt.ArrayLike,
    pt2: npt.ArrayLike,
    eta2: npt.ArrayLike,
    phi2: npt.ArrayLike,
    mass2: npt.ArrayLike,
) -> Floats:
    """Give the invariant mass of two objects.

    Parameters
    ----------
    pt1, eta1, phi1, mass1 : of one object: GeV, pseudorapidity, radians, GeV; of any shape
    pt2, eta2, phi2, mass2 : of the other, of shapes that broadcast with it

    Examples
    --------
    >>> float(pair_mass(45.6, 0.0, 0.0, 0.0, 45.6, 0.0, np.pi, 0.0))
    91.2
    """
    first, second = four_vector(pt1, eta1, phi1, mass1), four_vector(pt2, eta2, phi2, mass2)
    energy, px, py, pz = (a + b for a, b in zip(first, second, strict=True))
    return mass_of(energy, px, py, pz)

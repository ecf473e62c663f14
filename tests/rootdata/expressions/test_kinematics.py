import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.expressions import kinematics

angles = st.floats(-1e3, 1e3)
etas = st.floats(-5, 5)
momenta = st.floats(0, 1e3)


@given(angles, angles)
def test_deltaphi_is_the_same_turn_in_range(phi1, phi2):
    turn = float(kinematics.deltaphi(phi1, phi2))
    assert -math.pi < turn <= math.pi
    assert math.cos(turn) == pytest.approx(math.cos(phi1 - phi2), abs=1e-9)
    assert math.sin(turn) == pytest.approx(math.sin(phi1 - phi2), abs=1e-9)


@pytest.mark.parametrize("turns", range(-3, 4))
@pytest.mark.parametrize("bits", range(-3, 4))
def test_deltaphi_keeps_its_range_at_half_a_turn(turns, bits):
    phi = (2 * turns + 1) * math.pi
    for _ in range(abs(bits)):
        phi = math.nextafter(phi, math.copysign(math.inf, bits))
    assert -math.pi < float(kinematics.deltaphi(phi, 0.0)) <= math.pi


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_deltaphi_is_the_exact_remainder_of_any_difference(phi1, phi2):
    turn, difference = float(kinematics.deltaphi(phi1, phi2)), phi1 - phi2
    assert -math.pi < turn <= math.pi
    if math.isfinite(difference):
        exact = math.remainder(difference, 2 * math.pi)
        assert turn == (math.pi if exact <= -math.pi else exact)


def test_deltaphi_does_not_depend_on_its_neighbours():
    phi = np.array([1.0, 1e30, -4.0, 1e308, 6.5])
    together = kinematics.deltaphi(phi, -phi)
    assert together.tolist() == [float(kinematics.deltaphi(x, -x)) for x in phi]


def test_deltaphi_of_opposite_directions_is_plus_pi_either_way():
    assert kinematics.deltaphi([math.pi, 0.0], [0.0, math.pi]).tolist() == [math.pi, math.pi]


def test_deltaphi_works_in_float64_on_float32():
    phi = np.array([3.1], np.float32)
    assert kinematics.deltaphi(phi, -phi).dtype == np.float64
    assert kinematics.deltaphi(phi, -phi)[0] == pytest.approx(2 * float(phi[0]) - 2 * math.pi, abs=1e-15)


@given(etas, angles, etas, angles)
def test_deltar_is_a_distance(eta1, phi1, eta2, phi2):
    there, back = kinematics.deltar(eta1, phi1, eta2, phi2), kinematics.deltar(eta2, phi2, eta1, phi1)
    assert there == pytest.approx(back)
    assert there == pytest.approx(math.hypot(eta1 - eta2, kinematics.deltaphi(phi1, phi2)))


@given(momenta, etas, angles, st.floats(0, 200))
def test_the_mass_of_a_four_vector_is_its_mass(pt, eta, phi, mass):
    energy, *_ = vector = kinematics.four_vector(pt, eta, phi, mass)
    # The squares of energy and momentum cancel: what is left of mass**2 is good to the rounding of energy**2.
    assert kinematics.mass_of(*vector) ** 2 == pytest.approx(mass**2, abs=1e-13 * float(energy) ** 2 + 1e-30)


@given(momenta, etas, angles, momenta, etas, angles)
def test_pair_mass_of_massless_objects_has_its_closed_form(pt1, eta1, phi1, pt2, eta2, phi2):
    squared = 2 * pt1 * pt2 * (math.cosh(eta1 - eta2) - math.cos(phi1 - phi2))
    energy = pt1 * math.cosh(eta1) + pt2 * math.cosh(eta2)
    pair = float(kinematics.pair_mass(pt1, eta1, phi1, 0, pt2, eta2, phi2, 0))
    assert pair**2 == pytest.approx(squared, abs=1e-12 * energy**2 + 1e-30)


def test_pair_mass_broadcasts_and_keeps_nan():
    masses = kinematics.pair_mass(np.array([45.6, np.nan]), 0, 0, 0, 45.6, 0, np.pi, 0)
    np.testing.assert_allclose(masses, [91.2, np.nan])

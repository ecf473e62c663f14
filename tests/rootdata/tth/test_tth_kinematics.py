"""Four-momenta, angles and decays against the laws that they obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.tth.physics.kinematics import (
    boost,
    delta_r2,
    four_momentum,
    invariant_mass,
    pt_eta_phi,
    two_body_decay,
    wrap_phi,
)

seeds = st.integers(0, 2**32 - 1)


def parents(rng: np.random.Generator, *, mass: float, n: int = 200) -> np.ndarray:
    pt, eta, phi = rng.exponential(200, n), rng.normal(0, 1.5, n), rng.uniform(-np.pi, np.pi, n)
    return four_momentum(pt, eta, phi, np.full(n, mass))


@given(seed=seeds, masses=st.sampled_from([(4.8, 4.8), (4.8, 80.4), (1.0, 0.3), (0.0, 0.0)]))
def test_a_decay_conserves_momentum_and_gives_the_masses_asked_for(seed, masses):
    rng = np.random.default_rng(seed)
    parent = parents(rng, mass=172.5)
    first, second = two_body_decay(rng, parent, masses=masses)
    np.testing.assert_allclose(first + second, parent, rtol=1e-9)
    # A mass is a difference of squares of energies: its rounding grows with them.
    for daughter, mass in ((first, masses[0]), (second, masses[1])):
        assert np.abs(invariant_mass(daughter) ** 2 - mass**2).max() < 1e-5 * parent[3].max() ** 2 / 172.5


def test_decays_at_rest_are_isotropic_and_back_to_back():
    rng = np.random.default_rng(5)
    parent = np.zeros((4, 20_000))
    parent[3] = 125.0
    first, second = two_body_decay(rng, parent, masses=(4.8, 4.8))
    np.testing.assert_allclose(first[:3], -second[:3], atol=1e-4)
    directions = first[:3] / np.sqrt((first[:3] ** 2).sum(axis=0))
    assert np.abs(directions.mean(axis=1)).max() < 0.02  # five standard deviations
    np.testing.assert_allclose((directions**2).mean(axis=1), 1 / 3, atol=0.012)


@given(seed=seeds)
def test_a_boost_keeps_masses(seed):
    rng = np.random.default_rng(seed)
    p = parents(rng, mass=80.4)
    beta = rng.uniform(-0.55, 0.55, (3, p.shape[1]))
    moved = boost(p, beta, gamma=1 / np.sqrt(1 - (beta**2).sum(axis=0)))
    np.testing.assert_allclose(invariant_mass(moved), 80.4, rtol=1e-3)


@given(seed=seeds)
def test_collider_coordinates_invert(seed):
    rng = np.random.default_rng(seed)
    p = parents(rng, mass=10.0)
    pt, eta, phi = pt_eta_phi(p)
    np.testing.assert_allclose(four_momentum(pt, eta, phi, invariant_mass(p)), p, rtol=1e-6, atol=1e-6)


@given(phi=st.floats(-50, 50), turns=st.integers(-7, 7))
def test_wrapped_angles_lie_within_half_a_turn_and_keep_their_direction(phi, turns):
    wrapped = wrap_phi(np.array([phi + 2 * np.pi * turns]))
    assert abs(wrapped[0]) <= np.pi + 1e-9
    assert np.cos(wrapped[0]) == pytest.approx(np.cos(phi), abs=1e-9)
    assert np.sin(wrapped[0]) == pytest.approx(np.sin(phi), abs=1e-9)


def test_the_shortest_way_round_counts():
    distance2 = delta_r2(np.array([0.0]), np.array([3.1]), np.array([0.0]), np.array([-3.1]))
    assert distance2[0] == pytest.approx((2 * np.pi - 6.2) ** 2)


def test_float32_stays_float32():
    ones = np.ones(3, np.float32)
    p = four_momentum(ones, ones, ones, ones)
    first, _ = two_body_decay(np.random.default_rng(1), 100 * p, masses=(0.5, 0.1))
    assert {p.dtype, first.dtype, invariant_mass(p).dtype, pt_eta_phi(p)[0].dtype} == {np.dtype(np.float32)}

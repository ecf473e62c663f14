"""Clustering and the emulated detector: what must hold for any event."""

from __future__ import annotations

import numpy as np
import pytest

from rootdata.tth.physics import detector
from rootdata.tth.physics.process import BOTTOM, CHARM, LIGHT, QCD_SHOWER, Partons, simulate, split
from rootdata.tth.samples import PROCESSES


def observed(process: str = "ttH", *, seed: int = 3, n: int = 500) -> Partons:
    rng = np.random.default_rng(seed)
    return detector.observe(rng, simulate(rng, process, n_events=n).partons)


@pytest.mark.parametrize("process", PROCESSES)
def test_what_is_observed_is_ordered_and_finite(process):
    partons = observed(process)
    assert partons.pt.shape[1] == 500
    assert len(partons.pt) <= detector.MAX_PARTONS
    assert (np.diff(partons.pt, axis=0) <= 0).all()
    for values in (partons.pt, partons.eta, partons.phi):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


@pytest.mark.parametrize("radius", [0.4, 0.8])
def test_each_parton_is_in_one_jet_at_most(radius):
    partons = observed()
    owners = np.zeros(partons.pt.shape, int)
    for seed, members, distance2 in detector.cones(partons, radius=radius, n_seeds=14):
        owners[seed:] += members
        assert (distance2[members] < radius**2).all()
        # A jet has its seed, or nothing.
        assert (members.any(axis=0) == members[0]).all()
    assert owners.max() == 1


@pytest.mark.parametrize("radius", [0.4, 0.8])
def test_seeds_are_apart_and_every_parton_is_taken_when_all_may_seed(radius):
    partons = observed()
    owned, seeds = np.zeros(partons.pt.shape, bool), []
    for seed, members, _ in detector.cones(partons, radius=radius, n_seeds=detector.MAX_PARTONS):
        owned[seed:] |= members
        seeds.append(members[0])
    assert (owned == (partons.pt > 0)).all()
    eta, phi, is_seed = partons.eta[:, 0], partons.phi[:, 0], np.array(seeds)[:, 0]
    d_phi = np.angle(np.exp(1j * (phi[is_seed][:, None] - phi[is_seed])))
    distance = np.hypot(eta[is_seed][:, None] - eta[is_seed], d_phi)
    assert distance[~np.eye(is_seed.sum(), dtype=bool)].min() >= radius - 1e-5


def test_jets_are_ordered_by_pt_with_the_accepted_first():
    jets = detector.cluster_jets(np.random.default_rng(1), observed())
    assert (np.diff(jets.is_real.astype(int), axis=1) <= 0).all()
    pt = np.where(jets.is_real, jets.pt, 0)
    assert (np.diff(pt, axis=1) <= 0).all()
    assert jets.pt[jets.is_real].min() > 30
    assert np.abs(jets.eta[jets.is_real]).max() < 2.4


def test_splitting_conserves_transverse_momentum_and_its_mean_direction():
    rng = np.random.default_rng(2)
    partons = simulate(rng, "QCD_Pt_470to600", n_events=300).partons
    after = split(rng, partons, QCD_SHOWER[0])
    np.testing.assert_allclose(after.pt[: len(partons.pt)] + after.pt[len(partons.pt) :], partons.pt, rtol=1e-5)
    k = len(partons.pt)
    eta = (after.pt[:k] * after.eta[:k] + after.pt[k:] * after.eta[k:]) / np.maximum(partons.pt, 1e-6)
    np.testing.assert_allclose(eta[partons.pt > 0], partons.eta[partons.pt > 0], atol=1e-4)
    assert (after.pt[k:] > 0).any()


def test_b_tags_tell_flavours_apart():
    """Check medium efficiencies: two thirds of b jets, a seventh of c jets, one in seventy others."""
    rng, n = np.random.default_rng(4), 50_000
    pt, eta = np.full(n, 100, np.float32), np.zeros(n, np.float32)
    passing = [(detector.btag_score(rng, np.full(n, f), pt, eta) > 0.4941).mean() for f in (BOTTOM, CHARM, LIGHT)]
    assert passing == pytest.approx([0.667, 0.146, 0.0135], abs=0.01)


def test_resolution_improves_with_pt():
    resolution = detector.resolution(np.array([30, 100, 1000], np.float32))
    assert (np.diff(resolution) < 0).all()
    assert resolution[0] < 0.25

"""Selection, Higgs candidate and variables on events that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.tth.physics import analysis, detector
from rootdata.tth.physics.analysis import FatJets, Jets
from rootdata.tth.physics.arrays import map_arrays
from rootdata.tth.physics.process import simulate
from rootdata.tth.samples import VARIABLES


def row(*values: float, length: int = 10) -> np.ndarray:
    return np.array([[*values, *[0.0] * (length - len(values))]], np.float32)


def fat_jets(*, pt: float = 400.0, msoftdrop: float = 100.0) -> FatJets:
    ones = row(1, length=3)
    return FatJets(
        pt=row(pt, length=3), eta=row(0, length=3), phi=row(np.pi, length=3), mass=row(110, length=3),
        msoftdrop=row(msoftdrop, length=3), tau1=ones + 1, tau2=ones + 1, tau3=ones + 1,
        btag_sub0=ones, btag_sub1=ones / 2,
        mass_sub0=ones, mass_sub1=ones, pt_sub0=ones, pt_sub1=ones, is_real=ones > 0,
    )  # fmt: skip


def jets(*, pt, eta, phi, btag) -> Jets:
    n = len(pt)
    return Jets(row(*pt), row(*eta), row(*phi), row(*[0.0] * n), row(*btag), row(*[0.5] * n), row(*[1.0] * n) > 0)


def test_the_closest_pair_of_medium_tags_is_the_candidate():
    event = jets(
        pt=(200, 150, 100, 90, 80), eta=(0, 1, 0.5, -1, 2), phi=(0, 0, 0.2, 1, -1), btag=(0.9, 0.8, 0.6, 0.1, 0.3)
    )
    candidate = analysis.find_candidate(event, fat_jets())
    assert candidate.exists[0]
    assert {candidate.first[0], candidate.second[0]} == {0, 2}
    assert candidate.first[0] == 0  # the better tag comes first


def test_without_two_medium_tags_the_best_scores_are_the_candidate():
    event = jets(pt=(200, 150, 100, 90), eta=(0, 1, 0.5, -1), phi=(0, 0, 0.2, 1), btag=(0.1, 0.45, 0.2, 0.9))
    candidate = analysis.find_candidate(event, fat_jets())
    assert (candidate.first[0], candidate.second[0]) == (3, 1)


def test_jets_within_the_boosted_jet_are_not_candidates():
    event = jets(pt=(200, 150, 100, 90), eta=(0, 0.1, 1, -1), phi=(np.pi, -3.0, 0.2, 1), btag=(0.9, 0.95, 0.2, 0.3))
    candidate = analysis.find_candidate(event, fat_jets())
    assert {candidate.first[0], candidate.second[0]} == {2, 3}


def test_one_usable_jet_is_no_candidate():
    event = jets(pt=(200,), eta=(0,), phi=(0,), btag=(0.9,))
    assert not analysis.find_candidate(event, fat_jets()).exists[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, True), ({"pt": 290.0}, False), ({"msoftdrop": 19.0}, False)],
)
def test_the_selection_asks_for_a_massive_boosted_jet(change, expected):
    event = jets(pt=(200, 150, 100, 90), eta=(0, 1, 0.5, -1), phi=(0, 0, 0.2, 1), btag=(0.9, 0.8, 0.2, 0.3))
    boosted = fat_jets(**change)
    assert analysis.is_selected(event, boosted, analysis.find_candidate(event, boosted))[0] == expected


@pytest.mark.parametrize(
    ("pt", "btag"),
    [((200, 150, 101), (0.9,) * 3), ((100, 100, 100, 100), (0.9,) * 4), ((200, 150, 100, 90), (0.15,) * 4)],
)
def test_the_selection_asks_for_four_jets_energy_and_a_tag(pt, btag):
    n = len(pt)
    event = jets(pt=pt, eta=(0, 1, 0.5, -1)[:n], phi=(0, 0, 0.2, 1)[:n], btag=btag)
    assert not analysis.is_selected(event, fat_jets(), analysis.find_candidate(event, fat_jets()))[0]


def test_matching_needs_both_quarks_at_both_jets():
    event = jets(pt=(200, 150, 100, 90), eta=(0, 1, 0.5, -1), phi=(0, 0, 0.2, 1), btag=(0.9, 0.2, 0.8, 0.1))
    candidate = analysis.find_candidate(event, fat_jets())
    eta, phi = np.array([[0.55, 0.05]]), np.array([[0.2, 0.1]])
    assert analysis.is_matched(event, candidate, eta=eta, phi=phi)[0]
    assert not analysis.is_matched(event, candidate, eta=eta + np.array([0, 1.0]), phi=phi)[0]
    # Two quarks in one jet are not two jets.
    assert not analysis.is_matched(event, candidate, eta=np.array([[0.0, 0.05]]), phi=np.array([[0.0, 0.1]]))[0]


def test_a_pair_of_massless_jets_has_the_mass_of_the_formula():
    event = jets(pt=(100, 80, 60, 50), eta=(0, 1, 2, -2), phi=(0, 1, -1, -2), btag=(0.9, 0.8, 0.1, 0.1))
    boosted = fat_jets()
    found = analysis.variables(
        event, boosted, analysis.find_candidate(event, boosted), met=np.array([12.5], np.float32)
    )
    assert set(found) == set(VARIABLES)
    assert found["mbb"][0] == pytest.approx(np.sqrt(2 * 100 * 80 * (np.cosh(1) - np.cos(1))), rel=1e-4)
    assert found["dRbb"][0] == pytest.approx(np.sqrt(2), rel=1e-5)
    assert (found["HT"][0], found["nJet"][0], found["nBJet"][0], found["MET_pt"][0]) == (290, 4, 2, 12.5)
    assert found["mTopCand"][0] == 0  # only two jets are left


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 12))
def test_sphericity_eigenvalues_are_those_of_the_tensor(seed, n):
    p = np.random.default_rng(seed).normal(0, 100, (3, 5, n))
    got = np.stack(analysis.sphericity_eigenvalues(p), axis=1)
    tensor = np.einsum("ink,jnk->nij", p, p)
    expected = np.linalg.eigvalsh(tensor / np.trace(tensor, axis1=1, axis2=2)[:, None, None])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_what_is_not_real_changes_nothing():
    rng = np.random.default_rng(8)
    partons = detector.observe(rng, simulate(rng, "ttH", n_events=400).partons)
    boosted = detector.resolve_fat_jets(rng, detector.cluster_fat_jets(rng, partons))
    event = detector.tag_jets(rng, detector.cluster_jets(rng, partons))
    keep = boosted.is_real.any(axis=1) & (event.is_real.sum(axis=1) > 3)
    event, boosted = (map_arrays(table, lambda a: a[keep]) for table in (event, boosted))
    other = map_arrays(event, lambda a: a if a.dtype == bool else np.where(event.is_real, a, np.float32(1.7)))
    met = np.ones(keep.sum(), np.float32)
    candidates = analysis.find_candidate(event, boosted), analysis.find_candidate(other, boosted)
    exists = candidates[0].exists
    assert (exists == candidates[1].exists).all()
    first, second = (
        analysis.variables(*pair, met=met)
        for pair in ((event, boosted, candidates[0]), (other, boosted, candidates[1]))
    )
    for name in VARIABLES:
        np.testing.assert_array_equal(first[name][exists], second[name][exists], err_msg=name)

"""The reference generator, where Pythia and FastJet are installed."""

from __future__ import annotations

import sys

import awkward as ak
import numpy as np
import pytest
import uproot

from rootdata.errors import ConfigError
from rootdata.tth import fast
from rootdata.tth.physics import pythia
from rootdata.tth.samples import PROCESSES, SHARES


def need_pythia() -> None:
    pytest.importorskip("pythia8mc", reason="needs rootdata[simulate]")
    pytest.importorskip("fastjet", reason="needs rootdata[simulate]")


@pytest.mark.parametrize("process", PROCESSES)
def test_a_handful_of_events_of_each_process(process):
    need_pythia()
    block = pythia.select_block(process, seed=1, block=0, n_events=60)
    flat, reference = block.events.flat, fast.select_block(process, seed=1, block=0).events
    assert len(block.events) > 0
    assert {n: v.dtype for n, v in flat.items()} == {n: v.dtype for n, v in reference.flat.items()}
    assert all(np.isfinite(values).all() for values in flat.values())
    for name, collection in block.events.collections.items():
        assert set(collection.columns) == set(reference.collections[name].columns)
        pt = np.where(collection.is_real, collection.columns["pt"], 0)
        assert (np.diff(pt, axis=1) <= 0).all()
    assert (flat["HT"] > 450).all()
    assert block.is_signal.any() <= (process == "ttH")


def test_the_higgs_boson_is_found_at_its_mass():
    need_pythia()
    block = pythia.select_block("ttH", seed=2, block=0, n_events=400)
    masses = block.events.flat["mbb"][block.is_signal]
    assert len(masses) >= 4
    assert 90 < np.median(masses) < 170


def test_the_same_seed_gives_the_same_events():
    need_pythia()
    first, again, other = (pythia.select_block("TTToHadronic", seed=s, block=3, n_events=40) for s in (1, 1, 2))
    assert (first.events.flat["HT"] == again.events.flat["HT"]).all()
    assert not np.array_equal(first.events.flat["HT"], other.events.flat["HT"])


def test_clustering_takes_all_momentum_once():
    need_pythia()
    rng = np.random.default_rng(1)
    pt, eta, phi = rng.exponential(20, 200), rng.normal(0, 1, 200), rng.uniform(-np.pi, np.pi, 200)
    columns = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
    particles = ak.unflatten(ak.zip(columns), [120, 80])
    jets, constituents = pythia.cluster(particles, radius=0.4, min_pt=0.0, n_jets=500)
    assert ak.to_list(ak.sum(ak.num(constituents, axis=2), axis=1)) == [120, 80]
    assert ak.all(jets.pt[:, 1:] <= jets.pt[:, :-1])
    assert ak.to_numpy(ak.sum(jets.pt * np.cos(jets.phi), axis=1)) == pytest.approx(
        ak.sum(particles.px, axis=1), rel=1e-6
    )


def test_two_prongs_are_groomed_out_of_soft_radiation():
    """Two hard particles 0.5 apart and one soft far off: soft drop keeps the pair, whose mass is known."""
    need_pythia()
    pt, phi = np.array([300.0, 200.0, 2.0]), np.array([0.0, 0.5, -0.2])
    columns = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": 0 * pt, "E": pt * (1 + 1e-9)}
    mass, taus, subjets = pythia.substructure(ak.Array([ak.zip(columns)]))
    assert mass[0] == pytest.approx(np.sqrt(2 * 300 * 200 * (1 - np.cos(0.5))), rel=0.01)
    assert taus[1, 0] < 0.1 * taus[0, 0]
    assert subjets["pt"][0] == pytest.approx([300, 200], rel=0.02)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_small_set_in_two_processes(tmp_path):
    need_pythia()
    paths = pythia.ensure(tmp_path / "set", 200, seed=3, n_processes=2, progress=False)
    assert [path.stem for path in paths] == list(SHARES)
    assert sum(uproot.open(path)["Events"].num_entries for path in paths) == 200
    assert pythia.ensure(tmp_path / "set", 200, seed=3, n_processes=1, progress=False) == paths


def test_without_pythia_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    monkeypatch.setitem(sys.modules, "fastjet", None)
    with pytest.raises(ConfigError, match=r'pip install "rootdata\[simulate\]"'):
        pythia.ensure(tmp_path / "set", 200)
    assert not list(tmp_path.iterdir())


def test_an_event_needs_a_process():
    need_pythia()
    with pytest.raises(ConfigError, match="n_processes: 0"):
        pythia.ensure("anywhere", 200, n_processes=0)


@pytest.mark.parametrize("process", PROCESSES)
def test_settings_ask_for_one_process_without_multiparton_interactions(process):
    lines = pythia.settings(process)
    assert "PartonLevel:MPI = off" in lines
    assert "PartonLevel:MPI = on" in pythia.settings(process, multiparton=True)
    assert any(line.startswith(("HiggsSM", "Top:", "HardQCD")) for line in lines)

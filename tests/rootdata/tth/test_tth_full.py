"""The full set: 74 branches before selection, of any size."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from rootdata import tth
from rootdata.errors import ConfigError, DataError
from rootdata.tth.samples import PROCESSES

REFERENCE = Path(__file__).parents[3].parent / "shared" / "data" / "tth_full" / "ttH.root"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return tth.generate_full(tmp_path_factory.mktemp("full") / "set", 40_003, seed=3)


def test_each_process_has_its_share(paths):
    counts = [uproot.open(path)["Events"].num_entries for path in paths]
    assert [path.stem for path in paths] == list(PROCESSES)
    assert counts == [5001, 5001, 5001, 5000, 5000, 5000, 5000, 5000]


def test_branches(paths):
    types = [{name: str(b.interpretation) for name, b in uproot.open(path)["Events"].iteritems()} for path in paths]
    assert all(found == types[0] for found in types)
    jagged = [name for name, kind in types[0].items() if "Jagged" in kind]
    assert (len(types[0]) - len(jagged), len(jagged)) == (22, 52)


def test_branches_are_those_of_the_reference(paths):
    if not REFERENCE.exists():
        pytest.skip("no reference file")
    found, expected = (
        {name: str(b.interpretation) for name, b in uproot.open(path)["Events"].iteritems()}
        for path in (paths[0], REFERENCE)
    )
    assert found == expected


def test_contents_are_consistent(paths):
    events = uproot.open(paths[0])["Events"].arrays()
    assert ak.all(events.event == np.arange(len(events)))
    for counter in ("Jet", "FatJet", "SubJet", "Electron", "Muon"):
        assert ak.all(events[f"n{counter}"] == ak.num(events[f"{counter}_pt"]))
        assert ak.all(events[f"{counter}_pt"] > 0)
        assert ak.all(abs(events[f"{counter}_phi"]) < 3.15)
    assert ak.all(events.nSubJet == 2 * events.nFatJet)
    assert ak.all(events.SubJet_fatJetIdx < events.nFatJet)
    assert all(ak.all(np.isfinite(ak.flatten(events[b], axis=None))) for b in events.fields)
    assert ak.max(events.Jet_chf + events.Jet_nhf + events.Jet_phf) <= 1 + 1e-5
    # Nothing is selected: there are events without a boosted jet, without a candidate, without jets that pass.
    assert ak.any(events.nFatJet == 0)
    assert ak.any(events.mbb == -1)


def test_only_tth_has_a_higgs_boson(paths):
    matched = {path.stem: ak.mean(uproot.open(path)["Events"]["gen_isHiggsMatched"].array()) for path in paths}
    assert matched.pop("ttH") == pytest.approx(0.17, abs=0.03)
    assert set(matched.values()) == {0.0}


def test_the_same_seed_gives_the_same_events(paths, tmp_path):
    again = tth.generate_full(tmp_path / "again", 400, seed=3)
    for path, reference in zip(again, paths, strict=True):
        events = uproot.open(path)["Events"].arrays()
        assert ak.array_equal(events, uproot.open(reference)["Events"].arrays(entry_stop=len(events)))


def test_a_set_is_made_once_and_another_refused(tmp_path):
    made = tth.generate_full(tmp_path / "set", 80)
    assert tth.generate_full(tmp_path / "set", 80) == made
    with pytest.raises(DataError, match="another set"):
        tth.generate_full(tmp_path / "set", 88)
    with pytest.raises(DataError, match="another set"):
        tth.ensure(tmp_path / "set", 100, progress=False)


def test_every_file_gets_an_event(tmp_path):
    with pytest.raises(ConfigError, match="8 or more"):
        tth.generate_full(tmp_path / "set", 7)

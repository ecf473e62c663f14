import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, lists_of, make_events, write
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rootdata.branches import Branch
from rootdata.errors import BranchError, ConfigError, FileError
from rootdata.files import Location
from rootdata.inspection import (
    FEW,
    TYPICAL_SENTINELS,
    Column,
    collections_of,
    find_sentinels,
    finding,
    inspect,
    measure,
    role_of,
)
from rootdata.report import tables

REAL = SHARED / "real"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real files, shared/data/real, is absent")


def shown(found):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables(found))
    return capture.get()


def odd_events(num_events=100):
    rng = np.random.default_rng(1)
    holes = rng.normal(size=num_events)
    holes[:10] = np.nan
    holes[10] = np.inf
    return make_events(num_events) | {
        "holes": holes,
        "defaulted": np.where(rng.random(num_events) < 0.5, -999.0, rng.exponential(30, num_events)),
        "huge": np.where(rng.random(num_events) < 0.5, 1e35, rng.exponential(30, num_events)),
        "year": np.full(num_events, 2018, np.int32),
        "nothing": np.full(num_events, np.nan),
        "cov": rng.normal(size=(num_events, 3)),
        "Empty": {"pt": lists_of(np.zeros(0, np.float32), np.zeros(num_events, np.int64))},
    }


# Trees


def test_every_tree_of_a_file_is_listed_and_events_is_chosen(tmp_path):
    with uproot.recreate(tmp_path / "many.root", compression=uproot.LZ4(3)) as file:
        add(file, {"x": np.arange(500.0)}, tree="Runs")
        add(file, make_events(60))
        add(file, {"y": np.arange(7.0)}, tree="sub/Other", kind="RNTuple")
    found = inspect([str(tmp_path / "many.root")])
    assert {(t.name, t.kind, t.entries, t.compression, t.is_chosen) for t in found.trees} == {
        ("Runs", "TTree", 500, "LZ4(3)", False),
        ("Events", "TTree", 60, "LZ4(3)", True),
        ("sub/Other", "RNTuple", 7, "LZ4(3)", False),
    }
    assert "met" in found.columns
    assert "sub/Other" in shown(found)


def test_the_largest_tree_is_chosen_where_none_is_called_events(tmp_path):
    with uproot.recreate(tmp_path / "many.root") as file:
        add(file, {"x": np.arange(5.0)}, tree="small")
        add(file, {"y": np.arange(50.0)}, tree="large")
    assert list(inspect([str(tmp_path / "many.root")]).columns) == ["y"]
    assert list(inspect([str(tmp_path / "many.root")], tree="small").columns) == ["x"]
    assert list(inspect([f"{tmp_path}/many.root:small"]).columns) == ["x"]


def test_a_misspelt_tree_names_the_nearest(tmp_path):
    path = write(tmp_path / "a.root", make_events(20))
    with pytest.raises(BranchError, match=r"tree 'Event' not found in .*a.root; nearest: 'Events'"):
        inspect([str(path)], tree="Event")


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.root").write_text("hello")
    (tmp_path / "empty.root").touch()
    with uproot.recreate(tmp_path / "treeless.root") as file:
        file["note"] = "no tree"
    for name, error, words in (
        ("text.root", FileError, "not a ROOT file"),
        ("empty.root", FileError, "the file is empty"),
        ("treeless.root", BranchError, "holds 0 trees"),
        ("absent.root", FileError, "does not exist"),
    ):
        with pytest.raises(error, match=words):
            inspect([str(tmp_path / name)])


def test_a_file_that_is_named_twice(tmp_path):
    path = write(tmp_path / "a.root", make_events(20))
    with pytest.raises(ConfigError, match="is named twice, as 'a' and 'other'"):
        inspect([str(path), f"other={path}"])


def test_names_of_samples(tmp_path):
    for name in ("ttH_1.root", "ttH_2.root", "QCD-470.root", "7TeV.root", "more/ttH_1.root"):
        write(tmp_path / name, make_events(20))
    with uproot.recreate(tmp_path / "both.root") as file:
        add(file, make_events(20), tree="sig")
        add(file, make_events(20), tree="bkg")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/QCD-470.root\n")
    arguments = ["ttH*.root", "more", "list.txt", "7TeV.root", "both.root:sig", "both.root:bkg", "mine=more/*.root"]
    with pytest.raises(ConfigError, match="named twice, as 'more' and 'mine'"):
        inspect([a.replace("mine=", f"mine={tmp_path}/") if "=" in a else f"{tmp_path}/{a}" for a in arguments])
    found = inspect([f"{tmp_path}/{a}" for a in arguments[:-1]])
    assert [s.name for s in found.sources] == ["ttH", "more", "list", "sample_7TeV", "sig", "bkg"]
    assert [len(s.locations) for s in found.sources] == [2, 1, 1, 1, 1, 1]
    assert found.sources[4].locations == (Location(f"{tmp_path}/both.root", "sig"),)


# Branches


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_what_is_measured_is_what_was_written(tmp_path, kind):
    events = odd_events()
    found = inspect([str(write(tmp_path / "a.root", events, kind=kind))])
    met, pt = found.columns["met"], found.columns["Jet_pt"]
    assert (met.branch.kind, met.branch.dtype) == ("flat", "float32")
    assert met.stats.moments.mean == pytest.approx(events["met"].mean())
    assert (met.stats.low, met.stats.high) == (events["met"].min(), events["met"].max())
    jets = events["Jet"]["pt"]
    assert (pt.branch.kind, pt.entries, pt.objects, pt.longest) == ("jagged", 100, len(ak.flatten(jets)), 4)
    assert (found.columns["cov"].branch.kind, found.columns["cov"].branch.width) == ("fixed", 3)
    holes = found.columns["holes"].stats
    assert (holes.nans, holes.infinities, holes.count) == (10, 1, 89)
    assert found.columns["defaulted"].sentinels == {-999.0: int((events["defaulted"] == -999).sum())}
    assert found.columns["defaulted"].stats.low > 0
    assert found.columns["huge"].sentinels == {1e35: int((events["huge"] > 1e30).sum())}


def test_findings(tmp_path):
    found = inspect([str(write(tmp_path / "a.root", odd_events()))])
    assert {name: finding(found.columns[name]) for name in ("year", "nothing", "Empty_pt", "met")} == {
        "year": "constant, 2018",
        "nothing": "no value in it but NaN, infinities and sentinels",
        "Empty_pt": "always empty",
        "met": "",
    }


def test_only_the_first_entries_are_read_and_it_is_said(tmp_path):
    late = np.zeros(300)
    late[250:] = 1
    path = write(tmp_path / "a.root", {"late": late, "x": np.arange(300.0)}, steps=(100, 200))
    assert finding(inspect([str(path)], entries=200).columns["late"]) == "constant, 0"
    assert finding(inspect([str(path)]).columns["late"]) == ""
    text = shown(inspect([str(path)], entries=200))
    assert "from the first 200 entries of the file" in text


def test_a_value_that_hardly_ever_differs():
    for differ in (FEW - 1, FEW):
        values = np.zeros(1000)
        values[:differ] = 1.0
        column = measure(Branch("x", "flat", "float64"), values)
        assert (finding(column) == f"0 but for {differ} values") == (differ < FEW)


def test_many_files_are_merged_and_differences_told(tmp_path):
    for i in range(5):
        events = make_events(40, seed=i) | {"file": np.full(40, i, np.int32)}
        events |= {"sometimes": np.arange(40.0)} if i else {}
        events |= {"cov": np.ones(40) if i == 4 else np.ones((40, 2))}
        write(tmp_path / f"a{i}.root", events)
    found = inspect([str(tmp_path / "a*.root")])
    assert found.columns["met"].entries == 3 * 40
    assert finding(found.columns["file"]) == ""
    assert found.absent == {"sometimes": "in 4 of 5 files only", "cov": "fixed in a0.root, flat in a4.root"}
    text = shown(found)
    assert "from the first 10,000 entries of 3 of 5 files" in text
    assert "in 4 of 5 files only" in text


def test_a_file_without_entries_tells_what_branches_it_has(tmp_path):
    path = write(tmp_path / "none.root", make_events(0))
    assert finding(inspect([str(path)]).columns["met"]) == "no entries"
    write(tmp_path / "some.root", make_events(30))
    assert inspect([str(tmp_path / "*.root")]).columns["met"].entries == 30


def test_names_of_rntuples_and_trees_come_together(tmp_path):
    write(tmp_path / "a.root", make_events(30), kind="RNTuple")
    write(tmp_path / "b.root", make_events(30))
    found = inspect([f"{tmp_path}/a.root", f"{tmp_path}/b.root"])
    assert found.collections == {"Jet": ("Jet_pt", "Jet_eta")}
    assert "Jet_pt" not in found.absent


def test_unreadable_branches_stand_beside_good_ones(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        rng = np.random.default_rng(0)
        nested = ak.Array([[[1.0, 2.0], []], [[3.0]], []] * 20)
        columns = {"x": rng.normal(size=60), "nested": nested, "name": ak.Array(["a", "bc", ""] * 20)}
        file.mkrntuple("Events", columns)
    found = inspect([str(tmp_path / "a.root")])
    assert [found.columns[n].is_usable for n in ("x", "nested", "name")] == [True, False, False]
    assert "std::string" in finding(found.columns["name"])
    assert found.columns["x"].stats.count == 60


def test_a_branch_with_a_broken_basket_stands_beside_good_ones(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path, compression=None) as file:
        add(file, {"good": np.arange(100.0), "bad": np.arange(100.0), "fine": np.arange(100.0) ** 2})
        seek = file["Events"].num_entries  # the tree is written
    with uproot.open(path) as file:
        key = file["Events"]["bad"].basket_key(0)
        place = key.fSeekKey
    content = bytearray(path.read_bytes())
    content[place : place + 30] = b"\xff" * 30
    path.write_bytes(content)
    found = inspect([str(path)])
    assert seek == 100
    assert "it can't be read" in finding(found.columns["bad"])
    assert [found.columns[n].stats.count for n in ("good", "fine")] == [100, 100]


# Trigger bits


def test_trigger_bits_are_left_out_unless_asked_for(tmp_path):
    bits = {f"HLT_Mu{i}": np.arange(40) % 2 == 0 for i in range(5)}
    path = write(tmp_path / "a.root", make_events(40) | bits | {"Flag_good": np.ones(40, bool)})
    found = inspect([str(path)])
    assert not any(n.startswith(("HLT", "Flag")) for n in found.columns)
    assert "6 trigger bits and flags left out, such as HLT_Mu0; --all" in shown(found)
    assert "HLT_Mu3" in inspect([str(path)], flags=True).columns


# Sentinels


@given(st.lists(st.floats(-40, 1e6, width=32), min_size=1), st.sampled_from(TYPICAL_SENTINELS), st.integers(1, 5))
def test_a_default_far_from_all_values_is_found(values, sentinel, number):
    array = np.array([*values, *[sentinel] * number], np.float32)
    assert find_sentinels(array) == {sentinel: number}


@given(st.lists(st.integers(-700, -500), min_size=1))
def test_values_all_around_a_default_are_values(values):
    assert find_sentinels(np.array([-999, -501, *values])) == {}


@given(st.lists(st.floats(-40, 1e29)))
def test_ordinary_values_hold_no_sentinel(values):
    assert find_sentinels(np.array(values)) == {}


# Collections


def columns_of(**counts):
    def column(name, mark, counter=None):
        return Column(branch=Branch(name, "jagged", "float32", counter=counter), marks={"file": mark})

    return {n: column(n, *(c if isinstance(c, tuple) else (c,))) for n, c in counts.items()}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (columns_of(Jet_pt=1, Jet_eta=1, Muon_pt=2), {"Jet": ("Jet_pt", "Jet_eta"), "Muon": ("Muon_pt",)}),
        (columns_of(Jet_pt=1, Jet_sub_pt=2), {"Jet": ("Jet_pt",), "Jet_sub": ("Jet_sub_pt",)}),
        (
            columns_of(good_jet_pt=1, good_jet_eta=1, good_mu_pt=2, good_mu_eta=2),
            {"good_jet": ("good_jet_pt", "good_jet_eta"), "good_mu": ("good_mu_pt", "good_mu_eta")},
        ),
        (columns_of(lepPt=(1, "nlep"), lepEta=(1, "nlep")), {"lep": ("lepPt", "lepEta")}),
        (columns_of(pt=(1, "n_trk"), eta=(1, "n_trk")), {"trk": ("pt", "eta")}),
        (columns_of(Jet_pt=(1, "nJet_pt"), Jet_eta=(1, "nJet_eta")), {"Jet": ("Jet_pt", "Jet_eta")}),
        (columns_of(jetPt=1, jetEta=1, muPt=1), {"jet": ("jetPt", "jetEta"), "mu": ("muPt",)}),
        (columns_of(jetpt=1, jeteta=1), {"jet": ("jetpt", "jeteta")}),
        (columns_of(a=1, b=1), {"a": ("a",), "b": ("b",)}),
        (columns_of(Jet_pt=1, Jet_eta=2), {"Jet": ("Jet_pt",), "Jet_2": ("Jet_eta",)}),
    ],
)
def test_collections(columns, expected):
    assert collections_of(columns) == expected


def test_a_collection_holds_together_where_some_files_lack_a_branch(tmp_path):
    for i in range(3):
        events = make_events(50, seed=i)
        if i:
            events["Jet"] = {f"only{i}": events["Jet"]["pt"]} | events["Jet"]
        write(tmp_path / f"a{i}.root", events)
    found = inspect([f"{tmp_path}/a*.root"])
    assert {g: set(names) for g, names in found.collections.items()} == {
        "Jet": {"Jet_pt", "Jet_eta", "Jet_only1", "Jet_only2"}
    }


def test_counters_of_single_branches_tell_nothing_and_are_left_out(tmp_path):
    jets = make_events(50)["Jet"]
    found = inspect([str(write(tmp_path / "a.root", {"Jet_pt": jets["pt"], "Jet_eta": jets["eta"]}))])
    assert found.collections == {"Jet": ("Jet_pt", "Jet_eta")}
    assert set(found.columns) == {"Jet_pt", "Jet_eta"}


def test_a_shared_counter_is_known(tmp_path):
    found = inspect([str(write(tmp_path / "a.root", make_events(50)))])
    assert found.counters == {"nJet": "Jet"}
    assert role_of(found.columns["nJet"], found.counters) == "counter"


# Roles


@pytest.mark.parametrize(
    ("role", "names"),
    {
        "feature": "met HT pt Jet_pt Jet_nConst general event_shape lumiMask MET_pt eventually Jet_generic rho mcut",
        "truth": "gen_isHiggsMatched GenPart_pt nGenJet LHE_HT LHEPart_eta Jet_hadronFlavour FatJet_nBHadrons "
        "Electron_genPartIdx Tau_genPartFlav SubGenJetAK8_pt Pileup_nPU HTXS_njets30 MClepton_px truth_pt mc_pdg",
        "weight": "genWeight weight EventWeight LHEPdfWeight puWeight btagWeight_CSVV2 xsec evt_wgt nPSWeight",
        "identifier": "run event eventNumber RunNumber luminosityBlock bunchCrossing lumi orbit mcChannelNumber",
        "index": "Jet_electronIdx1 Muon_fsrPhotonIdx SubJet_fatJetIdx FatJet_subJetIdx2 Muon_jetIdx",
        "trigger": "HLT_Mu20 L1_SingleMu Flag_goodVertices triggerIsoMu24 TrigObj_pt nTrigObj",
        "label": "is_signal isSignal label target is_sig signal class_id",
    }.items(),
)
def test_roles(role, names):
    for name in names.split():
        assert (name, role_of(Column(branch=Branch(name, "flat", "float32"), is_binary=False), ())) == (name, role)


def test_y_is_a_label_only_where_it_is_zero_or_one():
    binary = measure(Branch("y", "flat", "int32"), np.array([0, 1, 1, 0] * 5, np.int32))
    place = measure(Branch("y", "flat", "float64"), np.linspace(-1, 1, 20))
    assert (role_of(binary, ()), role_of(place, ())) == ("label", "feature")


def test_a_number_that_counts_the_entries_is_an_identifier():
    assert role_of(measure(Branch("i", "flat", "int64"), np.arange(50) + 2**60), ()) == "identifier"
    assert role_of(measure(Branch("i", "flat", "int64"), np.arange(50) ** 2), ()) == "feature"


# Real files


@needs_real_files
def test_nanoaod_is_grouped_as_cms_groups_it():
    found = inspect([str(REAL / "ttH_M125_2017.root")])
    assert {"Jet", "FatJet", "Muon", "Electron", "Tau", "GenPart", "SV"} <= set(found.collections)
    assert "Jet_pt" in found.collections["Jet"]
    assert all(found.counters[f"n{group}"] == group for group in ("Jet", "Muon", "Tau"))
    assert len(found.flags) > 500


@needs_real_files
def test_hard_types():
    found = inspect([str(REAL / "hard_types.root")])
    unusable = {n for n, c in found.columns.items() if not c.is_usable}
    assert unusable == {"vvf", "vs", "s", "lv", "lv_nosplit", "mat", "cs", "leaves"}
    assert "TLorentzVector" in shown(found)


@needs_real_files
def test_an_rntuple_by_root():
    found = inspect([str(REAL / "rntuple_by_root.root")])
    assert {n for n, c in found.columns.items() if c.is_usable} == {"HT", "Jet_pt", "flag", "event"}

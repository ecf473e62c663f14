import dataclasses
import re
import shutil
import socket
import time
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, lists_of, make_events, suggest, write
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console
from servers_for_tests import HTTPServer, Proxy, xrootd
from troubles_for_tests import OF_ALL, raising

from rootdata.causes import causes
from rootdata.errors import BranchError, ConfigError, FileError, MachineError
from rootdata.inspection import files
from rootdata.inspection.choice import choose_features
from rootdata.inspection.files import inspect
from rootdata.inspection.grouping import collections_of
from rootdata.inspection.measure import FEW, TYPICAL_SENTINELS, BranchFacts, find_sentinels, measure
from rootdata.inspection.roles import finding, role_of
from rootdata.inspection.tables import tables
from rootdata.io import trees
from rootdata.io.branches import Branch
from rootdata.io.trees import _TTree
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location

REAL = SHARED / "real"
needs_real_files = pytest.mark.skipif(not REAL.is_dir(), reason="the folder of real files, shared/data/real, is absent")


def shown(found):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tables(found, width=200))
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


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("events", "books"),
    [
        ("CollectionTree", ["##Links", "##Params", "MetaData", "POOLContainer"]),
        ("EventData", ["##Links", "EventTag", "DataHeader", "MetaData"]),
        ("Delphes", ["Other"]),
        ("events", ["podio_metadata", "metadata"]),
        ("TupleB0/DecayTree", ["GetIntegratedLuminosity/LumiTuple"]),
        ("mine", ["Runs", "LuminosityBlocks", "ParameterSets"]),
    ],
)
def test_trees_that_keep_books_are_not_taken_for_events(tmp_path, events, books):
    with uproot.recreate(tmp_path / "many.root") as file:
        for name in books:
            add(file, {"x": np.arange(500.0)}, tree=name)
        add(file, {"y": np.arange(7.0)}, tree=events)
    assert list(inspect([str(tmp_path / "many.root")]).columns) == ["y"]


def test_of_trees_that_all_keep_books_the_largest_is_taken(tmp_path):
    with uproot.recreate(tmp_path / "many.root") as file:
        add(file, {"x": np.arange(5.0)}, tree="Runs")
        add(file, {"y": np.arange(50.0)}, tree="LuminosityBlocks")
    assert list(inspect([str(tmp_path / "many.root")]).columns) == ["y"]


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


def break_basket(path, names, tree="Events"):
    """Let the first basket of some branches hold nonsense."""
    with uproot.open(path) as file:
        places = [file[tree][name].basket_key(0).fSeekKey for name in names]
    content = bytearray(path.read_bytes())
    for place in places:
        content[place : place + 30] = b"\xff" * 30
    path.write_bytes(content)


def test_branches_that_cant_be_read_are_told_whatever_their_number(tmp_path):
    columns = {f"b{i}": np.arange(100.0) for i in range(7)}
    for bad in (["b3"], ["b0", "b6"], ["b1", "b2", "b3", "b5"], list(columns)):
        path = write(tmp_path / f"{len(bad)}.root", columns)
        break_basket(path, bad)
        found = inspect([str(path)])
        assert [n for n, c in found.columns.items() if not c.is_usable] == bad
        assert {c.stats.count for c in found.columns.values() if c.is_usable} <= {100}
        assert all(finding(found.columns[n]).startswith("it can't be read (") for n in bad)


@pytest.mark.parametrize("error", [e for e in OF_ALL if not isinstance(e, FileError)], ids=repr)
def test_what_concerns_all_is_no_fault_of_the_branch_that_was_read(tmp_path, monkeypatch, error):
    path = write(tmp_path / "a.root", {"x": np.arange(30.0), "y": np.arange(30.0)})
    monkeypatch.setattr("rootdata.io.formats.ttree.read_block", lambda *_: raising(error)())
    with pytest.raises((type(error), FileError, MachineError)) as caught:
        inspect([str(path)])
    assert error in causes(caught.value)


def test_a_branch_that_cant_be_read_in_one_file_is_not_taken_for_whole(tmp_path):
    for i in range(3):
        path = write(tmp_path / f"a{i}.root", {"good": np.arange(50.0), "bad": np.arange(50.0)})
        if i == 1:
            break_basket(path, ["bad"])
    found = inspect([f"{tmp_path}/a*.root"])
    assert found.absent == {"bad": "flat in a0.root, unusable in a1.root"}
    assert choose_features(found).flat == ("good",)


def test_a_wide_tree_is_read_in_parts_that_are_no_larger_than_a_block(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    columns = {f"b{i}": rng.normal(size=500) for i in range(20)} | make_events(500)
    path = write(tmp_path / "a.root", columns)
    whole = inspect([str(path)])
    asked = []

    class Watched(_TTree):
        def read(self, names, start, stop):
            asked.append(list(names))
            return super().read(names, start, stop)

    monkeypatch.setattr(trees, "_TTree", Watched)
    monkeypatch.setattr(files, "BLOCK_BYTES", 10_000)
    assert inspect([str(path)]).columns == whole.columns
    assert [n for names in asked for n in names] == list(whole.columns)
    assert 8 <= len(asked) < len(whole.columns)


# Numbers at the ends of their types


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_whole_numbers_are_measured_exactly(tmp_path, dtype, kind):
    ends = np.iinfo(dtype)
    columns = {
        "low": np.full(20, ends.min, dtype),
        "high": np.full(20, ends.max, dtype),
        "both": np.where(np.arange(20) % 2, ends.max, ends.min).astype(dtype),
        "close": ends.max - np.arange(20).astype(dtype),
    }
    found = inspect([str(write(tmp_path / "a.root", columns, kind=kind))]).columns
    for name, values in columns.items():
        assert (found[name].stats.low, found[name].stats.high) == (int(values.min()), int(values.max()))
        assert found[name].varied == np.count_nonzero(values != found[name].middle)
    if ends.max > 2**53:
        assert finding(found["high"]) == f"constant, {ends.max}"
        assert finding(found["low"]) == f"constant, {ends.min}"


def test_all_kinds_of_numbers_can_be_measured():
    for dtype in ("?", "f2", "f4", "f8", "i8", "u8"):
        values = np.array([0, 1, 1, 1, 0], dtype)
        column = measure(Branch("x", "flat", values.dtype.name), values)
        assert (column.stats.low, column.stats.high, column.varied, column.is_binary) == (0, 1, 2, True)
        assert measure(Branch("x", "flat", values.dtype.name), values[:0]).objects == 0
    for dtype in ("f2", "f4", "f8"):
        ends = np.finfo(dtype)
        column = measure(Branch("x", "flat", dtype), np.array([ends.min, ends.max, np.nan, np.inf, ends.tiny], dtype))
        assert (column.stats.nans, column.stats.infinities) == (1, 1)


# What ROOT writes


AWKWARD, FIELDS = (Path(__file__).parents[2] / "data" / f"{name}.root" for name in ("awkward", "fields"))


def test_of_every_tree_only_its_own_troubles_are_told():
    for tree in inspect([str(AWKWARD)]).trees:
        if tree.kind == "TChain":
            with pytest.raises(BranchError, match="name those files"):
                inspect([str(AWKWARD)], tree=tree.name)
            continue
        found = inspect([f"{AWKWARD}:{tree.name}"])
        assert [t.name for t in found.trees if t.is_chosen] == [tree.name]
        assert {t.entries for t in found.trees if t.is_chosen} == {tree.entries}
        unusable = {n for n, c in found.columns.items() if not c.is_usable}
        assert unusable == {"short": {"late"}}.get(tree.name, unusable)
        assert bool(unusable) == (tree.name in {"Events", "twice", "short"})


@pytest.mark.long
@pytest.mark.parametrize("path", [AWKWARD, FIELDS], ids=lambda p: p.stem)
def test_what_is_suggested_for_an_awkward_file_can_be_trained_on(tmp_path, path, monkeypatch):
    for name in ("signal", "background"):
        shutil.copy(path, tmp_path / f"{name}.root")
    found = inspect([f"{tmp_path}/signal.root:Events", f"{tmp_path}/background.root:Events"])
    text = suggest(found).text
    assert re.search(r"# - unusable: it holds (lists of lists \()?std::vector<std::vector<float>>", text)
    plain = OmegaConf.to_container(OmegaConf.create({"data": OmegaConf.create(text)}), resolve=True)["data"]
    plain.pop("folder")
    batches = list(RootDataset(plain | {"scale": "none", "batch_size": 7}, "train"))
    assert sum(len(batch["label"]) for batch in batches) == pytest.approx(0.64 * 60, abs=15)


def test_a_file_elsewhere_is_looked_into_alike(tmp_path):
    shutil.copy(AWKWARD, tmp_path / "a.root")
    here = inspect([f"{tmp_path}/a.root"])
    with HTTPServer(tmp_path) as server:
        there = inspect([f"{server.url}/a.root"])
    assert there.columns.keys() == here.columns.keys()
    marks = {name: dataclasses.replace(column, marks={}) for name, column in here.columns.items()}
    assert {name: dataclasses.replace(column, marks={}) for name, column in there.columns.items()} == marks
    assert [dataclasses.replace(t, path="") for t in there.trees] == [
        dataclasses.replace(t, path="") for t in here.trees
    ]


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["http", pytest.param("root", marks=xrootd)])
def test_a_server_that_never_answers_ends_in_a_sentence(protocol):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(FileError, match=rf"{protocol}://127.0.0.1:{port}//a.root: no answer within 0.5 s"):
            inspect([f"{protocol}://127.0.0.1:{port}//a.root"], patience=0.3, deadline=0.5)
    assert time.monotonic() - began < 30


@pytest.mark.long
def test_a_server_that_falls_silent_while_it_is_asked_ends_in_a_sentence(tmp_path, monkeypatch):
    shutil.copy(AWKWARD, tmp_path / "a.root")
    with HTTPServer(tmp_path) as server, Proxy(server.port) as proxy:

        class Cut(_TTree):
            def read(self, names, start, stop):
                proxy.is_silent = True
                return super().read(names, start, stop)

        monkeypatch.setattr(trees, "_TTree", Cut)
        with pytest.raises(FileError, match=r"a\.root: no answer within 2 s; tried \d+ times"):
            inspect([f"http://127.0.0.1:{proxy.port}/a.root"], patience=0.3, deadline=2)


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
        return BranchFacts(branch=Branch(name, "jagged", "float32", counter=counter), marks={"file": mark})

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
        assert (name, role_of(BranchFacts(branch=Branch(name, "flat", "float32"), is_binary=False), ())) == (name, role)


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
@pytest.mark.long
@pytest.mark.parametrize("path", sorted(REAL.glob("*.root")), ids=lambda p: p.stem)
def test_every_tree_of_the_real_files_is_inspected(path):
    for tree in inspect([str(path)], entries=20).trees:
        assert not tree.note
        found = inspect([str(path)], tree=tree.name, entries=20)
        assert [t.name for t in found.trees if t.is_chosen] == [tree.name]
        assert found.columns


@needs_real_files
def test_hard_types():
    found = inspect([str(REAL / "hard_types.root")])
    unusable = {n for n, c in found.columns.items() if not c.is_usable}
    assert unusable == {"vvf", "vs", "s", "lv_nosplit", "cs"}
    assert {"lv.fP.fX", "mat[0]", "leaves.a"} < {*found.columns}
    assert "TLorentzVector" in shown(found)


@needs_real_files
def test_an_rntuple_by_root():
    found = inspect([str(REAL / "rntuple_by_root.root")])
    assert {n for n, c in found.columns.items() if c.is_usable} == {"HT", "Jet_pt", "flag", "event"}

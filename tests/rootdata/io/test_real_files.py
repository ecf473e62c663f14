"""Files that experiments and ROOT itself wrote, read through the whole chain and compared with bare uproot."""

import re

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, epoch_of, options, scanned

from lanes_for_tests import thinned
from rootdata.errors import BranchError, DataError
from rootdata.io.trees import blocks_of, open_tree, trees_in
from rootdata.jagged import Jagged
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location

REAL = SHARED / "real"
pytestmark = pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")

NANO = {"jets": ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"], "muons": ["Muon_pt", "Muon_charge"]}
HARD = {"vfs": ["vf"], "vis": ["vi"], "vbs": ["vb"], "xs": ["x"], "fixes": ["fix"]}

# file: tree, flat features, collections
FILES = {
    "ttH_M125_2017": ("Events", ["MET_pt", "nJet", "event"], NANO),
    "GJet_v11_Skim": ("Events", ["MET_pt", "nJet", "run"], NANO),
    "DYJetsToLL--UL17_v6-v2_109_Skim": ("Events", ["MET_pt", "PV_npvs"], NANO),
    "nano_tt_v12": ("Events", ["MET_pt", "nJet", "PV_npvs"], NANO),
    "nano_dy": ("Events", ["MET_pt", "genWeight"], NANO),
    "nanoAOD_2015_CMS_Open_Data_ttbar": ("Events", ["MET_pt", "event", "HLT_IsoMu20"], NANO),
    "nanoaod_ttbar_rntuple_by_root": ("Events", ["MET_pt", "event", "HLT_IsoMu20"], NANO),
    "uproot-HZZ": ("events", ["MET_px", "NJet", "triggerIsoMu24"], {"jets": ["Jet_Px", "Jet_E", "Jet_ID"]}),
    "hard_types": ("Events", ["nx", "flag", "i64", "u8", "d32", "fix"], HARD),
    "rntuple_by_root": ("Events", ["HT", "flag", "event"], {"jets": ["Jet_pt"]}),
}


def whole(name, tree, branches):
    """Read branches of a file by uproot alone: name to array."""
    with uproot.open(REAL / f"{name}.root") as file:
        return {b: file[tree][b].array() for b in branches}


def part_of(values, path):
    """Take a part of a branch: ``".fP.fX"`` of objects, ``"[1]"`` of arrays, ``""`` for all of it."""
    for member, place in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        values = values[member] if member else values[:, int(place)]
    return values


def same(batch_values, mask, values):
    """Compare the unpadded values of a batch with a column, where that holds real numbers."""
    plain = np.asarray(ak.to_numpy(ak.flatten(values, axis=None)))
    with np.errstate(over="ignore"):
        single = plain.astype(np.float32)
    real = np.isfinite(single)
    return np.array_equal(batch_values[mask], single[real])


# Opening a tree of more than a thousand branches takes a second, so that those who only look share one.
@pytest.fixture(scope="module")
def opened():
    """Open the tree of a file, once: its name to the tree."""
    trees = {}

    def tree_of(name):
        if name not in trees:
            trees[name] = open_tree(Location(str(REAL / f"{name}.root"), FILES[name][0]))
        return trees[name]

    yield tree_of
    for tree in trees.values():
        tree.close()


@pytest.mark.parametrize(
    "name", thinned(n for n in FILES if not n.startswith("nanoaod_ttbar_rntuple"))
)  # compared below
def test_features_of_every_file_arrive_as_uproot_reads_them(name):
    tree, flat, collections = FILES[name]
    jagged = {c: {"branches": b, "length": 60} for c, b in collections.items()}
    samples = {"all": {"files": str(REAL / f"{name}.root"), "tree": tree}}
    got = epoch_of(options("", samples=samples, flat=flat, jagged=jagged, layout="tokens"))
    raw = whole(name, tree, [*flat, *(b for c in collections.values() for b in c)])
    assert len(got["index"]) == len(raw[flat[0]])
    columns = np.concatenate([np.asarray(raw[b], np.float32).reshape(len(got["flat"]), -1) for b in flat], axis=1)
    assert np.array_equal(got["flat"], np.where(np.isfinite(columns), columns, 0))
    for collection, branches in collections.items():
        counts = ak.to_numpy(ak.num(raw[branches[0]]))
        assert counts.max() <= 60
        assert np.array_equal(got[f"{collection}_mask"].sum(axis=1), counts)
        for i, branch in enumerate(branches):
            objects = got[collection][:, :, i][got[f"{collection}_mask"]]
            expected = np.asarray(ak.to_numpy(ak.flatten(raw[branch], axis=None))).astype(np.float32)
            assert np.array_equal(objects, np.where(np.isfinite(expected), expected, 0))


@pytest.mark.parametrize("name", thinned(FILES))
def test_branches_are_described_and_those_of_numbers_are_read(name, opened):
    tree = opened(name)
    names = tree.names()[:: max(1, len(tree.names()) // 300)]
    kinds = {n: tree.describe(n) for n in names}
    assert all((b.kind == "unusable") == bool(b.note) for b in kinds.values())
    usable = [n for n in names if kinds[n].kind != "unusable"]
    chosen = usable[:: max(1, len(usable) // 40)]
    got = tree.read(chosen, 0, tree.num_entries)
    for n in chosen:
        key = tree.key_of(n)
        expected = part_of(tree._source[key].array(), n.removeprefix(key))
        if kinds[n].kind == "jagged":
            assert np.array_equal(got[n].counts, ak.num(expected))
        found = got[n].content if isinstance(got[n], Jagged) else got[n].reshape(-1)
        wanted = np.asarray(ak.to_numpy(ak.flatten(expected, axis=None)))
        assert found.dtype == np.dtype(kinds[n].dtype)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", FILES)
def test_blocks_of_every_file_cover_it(name, opened, small_blocks):
    tree = opened(name)
    names = [*FILES[name][1], *(b for c in FILES[name][2].values() for b in c)]
    blocks = blocks_of(tree, names)
    assert [e for block in blocks for e in range(*block)] == list(range(tree.num_entries))


def test_trees_beside_the_one_that_is_meant():
    path = str(REAL / "ttH_M125_2017.root")
    assert trees_in(path) == {"Events": 100, "Runs": 1, "LuminosityBlocks": 46}
    with pytest.raises(BranchError, match=r"3 trees: 'Events', 'LuminosityBlocks', 'Runs'; name one"):
        scanned(options(path, flat=["MET_pt"], jagged=None))
    assert scanned(options(f"{path}:Runs", flat=["run"], jagged=None)).files[0].entries == 1


def test_two_samples_of_different_branch_lists_train_together(opened):
    lists = [set(opened(n).names()) for n in ("ttH_M125_2017", "GJet_v11_Skim")]
    assert lists[0] - lists[1]
    assert lists[1] - lists[0]
    samples = {
        "ttH": {"files": str(REAL / "ttH_M125_2017.root"), "tree": "Events", "label": 1, "weight": "abs(genWeight)"},
        "GJet": {"files": str(REAL / "GJet_v11_Skim.root"), "tree": "Events", "label": 0},
    }
    plain = options(
        "",
        samples=samples,
        flat=["MET_pt", "ht"],
        derived={"ht": "sum(Jet_pt)"},
        jagged={"jets": {"branches": ["Jet_pt", "Jet_eta"], "length": 4, "sort": "-Jet_pt", "cut": "Jet_pt > 30"}},
        cut="nJet >= 1",
        scale="standard",
    )
    got = epoch_of(plain)
    for sample, name, label in ((0, "ttH_M125_2017", 1), (1, "GJet_v11_Skim", 0)):
        raw = opened(name).read(["nJet", "MET_pt", "Jet_pt"], 0, 100)
        mine = got["index"][:, 0] == sample
        assert got["index"][mine, 2].tolist() == np.flatnonzero(raw["nJet"] >= 1).tolist()
        assert set(got["label"][mine]) == {label}
        pt = raw["Jet_pt"]
        counts = pt.take_objects(pt.content > 30).counts[raw["nJet"] >= 1]
        assert got["mask"][mine, 2:].sum(axis=1).tolist() == (2 * np.minimum(counts, 4)).tolist()
    assert np.allclose(got["x"][:, :2].mean(axis=0), 0, atol=1e-4)
    assert np.allclose(got["x"][:, :2].std(axis=0), 1, atol=1e-4)


def test_a_branch_that_one_of_two_files_lacks_names_that_file(opened):
    names = ["ttH_M125_2017", "GJet_v11_Skim"]
    trees = [opened(n) for n in names]
    only_first = next(n for n in trees[0].names() if n not in trees[1].names() and trees[0].describe(n).kind == "flat")
    samples = {n: {"files": str(REAL / f"{n}.root"), "tree": "Events"} for n in names}
    with pytest.raises(BranchError, match=rf"branch '{only_first}' not found; .*GJet_v11_Skim\.root"):
        RootDataset(options("", samples=samples, flat=["MET_pt", only_first], jagged=None))


def test_the_same_events_as_tree_and_as_ntuple():
    plain = {
        "flat": ["MET_pt", "event", "ht"],
        "derived": {"ht": "sum(Jet_pt[Jet_pt > 30])"},
        "jagged": {
            "jets": {"branches": ["Jet_pt", "Jet_eta"], "cut": "abs(Jet_eta) < 2.4", "sort": "-Jet_pt", "length": 6}
        },
        "cut": "nJet >= 4 and MET_pt > 20",
        "split": {"by": "event % 5", "val": [3], "test": [4]},
        "scale": "standard",
    }
    tree, ntuple = (
        epoch_of(options(REAL / f"{n}.root", **plain))
        for n in ("nanoAOD_2015_CMS_Open_Data_ttbar", "nanoaod_ttbar_rntuple_by_root")
    )
    assert len(tree["x"]) > 20
    for name in ("x", "mask", "label", "weight", "index"):
        assert np.array_equal(tree[name], ntuple[name]), name


@pytest.mark.parametrize("name", ["vvf", "vs", "s", "lv", "lv_nosplit", "mat", "cs", "leaves"])
def test_branches_that_hold_no_numbers_are_named_when_asked_for(name):
    for use in ({"flat": [name], "jagged": None}, {"jagged": {"o": [name]}, "flat": ["u8"]}):
        with pytest.raises(
            BranchError, match=rf"branch '{name}' can't be used: it holds .*hard_types\.root.*; remove it"
        ):
            scanned(options(REAL / "hard_types.root", **use))


def test_a_vector_that_is_always_empty_is_no_feature():
    plain = options(REAL / "hard_types.root", flat=["u8"], jagged={"o": ["empty"]}, scale="standard")
    with pytest.raises(DataError, match="feature 'empty' has no real value"):
        RootDataset(plain)


# The large form of the ttH samples: 22 flat and 52 jagged branches


def test_all_branches_of_the_full_samples_arrive_to_the_last_value():
    folder = SHARED / "tth_full"
    path = folder / "ttH.root"
    tree = open_tree(Location(str(path)))
    kinds = {n: tree.describe(n) for n in tree.names()}
    flat = [n for n, b in kinds.items() if b.kind == "flat"]
    collections = {}
    for n, b in kinds.items():
        if b.kind == "jagged":
            collections.setdefault(b.counter, []).append(n)
    assert (len(flat), sum(map(len, collections.values()))) == (22, 52)
    with uproot.open(path) as file:
        raw = file["Events"].arrays()
    length = {c: int(ak.max(ak.num(raw[b[0]]))) for c, b in collections.items()}
    jagged = {c: {"branches": b, "length": length[c]} for c, b in collections.items()}
    got = epoch_of(options(path, flat=flat, jagged=jagged, layout="tokens"))
    for i, name in enumerate(flat):
        assert np.array_equal(got["flat"][:, i], ak.to_numpy(raw[name]).astype(np.float32)), name
    for collection, branches in collections.items():
        mask = got[f"{collection}_mask"]
        assert np.array_equal(mask.sum(axis=1), ak.num(raw[branches[0]]))
        for i, name in enumerate(branches):
            expected = ak.to_numpy(ak.flatten(raw[name])).astype(np.float32)
            assert np.array_equal(got[collection][:, :, i][mask], expected), name


def test_the_identifiers_of_the_full_samples_stay_exact():
    path = SHARED / "tth_full" / "ttH.root"
    with uproot.open(path) as file:
        events = file["Events/event"].array(library="np")
    assert events.dtype == np.uint64
    chosen = int(events[1234])
    plain = options(path, flat=["HT"], jagged=None)
    assert (
        epoch_of(plain | {"cut": f"event == {chosen}"})["index"][:, 2].tolist()
        == np.flatnonzero(events == chosen).tolist()
    )
    odd = epoch_of(plain | {"split": {"by": "event % 7", "val": [5]}}, "val")["index"][:, 2]
    assert odd.tolist() == np.flatnonzero(events % np.uint64(7) == 5).tolist()

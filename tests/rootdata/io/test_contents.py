"""The trees of a file: each is listed, opened and read whatever the others are like."""

import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import uproot
import xxhash
from files_for_tests import add, listed, write
from troubles_for_tests import OF_ALL, let_fail
from uproot.writing.identify import to_TAxis, to_TH1x, to_THashList, to_TObjString

from rootdata.errors import BranchError
from rootdata.inspection.files import inspect
from rootdata.inspection.tables import tables
from rootdata.io.contents import why_not_read
from rootdata.io.retry import PlaceError
from rootdata.io.trees import bin_of, look_into, open_tree, trees_in
from rootdata.location import Location

AWKWARD = Path(__file__).parents[2] / "data" / "awkward.root"
ENTRIES = {
    "Events": 30, "twice": 30, "counted": 30, "short": 30, "cycles": 2, "memory": 30, "bare": 0, "number": 30,
    "empty": 0, "tuple": 30, "folder/deep/Events": 30,
}  # fmt: skip
HOLDS_X = ("Events", "twice", "short", "cycles", "memory", "tuple", "folder/deep/Events")


def place_of(path, name):
    """Return where the record of an object begins and ends, behind its key."""
    with uproot.open(path) as file:
        key = file.key(name)
        return key.fSeekKey + key.fKeylen, key.fSeekKey + key.fNbytes


def garble(record):
    return b"\xff" * len(record)


def name_another_codec(record):
    return b"XX" + record[2:]


def cut_short(record):
    return record[: len(record) // 2] + bytes(len(record) - len(record) // 2)


def spoil(path, name, how):
    begin, end = place_of(path, name)
    content = bytearray(path.read_bytes())
    content[begin:end] = how(bytes(content[begin:end]))
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(AWKWARD, tmp_path / "a.root"))


def assert_works(path, name):
    tree = open_tree(Location(str(path), name))
    assert tree.num_entries == ENTRIES[name]
    assert listed(tree.read(["x"], 0, tree.num_entries)["x"]) == list(range(ENTRIES[name]))


def test_every_tree_is_listed_in_every_folder():
    contents = look_into(str(AWKWARD))
    assert contents.compression == "ZSTD(5)"
    assert {tree.name: tree.entries for tree in contents.usable} == ENTRIES == trees_in(str(AWKWARD))
    (chain,) = set(contents.trees) - set(contents.usable)
    assert (chain.name, chain.kind, chain.entries) == ("chain", "TChain", None)
    assert "name those files" in chain.note
    assert {tree.kind for tree in contents.usable} == {"TTree"}


def test_the_entries_of_one_tree_are_left_to_who_opens_it():
    asked = []

    def leave(names):
        asked.extend(names)
        return "Events"

    contents = look_into(str(AWKWARD), leave=leave)
    assert {tree.entries for tree in contents.trees if tree.name == "Events"} == {None}
    assert set(asked) == set(ENTRIES)


@pytest.mark.parametrize("how", [garble, name_another_codec, cut_short])
@pytest.mark.parametrize("name", HOLDS_X)
def test_a_tree_that_cant_be_read_takes_no_other_with_it(path, name, how):
    spoil(path, name, how)
    for other in HOLDS_X:
        if other != name:
            assert_works(path, other)
    (bad,) = {tree for tree in look_into(str(path)).trees if tree.note and tree.kind != "TChain"}
    assert (bad.name, bad.kind, bad.entries) == (name, "TTree", None)
    remedy = "it is written in a way that is not known" if how is name_another_codec else "replace the file, or read"
    with pytest.raises(PlaceError, match=rf"a\.root: tree '{name}' can't be read \(.*\); {remedy}"):
        open_tree(Location(str(path), name))


def test_a_missing_codec_is_named(path):
    spoil(path, "memory", name_another_codec)
    with pytest.raises(PlaceError, match=r"tree 'memory' can't be read \(ValueError: .*compression.*b'XX'\)"):
        open_tree(Location(str(path), "memory"))


@pytest.mark.parametrize("name", ["twice", "folder/deep/Events"])
def test_inspect_shows_the_other_trees_and_tells_what_is_wrong_with_one(path, name):
    spoil(path, name, garble)
    found = inspect([str(path)])
    assert [tree.name for tree in found.trees if tree.is_chosen] == ["Events"]
    notes = {tree.name: tree.note for tree in found.trees if tree.note}
    assert set(notes) == {name, "chain"}
    assert "it can't be read (" in notes[name]
    assert "x" in found.columns
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as capture:
        console.print(tables(found, width=160))
    assert notes[name][:40] in capture.get()
    assert list(inspect([f"{path}:memory"]).columns) == ["x", "v"]
    with pytest.raises(PlaceError, match=f"tree '{name}' can't be read"):
        inspect([f"{path}:{name}"])


def test_the_likely_tree_is_not_silently_replaced_by_another(path):
    spoil(path, "Events", garble)
    with pytest.raises(PlaceError, match=r"tree 'Events' can't be read .*; replace the file, or read another tree"):
        inspect([str(path)])


@pytest.mark.parametrize("folder", ["folder", "folder/deep"])
def test_a_folder_that_cant_be_looked_into(path, folder):
    def shift(record):
        keys = struct.unpack_from(">i", record, 26)[0]  # fSeekKeys of a TDirectory
        return record[:26] + struct.pack(">i", keys + 7) + record[30:]

    spoil(path, folder, shift)
    for name in set(HOLDS_X) - {"folder/deep/Events"}:
        assert_works(path, name)
    (bad,) = {tree for tree in look_into(str(path)).trees if tree.note and tree.kind != "TChain"}
    assert (bad.name, bad.kind) == (folder, "folder")
    assert "it can't be looked into (" in bad.note
    assert "x" in inspect([str(path)]).columns
    with pytest.raises(PlaceError, match=rf"'{folder}' in it can't be looked into \("):
        open_tree(Location(str(path), "folder/deep/Events"))


def test_a_folder_that_lies_in_itself_comes_to_an_end(path):
    with uproot.open(path) as file:
        head = (file.fNbytesKeys, file.fSeekKeys)

    def point_to_root(record):
        size, seek = struct.pack(">i", head[0]), struct.pack(">i", head[1])
        return record[:10] + size + record[14:26] + seek + record[30:]  # fNbytesKeys, fSeekKeys

    spoil(path, "folder/deep", point_to_root)
    assert set(trees_in(str(path))) >= set(ENTRIES) - {"folder/deep/Events"}
    assert_works(path, "Events")


def test_a_tree_without_a_name_is_the_only_one_that_holds_data(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        add(file, {"x": np.arange(5.0)}, tree="folder/only")
    assert open_tree(Location(f"{tmp_path}/a.root")).location.tree == "folder/only"
    with pytest.raises(
        BranchError, match=r"holds 11 trees: 'Events', 'bare', .*; TChain 'chain' can't be used: .*name"
    ):
        open_tree(Location(str(AWKWARD)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chain", "tree 'chain' of .* can't be used: it is a TChain, .*name those files"),
        ("Event", "not found in .*; nearest: 'Events'"),
        ("Events/x", "not found in .*"),
        ("folder", "not found in .*"),
        ("folder/Events", "not found in .*nearest: .*'folder/deep/Events'"),
        ("absent/Events", "not found in .*"),
        ("cycles;9", "not found in .*nearest: 'cycles'"),
        ("", "not found in .*"),
    ],
)
def test_a_name_that_is_no_tree(name, words):
    with pytest.raises(BranchError, match=words):
        open_tree(Location(str(AWKWARD), name))


@pytest.mark.parametrize(("name", "expected"), [("cycles", [0, 1]), ("cycles;2", [0, 1]), ("cycles;1", [0])])
def test_of_several_cycles_the_last_is_read_if_none_is_named(name, expected):
    tree = open_tree(Location(str(AWKWARD), name))
    assert tree.read(["x"], 0, tree.num_entries)["x"].tolist() == expected
    assert inspect([f"{AWKWARD}"], tree=name).columns["x"].entries == len(expected)


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_a_spoiled_rntuple_stands_beside_good_trees(tmp_path, kind):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        add(file, {"x": np.arange(30.0)}, tree="good", kind=kind)
        add(file, {"x": np.arange(30.0)}, tree="bad", kind="RNTuple")
    spoil(path, "bad", garble)
    assert listed(open_tree(Location(str(path), "good")).read(["x"], 0, 30)["x"]) == list(range(30))
    assert {tree.name: bool(tree.note) for tree in look_into(str(path)).trees} == {"good": False, "bad": True}
    assert [tree.name for tree in inspect([str(path)]).trees if tree.is_chosen] == ["good"]
    with pytest.raises(PlaceError, match="tree 'bad' can't be read"):
        open_tree(Location(str(path), "bad"))


@pytest.mark.parametrize("error", OF_ALL, ids=repr)
def test_what_concerns_all_is_no_fault_of_a_tree(monkeypatch, error):
    let_fail(monkeypatch, uproot.reading.ReadOnlyKey, "get", error, where=lambda key: key.fName == "twice")
    with pytest.raises(type(error)) as caught:
        look_into(str(AWKWARD))
    assert caught.value is error
    assert_works(AWKWARD, "Events")


@pytest.mark.parametrize("name", ["t", None], ids=["named", "only"])
def test_a_codec_that_is_not_known_here_is_no_damage(tmp_path, name):
    path = write(tmp_path / "a.root", {"x": np.zeros(500)}, tree="t", compression=uproot.ZLIB(9))
    path.write_bytes(path.read_bytes().replace(b"ZL\x08", b"Q7\x08"))
    with pytest.raises(PlaceError, match=r"'?Q7'?.*written in a way that is not known here") as caught:
        open_tree(Location(str(path), name)).read(["x"], 0, 500)
    assert "damaged" not in str(caught.value)
    assert "replace" not in str(caught.value)


def test_a_preview_of_rntuple_is_no_damage_and_stands_beside_others(tmp_path):
    path = write(tmp_path / "a.root", {"x": np.zeros(5)}, tree="t", kind="RNTuple")
    with uproot.update(path) as file:
        add(file, {"x": np.arange(5)}, tree="good")
    begin, end = place_of(path, "t")
    content = bytearray(path.read_bytes())
    version = begin + 6  # of the format, behind the length and the version of the record: epoch, major, minor, patch
    assert content[version : version + 4] == b"\0\1\0\0"
    content[version : version + 2] = b"\0\0"
    content[end - 8 : end] = struct.pack(">Q", xxhash.xxh3_64_intdigest(content[version : end - 8]))
    path.write_bytes(content)
    told = {tree.name: tree.note for tree in look_into(str(path)).trees}
    assert "a preview of RNTuple" in told["t"]
    assert "write it anew" in told["t"]
    assert told["good"] == ""
    with pytest.raises(BranchError, match=r"tree 't' of .* can't be used: it is a preview of RNTuple"):
        open_tree(Location(str(path), "t"))
    assert open_tree(Location(str(path), "good")).read(["x"], 0, 5)["x"].tolist() == [0, 1, 2, 3, 4]


def test_an_rntuple_of_the_time_before_its_name_was_settled():
    assert "a preview of RNTuple" in why_not_read(SimpleNamespace(fClassName="ROOT::Experimental::RNTuple"))
    assert why_not_read(SimpleNamespace(fClassName="ROOT::RNTuple")) == ""


# Histograms


def test_a_bin_is_found_by_its_number_or_its_label(tmp_path):
    def labelled(number, text):
        name = to_TObjString(text)
        name._bases[0]._members["@fUniqueID"] = number + 1
        return name

    names = to_THashList([labelled(i, text) for i, text in enumerate(("all", "trigger", "jets"))])
    axis = to_TAxis("xaxis", "", 3, 0.0, 3.0, fLabels=names)
    counts = np.array([9.0, 100.5, 50.0, -20.0, 8.0])  # with underflow and overflow
    with uproot.recreate(tmp_path / "a.root") as file:
        file["cutflow"] = to_TH1x("cutflow", "", counts, 5.0, 0.0, 0.0, 0.0, 0.0, None, axis)
        file["deep/one"] = (np.array([4.0]), np.array([0.0, 1.0]))
        file["plane"] = np.histogram2d([0.1, 0.2], [0.3, 0.4])
        add(file, {"x": np.arange(3)}, tree="t")
    place = str(tmp_path / "a.root")
    for number, (label, value) in enumerate({"all": 100.5, "trigger": 50.0, "jets": -20.0}.items()):
        assert bin_of(place, histogram="cutflow", which=number) == value
        assert bin_of(place, histogram="/cutflow", which=label) == value
    assert bin_of(place, histogram="deep/one", which=None) == 4.0
    for name in ("plane", "t", "deep", "cutfow"):
        with pytest.raises(BranchError, match=rf"histogram '{name}' not found in .*'(cutflow|deep/one)'"):
            bin_of(place, histogram=name, which=0)
    for which, words in ((3, "no bin 3"), ("jet", "no bin 'jet'"), (None, "several bins, of which one must be named")):
        with pytest.raises(BranchError, match=rf"has {words}: 0 to 2, 'all', 'trigger', 'jets'"):
            bin_of(place, histogram="cutflow", which=which)


def test_files_of_other_formats_hold_no_histograms(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(BranchError, match=r"histogram 'cutflow' not found in .*a\.csv: it is no ROOT file"):
        bin_of(str(tmp_path / "a.csv"), histogram="cutflow", which=0)

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, add, listed, make_events, write
from hypothesis import given
from hypothesis import strategies as st
from servers_for_tests import HTTPServer
from uproot import compression

from rootdata.errors import BranchError, FileError
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.branches import Branch, check_same_kinds
from rootdata.io.files import find
from rootdata.io.trees import blocks_of, open_tree, trees_in, use_fast_inflate
from rootdata.location import Location

KINDS = ("TTree", "RNTuple")
real = pytest.mark.skipif(not SHARED.exists(), reason="the shared data folder is not here")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with ``a1.root``, ``a2.root``, ``b.root`` and ``sub/c.root``: empty files, only to be found."""
    for name in ("a1.root", "a2.root", "b.root", "sub/c.root"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths_of(*patterns):
    return [location.path for location in find(patterns)]


def test_a_path_is_found_as_it_is_written(folder):
    assert paths_of("a1.root") == ["a1.root"]
    assert paths_of(str(folder / "a1.root")) == [str(folder / "a1.root")]


def test_a_glob_gives_sorted_paths(folder):
    assert paths_of("a*.root") == ["a1.root", "a2.root"]
    assert paths_of("a[2-9].root") == ["a2.root"]
    assert paths_of("**/*.root") == ["a1.root", "a2.root", "b.root", "sub/c.root"]


def test_a_folder_gives_its_root_files_alone(folder):
    (folder / "readme.md").touch()
    assert paths_of(str(folder)) == [str(folder / n) for n in ("a1.root", "a2.root", "b.root")]


def test_order_is_the_order_of_asking(folder):
    assert paths_of("sub", "b.root", "a?.root") == ["sub/c.root", "b.root", "a1.root", "a2.root"]


def test_a_list_of_paths_may_hold_comments_blank_lines_and_all_other_forms(folder):
    (folder / "files.txt").write_text("# the good runs\n\n  a1.root  \n   # a2.root\nsub/*.root\nb.root:Events\n")
    found = find(["files.txt"], tree="other")
    assert found == [Location("a1.root", "other"), Location("sub/c.root", "other"), Location("b.root", "Events")]


def test_a_list_that_names_no_file_is_told_by_its_name(folder):
    for name, text in (("a.txt", "# nothing\n\n"), ("a.json", "[]")):
        (folder / name).write_text(text)
        with pytest.raises(FileError, match=r"files: a\.\w+ names no file; write one path a line"):
            find([name])
    (folder / "b.json").write_text('{"a": 1}')
    with pytest.raises(FileError, match=r"the list 'b\.json' can't be used: 1 names no file"):
        find(["b.json"])
    (folder / "loop.txt").write_text("loop.txt\n")
    with pytest.raises(FileError, match="names itself"):
        find(["loop.txt"])


def test_lists_name_copies_trees_and_other_lists(folder):
    (folder / "copies.json").write_text(
        '[{"pfns": {"root://x//a.root": {}, "https://y/a.root": {}}}, {"uri": "b.root"}]'
    )
    (folder / "all.txt").write_text("copies.json\nroot://x//DAOD.1.pool.root.1:CollectionTree\n")
    assert find(["all.txt"], tree="t") == [
        Location("root://x//a.root", "t", ("https://y/a.root",)),
        Location("b.root", "t"),
        Location("root://x//DAOD.1.pool.root.1", "CollectionTree"),
    ]


def test_the_name_in_a_catalogue_is_told_from_a_path(folder):
    with pytest.raises(FileError, match=r"catalogue of CMS; write a server before it, root://[^/]+//store/mc/a\.root"):
        find(["/store/mc/a.root"])


def test_files_without_trees_take_no_name_of_one(folder):
    (folder / "d.parquet").touch()
    assert find(["b.root", "d.parquet"], tree="Events") == [Location("b.root", "Events"), Location("d.parquet")]


def test_a_folder_without_root_files_gives_those_of_one_other_kind(folder):
    (folder / "t").mkdir()
    for name in ("b.csv", "b.parquet", "a.pq", "_SUCCESS", "c.arrow"):
        (folder / "t" / name).touch()
    assert [Path(p).name for p in paths_of("t")] == ["a.pq", "b.parquet"]
    (folder / "t" / "z.root").touch()
    assert [Path(p).name for p in paths_of("t")] == ["z.root"]


def test_a_folder_that_is_called_as_a_file_stands_for_its_parts(folder):
    for name in ("t.parquet/part-1.parquet", "t.parquet/part-0.parquet", "t.parquet/_SUCCESS", "u.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    parts = ["t.parquet/part-0.parquet", "t.parquet/part-1.parquet"]
    assert paths_of("t.parquet") == parts
    assert paths_of("*.parquet") == [*parts, "u.parquet"]


def test_a_list_on_a_server_is_read_there(folder):
    (folder / "l.txt").write_text("# from a server\nb.root\n")
    with HTTPServer(folder) as server:
        assert paths_of(f"{server.url}/l.txt") == ["b.root"]
        with pytest.raises(FileError, match=r"m\.txt"):
            find([f"{server.url}/m.txt"])


def test_a_tree_named_with_its_path_wins(folder):
    assert find(["b.root:sub/Events", "a1.root"], tree="tree") == [
        Location("b.root", "sub/Events"),
        Location("a1.root", "tree"),
    ]
    assert find(["a*.root:Events"]) == [Location("a1.root", "Events"), Location("a2.root", "Events")]


def test_two_trees_of_one_file_are_two_locations(folder):
    assert find(["b.root:signal", "b.root:background"]) == [
        Location("b.root", "signal"),
        Location("b.root", "background"),
    ]


def test_variables_and_the_home_folder_are_filled_in(folder, monkeypatch):
    monkeypatch.setenv("RUNS", str(folder / "sub"))
    monkeypatch.setenv("HOME", str(folder))
    assert paths_of("$RUNS/c.root") == paths_of("${RUNS}") == paths_of("~/sub/*.root") == [str(folder / "sub/c.root")]


def test_a_url_is_left_alone():
    url = "root://eospublic.example.org:1094//eos/a.root"
    assert find([url, f"{url}:Events"]) == [Location(url, None), Location(url, "Events")]


@pytest.mark.parametrize("name", ["run 2", "a#b", "a:b", "100%20", "r[1]", "x*", "ü", "a,b", "a;1"])
def test_names_that_mean_something_elsewhere_are_just_names(tmp_path, name):
    path = write(tmp_path / name / f"f {name}.root", make_events(3))
    assert [open_tree(location).num_entries for location in find([str(path)])] == [3]
    assert [open_tree(location).num_entries for location in find([str(path.parent)])] == [3]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a3.root", r"samples\.x\.files: 'a3\.root' does not exist; nearest: 'a2\.root', 'a1\.root'"),
        ("nowhere/a.root", r"samples\.x\.files: 'nowhere/a\.root' does not exist; check the path"),
        ("c*.root", r"samples\.x\.files: no file matches 'c\*\.root'"),
        ("empty", r"samples\.x\.files: no file matches 'empty/\*\.root'"),
        ("list.txt", r"samples\.x\.files: list\.txt names no file; write one path a line"),
        ("bad.txt", r"samples\.x\.files \(bad\.txt\): 'a3\.root' does not exist"),
    ],
)
def test_what_matches_nothing_is_named(folder, pattern, message):
    (folder / "empty").mkdir()
    (folder / "list.txt").write_text("# nothing yet\n")
    (folder / "bad.txt").write_text("a1.root\na3.root\n")
    with pytest.raises(FileError, match=message):
        find([pattern], where="samples.x.files")


def test_a_list_that_names_itself_is_refused(folder):
    (folder / "files.txt").write_text("a1.root\nfiles.txt\n")
    with pytest.raises(FileError, match=r"files\.txt"):
        find(["files.txt"])


@pytest.mark.parametrize("other", ["a1.root", "./a1.root", "sub/../a1.root", "{}/a1.root", "link.root", "a*.root"])
def test_a_file_named_twice_would_count_double(folder, other):
    (folder / "link.root").symlink_to(folder / "a1.root")
    with pytest.raises(FileError, match=r"(a1|link)\.root.* is named twice, its events would count double"):
        find(["a1.root", other.format(folder)])


@pytest.mark.parametrize("kind", KINDS)
def test_trees_are_listed_with_their_entries(tmp_path, kind):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        add(file, make_events(3), tree="signal", kind=kind)
        add(file, make_events(5), tree="deep/er/background", kind=kind)
        file["note"] = "not a tree"
    assert trees_in(str(path)) == {"signal": 3, "deep/er/background": 5}


@pytest.mark.parametrize("name", ["deep/er/background", "/deep/er/background", "deep/er/background;1"])
def test_a_tree_in_a_folder_is_opened_by_its_path(tmp_path, name):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        add(file, make_events(3), tree="signal")
        add(file, make_events(5), tree="deep/er/background")
    assert open_tree(Location(str(path), name)).num_entries == 5


def test_the_only_tree_needs_no_name(tmp_path):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        add(file, make_events(4), tree="deep/Events")
        file["histogram"] = np.histogram(np.arange(3.0))
    tree = open_tree(Location(str(path)))
    assert (tree.num_entries, tree.location.tree) == (4, "deep/Events")


def test_of_several_trees_one_must_be_named(tmp_path):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        add(file, make_events(3), tree="signal")
        add(file, make_events(5), tree="background")
    with pytest.raises(BranchError, match=r"f\.root holds 2 trees: 'background', 'signal'; name one with tree="):
        open_tree(Location(str(path)))
    with pytest.raises(BranchError, match=r"tree 'signla' not found in .*f\.root; nearest: 'signal'"):
        open_tree(Location(str(path), "signla"))


def test_a_file_without_a_tree_says_so(tmp_path):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        file["histogram"] = np.histogram(np.arange(3.0))
    with pytest.raises(BranchError, match=r"f\.root holds 0 trees: none"):
        open_tree(Location(str(path)))
    with pytest.raises(BranchError, match=r"tree 'histogram' not found in .*f\.root; there are none"):
        open_tree(Location(str(path), "histogram"))


def test_of_several_cycles_the_newest_is_read(tmp_path):
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        add(file, {"x": np.arange(3.0)})
        add(file, {"x": np.arange(7.0)})
        assert set(file.keys()) == {"Events;1", "Events;2"}
    assert trees_in(str(path)) == {"Events": 7}
    assert open_tree(Location(str(path))).num_entries == 7
    assert open_tree(Location(str(path), "Events")).read(["x"], 0, 7)["x"].tolist() == list(range(7))
    assert open_tree(Location(str(path), "Events;1")).num_entries == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!doctype html><html>" + b" " * 2000, "this is not a ROOT file"),
        (b"roo", "this is not a ROOT file"),
        (b"root", "the file is truncated or damaged"),
        (b"root" + bytes(range(256)) * 20, "the file is truncated or damaged"),
    ],
)
def test_what_is_not_a_root_file_is_told_apart(tmp_path, content, message):
    path = tmp_path / "f.root"
    path.write_bytes(content)
    with pytest.raises(FileError, match=rf"f\.root: {message}.*; replace or remove the file"):
        open_tree(Location(str(path)))


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"f\.root does not exist; check the path"):
        open_tree(Location(str(tmp_path / "f.root")))
    with pytest.raises(FileError, match=r"can't be opened"):
        open_tree(Location(str(tmp_path)))


@pytest.mark.parametrize("kind", KINDS)
def test_branches_are_described(tmp_path, kind):
    columns = make_events(5) | {"cov": np.zeros((5, 3), np.float64), "flag": np.ones(5, bool)}
    tree = open_tree(Location(str(write(tmp_path / "f.root", columns, kind=kind))))
    counter = "nJet" if kind == "TTree" else None
    assert tree.describe("met") == Branch("met", "flat", "float32")
    assert tree.describe("event") == Branch("event", "flat", "uint64")
    assert tree.describe("flag") == Branch("flag", "flat", "bool")
    assert tree.describe("Jet_pt") == Branch("Jet_pt", "jagged", "float32", counter=counter)
    assert tree.describe("cov") == Branch("cov", "fixed", "float64", width=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_branch_is_named_with_the_nearest_ones(tmp_path, kind):
    tree = open_tree(Location(str(write(tmp_path / "f.root", make_events(2), kind=kind))))
    for ask in (tree.describe, lambda name: tree.read([name], 0, 1), lambda name: tree.edges([name])):
        if kind == "RNTuple" and ask("met") == [0, 2]:
            continue  # all fields are cut alike, whatever they are called
        with pytest.raises(BranchError, match=r"branch 'mett' not found; nearest: 'met'.*'Events', .*f\.root"):
            ask("mett")


def test_names_of_split_objects_are_found_in_full_and_in_short(tmp_path):
    columns = {"muons/muons.fPt#1": np.arange(3.0), "muons.eta": np.arange(3.0) + 10, "a b-c": np.arange(3.0) + 20}
    tree = open_tree(Location(str(write(tmp_path / "f.root", columns))))
    first_of = {"muons/muons.fPt#1": 0, "muons.fPt#1": 0, "muons.eta": 10, "muons_eta": 10, "a b-c": 20}
    for name, first in first_of.items():
        assert tree.read([name], 0, 3)[name].tolist() == [first, first + 1, first + 2]


def test_a_short_name_that_two_branches_share_must_be_written_in_full(tmp_path):
    columns = {"a/pt": np.arange(3.0), "b/pt": np.arange(3.0) + 10}
    tree = open_tree(Location(str(write(tmp_path / "f.root", columns))))
    assert tree.names() == ["a/pt", "b/pt"]
    with pytest.raises(BranchError, match="branch 'pt' not found"):
        tree.describe("pt")


@st.composite
def basket_edges(draw):
    """Return the entries of a tree and where its baskets begin."""
    num_entries = draw(st.integers(0, 60))
    inner = draw(st.sets(st.integers(1, max(1, num_entries - 1)), max_size=8)) if num_entries > 1 else set()
    return num_entries, sorted(inner)


class Fake:
    """A tree that only knows its edges."""

    def __init__(self, num_entries, inner, bytes_per_entry):
        self.num_entries = num_entries
        self._edges = sorted({0, *inner, num_entries})
        self._bytes = bytes_per_entry

    def edges(self, names):
        return self._edges

    def bytes_per_entry(self, names):
        return self._bytes


def check_blocks(blocks, edges, num_entries):
    assert [b for block in blocks for b in block if b in (0, num_entries)] == ([0, num_entries] if num_entries else [])
    assert all(low < high for low, high in blocks)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(blocks))
    assert {b for block in blocks for b in block} <= set(edges)


@given(st.integers(0, 200_000), st.lists(st.integers(1, 199_999)), st.sampled_from([0.0, 4.0, 300.0, 1e9]))
def test_blocks_cover_all_entries_on_edges(num_entries, inner, bytes_per_entry):
    tree = Fake(num_entries, [e for e in inner if e < num_entries], bytes_per_entry)
    blocks = blocks_of(tree, ["x"])
    check_blocks(blocks, tree.edges(["x"]), num_entries)
    widest = max(np.diff(tree.edges(["x"])), default=0)
    assert all(high - low <= max(BLOCK_ENTRIES, widest) for low, high in blocks)


@pytest.mark.parametrize("kind", KINDS)
@given(shape=basket_edges())
def test_edges_are_those_that_were_written(kind, shape, tmp_path_factory):
    num_entries, steps = shape
    path = write(tmp_path_factory.mktemp("f") / "f.root", make_events(num_entries), kind=kind, steps=steps)
    tree = open_tree(Location(str(path)))
    assert sorted({0, *tree.edges(["met", "Jet_pt"]), num_entries}) == sorted({0, *steps, num_entries})
    check_blocks(blocks_of(tree, ["met", "Jet_pt"]), tree.edges(["met"]), num_entries)


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_gives_the_same_values(tmp_path, kind):
    columns = make_events(40)
    tree = open_tree(Location(str(write(tmp_path / "f.root", columns, kind=kind, steps=(7, 8, 30)))))
    for start, stop in [(0, 40), (0, 7), (7, 8), (5, 33), (39, 40), (20, 20)]:
        got = tree.read(["met", "event", "Jet_pt"], start, stop)
        assert got["met"].tolist() == columns["met"][start:stop].tolist()
        assert got["event"].tolist() == columns["event"][start:stop].tolist()
        assert listed(got["Jet_pt"]) == columns["Jet"]["pt"][start:stop].tolist()


@real
def test_baskets_that_never_align_are_cut_at_those_of_the_largest_branch():
    tree = open_tree(Location(str(SHARED / "real" / "hard_types.root")))
    names = ["vf", "x", "fix", "i64", "empty"]
    offsets = {n: tree._source[n].entry_offsets for n in names}
    shared = set.intersection(*map(set, offsets.values()))
    assert shared == {0, 2000}
    assert len({tuple(o) for o in offsets.values()}) > 1
    edges = tree.edges(names)
    assert edges in list(offsets.values())
    assert len(edges) == max(map(len, offsets.values()))
    check_blocks(blocks_of(tree, names), edges, 2000)
    whole = tree.read(names, 0, 2000)
    for name in names:
        pieces = [tree.read([name], a, b)[name] for a, b in itertools.pairwise(edges)]
        np.testing.assert_equal([row for piece in pieces for row in listed(piece)], listed(whole[name]))


@pytest.mark.parametrize("kind", KINDS)
def test_reading_damaged_bytes_names_the_file_and_the_entries(tmp_path, kind):
    columns = {"x": np.random.default_rng(0).integers(0, 1000, 5000)}
    path = write(tmp_path / "f.root", columns, kind=kind, compression=uproot.ZLIB(1))
    content = bytearray(path.read_bytes())
    middle = 25_000 if kind == "TTree" else 5_000
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    tree = open_tree(Location(str(path)))
    with pytest.raises(FileError, match=r"f\.root: entries 0 to 5000 of tree 'Events' can't be read .*: replace it"):
        tree.read(["x"], 0, 5000)


@given(data=st.binary(max_size=5000), repeat=st.integers(1, 30), level=st.integers(1, 9))
def test_the_fast_inflate_gives_the_bytes_of_zlib(data, repeat, level):
    use_fast_inflate()
    plain, reader = data * repeat, compression._decompress_ZLIB
    assert reader.library == "isal"
    assert bytes(reader.decompress(zlib.compress(plain, level), len(plain))) == plain


def test_the_fast_inflate_leaves_writing_alone():
    use_fast_inflate()
    plain = bytes(range(256)) * 20
    assert [uproot.ZLIB(n).compress(plain) for n in (0, 1, 6)] == [zlib.compress(plain, n) for n in (0, 1, 6)]


@real
def test_a_file_reads_the_same_with_and_without_the_fast_inflate(monkeypatch):
    location = Location(str(SHARED / "real" / "nano_tt_v12.root"), "Events")
    names = ["MET_pt", "Jet_pt", "event", "nJet"]
    use_fast_inflate()
    fast = open_tree(location).read(names, 0, 200)
    monkeypatch.setattr(compression._decompress_ZLIB, "library", "zlib")
    slow = open_tree(location).read(names, 0, 200)
    assert {n: listed(fast[n]) for n in names} == {n: listed(slow[n]) for n in names}


def test_a_branch_of_another_kind_names_both_files():
    flat, jagged = Branch("x", "flat", "float32"), Branch("x", "jagged", "float32")
    with pytest.raises(BranchError, match=r"branch 'x' is jagged in b\.root but flat in a\.root"):
        check_same_kinds({"x": flat}, {"x": jagged}, first="a.root", path="b.root")
    narrow, wide = Branch("x", "fixed", "float32", width=2), Branch("x", "fixed", "float32", width=3)
    with pytest.raises(BranchError, match=r"branch 'x'"):
        check_same_kinds({"x": narrow}, {"x": wide}, first="a.root", path="b.root")
    check_same_kinds({"x": flat}, {"x": Branch("x", "flat", "float64")}, first="a.root", path="b.root")

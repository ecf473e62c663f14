"""Branches that hold several numbers in each entry or object are columns of their own, everywhere a branch may be."""

import re
from pathlib import Path

import numpy as np
import pytest
import uproot
from files_for_tests import epoch_of, listed, options
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import BranchError, FileError
from rootdata.expressions.grammar import parse
from rootdata.inspection.choice import choose_features
from rootdata.inspection.files import inspect
from rootdata.io.branches import columns_in, reading_of
from rootdata.io.formats.parts import MOST_PARTS, parts_of, stems_in, take
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged
from rootdata.location import Location

DIVIDED = Path(__file__).parents[3] / "data" / "divided.root"


def of_jets(number):
    return lambda i: [number(i, k) for k in range(i % 4)]


def of_hits(number):
    return lambda i: [number(i, k) for k in range(i % 3)]


def inner_lists(i):
    return [[100 * i + 10 * k + j for j in range((i + k) % 3)] for k in range(i % 4)]


COLUMNS = {
    **{f"Jet_tau[{c}]": ("jagged", of_jets(lambda i, k, c=c: 100 * i + 10 * k + c)) for c in range(5)},
    **{f"few[{c}]": ("jagged", of_jets(lambda i, k, c=c: i + k + c)) for c in range(2)},
    **{f"grid[{a}][{b}]": ("jagged", of_jets(lambda i, k, a=a, b=b: 1000 * i + 100 * k + 10 * a + b))
       for a in range(2) for b in range(3)},
    **{f"m[{a}]": ("fixed", lambda i, a=a: [100 * i + 10 * a + b for b in range(3)]) for a in range(2)},
    "jet.pt": ("flat", lambda i: i),
    "jet.eta": ("flat", lambda i: -i),
    "jet.q": ("flat", lambda i: i % 3 - 1),
    "nested.m": ("fixed", lambda i: [i + 0.25, i + 0.5]),
    "nested.k": ("fixed", lambda i: [i, -i, 2 * i]),
    "nested.c": ("flat", lambda i: i % 7),
    "p4s.fP.fX": ("jagged", of_hits(lambda i, k: i)),
    "p4s.fP.fY": ("jagged", of_hits(lambda i, k: k)),
    "p4s.fE": ("jagged", of_hits(lambda i, k: i + k)),
    "ids": ("jagged", of_hits(lambda i, k: 10 * i + k)),
    "bits": ("jagged", lambda i: [bool(i >> b & 1) for b in range(5)]),
    "af": ("jagged", of_hits(lambda i, k: i + k / 2)),
    "ai": ("jagged", of_jets(lambda i, k: i - k)),
    "flatten(vv)": ("jagged", lambda i: [x for inner in inner_lists(i) for x in inner]),
    "num(vv)": ("jagged", lambda i: [len(inner) for inner in inner_lists(i)]),
    "flatten(links)": ("jagged", lambda i: [j - 1 for inner in inner_lists(i) for j, _ in enumerate(inner)]),
    "flatten(sets)": ("jagged", lambda i: [i + j for inner in inner_lists(i) for j, _ in enumerate(inner)]),
    "num(Jet_pt)": ("flat", lambda i: i % 4),
    "splits.x": ("jagged", of_hits(lambda i, k: i + k)),
    "splits.cov[0]": ("jagged", of_hits(lambda i, k: k + 0.5)),
    "splits.cov[1]": ("jagged", of_hits(lambda i, k: i + 0.5)),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree():
    tree = open_tree(Location(str(DIVIDED), "t"))
    yield tree
    tree.close()


@given(data=st.data())
def test_every_column_in_any_range_and_company(tree, data):
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, tree.num_entries)] * 2)))
    names = data.draw(st.lists(st.sampled_from([*COLUMNS, "MET", "Jet_pt"]), min_size=1, unique=True))
    read = tree.read(names, start, stop)
    for name in {*names} & {*COLUMNS}:
        kind, value = COLUMNS[name]
        assert listed(read[name]) == [value(i) for i in range(start, stop)], name
        numbers = read[name].content if isinstance(read[name], Jagged) else read[name]
        assert (tree.describe(name).kind, tree.describe(name).dtype) == (kind, numbers.dtype.name)
    lists = [read[name].offsets for name in names if name.startswith(("Jet_", "grid", "few"))]
    assert all(offsets is lists[0] for offsets in lists)


def test_names_are_those_of_columns_and_the_branch_says_which(tree):
    assert {name for name in COLUMNS if "(" not in name} <= {*tree.names()}
    assert not {"Jet_tau", "grid", "m", "jet", "nested", "p4s"} & {*tree.names()}
    assert tree.describe("Jet_tau[2]").counter == "nJet"
    for name, words in {"Jet_tau": r"Jet_tau\[0\], \.\.\., Jet_tau\[4\]", "jet": "jet.pt, jet.eta, jet.q"}.items():
        with pytest.raises(BranchError, match=rf"'{name}' can't be used: it holds . columns, .*: {words} \(in expr"):
            tree.read([name], 0, 1)
    for wrong in ("Jet_tau[5]", "Jet_tau[0][0]", "jet.phi", "MET[0]", "MET.x", "Jet_tau[", "."):
        with pytest.raises(BranchError, match=f"branch '{re.escape(wrong)}' not found"):
            tree.describe(wrong)


def test_lists_of_lists_are_read_by_what_is_made_of_them(tree):
    assert "flatten(vv)" not in tree.names()
    with pytest.raises(
        BranchError, match=r"'vv' can't be used: it holds lists of lists .*: flatten\(...\) of its name"
    ):
        tree.read(["vv"], 0, 1)
    for name, why in {"flatten(Jet_pt)": "made of no lists of lists", "num(MET)": "made of no lists"}.items():
        with pytest.raises(BranchError, match=why):
            tree.read([name], 0, 1)
    for wrong in ("flatten(vvv)", "flatten()", "count(vv)", "num(num(vv))"):
        with pytest.raises(BranchError, match="not found"):
            tree.describe(wrong)


LINKS = DIVIDED.parent / "links.root"


@given(st.integers(0, 60), st.integers(0, 60))
def test_links_of_atlas_are_joined_and_counted_by_their_members(one, other):
    start, stop = sorted((one, other))
    tree = open_tree(Location(str(LINKS)))
    columns = {
        "flatten(Muons.trackLinks.m_persKey)": lambda i, k, n: 7 * i + k,
        "flatten(Muons.trackLinks.m_persIndex)": lambda i, k, n: 10 * i + n,
    }
    counts = {f"num(Muons.trackLinks{member})": member for member in ("", ".m_persKey", ".m_persIndex")}
    got = tree.read(["x", *columns, *counts], start, stop)
    lengths = {i: [(i + k) % 3 for k in range(i % 4)] for i in range(start, stop)}
    for name, value in columns.items():
        wanted = [[value(i, k, n) for k, size in enumerate(lengths[i]) for n in range(size)] for i in lengths]
        assert (listed(got[name]), got[name].content.dtype.name) == (wanted, tree.describe(name).dtype)
    assert all(listed(got[name]) == list(lengths.values()) for name in counts)
    tree.close()


def test_links_themselves_are_no_column():
    tree = open_tree(Location(str(LINKS)))
    assert tree.names() == ["x", "Muons.trackLinks"]
    for name, why in {
        "Muons.trackLinks": r"its name and \.m_persKey or \.m_persIndex joins them",
        "flatten(Muons.trackLinks)": r"made of objects; put \.m_persKey or \.m_persIndex behind",
        "flatten(Muons.trackLinks.m_key)": "not found",
    }.items():
        with pytest.raises(BranchError, match=why):
            tree.read([name], 0, 1)
    tree.close()


def test_links_that_are_not_as_long_as_they_say_are_refused(tmp_path):
    content = LINKS.read_bytes()
    assert content.count(b"\x40\x00\x00\x18") > 60
    path = tmp_path / "a.root"
    path.write_bytes(content.replace(b"\x40\x00\x00\x18", b"\x40\x00\x00\x19", 3))
    tree = open_tree(Location(str(path)))
    with pytest.raises((BranchError, FileError)):
        tree.read(["flatten(Muons.trackLinks.m_persKey)"], 0, 60)
    tree.close()


def test_lists_of_lists_in_expressions():
    derived = {"total": "sum(flatten(vv)) + count(num(vv))", "jets": "sum(num(vv)) + num(Jet_pt)"}
    got = epoch_of(options(f"{DIVIDED}:t", flat=["total", "jets"], derived=derived, jagged={"n": ["num(vv)"]}))
    lists = [inner_lists(i) for i in range(60)]
    expected = [[sum(map(sum, inner)) + len(inner), sum(map(len, inner)) + i % 4] for i, inner in enumerate(lists)]
    np.testing.assert_array_equal(got["x"][:, :2], expected)


def test_an_index_into_another_collection_is_followed(tree):
    expression = parse("Jet_pt[jetIdx]")
    read = tree.read(["Jet_pt", "jetIdx"], 0, 60)
    found = expression.evaluate(read, num_events=60)
    assert found.offsets is read["jetIdx"].offsets
    for i, values in enumerate(found.to_awkward().tolist()):
        places = [(i + k) % 5 - 1 for k in range(i % 4)]
        wanted = [10 * i + p if 0 <= p < i % 4 else None for p in places]
        assert [None if np.isnan(v) else v for v in values] == wanted
    whole = parse("jetIdx[jetIdx]").evaluate(read, num_events=60)
    assert whole.content.dtype == np.int64
    assert whole.valid is not None


def test_a_bundle_of_columns_of_one_branch_costs_what_the_branch_does(tree):
    one, all_of_them = (tree.bytes_per_entry(names) for names in (["Jet_tau[0]"], [f"Jet_tau[{i}]" for i in range(5)]))
    assert one == all_of_them > 0
    assert tree.edges(["Jet_tau[0]"]) == tree.edges(["Jet_tau[4]"])
    assert tree.baskets(["Jet_tau[0]"]) is None
    assert tree.baskets(["MET"]) is not None


def test_events_are_made_of_columns(tmp_path):
    jets = {"branches": ["Jet_pt", "Jet_tau[1]", "ratio"], "length": 4, "sort": "-`Jet_tau[0]`"}
    got = epoch_of(options(
        f"{DIVIDED}:t", flat=["jet.pt", "m[1]", "low"], jagged={"jets": jets}, layout="tokens",
        derived={"ratio": "`Jet_tau[1]` - `Jet_tau[0]`", "low": "`m[1]`[2] + jet.q"}, cut="jet.pt < 40",
    ))  # fmt: skip
    i = np.arange(40)
    expected = [i, *(100 * i + 10 + b for b in range(3)), 100 * i + 12 + i % 3 - 1]
    np.testing.assert_array_equal(got["flat"], np.stack(expected, axis=1))
    for entry in i:
        falling = [100 * entry + 10 * k + 1 for k in reversed(range(entry % 4))]
        assert got["jets"][entry][got["jets_mask"][entry]][:, 1].tolist() == falling
        assert got["jets"][entry][got["jets_mask"][entry]][:, 2].tolist() == [1] * (entry % 4)


def test_they_are_inspected_as_members_of_their_collection():
    found = inspect([f"{DIVIDED}:t"])
    assert {f"Jet_tau[{i}]" for i in range(5)} < {*found.collections["Jet"]}
    assert found.columns["Jet_tau[2]"].stats.high == 5900 + 20 + 2
    assert found.columns["jet.q"].stats.low == -1
    assert "Jet_tau[3]" in choose_features(found).collections["Jet"]


@pytest.mark.parametrize("is_list", [False, True])
@given(shape=st.lists(st.integers(1, 4), max_size=3))
def test_parts_cover_every_number_once(is_list, shape):
    record = np.dtype([("a", ">f4", tuple(shape)), ("@between", ">u2"), ("b", [("c", ">i2"), ("d/e", "?")], (2,))])
    for dtype in (record, np.dtype((">f8", tuple(shape)))):
        parts = parts_of(dtype, is_list=is_list)
        assert len({part.suffix for part in parts}) == len(parts)
        rows = np.zeros((3, dtype.itemsize if dtype.names else int(np.prod(shape))), np.uint8 if dtype.names else "f8")
        taken = [take(rows, part) for part in parts]
        assert all(column.ndim == 1 for column in taken) or not is_list
        members = int(np.prod(shape)) + 4 if dtype.names else len(rows[0])
        assert sum(column[0].size for column in taken) == members or (not parts and len(shape) <= (0 if is_list else 1))


@given(st.text("ab.[]1", min_size=1, max_size=9))
def test_stems_are_beginnings_before_a_bracket_or_a_point(name):
    stems = list(stems_in(name))
    assert stems == sorted(stems, key=len, reverse=True)
    assert all(name.startswith(stem) and name[len(stem)] in ".[" for stem in stems)
    assert len(stems) == sum(c in ".[" for c in name[1:])


def test_a_branch_of_very_many_columns_says_so(tmp_path):
    with uproot.recreate(tmp_path / "wide.root") as file:
        file.mktree("t", {"wide": np.dtype(("f4", (MOST_PARTS + 1, 2))), "most": np.dtype(("f4", (MOST_PARTS, 2)))})
        file["t"].extend({"wide": np.zeros((3, MOST_PARTS + 1, 2), "f4"), "most": np.ones((3, MOST_PARTS, 2), "f4")})
    tree = open_tree(Location(str(tmp_path / "wide.root")))
    assert tree.describe("wide").note == f"it holds float[{MOST_PARTS + 1}][2], more than {MOST_PARTS} columns"
    assert tree.read([f"most[{MOST_PARTS - 1}]"], 1, 3)[f"most[{MOST_PARTS - 1}]"].tolist() == [[1, 1], [1, 1]]
    assert [n for n in tree.names() if n.startswith("wide")] == ["wide"]
    with uproot.open(tmp_path / "wide.root") as file:
        assert columns_in(reading_of(file["t"]["wide"])) == ()

"""Files in layouts that only ROOT writes (``tests/data``): their values follow from the entry, in any range."""

from pathlib import Path

import numpy as np
import pytest
import uproot
from files_for_tests import SHARED, listed
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import BranchError
from rootdata.io.trees import blocks_of, open_tree
from rootdata.jagged import Jagged
from rootdata.location import Location

DATA = Path(__file__).parents[2] / "data"

FLAT = {
    "n": lambda i: i % 6,
    "nc": lambda i: i % 4,
    "i": lambda i: i,
    "flag": lambda i: i % 3 == 0,
    "big": lambda i: 10**12 * i,
    "d": lambda i: i / 2,
    "ranged": lambda i: i,
    "half": lambda i: i / 4,
    "hranged": lambda i: i,
    "few": lambda i: i / 2,
    "fixed": lambda i: [i + k / 4 for k in range(3)],
    "dfixed": lambda i: [i + k / 4 for k in range(3)],
}
LISTS = {
    "v": ("n", lambda i, k: 100 * i + k),
    "w": ("n", lambda i, k: i + k / 8),
    "iv": ("nc", lambda i, k: 10 * i + k),
    "sv": ("n", lambda i, k: i - k),
    "bv": ("n", lambda i, k: (i + k) % 2 == 1),
    "lv": ("n", lambda i, k: -(10**12) * i + k),
    "vd": ("n", lambda i, k: i + k),
    "vf": (None, lambda i, k: i + k),
    "vb": (None, lambda i, k: (i + k) % 2 == 1),
    "vdouble": (None, lambda i, k: i - k),
    "vu": (None, lambda i, k: (i + k) % 256),
    "vs": (None, lambda i, k: -i - k),
}
ROUGH = {"ranged", "hranged"}  # stored in steps between two bounds

# File and tree, and the entry that was filled first of those that are left.
PLAIN = {"plain": "trees", "bare": "trees", "circular": "trees", "unclosed": "unclosed"}


def value(name, i):
    if name in FLAT:
        return FLAT[name](i)
    counter, content = LISTS[name]
    return [content(i, k) for k in range(FLAT[counter](i) if counter else i % 5)]


@pytest.fixture(scope="module", params=PLAIN)
def plain(request):
    name = "plain" if request.param == "unclosed" else request.param
    tree = open_tree(Location(str(DATA / f"{PLAIN[request.param]}.root"), name))
    yield tree, tree.read(["i"], 0, tree.num_entries)["i"].tolist()
    tree.close()


def same(column, wanted, *, within=0.0):
    found = listed(column)
    return len(found) == len(wanted) and all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=within)
        for a, b in zip(found, wanted, strict=True)
    )


@given(data=st.data())
def test_every_layout_of_a_tree_in_any_range(plain, data):
    tree, entries = plain
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, tree.num_entries)] * 2)))
    names = data.draw(st.lists(st.sampled_from([*FLAT, *LISTS]), min_size=1, unique=True))
    got = tree.read(names, start, stop)
    for name in names:
        wanted = [value(name, i) for i in entries[start:stop]]
        assert same(got[name], wanted, within=0.01 if name in ROUGH else 0.0), name
        assert (got[name].content if isinstance(got[name], Jagged) else got[name]).dtype == tree.describe(name).dtype


@pytest.mark.parametrize("name", ["vranged", "franged"])
def test_bounds_that_uproot_does_not_see_make_a_branch_unusable(plain, name):
    tree, _ = plain
    with pytest.raises(
        BranchError, match=rf"'{name}' can't be used: its numbers are stored in the range \[0,1000,16\], which"
    ):
        tree.read([name], 0, 10)


def test_the_layouts_are_what_they_are_meant_to_be():
    with uproot.open(DATA / "trees.root") as file:
        bare, circular = file["bare"], file["circular"]
        assert bare["v"].member("fIOFeatures").member("fIOBits") == 1
        assert [e for e in bare["v"].entry_offsets if e not in bare["n"].entry_offsets]
        for tree in (bare, circular):
            with pytest.raises(ValueError, match="wrong number of entries"):
                tree["v"].array()
        assert circular.num_entries < 250
    with uproot.open(DATA / "unclosed.root") as file:
        assert all(file["plain"][n].embedded_baskets for n in [*FLAT, *LISTS])


def test_lists_whose_positions_are_counted_share_their_offsets():
    tree = open_tree(Location(str(DATA / "trees.root"), "bare"))
    got = tree.read(["v", "w", "vd", "iv"], 3, 77)
    assert got["v"].offsets is got["w"].offsets is got["vd"].offsets
    assert got["iv"].offsets is not got["v"].offsets
    tree.close()


def test_branches_with_other_numbers_of_entries_than_their_tree():
    tree = open_tree(Location(str(DATA / "trees.root"), "uneven"))
    assert tree.describe("half").note == "it has 50 entries, its tree 100"
    assert tree.describe("none").note == "it has 0 entries, its tree 100"
    for name, held in (("half", 50), ("none", 0)):
        message = (
            rf"branch '{name}' can't be used: it has {held} entries, its tree 100 \(.*trees\.root, tree 'uneven'\)"
        )
        for start, stop in ((0, 100), (0, 10), (60, 70), (5, 5)):
            with pytest.raises(BranchError, match=message):
                tree.read([name], start, stop)
    assert tree.read(["more", "renamed"], 90, 100)["more"].tolist() == list(range(90, 100))
    assert tree.read(["renamed"], 40, 60)["renamed"].tolist() == list(range(80, 120, 2))
    assert blocks_of(tree, ["i", "half", "none", "more"]) == [(0, 100)]
    tree.close()


def test_arrays_of_objects_are_counted_by_the_branch_that_they_are_in():
    tree = open_tree(Location(str(DATA / "trees.root"), "objects"))
    energies = tree.read(["a.fE", "b.fE"], 5, 50)
    assert listed(energies["a.fE"]) == [[i + k for k in range(i % 4)] for i in range(5, 50)]
    assert listed(energies["b.fE"]) == [[i - k for k in range(i % 3)] for i in range(5, 50)]
    assert tree._tables["a.fE"].counter is not None
    assert tree.read(["a.fBits"], 0, 60)["a.fBits"].counts.tolist() == [i % 4 for i in range(60)]
    # Of an object that another refers to, more than the bits is stored, and uproot takes that for bits as well.
    with pytest.raises(BranchError, match=r"'b.fBits' can't be used: it holds bits of objects, and more than these"):
        tree.read(["b.fBits"], 0, 60)
    tree.close()


# RNTuples

LATE = {
    "f": lambda i: 2 * i,
    "d": lambda i: i / 4,
    "b": lambda i: i % 3 == 0,
    "i8": lambda i: -i,
    "u8": lambda i: i,
    "i16": lambda i: -i,
    "u16": lambda i: i,
    "i32": lambda i: -i,
    "u32": lambda i: i,
    "i64": lambda i: -(10**12) * i,
    "u64": lambda i: 10**12 * i,
    "c": lambda i: i,
    "byte": lambda i: i,
    "atomic": lambda i: i,
    "p.0": lambda i: i,
    "cut": lambda i: i,
    "quant": lambda i: i,
    "half": lambda i: i,
    "nvf": lambda i: i % 4,
}
LATE_FIXED = {
    "af": (3, lambda i: [i + k / 4 for k in range(3)]),
    "ab": (3, lambda i: [i % 2 == 0, i % 3 == 0, i % 5 == 0]),
    "bits": (10, lambda i: [bool(i >> k & 1) for k in range(10)]),
    "p.1": (2, lambda i: [i, -i]),
}
LATE_LISTS = {
    "vf": lambda i: [i] * (i % 4),
    "vb": lambda i: [i % 2 == 1] * (i % 3),
    "vi": lambda i: [-i] * (i % 5),
    "rv": lambda i: [i] * (i % 2),
    "vp.0": lambda i: [i] * (i % 3),
    "vp.1": lambda i: [-i] * (i % 3),
    "set": lambda i: [i + k for k in range(i % 3)],
}
FIRST = {"between": 60, "inside": 50, "alone": 119}
NTUPLE_ENTRIES = 120


def late_value(name, i, first):
    if name in LATE_LISTS:
        return LATE_LISTS[name](i) if i >= first else []
    if name in LATE_FIXED:
        width, content = LATE_FIXED[name]
        return content(i) if i >= first else [0] * width
    return LATE[name](i) if i >= first else 0


@pytest.fixture(scope="module", params=FIRST)
def late(request):
    tree = open_tree(Location(str(DATA / "ntuples.root"), request.param))
    yield tree
    tree.close()


@given(data=st.data())
def test_fields_of_every_type_that_were_added_late_in_any_range(late, data):
    first = FIRST[late.location.tree]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, NTUPLE_ENTRIES)] * 2)))
    names = data.draw(st.lists(st.sampled_from([*LATE, *LATE_FIXED, *LATE_LISTS, "i"]), min_size=1, unique=True))
    got = late.read(names, start, stop)
    for name in names:
        wanted = [i if name == "i" else late_value(name, i, first) for i in range(start, stop)]
        assert same(got[name], wanted, within=0.001 if name == "quant" else 0.0), name
        assert (got[name].content if isinstance(got[name], Jagged) else got[name]).dtype == late.describe(name).dtype


def test_fields_that_were_added_late_by_blocks_and_beside_uproot(late, small_blocks):
    names = [n for n in late.names() if late.describe(n).kind != "unusable"]
    assert {*LATE, *LATE_FIXED, *LATE_LISTS} <= set(names)
    whole = late.read(names, 0, NTUPLE_ENTRIES)
    parts = [late.read(names, *block) for block in blocks_of(late, names)]
    with uproot.open(late.place) as file:
        for name in names:
            assert [x for p in parts for x in listed(p[name])] == listed(whole[name])
            assert file[late.location.tree][late.key_of(name)].array().tolist() == listed(whole[name])


@pytest.mark.parametrize("name", ["s", "o", "either"])
def test_late_fields_of_other_types_are_unusable_for_what_they_are(late, name):
    with pytest.raises(BranchError, match=rf"'{name}' can't be used: it holds std::.*, not numbers or lists"):
        late.read([name], 0, 10)


@given(st.integers(0, 100), st.integers(0, 100))
def test_fields_that_are_stored_in_two_ways(one, other):
    start, stop = sorted((one, other))
    tree = open_tree(Location(str(DATA / "ntuples.root"), "ways"))
    got = tree.read(["f", "i32", "v"], start, stop)
    tree.close()
    assert got["f"].tolist() == list(range(start, stop))
    assert got["i32"].tolist() == [-i for i in range(start, stop)]
    assert listed(got["v"]) == [[i] * (i % 4) for i in range(start, stop)]
    assert (got["f"].dtype, got["i32"].dtype, got["v"].content.dtype) == ("float32", "int32", "float64")


CASES = SHARED.parent / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="the shared cases are not here")
@given(st.integers(0, 6000), st.integers(0, 6000))
def test_the_shared_case_of_late_fields(one, other):
    start, stop = sorted((one, other))
    tree = open_tree(Location(str(CASES / "late_fields.root")))
    got = tree.read(["late", "late_list"], start, stop)
    tree.close()
    assert got["late"].tolist() == [2 * i if i >= 3000 else 0 for i in range(start, stop)]
    assert listed(got["late_list"]) == [[i] * (i % 3) if i >= 3000 else [] for i in range(start, stop)]

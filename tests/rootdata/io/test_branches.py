"""What a branch holds, whatever uproot makes of it: one that can't be used is told, and takes nothing else along."""

import sys
from pathlib import Path

import numpy as np
import pytest
from files_for_tests import SHARED, lists_of, options, scanned, write
from troubles_for_tests import OF_ALL, OF_ONE, let_fail
from uproot.behaviors.TBranch import TBranch
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype
from uproot.models.RNTuple import RField

from rootdata.errors import BranchError
from rootdata.inspection.files import inspect
from rootdata.inspection.roles import finding
from rootdata.io.trees import blocks_of, open_tree
from rootdata.location import Location

DATA = Path(__file__).parents[2] / "data"
COUNTS = np.arange(30) % 3
GOOD = {"x": np.arange(30, dtype=np.float32), "v": lists_of(np.repeat(np.arange(30.0), COUNTS), COUNTS)}


def is_bad(branch):
    return branch.name in {"bad", "badlist"}


def is_short(reading):
    """Know the numbers of the bad branches by their type."""
    return getattr(reading, "content", reading).from_dtype.base.itemsize == 2


STEPS = [
    *((TBranch, step, is_bad) for step in ("interpretation", "typename", "branches")),
    *((TBranch, step, is_bad) for step in ("num_baskets", "entry_offsets", "uncompressed_bytes")),
    *((AsDtype, step, is_short) for step in ("numpy_dtype", "inner_shape")),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    bad = {
        "bad": np.arange(30, dtype=np.int16),
        "badlist": lists_of(np.repeat(np.arange(30), COUNTS).astype("i2"), COUNTS),
    }
    folder = tmp_path_factory.mktemp("mixed")
    both = {"TTree": GOOD | bad, "RNTuple": GOOD | bad}
    return {kind: str(write(folder / f"{kind}.root", columns, kind=kind)) for kind, columns in both.items()}


def assert_good_ones_work(path):
    """Describe, cut, read, measure and scan the good branches of a file."""
    tree = open_tree(Location(path, "Events"))
    assert (tree.describe("x").kind, tree.describe("v").kind) == ("flat", "jagged")
    assert blocks_of(tree, ["x", "v"]) == [(0, 30)]
    read = tree.read(["x", "v"], 0, 30)
    np.testing.assert_array_equal(read["x"], GOOD["x"])
    np.testing.assert_array_equal(read["v"].counts, COUNTS)
    found = inspect([path])
    assert (found.columns["x"].stats.count, found.columns["v"].stats.count) == (30, COUNTS.sum())
    specs = scanned(options(path, flat=["x"], jagged={"v": {"branches": ["v"]}}))
    assert specs.columns["x"].count == 30
    return tree, found


def assert_unusable(path, tree, found, name, words):
    assert (tree.describe(name).kind, tree.describe(name).dtype) == ("unusable", "")
    assert words in tree.describe(name).note
    assert words in finding(found.columns[name])
    for use in (lambda: tree.read([name], 0, 30), lambda: scanned(options(path, flat=["x", name], jagged=None))):
        with pytest.raises(
            BranchError, match=rf"branch '{name}' can't be used: .*{words}.*{Path(path).name}.*remove it"
        ):
            use()


@pytest.mark.parametrize(("kind", "step", "where"), STEPS, ids=lambda value: value if isinstance(value, str) else "")
def test_whatever_a_branch_raises_is_the_reason_why_it_cant_be_used(path, monkeypatch, kind, step, where):
    let_fail(monkeypatch, kind, step, UnboundLocalError("no 'low'"), where=where)
    tree, found = assert_good_ones_work(path["TTree"])
    for name in ("bad", "badlist"):
        assert_unusable(path["TTree"], tree, found, name, "UnboundLocalError: no 'low'")


@pytest.mark.parametrize("step", ["content", "numpy_dtype", "typename"])
def test_a_list_whose_interpretation_raises(path, monkeypatch, step):
    let_fail(monkeypatch, AsJagged, step, ZeroDivisionError("by zero"), where=is_short_list)
    if step == "numpy_dtype":  # nobody asks a list for it
        assert open_tree(Location(path["TTree"])).describe("badlist").kind == "jagged"
        return
    tree, found = assert_good_ones_work(path["TTree"])
    assert_unusable(path["TTree"], tree, found, "badlist", "ZeroDivisionError: by zero")
    assert tree.describe("bad").kind == "flat"


def is_short_list(reading):
    return is_short(reading._content)


@pytest.mark.parametrize("error", OF_ONE, ids=repr)
@pytest.mark.parametrize(
    ("kind", "step", "where"),
    [(TBranch, "interpretation", is_bad), (AsDtype, "numpy_dtype", is_short), (TBranch, "entry_offsets", is_bad)],
    ids=["made", "asked", "baskets"],
)
def test_any_error_becomes_a_reason(path, monkeypatch, kind, step, where, error):
    let_fail(monkeypatch, kind, step, error, where=where)
    tree = open_tree(Location(path["TTree"]))
    for name in ("bad", "badlist"):
        assert tree.describe(name).kind == "unusable"
        assert type(error).__name__ in tree.describe(name).note
    assert tree.describe("x").kind == "flat"


@pytest.mark.parametrize("error", OF_ALL, ids=repr)
@pytest.mark.parametrize("step", ["interpretation", "entry_offsets"])
def test_what_concerns_all_is_no_fault_of_a_branch(path, monkeypatch, step, error):
    let_fail(monkeypatch, TBranch, step, error, where=is_bad)
    tree = open_tree(Location(path["TTree"]))
    with pytest.raises(type(error)) as caught:
        tree.describe("bad")
    assert caught.value is error
    with pytest.raises(type(error)):
        inspect([path["TTree"]])


@pytest.mark.parametrize("error", OF_ONE, ids=repr)
def test_values_of_a_field_are_known_without_its_type(path, monkeypatch, error):
    let_fail(monkeypatch, RField, "typename", error, where=is_bad)
    tree, _ = assert_good_ones_work(path["RNTuple"])
    assert (tree.describe("bad").kind, tree.describe("badlist").kind) == ("flat", "jagged")


@pytest.mark.parametrize("error", OF_ONE, ids=repr)
def test_any_error_of_a_field_becomes_a_reason(path, monkeypatch, error):
    let_fail(monkeypatch, RField, "field_id", error, where=is_bad)
    tree, found = assert_good_ones_work(path["RNTuple"])
    for name in ("bad", "badlist"):
        assert_unusable(path["RNTuple"], tree, found, name, type(error).__name__)


@pytest.mark.parametrize("error", OF_ALL, ids=repr)
def test_what_concerns_all_is_no_fault_of_a_field(path, monkeypatch, error):
    let_fail(monkeypatch, RField, "field_id", error, where=is_bad)
    with pytest.raises(type(error)) as caught:
        open_tree(Location(path["RNTuple"])).describe("bad")
    assert caught.value is error


def calls_of(action):
    """Count the functions that are called: work that depends on no clock."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("is_one", [False, True], ids=["flat", "collection"])
def test_describing_takes_work_in_proportion_to_the_number_of_branches(tmp_path, kind, is_one):
    def describe_all(path):
        tree = open_tree(Location(str(path)))
        assert all(tree.describe(name).kind in {"flat", "jagged", "unusable"} for name in tree.names())
        tree.close()

    work = {}
    for number in (1, 50, 100, 200):
        members = {f"v{i}": GOOD["v"] if is_one else GOOD["x"] for i in range(number)}
        path = write(tmp_path / f"{number}.root", {"C": members} if is_one else members, kind=kind)
        describe_all(path)  # what is made once
        work[number] = calls_of(lambda path=path: describe_all(path))
    assert work[200] - work[100] < 1.1 * 2 * (work[100] - work[50])


# What ROOT writes


UNUSABLE = {
    "text": "char*", "dn": r"range [0,100,16], which uproot takes for another", "dx": "range [0,100,16]",
    "fn": "UnboundLocalError",
    "vv": "std::vector<std::vector<float>>", "names": "std::vector<std::string>", "m": "only other branches",
    "m.first": "std::string[]", "s": "std::string", "p0": "TLorentzVector",
    "o": "only other branches", "TObject": "only other branches", "fString": "TString",
}  # fmt: skip
FIELDS = {
    "optional": "std::optional<float>", "variant": "std::variant<std::int32_t,float>", "s": "std::string",
    "vv": "std::vector<std::vector<float>>", "pair": "std::pair<std::int32_t,float>", "streamed": "by ROOT as a whole",
    "late_optional": "std::optional<float>",
}  # fmt: skip


@pytest.mark.parametrize(("name", "unusable"), [("awkward", UNUSABLE), ("fields", FIELDS)])
def test_what_cant_be_used_is_told_with_the_true_reason(name, unusable):
    tree = open_tree(Location(str(DATA / f"{name}.root"), "Events"))
    kinds = {n: tree.describe(n) for n in tree.names()}
    assert {n for n, branch in kinds.items() if branch.kind == "unusable"} == set(unusable)
    for n, words in unusable.items():
        assert words in kinds[n].note, n


@pytest.mark.parametrize("name", ["awkward", "fields"])
def test_what_stands_beside_it_is_read(name):
    tree = open_tree(Location(str(DATA / f"{name}.root"), "Events"))
    usable = [n for n in tree.names() if tree.describe(n).kind != "unusable"]
    if name == "fields":  # where these two were not filled
        usable = [n for n in usable if not n.startswith(("tau[", "mat["))]
    read = tree.read(usable, 0, 30)
    i = np.arange(30)
    expected = {"n": i % 3, "a": i % 3, "flag": i % 2 == 1, "u": np.uint64(2**64 - 1) - i.astype(np.uint64)}
    expected |= {"l": np.where(i % 2, 2**63 - 1, -(2**63)), "late": np.where(i < 15, 0, i), "pair.n": i % 3}
    for n in set(usable) - {"fUniqueID", "fBits", "a.fUniqueID", "a.fBits"}:
        branch, found = tree.describe(n), read[n]
        if branch.kind == "jagged":
            counts = i * 0 + 1 if n == "m.second" else i % 3
            assert found.counts.tolist() == counts.tolist(), n
            found, wanted = found.content, np.repeat(i, counts)
        else:
            wanted = np.repeat(i, branch.width).reshape(30, -1) if branch.kind == "fixed" else expected.get(n, i)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-2 if n in {"dr", "fr"} else 0, err_msg=n)
    assert {tree.describe(n).kind for n in usable} == {"flat", "jagged", "fixed"}


def test_of_branches_with_one_name_the_first_is_read_as_root_does():
    tree = open_tree(Location(str(DATA / "awkward.root"), "twice"))
    assert [n for n in tree.names() if tree.names().count(n) > 1] == []
    np.testing.assert_array_equal(tree.read(["x"], 0, 30)["x"], np.arange(30))
    assert "the first of 2 branches of this name" in tree.describe("x").note
    assert tree.describe("z").note == ""
    # The first branch called P. has none below it.
    np.testing.assert_array_equal(tree.read(["P.fVal"], 0, 30)["P.fVal"], -np.arange(30))


def test_a_branch_with_fewer_entries_than_its_tree():
    tree = open_tree(Location(str(DATA / "awkward.root"), "short"))
    assert tree.describe("late").note == "it has 10 entries, its tree 30"
    assert tree.read(["x"], 0, 30)["x"].tolist() == list(range(30))
    with pytest.raises(BranchError, match=r"branch 'late' can't be used: it has 10 entries, its tree 30"):
        tree.read(["late"], 0, 10)


def test_a_branch_that_counts_within_a_list_of_leaves_is_not_taken_for_another_of_its_name():
    path = str(DATA / "awkward.root")
    tree = open_tree(Location(path, "counted"))
    assert tree.describe("r").counter is None
    specs = scanned(options(f"{path}:counted", flat=["n"], jagged={"r": {"branches": ["r"]}}))
    assert sum(specs.multiplicity["r"]) == 30


@pytest.mark.skipif(not (SHARED.parent / "cases").is_dir(), reason="the folder of cases, shared/cases, is absent")
@pytest.mark.parametrize(
    "path", sorted(str(p) for p in (SHARED.parent / "cases").glob("*.root")), ids=lambda p: Path(p).stem
)
def test_the_cases_are_inspected(path):
    told = {name: finding(c) for name, c in inspect([path]).columns.items() if not c.is_usable}
    expected = {
        "float16_list": {"v": "UnboundLocalError"}, "double32": {"v": "range [0,1000,16]"},
    }.get(Path(path).stem, {})  # fmt: skip
    assert told.keys() == expected.keys()
    assert all(words in told[name] for name, words in expected.items())

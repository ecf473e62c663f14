import math

import awkward as ak
import numpy as np
import pytest
import uproot
from files_for_tests import add, epoch_of, listed, lists_of, make_events, options, scanned, write
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.errors import BranchError
from rootdata.io.trees import open_tree
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location
from rootdata.options.data import parse_data

KINDS = ("TTree", "RNTuple")
both_kinds = pytest.mark.parametrize("kind", KINDS)
NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


def numbers_of(dtype, shape, rng):
    """Return numbers of a type, its extremes among them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        values = rng.normal(0, 1e3, shape).astype(dtype)
        values.flat[:3] = [np.finfo(dtype).max, np.finfo(dtype).tiny, -0.0]
        return values
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    values.flat[:2] = [info.min, info.max]
    return values


@pytest.fixture(scope="module", params=KINDS)
def every_number(request, tmp_path_factory):
    """A file with a flat, a jagged and a fixed-size branch of every number type, and what is in it."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 60)
    columns = {}
    for dtype in NUMBERS:
        columns[f"flat_{dtype}"] = numbers_of(dtype, 60, rng)
        columns[f"fixed_{dtype}"] = numbers_of(dtype, (60, 3), rng)
        columns[f"jagged_{dtype}"] = lists_of(numbers_of(dtype, counts.sum(), rng), counts)
    folder = tmp_path_factory.mktemp(request.param)
    return write(folder / "a.root", columns, kind=request.param, steps=(25, 50)), columns


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_every_width_are_read_to_the_bit(every_number, dtype):
    path, columns = every_number
    tree = open_tree(Location(str(path)))
    names = [f"{kind}_{dtype}" for kind in ("flat", "fixed", "jagged")]
    assert [tree.describe(n).kind for n in names] == ["flat", "fixed", "jagged"]
    assert {tree.describe(n).dtype for n in names} == {dtype}
    flat, fixed, jagged = (tree.read(names, 0, 60)[n] for n in names)
    assert (flat.dtype, fixed.dtype) == (np.dtype(dtype), np.dtype(dtype))
    assert flat.dtype.isnative
    assert np.array_equal(flat, columns[names[0]])
    assert np.array_equal(fixed, columns[names[1]])
    assert listed(jagged) == columns[names[2]].tolist()


@pytest.mark.parametrize("dtype", [n for n in NUMBERS if n not in ("float32", "float64")])
def test_whole_numbers_of_every_width_arrive_in_a_batch(every_number, dtype):
    path, columns = every_number
    names = [f"{kind}_{dtype}" for kind in ("flat", "fixed", "jagged")]
    plain = options(path, flat=names[:2], jagged={"o": {"branches": names[2:], "length": 3}})
    with np.errstate(over="ignore"):
        got = epoch_of(plain)
        whole = [
            columns[names[0]][:, None],
            columns[names[1]],
            ak.to_numpy(ak.fill_none(ak.pad_none(columns[names[2]], 3), 0)),
        ]
        expected = np.concatenate([w.astype(np.float32) for w in whole], axis=1)
    assert got["x"].tolist() == expected.tolist()
    assert got["mask"].sum() == 60 * 4 + ak.sum(ak.num(columns[names[2]]))


@both_kinds
@pytest.mark.parametrize(
    "compression", [uproot.ZLIB(1), uproot.ZLIB(9), uproot.LZMA(1), uproot.LZ4(4), uproot.ZSTD(5), None]
)
def test_every_compression_is_read(tmp_path, kind, compression):
    columns = make_events(3000) | {"event": np.arange(3000, dtype=np.uint64)}
    path = write(tmp_path / "a.root", columns, kind=kind, compression=compression)
    got = epoch_of(options(path, flat=["met", "event"]))
    assert got["x"][:, 0].tolist() == columns["met"].tolist()
    assert got["x"][:, 1].tolist() == columns["event"].tolist()
    assert got["mask"][:, 2:].sum() == 2 * ak.sum(ak.num(columns["Jet"]["pt"]))


# Identifiers


@both_kinds
@pytest.mark.parametrize("first", [2**53 + 1, 2**62 + 1, 2**63 + 5])
def test_identifiers_beyond_double_precision_stay_exact_to_the_end(tmp_path, kind, first):
    ids = np.arange(50, dtype=np.uint64) + np.uint64(first)
    if first < 2**63:
        ids = ids.astype(np.int64)
    path = write(tmp_path / "a.root", make_events(50) | {"event": ids}, kind=kind, steps=(20,))
    fold = [int(i) % 5 for i in ids]
    plain = options(path, split={"by": "event % 5", "val": [3], "test": [4]}, cut=f"event != {first + 7}")
    for part, wanted in (("train", {0, 1, 2}), ("val", {3}), ("test", {4})):
        entries = epoch_of(plain, part)["index"][:, 2].tolist()
        assert entries == [i for i in range(50) if fold[i] in wanted and i != 7]
    batch = next(iter(RootDataset(plain, index=True)))
    assert batch["index"].numpy().dtype == np.int64


def test_neighbouring_identifiers_are_told_apart_by_cuts(tmp_path):
    ids = np.array([2**60, 2**60 + 1, 2**60 + 2], np.int64)
    path = write(tmp_path / "a.root", {"id": ids, "met": np.arange(3, dtype=np.float32)})
    for i in range(3):
        assert epoch_of(options(path, jagged=None, cut=f"id == {ids[i]}"))["x"].tolist() == [[float(i)]]


def test_the_index_names_sample_file_and_entry(tmp_path):
    for name, n in (("a", 30), ("b", 0), ("c", 20), ("d", 10)):
        write(tmp_path / f"{name}.root", make_events(n, ord(name)), steps=(7,) if n else ())
    samples = {"one": [str(tmp_path / "a.root"), str(tmp_path / "b.root")], "two": str(tmp_path / "[cd].root")}
    got = epoch_of(options("", samples=samples, cut="met > 30"))
    expected = []
    for sample, file, name, n in ((0, 0, "a", 30), (1, 2, "c", 20), (1, 3, "d", 10)):
        expected += [[sample, file, int(e)] for e in np.flatnonzero(make_events(n, ord(name))["met"] > 30)]
    assert got["index"].tolist() == expected


# The same on both kinds of file


@settings(max_examples=15)
@given(
    num_events=st.integers(20, 60),
    cut=st.sampled_from([None, "met > 20", "count(Jet_pt) >= 2 and nbig < 3", "event % 2 == 0"]),
    jets=st.fixed_dictionaries(
        {"branches": st.permutations(["Jet_pt", "Jet_eta", "Jet_px"])},
        optional={"cut": st.just("Jet_pt > 30 and abs(Jet_eta) < 2"), "sort": st.sampled_from(["-Jet_pt", "Jet_eta"]),
                  "length": st.integers(1, 5)},
    ),
    missing=st.sampled_from([[], [-999.0]]),
)  # fmt: skip
def test_cuts_and_derived_columns_mean_the_same_on_both_kinds(tmp_path_factory, num_events, cut, jets, missing):
    folder = tmp_path_factory.mktemp("kinds")
    columns = make_events(num_events, seed=num_events)
    columns["met"][::5] = -999
    columns["met"][1::7] = math.nan
    plain = {
        "flat": ["met", "ht", "lead"],
        "derived": {
            "ht": "sum(Jet_pt)", "nbig": "count(Jet_pt[Jet_pt > 50])", "Jet_px": "Jet_pt * cos(Jet_eta)",
            "lead": "at(Jet_pt, 0, fill=-1.0)",
        },
        "jagged": {"jets": jets},
        "label": "is_signal == 1",
        "weight": "weight * 2",
        "missing": missing,
        "scale": "standard",
    }  # fmt: skip
    got = []
    for kind in KINDS:
        path = write(folder / kind / "a.root", columns, kind=kind, steps=(7, 18))
        got.append(epoch_of(options(path, cut=cut, **plain)))
    for name in got[0]:
        assert np.array_equal(got[0][name], got[1][name]), name


@both_kinds
def test_fields_are_found_by_either_spelling(tmp_path, kind):
    columns = make_events(10)
    path = write(tmp_path / "a.root", columns, kind=kind)
    spelling = {"TTree": ["Jet_pt"], "RNTuple": ["Jet_pt", "Jet.pt"]}[kind]
    results = [
        epoch_of(options(path, jagged={"j": {"branches": [n], "cut": f"{n} > 20"}}))["x"].tolist() for n in spelling
    ]
    assert all(r == results[0] for r in results)


def test_a_sample_may_mix_trees_and_ntuples(tmp_path):
    for i, kind in enumerate(KINDS):
        write(tmp_path / f"{i}.root", make_events(30, 5), kind=kind, steps=(10,))
    got = epoch_of(options(tmp_path))
    first, second = got["x"][:30], got["x"][30:]
    assert np.array_equal(first, second)
    assert got["index"][:, 1].tolist() == [0] * 30 + [1] * 30


# Files of all sorts


@both_kinds
def test_files_without_events_stand_among_others(tmp_path, kind):
    sizes = [0, 5, 0, 0, 7, 0]
    for i, n in enumerate(sizes):
        write(tmp_path / f"{i}.root", make_events(n, i), kind=kind)
    plain = options(tmp_path)
    got = scanned(plain)
    assert [f.entries for f in got.files] == sizes
    assert [len(f.blocks) for f in got.files] == [0, 1, 0, 0, 1, 0]
    expected = np.concatenate([make_events(n, i)["met"] for i, n in enumerate(sizes)])
    assert epoch_of(plain)["x"][:, 0].tolist() == expected.tolist()


@both_kinds
def test_classes_as_trees_of_one_file(tmp_path, kind):
    path = tmp_path / "tmva.root"
    with uproot.recreate(path) as file:
        add(file, make_events(30, 1), tree="TreeS", kind=kind)
        add(file, make_events(50, 2), tree="TreeB", kind=kind)
    samples = {"S": {"files": str(path), "tree": "TreeS", "label": 1}, "B": {"files": f"{path}:TreeB", "label": 0}}
    got = epoch_of(options("", samples=samples))
    assert got["label"].tolist() == [1] * 30 + [0] * 50
    expected = np.concatenate([make_events(30, 1)["met"], make_events(50, 2)["met"]])
    assert got["x"][:, 0].tolist() == expected.tolist()


@both_kinds
def test_trees_in_folders_of_a_file(tmp_path, kind):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        add(file, make_events(10, 1), tree="analysis/nominal/Events", kind=kind)
        add(file, make_events(20, 2), tree="analysis/shifted/Events", kind=kind)
    for name, n in (("nominal", 10), ("shifted", 20)):
        got = epoch_of(options("", samples={"all": {"files": str(path), "tree": f"analysis/{name}/Events"}}))
        assert len(got["x"]) == n


def test_of_several_cycles_the_newest_is_read(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        add(file, make_events(10, 1))
        add(file, make_events(20, 2))
    assert epoch_of(options(path))["x"][:, 0].tolist() == make_events(20, 2)["met"].tolist()


def test_all_ways_to_name_files_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNS", "runs")
    for i, name in enumerate(
        ["a.root", "globbed/b1.root", "globbed/b2.root", "runs/c.root", "listed/d.root", "e.root"]
    ):
        write(tmp_path / name, make_events(3, i), tree="nominal/Events" if name == "e.root" else "Events")
    (tmp_path / "files.txt").write_text("# of today\n\nlisted/d.root:Events\n")
    named = ["a.root", "globbed/b?.root", "$RUNS", "files.txt", "e.root:nominal/Events"]
    got = epoch_of(options("", samples={"all": {"files": named, "tree": "Events"}}))
    expected = np.concatenate([make_events(3, i)["met"] for i in range(6)])
    assert got["x"][:, 0].tolist() == expected.tolist()


@both_kinds
def test_baskets_of_all_sizes_are_read_once_each(tmp_path, kind, small_blocks):
    columns = make_events(100)
    path = write(tmp_path / "a.root", columns, kind=kind, steps=(1, 2, 50, 51, 99))
    plain = options(path)
    assert [b[:2] for b in scanned(plain).files[0].blocks] == [(0, 1), (1, 2), (2, 50), (50, 51), (51, 99), (99, 100)]
    got = epoch_of(plain | {"batch_size": 7, "chunk_size": 21})
    assert got["x"][:, 0].tolist() == columns["met"].tolist()
    assert got["index"][:, 2].tolist() == list(range(100))


# What can't be used


def unusable_columns():
    return {
        "met": np.arange(5, dtype=np.float32),
        "nested": ak.Array([[[1, 2], [3]], [], [[4]], [[]], [[5]]]),
        "text": ak.Array(["a", "b", "c", "d", "e"]),
    }


def test_strings_and_nested_lists_do_no_harm_where_nobody_asks(tmp_path):
    path = write(tmp_path / "a.root", unusable_columns(), kind="RNTuple")
    assert epoch_of(options(path, jagged=None))["x"].tolist() == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert {"nested", "text", "met"} <= set(open_tree(Location(str(path))).names())


@pytest.mark.parametrize(
    ("name", "holds"),
    [("nested", r"lists of lists \(std::vector<std::vector<std::int64_t>>\)"), ("text", "std::string")],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda name: {"flat": [name]},
        lambda name: {"jagged": {"o": [name]}},
        lambda name: {"cut": f"{name} > 1"},
        lambda name: {"flat": ["new"], "derived": {"new": f"count({name})"}},
        lambda name: {"weight": name},
    ],
)
def test_strings_and_nested_lists_are_named_where_they_are_asked_for(tmp_path, name, holds, use):
    path = write(tmp_path / "a.root", unusable_columns(), kind="RNTuple")
    message = rf"branch '{name}' can't be used: it holds {holds}.*\(.*a\.root, tree 'Events'\); remove it"
    with pytest.raises(BranchError, match=message):
        scanned(options(path, **({"jagged": None} | use(name))))


def test_records_are_named_with_their_fields(tmp_path):
    path = write(tmp_path / "a.root", make_events(5), kind="RNTuple")
    with pytest.raises(BranchError, match=r"branch 'Jet' can't be used: it holds .*a\.root"):
        scanned(options(path, jagged={"jets": ["Jet"]}))


@both_kinds
def test_a_fixed_size_branch_may_be_a_collection(tmp_path, kind):
    cov = np.arange(15, dtype=np.float32).reshape(5, 3)
    path = write(tmp_path / "a.root", {"met": np.zeros(5, np.float32), "cov": cov}, kind=kind)
    got = epoch_of(options(path, flat=None, jagged={"c": {"branches": ["cov"], "sort": "-cov", "length": 2}}))
    assert got["x"].tolist() == cov[:, [2, 1]].tolist()
    parsed = parse_data(options(path, jagged=None, flat=["cov"]))
    assert scanned(options(path, jagged=None, flat=["cov"])).flat == ("cov[0]", "cov[1]", "cov[2]")
    assert parsed.features == ("cov",)

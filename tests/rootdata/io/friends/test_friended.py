"""The number of an event in its tree, and friend trees, are read as if they were branches of it."""

import shutil
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from files_for_tests import epoch_of, listed, lists_of, make_events, options, scanned, write
from servers_for_tests import HTTPServer

from rootdata.errors import BranchError, FileError, ResumeError, SpecsError
from rootdata.io.friends.friended import open_friended
from rootdata.io.reader import BlockReader
from rootdata.io.trees import has_index, open_tree
from rootdata.loading.dataset import RootDataset
from rootdata.location import Friend, Location

DATA = Path(__file__).parents[3] / "data"
BY_ENTRY = {"by": "entry % 3", "val": [1], "test": [2]}


@pytest.fixture(params=["TTree", "RNTuple", "csv"])
def files(request, tmp_path):
    """Three files of some entries, in blocks that do not begin at 0."""
    made = []
    for i, n in enumerate((5_000, 1, 700)):
        columns = {k: v for k, v in make_events(n, seed=i).items() if k != "Jet"}
        path = tmp_path / f"{i}.{'csv' if request.param == 'csv' else 'root'}"
        if request.param == "csv":
            rows = zip(*(c.tolist() for c in columns.values()), strict=True)
            path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
        else:
            write(path, columns, kind=request.param, steps=[k for k in (1_000, 1_700, 4_100) if k < n])
        made.append(str(path))
    return made


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunk_size": 64, "batch_size": 32, "num_workers": 3},
        {"cut": "entry >= 7 and met > 20", "chunk_size": 512},
        {"split": BY_ENTRY, "weight": "1 + entry", "derived": {"twice": "2 * entry"}, "flat": ["entry", "twice"]},
    ],
)
def test_entry_is_the_number_of_the_event_in_its_file(files, how):
    plain = options(files, jagged=None) | {"flat": ["entry", "met"]} | how
    got = epoch_of(plain, "train", scale="none")
    assert len(got["index"]) > 0
    assert np.array_equal(got["x"][:, 0], got["index"][:, 2])
    if "split" in how:
        assert (got["index"][:, 2] % 3 == 0).all()
        assert np.array_equal(got["weight"], 1 + got["index"][:, 2].astype(np.float32))
        assert np.array_equal(got["x"][:, 1], 2 * got["index"][:, 2])
    if "cut" in how:
        assert got["index"][:, 2].min() >= 7


def test_parts_by_entry_share_every_event(files):
    plain = options(files, jagged=None, split=BY_ENTRY)
    found = [epoch_of(plain, part)["index"] for part in ("train", "val", "test")]
    together = np.concatenate(found)
    assert len(np.unique(together, axis=0)) == len(together) == 5_701


def test_a_resumed_epoch_has_the_same_entries(files):
    plain = options(files, jagged=None) | {"flat": ["entry"], "chunk_size": 256, "batch_size": 32}
    whole = [b["x"] for b in RootDataset(plain, "train")]
    first = RootDataset(plain, "train")
    batches = iter(first)
    for _ in range(20):
        next(batches)
    resumed = RootDataset(plain, "train", num_workers=2)
    resumed.load_state_dict(first.state_dict())
    assert all(np.array_equal(a, b["x"]) for a, b in zip(whole[20:], resumed, strict=True))


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
def test_a_branch_of_that_name_wins(tmp_path, kind):
    path = write(tmp_path / "own.root", {"entry": np.arange(100, dtype=np.int32)[::-1], "met": np.ones(100)}, kind=kind)
    got = epoch_of(options(path, jagged=None) | {"flat": ["entry"]})
    assert got["x"][:, 0].tolist() == list(range(99, -1, -1))
    with BlockReader() as reader:
        assert reader.describe(Location(str(path)), ["entry"]).branches["entry"].dtype == "int32"


def test_files_with_and_without_such_a_branch_are_not_mixed(tmp_path):
    has = write(tmp_path / "has.root", {"entry": np.arange(50), "met": np.ones(50)})
    lacks = write(tmp_path / "lacks.root", {"met": np.ones(50)})
    for files in ([has, lacks], [lacks, has]):
        with pytest.raises(BranchError, match=rf"'entry' is a branch in {has}, but {lacks} has none"):
            scanned(options([str(f) for f in files], jagged=None, cut="entry > 3"))


# Friends that the file names


def test_friends_that_a_file_names_are_followed_where_they_are_aligned():
    tree = open_friended(Location(str(DATA / "friends.root"), "Events"))
    assert tree.names() == ["i", "x", "z", "extra.x", "zs", "w", "other.z", "other.x", "other.zs"]
    names = ["x", "z", "extra.z", "extra.x", "w", "near.w", "zs", "num(extra.zs)", "entry"]
    for start, stop in ((0, 60), (7, 30), (59, 60), (4, 4)):
        got, at = tree.read(names, start, stop), np.arange(start, stop)
        for name, wanted in {"x": at, "z": 10 * at, "extra.z": 10 * at, "extra.x": -at, "w": 2 * at, "near.w": 2 * at,
                             "num(extra.zs)": at % 3, "entry": at}.items():  # fmt: skip
            assert np.array_equal(got[name], wanted), name
        assert listed(got["zs"]) == [[i] * (i % 3) for i in at]
    assert [tree.describe(name).friend for name in ("x", "z", "extra.x", "w")] == ["", "extra", "extra", "near"]
    with pytest.raises(
        BranchError,
        match=r"'v' not found.*'few'.* has 50 entries, tree 'Events' of .* has 60: .*"
        r"'gone', which the file names, can't be followed: .*not_there.root does",
    ):
        tree.describe("v")  # fmt: skip
    tree.close()


def test_a_name_that_no_tree_has_is_near_to_those_of_friends_too():
    friends = {"more": str(DATA / "friends_extra.root:extra")}
    sample = {"files": str(DATA / "friends.root:Events"), "friends": friends}
    plain = {"samples": {"a": sample}, "flat": ["x"], "split": {"train": 1.0}}
    for name, near in (("zss", "'zs'"), ("more.zz", "'more.z'"), ("extra.zss", "'extra.zs'"), ("xx", "'x'")):
        words = rf"branch '{name}' not found; nearest: .*{near}.* and its friends 'more'"
        with pytest.raises(BranchError, match=words):
            scanned(plain | {"cut": f"{name} > 0"})
    assert scanned(plain | {"cut": "x > 3"}).num_events("train") > 0


def test_no_friend_is_opened_that_nobody_asks_for(monkeypatch):
    opened = []
    monkeypatch.setattr("rootdata.io.friends.friended.friends_in", lambda tree: opened.append(tree) or [])
    tree = open_friended(Location(str(DATA / "friends.root"), "Events"))
    tree.read(["x", "i"], 0, 60)
    assert (opened, tree.location.friends) == ([], ())
    tree.close()


def test_a_server_opens_no_file_that_another_one_names():
    tree = open_friended(Location(str(DATA / "friends.root"), "Events"), follow=False)
    assert tree.names() == ["i", "x"]
    with pytest.raises(BranchError, match=r"'z' not found"):
        tree.describe("z")
    tree.close()


def test_a_friend_that_a_file_names_and_that_changed_is_read_anew(tmp_path):
    for name in ("friends.root", "friends_extra.root"):
        shutil.copy(DATA / name, tmp_path)
    plain = options(f"{tmp_path}/friends.root:Events", jagged=None) | {"flat": ["z"], "derived": None}
    plain = {k: v for k, v in plain.items() if v is not None}
    assert epoch_of(plain)["x"][:, 0].tolist() == [10 * i for i in range(60)]
    reading = RootDataset(plain, "train")
    write(tmp_path / "friends_extra.root", {"z": np.arange(60.0), "x": np.zeros(60)}, tree="extra")
    with pytest.raises(FileError, match="the file has changed: start again"):
        list(reading)
    assert epoch_of(plain)["x"][:, 0].tolist() == list(range(60))
    specs = RootDataset(plain, "train").specs
    assert [f.is_named for file in specs.files for f in file.friends] == [True]
    specs.save(tmp_path / "specs.json")
    assert epoch_of(plain, specs=tmp_path / "specs.json")["x"][:, 0].tolist() == list(range(60))


def test_a_friend_that_root_would_find_by_an_index_is_refused():
    main = Location(str(DATA / "friends.root"), "Events", friends=(Friend(str(DATA / "indexed.root")),))
    with pytest.raises(FileError, match=r"tree 'indexed' of .*indexed.root has an index \(TTreeIndex\)"):
        open_friended(main)


def test_a_word_is_no_index(tmp_path):
    path = write(tmp_path / "a.root", {"TTreeIndex": np.arange(3.0)}, tree="TTreeIndex")
    tree = open_tree(Location(str(path)))
    assert not has_index(tree)
    tree.close()


# Friends of one's own

KINDS = ("TTree", "RNTuple", "parquet")


def write_friend(path, kind, columns, **how):
    if kind != "parquet":
        return write(path.with_suffix(".root"), columns, kind=kind, **how)
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({k: ak.to_arrow(ak.Array(v), extensionarray=False) for k, v in columns.items()}),
                        path.with_suffix(".parquet"), row_group_size=300)  # fmt: skip
    return path.with_suffix(".parquet")


@pytest.fixture
def befriended(tmp_path):
    """Write three files of events, and the scores of each, of any kind and in blocks of their own."""

    def make(kind, friend_kind, name="{}_Friend"):
        for i, n in enumerate((1_000, 40, 500)):
            columns = make_events(n, seed=i)
            counts = ak.num(columns["Jet"]["pt"])
            score = {"score": np.arange(n) + 0.5 + 10_000 * i, "met": -np.ones(n, np.float32), "entry": np.arange(n)}
            jets = {"Jet_score": lists_of(np.arange(counts.to_numpy().sum(), dtype=np.float32), counts)}
            write(tmp_path / f"f{i}.root", columns, kind=kind, steps=[s for s in (200, 700) if s < n])
            how = {} if friend_kind == "parquet" else {"tree": "scores", "steps": [s for s in (300,) if s < n]}
            write_friend(tmp_path / "beside" / name.format(f"f{i}"), friend_kind, score | jets, **how)
        return tmp_path

    return make


@pytest.mark.parametrize(("kind", "friend_kind"), [("TTree", k) for k in KINDS] + [("RNTuple", "TTree")])
@pytest.mark.parametrize("name", ["{}_Friend", "scores_{}", "{}"])
def test_branches_of_friends_are_read_as_if_they_stood_in_the_tree(befriended, kind, friend_kind, name):
    folder = befriended(kind, friend_kind, name)
    jets = ["Jet_pt", "Jet_score"]
    plain = options(f"{folder}/f*.root", jagged={"jets": jets}) | {"chunk_size": 128, "batch_size": 64}
    plain["samples"]["all"]["friends"] = {"s": f"{folder}/beside/*"}
    plain |= {"flat": ["met", "score", "s.met", "low"], "derived": {"low": "s.score - score + s.entry - entry"}}
    got = epoch_of(plain)
    index = got["index"]
    assert len(index) == 1_540
    assert (got["x"][:, 0] > 0).all()  # that of the tree
    assert np.array_equal(got["x"][:, 1], index[:, 2] + 0.5 + 10_000 * index[:, 1])
    assert (got["x"][:, 2] == -1).all()
    assert (got["x"][:, 3] == 0).all()
    assert {f.alias for file in scanned({k: v for k, v in plain.items() if "size" not in k}).files
            for f in file.friends} == {"s"}  # fmt: skip


def test_a_list_of_friends_takes_the_names_of_their_trees(befriended):
    folder = befriended("TTree", "TTree")
    plain = options(f"{folder}/f*.root", jagged=None) | {"flat": ["scores.met", "score"]}
    plain["samples"]["all"]["friends"] = [f"{folder}/beside/*.root"]
    assert (epoch_of(plain)["x"][:, 0] == -1).all()


def test_a_friend_of_other_length_or_of_the_same_name_is_refused(befriended):
    folder = befriended("TTree", "TTree")
    plain = options([f"{folder}/f{i}.root" for i in (0, 2)], jagged=None) | {"flat": ["score"]}
    plain["samples"]["all"]["friends"] = [f"{folder}/beside/f0_Friend.root", f"{folder}/beside/f1_Friend.root"]
    with pytest.raises(FileError, match=r"f1_Friend\.root is called after none of the 2 files"):
        scanned(plain)
    write(folder / "a.root", {"score": np.zeros(1_000)}, tree="scores")
    write(folder / "b.root", {"score": np.zeros(499)}, tree="scores")
    plain["samples"]["all"]["friends"] = [f"{folder}/a.root", f"{folder}/b.root"]
    with pytest.raises(FileError, match=r"tree 'scores' of .*b.root has 499 entries, tree 'Events' of .* has 500"):
        scanned(plain)
    plain["samples"]["all"]["friends"] = [f"{folder}/beside/f{i}_Friend.root" for i in (0, 2)] * 2
    with pytest.raises(FileError, match="named twice"):
        scanned(plain)
    for i in (0, 2):
        shutil.copy(folder / f"beside/f{i}_Friend.root", folder / f"beside/f{i}_again.root")
    plain["samples"]["all"]["friends"] = [f"{folder}/beside/f{i}_*.root" for i in (0, 2)]
    with pytest.raises(FileError, match="two friends called 'scores'"):
        scanned(plain)


def test_a_friend_that_changed_is_refused_as_a_file_that_changed(befriended, tmp_path):
    folder = befriended("TTree", "TTree")
    plain = options(f"{folder}/f*.root", jagged=None) | {"flat": ["score"], "chunk_size": 64, "batch_size": 32}
    plain["samples"]["all"]["friends"] = f"{folder}/beside/*.root"
    before = RootDataset(plain, "train")
    batches = iter(before)
    for _ in range(4):
        next(batches)
    place = before.state_dict()
    list(batches)
    friend = folder / "beside" / "f1_Friend.root"
    write(friend, {"score": np.full(40, 7.0)}, tree="scores")
    with pytest.raises(FileError, match="has changed"):
        list(before)
    with pytest.raises(SpecsError, match=r"f1.root with .* bytes, it has"):
        RootDataset(plain, "train", specs=before.specs)
    again = RootDataset(plain, "train")
    assert (np.concatenate([b["x"] for b in again]) == 7).sum() == 40
    with pytest.raises(ResumeError, match="other events"):
        again.load_state_dict(place)


def test_a_friend_of_a_server_is_read_and_found_changed(befriended):
    folder = befriended("TTree", "TTree")
    plain = options(f"{folder}/f*.root", jagged=None) | {"flat": ["score"]}
    with HTTPServer(folder / "beside") as server:
        plain["samples"]["all"]["friends"] = [f"{server.url}/f{i}_Friend.root" for i in range(3)]
        got = epoch_of(plain)
    assert np.array_equal(got["x"][:, 0], got["index"][:, 2] + 0.5 + 10_000 * got["index"][:, 1])


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A file that names a friend, which lies beside it; and a function that reads one of the friend's branches."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("friends.root", "friends_extra.root"):
        shutil.copy(DATA / name, home)
    monkeypatch.chdir(tmp_path)

    def values(folder, **how):
        plain = options(f"{folder}/friends.root:Events", jagged=None, cache={"dir": str(tmp_path / "blocks")})
        plain |= {"flat": ["z"], "derived": None}
        return epoch_of({k: v for k, v in plain.items() if v is not None}, **how)["x"][:, 0].tolist()

    return home, values


def rewritten(path, factor):
    write(path, {"z": np.arange(60.0) * factor, "x": np.zeros(60)}, tree="extra")


def test_a_named_friend_is_that_of_the_folder_in_which_the_file_lies_now(named, tmp_path):
    home, values = named
    values(home)
    RootDataset({"samples": {"a": f"{home}/friends.root:Events"}, "flat": ["z"]}, "train").specs.save(
        tmp_path / "s.json"
    )
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    rewritten(moved / "friends_extra.root", 7)
    assert values(moved) == [7 * i for i in range(60)]
    with pytest.raises((FileError, SpecsError)):
        list(
            RootDataset(
                {"samples": {"a": f"{moved}/friends.root:Events"}, "flat": ["z"]}, "train", specs=tmp_path / "s.json"
            )
        )
    shutil.copy(DATA / "friends_extra.root", moved)
    shutil.rmtree(home)
    known = RootDataset(
        {"samples": {"a": f"{moved}/friends.root:Events"}, "flat": ["z"]}, "train", specs=tmp_path / "s.json"
    )
    assert sum(len(batch["x"]) for batch in known) == known.specs.num_events("train")


def test_a_named_friend_that_is_found_elsewhere_now_is_another_one(named, tmp_path):
    home, values = named
    rewritten(tmp_path / "friends_extra.root", 3)  # in the working folder, where ROOT looks next
    assert values(home) == [10 * i for i in range(60)]
    (home / "friends_extra.root").unlink()
    assert values(home) == [3 * i for i in range(60)]
    rewritten(home / "friends_extra.root", 5)
    assert values(home) == [5 * i for i in range(60)]
    (home / "friends_extra.root").unlink()
    (tmp_path / "friends_extra.root").unlink()
    with pytest.raises(
        BranchError, match=r"'z' not found.*friend tree 'extra', which the file names, can't be followed"
    ):
        values(home)

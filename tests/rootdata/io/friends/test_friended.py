"""The number of an event in its tree, and friend trees, are read as if they were branches of it."""

import numpy as np
import pytest
from files_for_tests import epoch_of, make_events, options, scanned, write

from rootdata.errors import BranchError
from rootdata.io.reader import BlockReader
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location

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

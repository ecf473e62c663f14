import os

import pytest
from files_for_tests import listed, make_events, options, write
from hypothesis import given
from hypothesis import strategies as st

from rootdata import opening
from rootdata.dataset import RootDataset
from rootdata.directories import Directories
from rootdata.errors import FileError
from rootdata.files import Location
from rootdata.trees import open_tree

NAMES = ("met", "event", "Jet_pt", "Jet_eta")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("directories") / "a.root", make_events(200), steps=(30, 90, 91)))


def remembered(path, **options):
    directories, tree = Directories(**options), open_tree(Location(path))
    directories.keep(path, lambda: tree.directory(NAMES))
    return directories, tree


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_is_read_without_opening_is_what_the_tree_gives(path, one, other):
    directories, tree = remembered(path)
    start, stop = sorted((one, other))
    found, expected = directories.read(path, NAMES, start, stop), tree.read(NAMES, start, stop)
    tree.close()
    assert {n: listed(c) for n, c in found.items()} == {n: listed(c) for n, c in expected.items()}
    assert list(found) == list(NAMES)
    assert found["Jet_pt"].offsets is found["Jet_eta"].offsets


def test_other_branches_and_other_files_are_not_known(path):
    directories, tree = remembered(path)
    assert directories.read(path, NAMES[:2], 0, 10) is None
    assert directories.read(path + "x", NAMES, 0, 10) is None
    tree.close()


def test_a_file_that_changes_is_forgotten(tmp_path, path):
    other = str(write(tmp_path / "b.root", make_events(50)))
    directories, tree = remembered(other)
    tree.close()
    assert directories.read(other, NAMES, 0, 50) is not None
    os.utime(other, ns=(1, 1))
    assert directories.read(other, NAMES, 0, 50) is None
    os.utime(other, ns=(2, 2))
    assert directories.read(other, NAMES, 0, 50) is None


def test_no_more_is_remembered_than_the_bound(path):
    directories, tree = remembered(path, max_bytes=10)
    assert directories.read(path, NAMES, 0, 10) is None
    tree.close()


def test_ntuples_are_left_to_uproot(tmp_path):
    tree = open_tree(Location(str(write(tmp_path / "n.root", make_events(20), kind="RNTuple"))))
    assert tree.directory(["met"]) is None
    tree.close()


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Options for more files than are kept open, and the places that are opened."""
    for i in range(opening.OPEN_TREES + 5):
        write(tmp_path / f"{i:02}.root", make_events(10, i))
    opened = []
    original = opening.open_tree
    monkeypatch.setattr(opening, "open_tree", lambda *a, **k: opened.append(a) or original(*a, **k))
    return options(tmp_path, batch_size=32), opened


def test_a_second_epoch_opens_no_file_again(many):
    plain, opened = many
    dataset = RootDataset(plain, index=True)
    first = sorted(row for batch in dataset for row in batch["index"].tolist())
    opened.clear()
    assert sorted(row for batch in dataset for row in batch["index"].tolist()) == first
    assert opened == []


def test_a_file_that_is_replaced_between_epochs_is_noticed(many, tmp_path):
    plain, _ = many
    dataset = RootDataset(plain)
    assert sum(len(batch["label"]) for batch in dataset) == 10 * (opening.OPEN_TREES + 5)
    write(tmp_path / "03.root", make_events(10, 99))
    with pytest.raises(FileError, match=r"03\.root is not the file that the first pass saw"):
        list(dataset)

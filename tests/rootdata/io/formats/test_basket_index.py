import os
from pathlib import Path

import pytest
import uproot
from files_for_tests import listed, make_events, options, write
from hypothesis import given
from hypothesis import strategies as st

from rootdata.errors import FileError
from rootdata.io import tree_pool, trees
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.io.trees import open_tree
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location

NAMES = ("met", "event", "Jet_pt", "Jet_eta")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(write(tmp_path_factory.mktemp("baskets") / "a.root", make_events(200), steps=(30, 90, 91)))


def remembered(path, **options):
    index, tree = BasketIndex(**options), open_tree(Location(path))
    index.keep((path, "Events"), lambda: tree.baskets(NAMES))
    return index, tree


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_is_read_without_opening_is_what_the_tree_gives(path, one, other):
    index, tree = remembered(path)
    start, stop = sorted((one, other))
    found, expected = index.read((path, "Events"), NAMES, start, stop), tree.read(NAMES, start, stop)
    tree.close()
    assert {n: listed(c) for n, c in found.items()} == {n: listed(c) for n, c in expected.items()}
    assert list(found) == list(NAMES)
    assert found["Jet_pt"].offsets is found["Jet_eta"].offsets


def test_other_branches_and_other_files_are_not_known(path):
    index, tree = remembered(path)
    assert index.read((path, "Events"), NAMES[:2], 0, 10) is None
    assert index.read((path + "x", "Events"), NAMES, 0, 10) is None
    assert index.read((path, "Other"), NAMES, 0, 10) is None
    tree.close()


def test_a_file_that_changes_is_forgotten(tmp_path, path):
    other = str(write(tmp_path / "b.root", make_events(50)))
    index, tree = remembered(other)
    tree.close()
    assert index.read((other, "Events"), NAMES, 0, 50) is not None
    os.utime(other, ns=(1, 1))
    assert index.read((other, "Events"), NAMES, 0, 50) is None
    os.utime(other, ns=(2, 2))
    assert index.read((other, "Events"), NAMES, 0, 50) is None


def test_no_more_is_remembered_than_the_bound(path):
    index, tree = remembered(path, max_bytes=10)
    assert index.read((path, "Events"), NAMES, 0, 10) is None
    tree.close()


def test_ntuples_are_left_to_uproot(tmp_path):
    tree = open_tree(Location(str(write(tmp_path / "n.root", make_events(20), kind="RNTuple"))))
    assert tree.baskets(["met"]) is None
    tree.close()


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Options for more files than are kept open, and the places that are opened."""
    for i in range(tree_pool.OPEN_TREES + 5):
        write(tmp_path / f"{i:02}.root", make_events(10, i))
    opened = []
    original = tree_pool.open_friended
    monkeypatch.setattr(tree_pool, "open_friended", lambda *a, **k: opened.append(a) or original(*a, **k))
    return options(tmp_path, batch_size=32), opened


def rows_of(dataset):
    return sorted(row for batch in dataset for row in batch["index"].tolist())


def test_small_files_are_opened_by_the_first_pass_and_never_again(many):
    plain, opened = many
    dataset = RootDataset(plain, index=True)
    assert len(opened) >= tree_pool.OPEN_TREES + 5
    opened.clear()
    first = rows_of(dataset)
    assert rows_of(dataset) == first
    assert rows_of(RootDataset(plain, index=True)) == first  # as in a later run
    assert opened == []


def test_without_what_the_first_pass_kept_they_are_opened_once(many, cache_folder):
    plain, opened = many
    first = rows_of(RootDataset(plain, index=True))
    for kept in cache_folder.rglob("*.bin"):
        kept.unlink()
    dataset = RootDataset(plain, index=True)
    opened.clear()
    assert rows_of(dataset) == first
    assert len(opened) == tree_pool.OPEN_TREES + 5
    assert rows_of(dataset) == first
    assert len(opened) == tree_pool.OPEN_TREES + 5


def test_large_files_are_not_remembered(tmp_path, cache_folder, monkeypatch):
    monkeypatch.setattr(trees, "BLOCK_ENTRIES", 1000)
    write(tmp_path / "a.root", make_events(3000), steps=(1000, 2000))
    dataset = RootDataset(options(tmp_path))
    assert len(dataset.specs.files[0].blocks) > 1
    assert list(cache_folder.rglob("*.bin")) == []


def test_what_is_saved_comes_back(path, tmp_path):
    index, tree = remembered(path)
    other = tree.baskets(NAMES[:2])
    expected = listed(tree.read(NAMES, 5, 95)["Jet_pt"])
    tree.close()
    index.add(("elsewhere", "Events"), other)
    index.save(tmp_path / "a.bin")
    again = BasketIndex.load(tmp_path / "a.bin")
    assert listed(again.read((path, "Events"), NAMES, 5, 95)["Jet_pt"]) == expected
    assert again._known.keys() == {(path, "Events"), ("elsewhere", "Events")}
    assert again._known["elsewhere", "Events"].kinds == other.kinds
    assert again._known["elsewhere", "Events"].numbers.tolist() == other.numbers.tolist()


def test_nothing_is_remembered_of_what_is_damaged(path, tmp_path):
    index, tree = remembered(path)
    tree.close()
    kept = tmp_path / "a.bin"
    index.save(kept)
    whole = kept.read_bytes()
    for cut in range(0, len(whole), 37):
        kept.write_bytes(whole[:cut])
        assert BasketIndex.load(kept).read((path, "Events"), NAMES, 0, 10) is None
    expected = listed(index.read((path, "Events"), NAMES, 0, 200)["met"])
    for at in range(0, len(whole), 11):
        kept.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        found = BasketIndex.load(kept).read((path, "Events"), NAMES, 0, 200)
        assert found is None or listed(found["met"]) == expected
    assert BasketIndex.load(tmp_path / "absent.bin").read((path, "Events"), NAMES, 0, 10) is None


def test_a_file_that_was_replaced_by_one_of_the_same_size_and_time_is_noticed(tmp_path):
    place = str(write(tmp_path / "b.root", make_events(50)))
    index, tree = remembered(place)
    tree.close()
    status = Path(place).stat()
    content = bytearray((tmp_path / "b.root").read_bytes())
    uuid = uproot.open(place).file.uuid.bytes
    at = content.index(uuid)
    content[at] ^= 1
    (tmp_path / "b.root").write_bytes(content)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert index.read((place, "Events"), NAMES, 0, 50) is None


def test_a_file_that_is_replaced_between_epochs_is_noticed(many, tmp_path):
    plain, _ = many
    dataset = RootDataset(plain)
    assert sum(len(batch["label"]) for batch in dataset) == 10 * (tree_pool.OPEN_TREES + 5)
    write(tmp_path / "03.root", make_events(10, 99))
    with pytest.raises(FileError, match=r"03\.root is not the file that the first pass saw"):
        list(dataset)

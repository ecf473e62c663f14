from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from files_for_tests import write
from servers_for_tests import free_port

from rootdata.errors import BranchError, FileError
from rootdata.io.tree_pool import TreePool
from rootdata.location import Location
from rootdata.options.read import ReadConfig


@pytest.fixture
def locations(tmp_path):
    """Six files; number i has i + 1 entries."""
    return [Location(str(write(tmp_path / f"{i}.root", {"x": np.arange(i + 1.0)}))) for i in range(6)]


def is_open(tree):
    return not tree.main._file.closed


def test_an_opener_keeps_few_trees_open_and_closes_all(locations):
    lent = []
    with TreePool(limit=3) as opener:
        for location in locations * 2:
            with opener(location) as tree:
                lent.append(tree)
                assert tree.num_entries == int(Path(location.path).stem) + 1
                assert is_open(tree)
            assert sum(map(is_open, lent)) <= 3
        assert sum(map(is_open, lent)) == 3
    assert not any(map(is_open, lent))


def test_an_opener_lends_a_tree_to_one_at_a_time(locations):
    with TreePool() as opener:
        with opener(locations[0]) as first, opener(locations[0]) as second:
            assert first is not second  # uproot's handles are not made for several threads
        with opener(locations[0]) as third:
            assert third in (first, second)
        with opener(Location(locations[0].path, "Events")) as fourth:
            assert fourth in (first, second)  # the same tree by its full name


def test_an_opener_takes_trees_back_after_an_error(locations):
    with TreePool() as opener:
        for _ in range(3):
            with pytest.raises(BranchError), opener(locations[0]) as tree:
                tree.describe("y")
        with opener(locations[0]) as again:
            assert again is tree
    assert not is_open(tree)


@pytest.mark.long
def test_the_trees_of_a_file_are_listed_where_a_copy_can_be_read(tmp_path, locations):
    path = locations[3].path
    for bad in (str(tmp_path / "absent.root"), f"http://127.0.0.1:{free_port()}/3.root"):
        with TreePool(ReadConfig(patience=5, deadline=5)) as opener:
            contents = opener.look_into(Location(bad, replicas=(path,)), leave=lambda names: None)
            assert [(tree.name, tree.entries) for tree in contents.trees] == [("Events", 4)]
            with pytest.raises(FileError, match=r"absent|can't be reached"):
                opener.look_into(Location(bad, replicas=(bad,)), leave=lambda names: None)


def test_an_opener_serves_many_threads(locations):
    with TreePool(limit=2) as opener, ThreadPoolExecutor(8) as pool:

        def total(i):
            with opener(locations[i % 6]) as tree:
                return float(tree.read(["x"], 0, tree.num_entries)["x"].sum())

        assert list(pool.map(total, range(60))) == [sum(range(i % 6 + 1)) for i in range(60)]

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import uproot
from files_for_tests import make_events, write

from rootdata.io.formats.records import KEY_BYTES, Records, nearest_record
from rootdata.io.trees import open_tree
from rootdata.location import Location

BY_ROOT = Path(__file__).parents[3] / "data" / "ntuples.root"


def pages_of(path, tree):
    with uproot.open(path) as file:
        lists = [column for cluster in file[tree].page_link_list for column in cluster]
    return [(int(p.locator.offset), int(p.locator.offset + p.locator.num_bytes)) for c in lists for p in c.pages]


def test_the_key_before_a_page_tells_its_record(tmp_path):
    path = write(tmp_path / "a.root", make_events(500), kind="RNTuple", steps=(100, 101))
    content = path.read_bytes()
    for start, stop in pages_of(path, "Events"):
        begin = start - KEY_BYTES
        assert nearest_record(content[begin:stop], begin) == (start, stop)
        assert nearest_record(content[begin:stop], begin + 1) is None  # a key says where it lies


def test_all_keys_tell_the_record_of_any_place():
    content = BY_ROOT.read_bytes()
    records = Records(lambda at, n: content[at : at + n])
    assert records.around(0) == records.around(99) == (0, 0)
    assert records.around(len(content)) is None
    for start, stop in pages_of(BY_ROOT, "between"):
        first, last = records.around(start)
        assert first <= start < stop <= last
        assert {records.around(at) for at in (start, start + 1, stop - 1)} == {(first, last)}


@pytest.mark.parametrize("content", [b"", b"root", b"root" + bytes(100), np.random.default_rng(0).bytes(1000)])
def test_of_what_is_no_file_no_record_is_known(content):
    assert Records(lambda at, n: content[at : at + n]).around(5) in {None, (0, 0)}


def test_pages_in_a_wrong_place_are_noticed_without_a_checksum(tmp_path, monkeypatch):
    # uproot writes none, and what is not compressed has no other.
    path = write(tmp_path / "a.root", {"x": np.arange(50), "y": np.arange(50)}, kind="RNTuple")
    tree = open_tree(Location(str(path)))
    (cluster,) = [c for c in tree._clusters if c.entries]
    (page,) = cluster.pages(0)
    assert not page.has_checksum
    for offset in (0, page.offset - 4, page.offset + 4, page.offset + 40):
        moved = [dataclasses.replace(page, offset=offset)]
        columns = {0: moved, 1: cluster.pages(1)}
        monkeypatch.setattr(tree, "_clusters", [dataclasses.replace(cluster, pages=columns.get)])
        with pytest.raises(OSError, match=r"branch 'x', cluster with entries 0 to 50: the page at .* is not where its"):
            tree.read(["x"], 0, 50)
        monkeypatch.undo()
    assert tree.read(["x"], 0, 50)["x"].tolist() == list(range(50))
    tree.close()

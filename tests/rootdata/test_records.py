import numpy as np
import pytest
import uproot
from files_for_tests import make_events, write

from rootdata.files import Location
from rootdata.records import KEY_BYTES, Records, nearest_record
from rootdata.trees import open_tree


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The bytes of a file with an RNTuple, and where its pages lie, one in each record."""
    path = write(tmp_path_factory.mktemp("records") / "a.root", make_events(500), kind="RNTuple", steps=(100, 101))
    with uproot.open(path) as opened:
        lists = [column for cluster in opened["Events"].page_link_list for column in cluster]
        places = [(p.locator.offset, p.locator.offset + p.locator.num_bytes) for c in lists for p in c.pages]
    return path.read_bytes(), [(int(a), int(b)) for a, b in places]


def test_the_record_of_a_page_is_found_by_the_key_before_it_and_by_all_keys(file):
    content, places = file
    records = Records(lambda at, n: content[at : at + n])
    for start, stop in places:
        begin = start - KEY_BYTES
        assert nearest_record(content[begin:stop], begin) == (start, stop)
        assert nearest_record(content[begin:stop], begin + 1) is None  # a key says where it lies
        assert {records.around(at) for at in (start, start + 1, stop - 1)} == {(start, stop)}
    assert records.around(0) == (0, 0)
    assert records.around(len(content) + 10) is None


def test_of_what_is_no_file_no_record_is_known():
    for content in (b"", b"root", b"root" + bytes(100), np.random.default_rng(0).bytes(1000)):
        assert Records(lambda at, n, content=content: content[at : at + n]).around(5) in {None, (0, 0)}


def test_pages_in_the_wrong_place_are_noticed_without_a_checksum(tmp_path, monkeypatch):
    # uproot writes none, and what is not compressed has no other.
    tree = open_tree(
        Location(str(write(tmp_path / "a.root", {"x": np.arange(50), "y": np.arange(50)}, kind="RNTuple")))
    )
    (page,) = tree._clusters[0].pages(0)
    assert not page.has_checksum
    content = (tmp_path / "a.root").read_bytes()
    for offset in (0, page.offset - 4, page.offset + 4, page.offset + 40, page.offset + 400, len(content) - page.size):
        moved = [type(page)(page.elements, offset, page.size, has_checksum=False)]
        pages = tree._clusters[0].pages
        other = type(tree._clusters[0])(0, 50, lambda i, pages=pages, moved=moved: moved if i == 0 else pages(i))
        monkeypatch.setattr(tree, "_clusters", [other])
        with pytest.raises(OSError, match=r"branch 'x', cluster with entries 0 to 50: the page at .* is not where its"):
            tree.read(["x"], 0, 50)
        monkeypatch.undo()
    assert tree.read(["x"], 0, 50)["x"].tolist() == list(range(50))
    tree.close()

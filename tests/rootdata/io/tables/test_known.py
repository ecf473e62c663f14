import numpy as np
import pytest
from files_for_tests import epoch_of, make_events, options, write
from tables_for_tests import read_back

from rootdata.errors import FileError
from rootdata.io.files import find
from rootdata.io.tables.known import endings, file_formats, format_of, has_ending, has_trees
from rootdata.io.trees import open_tree
from rootdata.location import Location
from rootdata.registry import FILE_FORMATS


def kind_of(place):
    found = format_of(str(place))
    return None if found is None else found.kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.root", None),
        ("A.ROOT", None),
        ("DAOD_PHYSLITE.1._000001.pool.root.1", None),
        ("a.parquet", "Parquet"),
        ("a.PQ", "Parquet"),
        ("part.parquet.2", "Parquet"),
        ("a.feather", "Arrow"),
        ("a.arrow", "Arrow"),
        ("a.tsv", "CSV"),
        ("https://host/a.csv?token=a.root", "CSV"),
    ],
)
def test_the_name_says_of_which_kind_a_file_is(name, kind):
    assert kind_of(name) == kind
    assert has_trees(name) is (kind is None)


def test_the_first_bytes_say_it_where_the_name_does_not(tmp_path):
    for content, kind in (
        (b"PAR1....", "Parquet"),
        (b"ARROW1\0\0", "Arrow"),
        (b"root\0...", None),
        (b"", None),
        (b"a,b\n", None),
    ):
        (tmp_path / "a").write_bytes(content)
        assert kind_of(tmp_path / "a") == kind
    assert kind_of(tmp_path / "absent") is kind_of(tmp_path) is None


def test_no_two_formats_share_an_ending():
    every = [ending for own in endings() for ending in own]
    assert len(set(every)) == len(every)
    assert all(has_ending(f"x{ending}", (ending,)) for ending in every)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An installed package that announces the format of the examples."""
    about = tmp_path / "own-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[rootdata.file_formats]\nnpz = own_format:NpzFormat\n")
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        file_formats.cache_clear()
        FILE_FORMATS.__dict__.pop("_places", None)

    forget()
    yield
    monkeypatch.undo()
    forget()


def test_a_format_of_ones_own_is_read_as_all_others(own, tmp_path):
    events = {n: c for n, c in make_events(500).items() if n != "Jet"}
    np.savez(tmp_path / "a.npz", **events)
    write(tmp_path / "a.root", events)
    one, other = (epoch_of(options(tmp_path / f"a.{k}", jagged=None)) for k in ("root", "npz"))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "b.npz", x=np.arange(3))
    assert find([str(tmp_path / "folder")], tree="t") == [Location(str(tmp_path / "folder" / "b.npz"))]
    assert read_back(tmp_path / "folder" / "b.npz") == {"x": [0, 1, 2]}
    (tmp_path / "c.npz").write_bytes(b"nothing")
    with pytest.raises(FileError, match=r"c\.npz: this is not a NumPy file"):
        open_tree(Location(str(tmp_path / "c.npz")))


def test_what_is_not_announced_is_not_known(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(FileError, match="not a ROOT file but a zip archive"):
        open_tree(Location(str(tmp_path / "a.npz")))

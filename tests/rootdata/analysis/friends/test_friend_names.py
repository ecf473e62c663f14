"""Files with scores: one for each file of events, called after it, none in the place of another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.analysis.friends.names import outputs_of, place_of
from rootdata.errors import FileError
from rootdata.location import Location

PARTS = st.sampled_from(["a", "b", "x.root", "x.parquet", "c d"])
PATHS = st.builds(
    lambda root, folders, name: root + "/".join([*folders, name]),
    st.sampled_from(["/data/", "root://host//store/", "https://other/"]),
    st.lists(PARTS, max_size=3),
    st.sampled_from(["x.root", "x.parquet", "x.csv", "y.root", "x.root.1"]),
)


@given(st.lists(st.builds(Location, PATHS, st.sampled_from(["t", "dir/u"])), unique=True, min_size=1, max_size=8))
def test_each_file_has_a_place_of_its_own_below_the_folder(locations):
    out = Path("/out")
    found = outputs_of(locations, out)
    assert len(set(found)) == len(locations)
    assert all(path.is_relative_to(out) and ".." not in path.parts and path.suffix == ".root" for path in found)
    assert outputs_of(locations[::-1], out) == found[::-1]


def names(*paths):
    return [
        str(path)
        for path in outputs_of([Location(*p) if isinstance(p, tuple) else Location(p) for p in paths], Path("o"))
    ]


def test_names_say_no_more_than_they_must():
    assert names("/d/a/x.root", "/d/b/y.root") == ["o/x_Friend.root", "o/y_Friend.root"]
    assert names("/d/a/x.root", "/d/b/x.root", "/d/y.root") == [
        "o/a/x_Friend.root",
        "o/b/x_Friend.root",
        "o/y_Friend.root",
    ]
    assert names(("/d/x.root", "t"), ("/d/x.root", "dir/u")) == ["o/x_t_Friend.root", "o/x_dir_u_Friend.root"]
    assert names("/d/x.root", "/d/x.parquet") == ["o/x.root_Friend.root", "o/x.parquet_Friend.root"]
    assert names("root://h//s/x.root?token=1") == ["o/x_Friend.root"]


def test_what_a_url_says_of_who_asks_is_not_written_down():
    assert place_of(Location("https://h/x.root?token=secret")) == "https://h/x.root"


def test_no_file_of_events_is_written_over(tmp_path):
    for name in ("x.root", "x_Friend.root"):
        (tmp_path / name).write_bytes(b"")
    locations = [Location(str(tmp_path / name)) for name in ("x.root", "x_Friend.root")]
    with pytest.raises(FileError, match="is a file of events"):
        outputs_of(locations, tmp_path)

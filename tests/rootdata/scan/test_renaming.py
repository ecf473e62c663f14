import warnings

import pytest
from files_for_tests import make_events, options, write

from rootdata.cache_folder import names_path
from rootdata.options.data import parse_data
from rootdata.scan.lookup import specs_for

SPLITS = {
    "hash": {"train": 0.5, "val": 0.2, "test": 0.3},
    "files": {"train": ["*.root"]},
    "entries": {"by": "entries", "train": 0.5, "val": 0.2, "test": 0.3},
    "expression": {"by": "event % 5", "val": [3], "test": [4]},
}


def scan(path, by, **changes):
    return specs_for(parse_data(options(path, split=SPLITS[by], **changes)), progress=False)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data" / "a.root", make_events(200))


@pytest.mark.parametrize("by", ["hash", "files"])
def test_a_file_that_was_renamed_is_told_where_names_decide_the_parts(path, by):
    scan(path, by)
    new = path.rename(path.with_name("b.root"))
    with pytest.warns(
        UserWarning, match=r"1 files hold what an earlier first pass read under another name \(.*b\.root"
    ):
        scan(new, by)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan(new, by, flat=["weight"])  # it was said once


@pytest.mark.parametrize("by", ["entries", "expression"])
def test_elsewhere_a_name_is_only_a_name(path, by):
    first = scan(path, by)
    again = scan(path.rename(path.with_name("b.root")), by)
    assert [f.before for f in again.files] == [f.before for f in first.files]


def test_a_file_that_was_moved_or_made_anew_is_no_renamed_one(path, tmp_path):
    first = scan(path, "hash")
    moved = tmp_path / "elsewhere" / "a.root"
    moved.parent.mkdir()
    assert scan(path.rename(moved), "hash").files[0].before == first.files[0].before
    scan(write(path.with_name("c.root"), make_events(200)), "hash")  # another UUID


def test_damaged_notes_are_passed_over(path):
    names_path().write_bytes(b'nonsense\n[1, 2]\n{"a": 1}\n5\n[[], 1, 2, 3, 4]\n\xff\n')
    scan(path, "hash")
    with pytest.warns(UserWarning, match="another name"):
        scan(path.rename(path.with_name("b.root")), "hash")

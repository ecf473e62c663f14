"""A storage protocol of one's own, that of the examples: found, read and told as any other."""

import fsspec
import numpy as np
import own_files
import pytest
from files_for_tests import make_events, write

from rootdata.errors import FileError
from rootdata.io.files import find, state_of
from rootdata.loading.datamodule import RootDataModule
from rootdata.location import Location


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    fsspec.register_implementation("shelf", "own_files.Shelf", clobber=True)
    monkeypatch.setenv("SHELF", str(tmp_path))
    (tmp_path / "2026").mkdir()
    for number in range(2):
        write(tmp_path / "2026" / f"{number}.root", make_events(60, number))
    return tmp_path


def delivered(files):
    data = RootDataModule({"all": {"files": files, "label": 0}}, flat=["met"], scale="none", shuffle=False, index=True)
    batches = list(data.train_dataloader())
    return {tuple(i): x for b in batches for i, x in zip(b["index"].tolist(), b["x"][:, 0].tolist(), strict=True)}


def test_its_events_are_those_of_local_files(shelf):
    local = delivered(str(shelf / "2026" / "*.root"))
    assert len(local) > 50
    assert sorted(delivered("shelf://2026/*.root").values()) == sorted(local.values())
    one, other = find(["shelf://2026/*.root"])
    assert [one.path, other.path] == ["shelf://2026/0.root", "shelf://2026/1.root"]


def test_a_file_that_changes_has_another_state(shelf):
    place, path = Location("shelf://2026/0.root"), shelf / "2026" / "0.root"
    before = state_of(place)
    assert before.size == path.stat().st_size
    write(path, make_events(90, 5))
    assert state_of(place).differs_from(before)


def failing(monkeypatch, error, *, times):
    """Let opening files fail some times at first; what is tried is listed."""
    tries, opened = [], own_files.Shelf._open

    def open_or_fail(self, path, mode="rb", **options):
        tries.append(path)
        if len(tries) <= times:
            raise error
        return opened(self, path, mode, **options)

    monkeypatch.setattr(own_files.Shelf, "_open", open_or_fail)
    return tries


def test_what_the_network_does_is_tried_again(shelf, monkeypatch):
    tries = failing(monkeypatch, ConnectionError("the shelf shakes"), times=2)
    assert delivered("shelf://2026/0.root")
    assert len(tries) > 2


def test_what_may_not_be_read_is_told_at_once(shelf, monkeypatch):
    tries = failing(monkeypatch, PermissionError(13, "not for you"), times=1000)
    with pytest.raises(FileError, match=r"shelf://2026/0\.root.*not for you"):
        delivered("shelf://2026/0.root")
    assert len(tries) < 4


def test_what_is_not_there_is_told(shelf):
    with pytest.raises(FileError, match=r"no file matches 'shelf://2025/\*\.root'|shelf://2025"):
        find(["shelf://2025/*.root"])
    with pytest.raises(FileError, match=r"shelf://2026/9\.root does not exist"):
        delivered("shelf://2026/9.root")
    assert np.isfinite(list(delivered("shelf://2026/1.root").values())).all()

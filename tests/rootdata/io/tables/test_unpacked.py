import numpy as np
import pyarrow as pa
import pytest
from tables_for_tests import plain_of, write_table

from rootdata.errors import FileError
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.tables import unpacked
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged, offsets_of
from rootdata.location import Location
from rootdata.table import Table

ROWS = 3 * BLOCK_ENTRIES
LAST = (ROWS - 10, ROWS)


@pytest.fixture
def path(tmp_path):
    return write_table(tmp_path / "a.parquet", pa.table({"x": np.arange(ROWS, dtype=np.float32)}))


@pytest.fixture
def folder():
    return unpacked.place_of([]).parent


def end_of(path):
    tree = open_tree(Location(str(path)))
    try:
        return tree.read(["x"], *LAST)["x"].tolist()
    finally:
        tree.close()


RIGHT = np.arange(*LAST, dtype=np.float32).tolist()


def test_what_is_kept_is_found_again_by_another_process(path, folder):
    assert end_of(path) == RIGHT
    (kept,) = folder.glob("*.rows")
    made = kept.stat().st_ino
    assert end_of(path) == RIGHT
    assert kept.stat().st_ino == made


def test_what_was_damaged_or_cut_is_decoded_anew(path, folder):
    end_of(path)
    (kept,) = folder.glob("*.rows")
    content = kept.read_bytes()
    middle = len(content) - len(content) // 6  # of the values of the last block
    for wrong in (b"", content[:100], content[:-9], content[:middle] + b"\1" + content[middle + 1 :], b"\xff" * 200):
        kept.write_bytes(wrong)
        assert end_of(path) == RIGHT
        assert kept.read_bytes() == content


def test_where_it_can_not_be_kept_a_warning_says_so_and_values_are_right(path, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROOTDATA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="let ROOTDATA_CACHE name a folder that can be written"):
        assert end_of(path) == RIGHT


def test_the_folder_is_bounded_and_what_was_used_last_stays(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(unpacked, "CACHE_ON_DISK", int(2.5 * 4 * ROWS))
    for number in range(4):
        table = pa.table({"x": np.arange(ROWS, dtype=np.float32) + number})
        end_of(write_table(tmp_path / f"{number}.parquet", table))
    assert len(list(folder.glob("*.rows"))) == 2
    monkeypatch.setattr(unpacked, "CACHE_ON_DISK", 1000)
    assert end_of(tmp_path / "0.parquet") == RIGHT  # nothing is kept, nothing is removed
    assert len(list(folder.glob("*.rows"))) == 2


def test_a_group_that_can_not_be_decoded_is_the_file_s_fault_and_leaves_nothing(tmp_path, folder):
    table = pa.table({"x": np.arange(ROWS, dtype=np.float32)})
    path = write_table(tmp_path / "a.parquet", table, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"a\.parquet: entries .* can't be read"):
        end_of(path)
    assert list(folder.glob("*.rows")) == []


def test_every_kind_of_column_comes_back(tmp_path):
    content = np.arange(12, dtype=np.int16)
    tables = [
        Table(
            num_events=n,
            columns={
                "b": np.arange(n) % 2 == 0,
                "k": np.ones((n, 3)),
                "v": Jagged(offsets_of(np.arange(n)), content[: n * (n - 1) // 2]),
            },
        )
        for n in (3, 1, 4)
    ]
    place = tmp_path / "a.rows"
    for _ in range(2):
        found = unpacked.rows(place, 2, 7, size=1.0, make=lambda: tables)
        assert [t.num_events for t in found] == [1, 1, 3]
        assert [plain_of(t.columns["v"]) for t in found] == [[[1, 2]], [[]], [[], [0], [1, 2]]]
        assert [t.columns["k"].shape for t in found] == [(1, 3), (1, 3), (3, 3)]
        assert found[2].columns["b"].tolist() == [True, False, True]

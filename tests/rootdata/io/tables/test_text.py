import numpy as np
import pytest
from files_for_tests import epoch_of, make_events, options, scanned, write
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_for_tests import read_back, without_nan

from rootdata.errors import BranchError, FileError
from rootdata.inspection.files import inspect
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.trees import blocks_of, open_tree
from rootdata.location import Location
from strategies import NO_SHRINKING


def written(folder, text, name="a.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@settings(max_examples=40, phases=NO_SHRINKING, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats(allow_infinity=False), st.booleans()), max_size=8),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_numbers_come_back_exactly(tmp_path_factory, rows, separator, end):
    lines = [separator.join(("n", "x", "is_b")), *(separator.join((str(n), repr(x), str(b))) for n, x, b in rows)]
    path = written(tmp_path_factory.mktemp("t"), end.join(lines) + end)
    read = read_back(path)
    assert read["n"] == [n for n, _, _ in rows]
    assert read["x"] == without_nan([x for _, x, _ in rows])
    if rows:
        assert read["is_b"] == [b for _, _, b in rows]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1,2\n3,4.5\n", {"a": [1, 3], "b": [2.0, 4.5]}),  # a later line says that it is real
        ("a,b\n1,\n,2\n", {"a": [1.0, None], "b": [None, 2.0]}),
        ("a\n1\nNA\nnan\n", {"a": [1.0, None, None]}),
        ("\ufeffa;b\r\n\r\n1;2\r\n", {"a": [1], "b": [2]}),
        ('"a, of x";"b"\n"1";2\n', {"a, of x": [1], "b": [2]}),
        (",x\n0,1.5\n", {"column0": [0], "x": [1.5]}),  # as pandas writes its index
        ("a,b\n", {"a": [], "b": []}),
        ("a,b", {"a": [], "b": []}),
        ("\n\na,b\n\n\n", {"a": [], "b": []}),
        ("a,b\n\n1,2\n\n3,4\n\n", {"a": [1, 3], "b": [2, 4]}),
        ("a\ttrue_mass\ntrue\t1\nfalse\t0\n", {"a": [True, False], "true_mass": [1, 0]}),
        ("b\n\nFalse\nTrue\n", {"b": [False, True]}),
        ("root_x,b\n1,2", {"root_x": [1], "b": [2]}),
    ],
)
def test_forms_of_tables(tmp_path, text, columns):
    assert read_back(written(tmp_path, text)) == columns


def test_a_column_of_text_is_unusable_wherever_its_first_letter_stands(tmp_path):
    path = written(tmp_path, "x,s,late\n" + "1,a,2\n" * 3 + "1,a,b\n")
    tree = open_tree(Location(str(path)))
    assert {n: tree.describe(n).kind for n in tree.names()} == {"x": "flat", "s": "unusable", "late": "unusable"}
    with pytest.raises(BranchError, match="branch 's' can't be used: it holds text"):
        scanned(options(path, flat=["x", "s"], jagged=None))
    assert "it holds text" in inspect([str(path)]).columns["late"].branch.note
    assert read_back(path) == {"x": [1] * 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2\n3,4\n", "its first line, '1,2', holds numbers; write the names of the columns there"),
        ("", "the file is empty"),
        ("a,b\n1\n", "Expected 2 columns, got 1"),
        (b"a,b\n\0\1,2\n", "no text of numbers"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PAR1...", "a Parquet file"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, text, said):
    with pytest.raises(FileError, match=said):
        open_tree(Location(str(written(tmp_path, text))))


def test_a_large_file_is_read_in_blocks_from_any_place(tmp_path):
    values = np.arange(3 * BLOCK_ENTRIES + 7)
    path = written(tmp_path, "x,n\n" + "".join(f"{v / 4},{v}\n" for v in values.tolist()))
    tree = open_tree(Location(str(path)))
    blocks = blocks_of(tree, ["x", "n"])
    assert len(blocks) == 4
    for start, stop in reversed(blocks):
        read = tree.read(["x", "n"], start, stop)
        assert read["n"].tolist() == values[start:stop].tolist()
        assert np.array_equal(read["x"], values[start:stop] / 4)
    tree.close()


def test_an_epoch_is_that_of_the_root_file(tmp_path):
    events = {n: c for n, c in make_events(300).items() if n != "Jet"}
    write(tmp_path / "a.root", events)
    lines = [
        ",".join(events),
        *(",".join(map(repr, row)) for row in zip(*(c.tolist() for c in events.values()), strict=True)),
    ]
    written(tmp_path, "\n".join(lines))
    one, other = (epoch_of(options(tmp_path / f"a.{k}", jagged=None, flat=list(events))) for k in ("root", "csv"))
    assert all(np.array_equal(one[name], other[name]) for name in one)

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from files_for_tests import epoch_of, make_events, options, scanned, write
from hypothesis import given, settings
from hypothesis import strategies as st
from servers_for_tests import HTTPServer, XRootDServer, xrootd
from tables_for_tests import KINDS, as_table, expected, plain_of, read_back, write_table

from rootdata.errors import BranchError, DataError, FileError, MachineError
from rootdata.inspection.files import inspect
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.reader import BlockReader
from rootdata.io.tables import unpacked
from rootdata.io.trees import blocks_of, look_into, open_tree
from rootdata.location import Location
from strategies import NO_SHRINKING

real = st.floats(allow_nan=True, allow_infinity=True, width=32)
numbers = st.sampled_from(
    [
        (pa.float32(), real),
        (pa.float64(), st.floats()),
        (pa.float16(), st.floats(width=16)),
        (pa.int8(), st.integers(-128, 127)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.bool_(), st.booleans()),
    ]
)


@st.composite
def columns(draw, rows):
    """A column of ``rows`` rows: its array, the name of its leaf, and the width of its lists where that is fixed."""
    kind, value = draw(numbers)
    if pa.types.is_floating(kind):
        value = value | st.none()
    gaps = st.none() if pa.types.is_floating(kind) else st.nothing()
    shape = draw(st.sampled_from(["flat", "list", "large", "fixed", "record", "records", "dictionary"]))
    lists = st.lists(value, max_size=3)
    kinds, values, name, width = {
        "flat": (kind, value, "", 0),
        "list": (pa.list_(kind), lists | st.none(), "", 0),
        "large": (pa.large_list(kind), lists, "", 0),
        "fixed": (pa.list_(kind, 2), st.lists(value, min_size=2, max_size=2) | gaps, "", 2),
        "record": (pa.struct([("a", kind), ("b", pa.string())]), st.fixed_dictionaries({"a": value}), ".a", 0),
        "records": (
            pa.list_(pa.struct([("s", pa.string()), ("a", kind)])),
            st.lists(st.fixed_dictionaries({"a": value}), max_size=3),
            ".a",
            0,
        ),
        "dictionary": (kind, value, "", 0),
    }[shape]
    array = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kinds)
    if shape == "dictionary" and kind not in (pa.float16(), pa.bool_()):
        array = array.dictionary_encode()
    return array, name, width


@st.composite
def tables(draw):
    """A table, and the leaves that must be read of it with the widths of their lists."""
    rows = draw(st.integers(0, 20))
    drawn = [draw(columns(rows)) for _ in range(draw(st.integers(1, 4)))]
    table = pa.table({f"c{i}": array for i, (array, _, _) in enumerate(drawn)})
    return table, {f"c{i}{name}": width for i, (_, name, width) in enumerate(drawn)}


@settings(max_examples=60, phases=NO_SHRINKING, deadline=None)
@given(tables(), st.integers(1, 8), st.sampled_from(KINDS), st.data())
def test_what_pyarrow_writes_is_read_whole_and_in_blocks(tmp_path_factory, made, rows, kind, data):
    table, leaves = made
    path = write_table(tmp_path_factory.mktemp("t") / f"t.{kind}", table, rows=rows)
    expect = {name: expected(table, name, width=width) for name, width in leaves.items()}
    assert read_back(path, list(leaves)) == {n: with_lists(table, n, v) for n, v in expect.items()}
    start = data.draw(st.integers(0, table.num_rows))
    stop = data.draw(st.integers(start, table.num_rows))
    whole = read_back(path, list(leaves))
    assert read_back(path, list(leaves), start=start, stop=stop) == {n: v[start:stop] for n, v in whole.items()}


def with_lists(table, name, column):
    """Give lists that are null no objects."""
    kind = table.schema.field(name.split(".")[0]).type
    return [[] if v is None else v for v in column] if pa.types.is_list(kind) else column


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """The same events as a ROOT file and in each of the other formats, in blocks of their own."""
    folder, events = tmp_path_factory.mktemp("same"), make_events(700)
    write(folder / "a.root", events, steps=(200, 400))
    for kind in KINDS:
        write_table(folder / f"a.{kind}", as_table(events), rows=90)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_that_of_the_root_file(same, kind):
    for layout in ("vector", "tokens"):
        one, other = (epoch_of(options(same / f"a.{k}", layout=layout, scale="standard")) for k in ("root", kind))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)


def test_samples_may_mix_formats(same):
    samples = {"s": {"files": str(same / "a.root"), "tree": "Events"}, "b": {"files": str(same / "a.parquet")}}
    rows = epoch_of(options("", samples=samples))
    assert len(rows["x"]) == 1400
    assert np.array_equal(rows["x"][:700], rows["x"][700:])
    both = {"files": [str(same / "a.root"), str(same / "a.arrow")], "tree": "Events"}  # named for the one that needs it
    assert np.array_equal(epoch_of(options("", samples={"all": both}))["x"], rows["x"])


def test_what_is_learnt_is_the_same(same):
    one, other = (scanned(options(same / f"a.{kind}")) for kind in ("root", "parquet"))
    for name, stats in one.columns.items():
        there, mine = stats.to_dict(), other.columns[name].to_dict()
        assert there["low"] == mine["low"]
        assert there["high"] == mine["high"]
    assert one.multiplicity == other.multiplicity
    assert one.labels == other.labels


def test_a_stopped_epoch_goes_on(same):
    from rootdata.loading.dataset import RootDataset

    def made():
        return RootDataset(options(same / "a.parquet"), "train", index=True, batch_size=64, chunk_size=200)

    whole, first = [b["index"].tolist() for b in made()], made()
    running = iter(first)
    begun = [next(running)["index"].tolist() for _ in range(3)]
    rest = made()
    rest.load_state_dict(first.state_dict())
    running.close()
    assert begun + [b["index"].tolist() for b in rest] == whole


# What files may be


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_table_and_empty_groups_are_read(tmp_path, kind):
    empty = pa.table({"x": pa.array([], pa.float32()), "v": pa.array([], pa.list_(pa.int16()))})
    path = write_table(tmp_path / f"e.{kind}", empty)
    assert read_back(path) == {"x": [], "v": []}
    assert blocks_of(open_tree(Location(str(path))), ["x"]) == []
    path = tmp_path / f"g.{kind}"
    some = pa.table({"x": pa.array([1, 2], pa.float32()), "v": pa.array([[1], []], pa.list_(pa.int16()))})
    if kind == "parquet":
        with pa.parquet.ParquetWriter(path, some.schema) as file:
            for table in (empty, some, empty, some):
                file.write_table(table)
    else:
        with pa.ipc.new_file(path, some.schema) as file:
            for table in (empty, some, empty, some):
                file.write_batch(table.to_batches()[0] if table.num_rows else empty_batch(some.schema))
    assert read_back(path) == {"x": [1, 2, 1, 2], "v": [[1], [], [1], []]}
    assert read_back(path, start=1, stop=3) == {"x": [2, 1], "v": [[], [1]]}


def empty_batch(schema):
    return pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)


UNUSABLE = {
    "text": (pa.array(["a", "b"]), "text"),
    "words": (pa.array(["a", "b"]).dictionary_encode(), "text"),
    "money": (pa.array([1, 2], pa.decimal128(5, 2)), "decimal128(5, 2)"),
    "when": (pa.array([1, 2], pa.timestamp("us")), "timestamp[us]"),
    "day": (pa.array([1, 2], pa.date32()), "date32"),
    "raw": (pa.array([b"a", b"b"]), "binary"),
    "nested": (pa.array([[[1]], []], pa.list_(pa.list_(pa.int32()))), "lists of list<"),
    "pairs": (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())), "map<"),
    "labels": (pa.array([["a"], []]), "lists of text"),
    "nothing": (pa.nulls(2), "null"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_no_numbers_is_unusable_and_spoils_nothing(tmp_path, kind):
    table = pa.table({"first": [1, 2]} | {n: a for n, (a, _) in UNUSABLE.items()} | {"x": [0.5, 1.5]})
    path = write_table(tmp_path / f"u.{kind}", table)
    tree = open_tree(Location(str(path)))
    for name, (_, said) in UNUSABLE.items():
        assert tree.describe(name).kind == "unusable"
        assert f"it holds {said}" in tree.describe(name).note
        with pytest.raises(BranchError, match=f"branch '{name}' can't be used"):
            tree.read([name], 0, 2)
    assert read_back(path) == {"first": [1, 2], "x": [0.5, 1.5]}
    shown = inspect([str(path)])
    assert shown.columns["x"].branch.kind == "flat"
    assert "text" in shown.columns["text"].branch.note


def test_columns_of_one_name_are_not_offered(tmp_path):
    both = pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([3.0])], names=["a", "a", "b"])
    tree = open_tree(Location(str(write_table(tmp_path / "t.arrow", both))))
    assert "2 columns have this name" in tree.describe("a").note
    assert tree.read(["b"], 0, 1)["b"].tolist() == [3.0]


def test_fields_of_records_have_names_with_points_and_with_underscores(tmp_path):
    jets = pa.array(
        [[{"p4": {"pt": 1.0}, "id": 3}], []],
        pa.list_(pa.struct([("p4", pa.struct([("pt", pa.float32())])), ("id", pa.int8())])),
    )
    path = write_table(tmp_path / "j.parquet", pa.table({"jets": jets, "met": [{"pt": 5.0}, {"pt": 6.0}]}))
    tree = open_tree(Location(str(path)))
    assert tree.names() == ["jets.p4.pt", "jets.id", "met.pt"]
    read = tree.read(["jets_p4.pt", "jets.id", "met_pt"], 0, 2)
    assert {n: plain_of(c) for n, c in read.items()} == {
        "jets_p4.pt": [[1.0], []],
        "jets.id": [[3], []],
        "met_pt": [5.0, 6.0],
    }
    assert read["jets_p4.pt"].offsets is read["jets.id"].offsets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "column", [pa.array([1, None, 3], pa.int32()), pa.array([[True], [None], []], pa.list_(pa.bool_()))]
)
def test_nulls_that_a_type_can_not_hold_are_an_error_with_a_remedy(tmp_path, kind, column):
    path = write_table(tmp_path / f"n.{kind}", pa.table({"n": column, "x": [1.0, None, 2.0]}))
    with pytest.raises(DataError, match=r"n\.\w+: column 'n' holds 1 nulls.*`missing`"):
        read_back(path, ["n"])
    assert read_back(path, ["x"]) == {"x": [1.0, None, 2.0]}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_differ_are_refused_by_name(tmp_path, kind):
    write_table(tmp_path / f"1.{kind}", pa.table({"met": [1.0, 2.0], "x": [1.0, 2.0]}))
    for other, said in (
        ({"met": [[1.0], []], "x": [1.0, 2.0]}, "branch 'met' is jagged in"),
        ({"mett": [1.0], "x": [1.0]}, "branch 'met' not found; nearest: 'mett'"),
        ({"met": ["a"], "x": [1.0]}, "branch 'met' can't be used: it holds text"),
    ):
        write_table(tmp_path / f"2.{kind}", pa.table(other))
        plain = options([str(tmp_path / f"{i}.{kind}") for i in (1, 2)], jagged=None)
        with pytest.raises(BranchError, match=said):
            scanned(plain)
        assert len(scanned({**plain, "on_bad_file": "skip"}).skipped) == 1
    # Numbers of another type are numbers.
    write_table(tmp_path / f"2.{kind}", pa.table({"met": [1, 2], "x": [1.0, 2.0]}))
    assert scanned(options([str(tmp_path / f"{i}.{kind}") for i in (1, 2)], jagged=None)).num_events("train") == 4


# Damage


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_says_so(same, tmp_path, kind):
    content = (same / f"a.{kind}").read_bytes()
    for length in (0, 3, 7, 100, len(content) // 2, len(content) - 3):
        path = tmp_path / f"t.{kind}"
        path.write_bytes(content[:length])
        with pytest.raises(FileError, match=r"t\.\w+: (the file is (empty|truncated)|this is not an? \w+ file)"):
            open_tree(Location(str(path)))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_end_in_an_error_of_ours_or_in_values(same, tmp_path, kind):
    content = (same / f"a.{kind}").read_bytes()
    rng = np.random.default_rng(0)
    errors = []
    for number in range(60):
        changed = bytearray(content)
        at = int(rng.integers(0, len(content))) if number % 2 else int(rng.integers(len(content) - 600, len(content)))
        changed[at : at + 4] = rng.bytes(4)
        path = tmp_path / f"d.{kind}"
        path.write_bytes(bytes(changed[: len(content)]))
        try:
            read = read_back(path)
        except (FileError, BranchError, DataError, MachineError) as error:
            errors.append(str(error))
        else:
            assert len({len(column) for column in read.values()}) <= 1
    assert len(errors) > 5
    assert all(f"d.{kind}" in error for error in errors)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_rewritten_is_not_taken_for_the_one_that_was_scanned(tmp_path, kind):
    how = {"compression": "none", "use_dictionary": False, "write_statistics": False} if kind == "parquet" else {}
    path = write_table(tmp_path / f"a.{kind}", pa.table({"met": np.arange(50.0)}), **how)
    plain = options(path, jagged=None)
    specs = scanned(plain)
    status = path.stat()
    # The same schema and length, written in place, with its old times: digests alone can tell.
    write_table(path, pa.table({"met": np.arange(50.0)[::-1]}), **how)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(FileError, match=r"first pass|changed|scan"):
        epoch_of(plain, specs=specs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_promises_another_kind_is_answered_with_what_it_is(same, tmp_path, kind):
    shutil.copy(same / f"a.{kind}", tmp_path / "a.root")
    with pytest.raises(FileError, match=rf"this is not a ROOT file but an? \w+ file \(let its name end in \.{kind}\)"):
        open_tree(Location(str(tmp_path / "a.root")))
    shutil.copy(same / "a.root", tmp_path / f"a.{kind}")
    with pytest.raises(FileError, match=r"file but a ROOT file \(let its name end in \.root\)"):
        open_tree(Location(str(tmp_path / f"a.{kind}")))
    shutil.copy(same / f"a.{kind}", tmp_path / "part-0")  # a name that says nothing
    assert read_back(tmp_path / "part-0") == read_back(same / f"a.{kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_does_not_hang(tmp_path, kind):
    (tmp_path / f"folder.{kind}").mkdir()
    os.mkfifo(tmp_path / f"pipe.{kind}")
    for name, said in (
        ("folder", "no regular file|directory"),
        ("pipe", "no regular file"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(FileError, match=said):
            open_tree(Location(str(tmp_path / f"{name}.{kind}")))


def test_without_pyarrow_one_sentence_says_what_to_install(same, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MachineError, match=r"a\.parquet: reading Parquet files needs pyarrow.*rootdata\[arrow\]"):
        open_tree(Location(str(same / "a.parquet")))


# Large groups


@pytest.fixture
def huge(tmp_path):
    """A file of one row group that is as large as several blocks."""
    rows = 3 * BLOCK_ENTRIES + 123
    counts = np.arange(rows) % 3
    table = pa.table(
        {
            "x": np.arange(rows, dtype=np.float32),
            "v": pa.ListArray.from_arrays(np.r_[0, np.cumsum(counts)].astype(np.int32), np.arange(counts.sum())),
        }
    )
    return write_table(tmp_path / "huge.parquet", table, rows=rows), table


def test_a_row_group_larger_than_a_block_is_read_in_blocks(huge):
    path, table = huge
    names = ["x", "v"]
    with BlockReader() as reader:
        found = reader.describe(Location(str(path)), names)
        assert len(found.blocks) == 4
        assert found.blocks[-1][1] == table.num_rows
        assert max(b - a for a, b in found.blocks) <= BLOCK_ENTRIES
        for start, stop in reversed(found.blocks):
            read = reader.read(found.file, names, start, stop)
            assert read["x"].tolist() == table["x"].slice(start, stop - start).to_pylist()
            assert plain_of(read["v"]) == table["v"].slice(start, stop - start).to_pylist()
    assert len(list(unpacked.place_of([]).parent.glob("*.rows"))) == 1


def test_the_epoch_of_a_large_row_group_is_that_of_small_ones(huge):
    path, table = huge
    small = write_table(path.parent / "small.parquet", table, rows=5000)
    plain = {"flat": ["x"], "jagged": {"v": ["v"]}}
    one, other = (epoch_of(options(p, **plain)) for p in (path, small))
    assert all(np.array_equal(one[name], other[name]) for name in one)


# Elsewhere


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("serve", [HTTPServer, pytest.param(XRootDServer, marks=xrootd)])
def test_files_of_servers_are_read_as_local_ones(same, kind, serve):
    with serve(same) as server:
        local, far = (epoch_of(options(f"{place}/a.{kind}")) for place in (same, server.url))
        assert all(np.array_equal(local[name], far[name]) for name in local)
        assert look_into(f"{server.url}/a.{kind}").trees[0].entries == 700
        with pytest.raises(FileError, match=r"404|does not exist|No such file"):
            open_tree(Location(f"{server.url}/b.{kind}"))


def test_a_group_of_more_rows_than_can_be_is_damage(same, tmp_path):
    content = (same / "a.arrow").read_bytes()
    rows = np.int64(90).tobytes()
    path = tmp_path / "d.arrow"
    for wrong in (-1, 1 << 48):  # each would be cut into blocks before anything is read
        path.write_bytes(content.replace(rows, np.int64(wrong).tobytes()))
        with pytest.raises(FileError, match=r"d\.arrow: the file is truncated or damaged \(.*rows"):
            open_tree(Location(str(path)))


def test_a_large_row_group_of_a_server_is_fetched_once(huge):
    path, _ = huge
    with HTTPServer(path.parent) as server, BlockReader() as reader:
        found = reader.describe(Location(f"{server.url}/huge.parquet"), ["x"])
        for start, stop in reversed(found.blocks):
            assert reader.read(found.file, ["x"], start, stop)["x"].tolist() == list(range(start, stop))
        tree = reader.use(found.file.location, lambda tree: tree.main)
        asked = tree._content.source.num_requests
        for start, stop in found.blocks[1:]:
            reader.read(found.file, ["x"], start, stop)
        assert tree._content.source.num_requests == asked

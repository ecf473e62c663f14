"""Baskets read straight into columns, beside what uproot makes of the same file."""

import dataclasses
import itertools
import lzma
import os
import pickle
import random
import struct
import threading
import zlib
from pathlib import Path

import awkward as ak
import cramjam
import numpy as np
import pytest
import uproot
import xxhash
from files_for_tests import SHARED, lists_of, with_wrong_counter, write
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.causes import ContradictionError
from rootdata.errors import DataError
from rootdata.io.formats import ttree
from rootdata.io.formats.ttree import BasketTable, Embedded, Owners, read_block
from rootdata.io.local import LocalSource
from rootdata.io.retry import PlaceError
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged, offsets_of
from rootdata.location import Location
from strategies import NO_SHRINKING

REAL = SHARED / "real"
NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
COMPRESSIONS = {
    "none": None,
    "zlib": uproot.ZLIB(1),
    "zstd": uproot.ZSTD(1),
    "lz4": uproot.LZ4(1),
    "lzma": uproot.LZMA(1),
}
EVENTS = 3000


def numbers(dtype, shape, rng):
    """Return numbers of any bits, of which only a few differ, so that they can be compressed."""
    size = np.dtype(dtype).itemsize
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    few = rng.integers(0, 256, (40, size), np.uint8).view(dtype)[:, 0]
    return rng.choice(few, shape)


@pytest.fixture(scope="module", params=COMPRESSIONS)
def every_kind(request, tmp_path_factory):
    """A file of seven baskets with a flat, a fixed-size and a jagged branch of every number type."""
    rng = np.random.default_rng(0)
    counts, few = rng.integers(0, 5, EVENTS), rng.integers(0, 5, EVENTS) // 4
    columns = {"empty": lists_of(np.zeros(0, np.float32), np.zeros(EVENTS, int))}
    for dtype in NUMBERS:
        columns |= {f"flat_{dtype}": numbers(dtype, EVENTS, rng), f"fixed_{dtype}": numbers(dtype, (EVENTS, 3), rng)}
        columns[f"list_{dtype}"] = lists_of(numbers(dtype, counts.sum(), rng), counts)
        columns[f"rare_{dtype}"] = lists_of(numbers(dtype, few.sum(), rng), few)
    path = tmp_path_factory.mktemp("kinds") / "a.root"
    write(path, columns, steps=(1, 2, 700, 701, 1500, 2999), compression=COMPRESSIONS[request.param])
    tree = open_tree(Location(str(path)))
    yield tree
    tree.close()


def by_uproot(tree, names, start, stop):
    """Read branches by uproot alone."""
    got = tree._source.arrays([tree.key_of(n) for n in names], entry_start=start, entry_stop=stop, how=dict)
    columns = {}
    for n in names:
        array = got[tree.key_of(n)]
        is_list = tree.describe(n).kind == "jagged"
        columns[n] = Jagged.from_awkward(array) if is_list else ak.to_numpy(array)
    return columns


def assert_same(got, wanted):
    """Compare two columns to the last bit; NaN is as good as any number."""
    assert type(got) is type(wanted)
    if isinstance(got, Jagged):
        assert_same(got.offsets, wanted.offsets)
        assert_same(got.content, wanted.content)
        return
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert got.tobytes() == wanted.tobytes()


def read_file(path, tables, start, stop):
    """Read entries of tables from a file that nobody has opened."""
    with Path(path).open("rb") as file:
        return read_block(LocalSource(file.fileno()), tables, start, stop)


ranges = st.tuples(st.integers(0, EVENTS), st.integers(0, EVENTS)).map(sorted)


@given(span=ranges, order=st.randoms(use_true_random=False))
def test_any_range_of_any_branch_is_what_uproot_reads(every_kind, span, order):
    names = order.sample(every_kind.names(), 6)
    names = [n for n in names if every_kind.describe(n).kind != "unusable"]
    got, wanted = every_kind.read(names, *span), by_uproot(every_kind, names, *span)
    assert list(got) == names
    for n in names:
        assert_same(got[n], wanted[n])


def test_lists_of_the_same_lengths_share_their_offsets(every_kind):
    got = every_kind.read([f"{kind}_{d}" for d in NUMBERS for kind in ("list", "rare")], 1, 2000)
    assert len({id(got[f"list_{d}"].offsets) for d in NUMBERS}) == 1
    assert len({id(c.offsets) for c in got.values()}) == 2


def test_tables_are_enough_to_read_a_file_that_nobody_opened(every_kind):
    names = ["flat_int16", "fixed_float64", "list_float32", "empty"]
    wanted = every_kind.read(names, 5, 1600)
    tables = pickle.loads(pickle.dumps([every_kind._tables[n] for n in names]))
    got = read_file(every_kind.place, tables, 5, 1600)
    for n in names:
        assert_same(got[n], wanted[n])


def test_threads_read_from_one_tree(every_kind):
    names = ["flat_float32", "list_float32", "rare_uint8"]
    spans = [(0, EVENTS), (3, 999), (1400, 1600), (700, 701)] * 5
    got = [{} for _ in spans]

    def read(i):
        got[i] = every_kind.read(names, *spans[i])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(spans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for columns, span in zip(got, spans, strict=True):
        wanted = by_uproot(every_kind, names, *span)
        for n in names:
            assert_same(columns[n], wanted[n])


def test_a_basket_of_several_compressed_blocks(tmp_path):
    values = np.arange(5_000_000, dtype=np.float32) % 1000  # 20 MB; a block holds 16 at most
    write(tmp_path / "a.root", {"x": values}, compression=uproot.ZSTD(1))
    tree = open_tree(Location(str(tmp_path / "a.root")))
    assert_same(tree.read(["x"], 4_000_000, 4_500_000)["x"], values[4_000_000:4_500_000])
    assert tree._tables["x"] is not None
    tree.close()


def test_a_closed_tree_holds_no_file(tmp_path):
    write(tmp_path / "a.root", {"x": np.arange(10.0)})
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    tree = open_tree(Location(str(tmp_path / "a.root")))
    tree.read(["x"], 0, 10)
    tree.close()
    tree.close()
    del tree
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


# Baskets made here: edges of their own for every branch, lists behind a header as those of std::vector


def compressed(data, how):
    """Compress as ROOT does, one block."""
    packed = {
        "ZL": lambda: zlib.compress(data, 1),
        "XZ": lambda: lzma.compress(data, preset=0),
        "ZS": lambda: bytes(cramjam.zstd.compress(data)),
        "L4": lambda: bytes(cramjam.lz4.compress_block(data, store_size=False)),
    }[how]()
    if how == "L4":
        packed = xxhash.xxh64_digest(packed) + packed
    return how.encode() + b"\1" + len(packed).to_bytes(3, "little") + len(data).to_bytes(3, "little") + packed


def basket(data, border, entries, *, how, keylen, owner=b""):
    """Put a key in front of the bytes of a basket."""
    stored = min(data, compressed(data, how) if how else data, key=len)  # equal lengths mean that it is not compressed
    head = struct.pack(">ihiIhh", keylen + len(stored), 1004, len(data), 0, keylen, 0)
    names = bytes(16) + b"\7TBasket" + bytes([len(owner)]) + owner if owner else b""
    foot = struct.pack(">HiiiiB", 3, 32000, 1000, entries, keylen + border, 0)
    return head + names + bytes(keylen - len(head) - len(names) - len(foot)) + foot + stored


def header_of(header, count, size):
    """Return what is in front of the numbers of a list, as of a std::vector."""
    return struct.pack(">IHI", 0x40000000 + 6 + count * size, 9, count) if header else b""


def basket_of(column, low, high, *, header, how, keylen):
    """Store some events of a column."""
    if isinstance(column, np.ndarray):
        data = column[low:high].astype(column.dtype.newbyteorder(">")).tobytes()
        return basket(data, len(data), high - low, how=how, keylen=keylen)
    events = [column.content[a:b] for a, b in itertools.pairwise(column.offsets[low : high + 1])]
    parts = [header_of(header, len(e), e.itemsize) + e.astype(e.dtype.newbyteorder(">")).tobytes() for e in events]
    starts = [keylen, *itertools.accumulate(map(len, parts), initial=keylen)][1:-1]
    positions = struct.pack(f">{high - low + 2}i", high - low + 1, *starts, 0)
    data = b"".join(parts)
    return basket(data + positions, len(data), high - low, how=how, keylen=keylen)


@st.composite
def stored_columns(draw, num_events):
    """Some columns, how they are cut into baskets, and how those are stored."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    counts = [rng.integers(0, 4, num_events) for _ in range(2)]
    found = {}
    for i in range(draw(st.integers(1, 5))):
        dtype, kind = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(["flat", "fixed", 0, 1]))
        if kind == "flat":
            column = numbers(dtype, num_events, rng)
        elif kind == "fixed":
            column = numbers(dtype, (num_events, draw(st.integers(1, 3))), rng)
        else:
            column = Jagged(offsets_of(counts[kind]), numbers(dtype, counts[kind].sum(), rng))
        cuts = sorted({0, num_events, *draw(st.lists(st.integers(0, num_events), max_size=4))})
        how = draw(st.sampled_from(["ZL", "ZS", "L4", "XZ", ""]))
        keylen = draw(st.integers(18 + 19, 90))
        header = draw(st.sampled_from([0, 10])) if isinstance(column, Jagged) else 0
        found[f"b{i}"] = (column, cuts, {"header": header, "how": how, "keylen": keylen})
    return found


def store(path, columns):
    """Write baskets in mixed order, with gaps, and return their tables."""
    content, places = bytearray(b"root"), {}
    pieces = [(n, low, high) for n, (_, cuts, _) in columns.items() for low, high in itertools.pairwise(cuts)]
    random.Random(0).shuffle(pieces)
    for n, low, high in pieces:
        column, _, options = columns[n]
        made = basket_of(column, low, high, **options)
        places[n, low] = (len(content), len(made))
        content += made + b"gap" * random.Random(len(made)).choice([0, 1, 20_000])
    path.write_bytes(content)
    return [table_of_column(n, *columns[n], places) for n in columns]


def table_of_column(name, column, cuts, options, places):
    seeks, nbytes = np.array([places[name, low] for low in cuts[:-1]], np.int64).reshape(-1, 2).T
    is_list = isinstance(column, Jagged)
    dtype, width = (column.content.dtype, -1) if is_list else (column.dtype, (*column.shape, 0)[1])
    return BasketTable(name, dtype.name, width, options["header"], np.array(cuts, np.int64), seeks, nbytes)


def part(column, start, stop):
    """Cut a range of events out of a column."""
    if isinstance(column, np.ndarray):
        return column[start:stop]
    offsets = column.offsets[start : stop + 1]
    return Jagged(offsets - offsets[0], column.content[offsets[0] : offsets[-1]])


@settings(phases=NO_SHRINKING)
@given(data=st.data(), num_events=st.integers(1, 400))
def test_baskets_with_edges_of_their_own(tmp_path_factory, data, num_events):
    columns = data.draw(stored_columns(num_events))
    path = tmp_path_factory.mktemp("baskets") / "a"
    tables = store(path, columns)
    for _ in range(4):
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, num_events)] * 2)))
        got = read_file(path, tables, start, stop)
        for n, (column, _, _) in columns.items():
            assert_same(got[n], part(column, start, stop))
        lists = [c for c in got.values() if isinstance(c, Jagged)]
        for a, b in itertools.combinations(lists, 2):
            assert (a.offsets is b.offsets) == np.array_equal(a.offsets, b.offsets)


@settings(phases=NO_SHRINKING, max_examples=150)
@given(data=st.data())
def test_damaged_baskets_give_an_error_or_numbers(tmp_path_factory, data):
    columns = data.draw(stored_columns(200))
    path = tmp_path_factory.mktemp("damage") / "a"
    tables = store(path, columns)
    content = bytearray(path.read_bytes())
    # What matters most are the sizes: in the key, at its end, in front of what is compressed, and the positions.
    table = data.draw(st.sampled_from(tables))
    k = data.draw(st.integers(0, len(table.seeks) - 1))
    seek, nbytes = int(table.seeks[k]), int(table.nbytes[k])
    for _ in range(data.draw(st.integers(1, 4))):
        at = seek + data.draw(st.integers(0, min(110, nbytes - 1)) | st.integers(0, nbytes - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        got = read_file(path, tables, *sorted(data.draw(st.tuples(*[st.integers(0, 200)] * 2))))
    except (ContradictionError, EOFError):
        return
    for n, (column, _, _) in columns.items():
        assert type(got[n]) is type(column)
        if isinstance(column, Jagged):
            assert (np.diff(got[n].offsets) >= 0).all()
            assert got[n].offsets[-1] == len(got[n].content)


LISTS = Jagged(np.array([0, 2, 2, 5]), np.arange(5, dtype=np.int32))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 1),  # fNbytes
        (14, -5 << 16),  # fKeylen
        (14, 17 << 16),
        (40 - 9, 4),  # fNevBuf
        (40 - 5, 0),  # fLast
        (40 - 5, 1 << 30),
        (40 + 20 + 4, 0),  # the position of the first list,
        (40 + 20 + 8, 41),  # of the second: no whole number of numbers,
        (40 + 20 + 8, 70),  # behind the third,
        (40 + 20 + 12, 1 << 29),  # behind the end,
        (40 + 20 + 12, -1),  # before the beginning
    ],
)
def test_sizes_and_positions_that_make_no_sense(tmp_path, at, value):
    (table,) = store(tmp_path / "a", {"b": (LISTS, [0, 3], {"header": 0, "how": "", "keylen": 40})})
    content = bytearray((tmp_path / "a").read_bytes())
    struct.pack_into(">i", content, 4 + at, value)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ContradictionError, match="branch 'b', basket 0 with entries 0 to 3: "):
        read_file(tmp_path / "a", [table], 0, 3)


@pytest.mark.parametrize("how", ["", "ZL", "ZS", "L4", "XZ"])
@pytest.mark.parametrize("size", [0, 799, 801, 1 << 30, (1 << 31) - 1])
def test_wrong_sizes_are_noticed_before_anything_is_allocated(tmp_path, how, size):
    column = np.zeros(100)
    (table,) = store(tmp_path / "a", {"b": (column, [0, 100], {"header": 0, "how": how, "keylen": 40})})
    content = bytearray((tmp_path / "a").read_bytes())
    struct.pack_into(">i", content, 4 + 6, size)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ContradictionError, match="branch 'b', basket 0 with entries 0 to 100: "):
        read_file(tmp_path / "a", [table], 0, 100)


def test_baskets_may_lie_far_apart(tmp_path):
    column = np.arange(4, dtype=np.int64)
    made = [basket_of(column, i, i + 2, header=0, how="", keylen=40) for i in (0, 2)]
    far = 1 << 28
    with (tmp_path / "a").open("w+b") as file:
        for seek, content in ((4, made[0]), (far, made[1])):
            file.seek(seek)
            file.write(content)
        file.flush()
        sizes = np.array([len(m) for m in made])
        table = BasketTable("b", "int64", 0, 0, np.array([0, 2, 4]), np.array([4, far]), sizes)
        assert read_block(LocalSource(file.fileno()), [table], 1, 4)["b"].tolist() == [1, 2, 3]


VECTORS = Jagged(np.array([0, 2, 2, 5, 6]), np.arange(6, dtype=np.float64))


@pytest.mark.parametrize("entry", range(4))
@pytest.mark.parametrize("field", [0, 6])
@pytest.mark.parametrize("change", [-1, 1, 8, 1 << 28, -(1 << 30)])
def test_vectors_that_are_not_as_long_as_they_say(tmp_path, entry, field, change):
    (table,) = store(tmp_path / "a", {"b": (VECTORS, [0, 4], {"header": 10, "how": "", "keylen": 40})})
    content = bytearray((tmp_path / "a").read_bytes())
    at = 4 + 40 + 10 * entry + 8 * int(VECTORS.offsets[entry]) + field
    (value,) = struct.unpack_from(">I", content, at)
    struct.pack_into(">I", content, at, (value + change) % 2**32)
    (tmp_path / "a").write_bytes(content)
    message = f"branch 'b', basket 0 with entries 0 to 4: the list of entry {entry} is not as long as it says"
    with pytest.raises(ContradictionError, match=message):
        read_file(tmp_path / "a", [table], 0, 4)
    for start, stop in ((0, entry), (entry + 1, 4)):
        assert_same(read_file(tmp_path / "a", [table], start, stop)["b"], part(VECTORS, start, stop))


@pytest.mark.parametrize("header", [0, 10])
def test_any_other_position_of_a_list_is_noticed(tmp_path, header):
    # Of vectors by what they say themselves, of others by the branch that counts them.
    column = {"b": (VECTORS, [0, 4], {"header": header, "how": "", "keylen": 40})}
    counts = {"n": (VECTORS.counts.astype(np.int32), [0, 1, 4], {"header": 0, "how": "", "keylen": 40})}
    table, counter = store(tmp_path / "a", column | counts)
    table = dataclasses.replace(table, counter=None if header else counter)
    assert_same(read_file(tmp_path / "a", [table], 1, 4)["b"], part(VECTORS, 1, 4))
    whole = (tmp_path / "a").read_bytes()
    border = int(table.seeks[0]) + 40 + 8 * 6 + 4 * header
    for i, by in itertools.product(range(4), (-16, -8, -1, 1, 8, 16, 1 << 20)):
        content = bytearray(whole)
        (position,) = struct.unpack_from(">i", content, border + 4 * (i + 1))
        struct.pack_into(">i", content, border + 4 * (i + 1), position + by)
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ContradictionError, match="'b'"):
            read_file(tmp_path / "a", [table], 0, 4)


def test_lists_that_do_not_say_where_they_begin_are_measured_by_their_counter(tmp_path):
    counts, content = np.array([2, 0, 3, 1], np.uint8), np.arange(6, dtype=np.float32)
    made = [
        basket(content[a:b].astype(">f4").tobytes(), 4 * (b - a), 2, how="ZL", keylen=40) for a, b in ((0, 2), (2, 6))
    ]
    counter = basket(counts.tobytes(), 4, 4, how="", keylen=40)
    (tmp_path / "a").write_bytes(b"root" + counter + b"".join(made))
    seeks = np.cumsum([4, len(counter), len(made[0])])
    of_counts = BasketTable("n", "uint8", 0, 0, np.array([0, 4]), seeks[:1], np.array([len(counter)]))
    places = (np.array([0, 2, 4]), seeks[1:], np.array([len(m) for m in made]))
    table = BasketTable("b", "float32", -1, 0, *places, counter=of_counts, is_bare=True)
    for start, stop in itertools.combinations_with_replacement(range(5), 2):
        got = read_file(tmp_path / "a", [table], start, stop)["b"]
        assert_same(got, part(Jagged(offsets_of(counts), content), start, stop))
    damaged = bytearray((tmp_path / "a").read_bytes())
    damaged[4 + 40 + 2] += 1
    (tmp_path / "a").write_bytes(damaged)
    with pytest.raises(ContradictionError, match="holds more or fewer numbers than its counter 'n' says"):
        read_file(tmp_path / "a", [table], 2, 3)


def test_a_second_row_of_positions_means_nothing_to_numbers(tmp_path):
    once = basket_of(LISTS, 0, 3, header=0, how="", keylen=40)[40:]
    made = basket(once + struct.pack(">5i", 4, *[99] * 4), 20, 3, how="", keylen=40)
    (tmp_path / "a").write_bytes(b"root" + made)
    table = BasketTable("b", "int32", -1, 0, np.array([0, 3]), np.array([4]), np.array([len(made)]))
    assert_same(read_file(tmp_path / "a", [table], 0, 3)["b"], LISTS)


def test_baskets_of_another_branch_are_refused(tmp_path):
    made = basket(np.arange(3, dtype=">i4").tobytes(), 12, 3, how="", keylen=80, owner=b"other")
    (tmp_path / "a").write_bytes(b"root" + made)
    table = BasketTable("b", "int32", 0, 0, np.array([0, 3]), np.array([4]), np.array([len(made)]), owner=b"mine")
    # A branch may have got another name since.
    assert read_file(tmp_path / "a", [table], 0, 3)["b"].tolist() == [0, 1, 2]
    table = dataclasses.replace(table, owners=frozenset([b"mine", b"other"]))
    with pytest.raises(ContradictionError, match="it belongs to branch 'other'"):
        read_file(tmp_path / "a", [table], 0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry_offsets": [1, 5, 10]}, "do not cover the 10 entries"),
        ({"entry_offsets": [0, 5, 9]}, "do not cover the 10 entries"),
        ({"entry_offsets": [0, 11, 10]}, "do not cover the 10 entries"),
        ({"entry_offsets": [0, 10]}, "are listed as 1, 2 and 2"),
        ({"seeks": [100, 0]}, "lie outside of the file"),
        ({"seeks": [100, 190]}, "lie in one another"),
        ({"seeks": [100, 100]}, "lie in one another"),
        ({"seeks": [100, 950]}, "lie outside of the file"),
        ({"nbytes": [100, -5]}, "lie outside of the file"),
        ({"nbytes": [101, 100]}, "lie in one another"),
    ],
)
def test_tables_that_contradict_their_tree_or_their_file(change, message):
    plain = {"entry_offsets": [0, 5, 10], "seeks": [100, 200], "nbytes": [100, 100]}
    owners = Owners(10, 1000, frozenset(), {})

    def check(numbers):
        table = BasketTable("b", "int32", 0, 0, **{n: np.array(v) for n, v in numbers.items()})
        ttree._check_sound(table, owners)

    check(plain)
    check(plain | {"entry_offsets": [0, 5, 12]})  # of which the tree uses the first ones
    with pytest.raises(ContradictionError, match=rf"branch 'b': its baskets {message}"):
        check(plain | change)


def test_embedded_baskets_are_checked_as_others(tmp_path):
    whole = basket_of(LISTS, 0, 3, header=0, how="", keylen=40)
    nothing = np.zeros(0, np.int64)

    def table(data):
        embedded = (Embedded(np.frombuffer(data, np.uint8), 40, 20),)
        return BasketTable("b", "int32", -1, 0, np.array([0, 3]), nothing, nothing, embedded=embedded)

    (tmp_path / "a").write_bytes(b"root")
    assert_same(read_file(tmp_path / "a", [table(whole[40:])], 0, 3)["b"], LISTS)
    for at in (4, 8, 12):
        content = bytearray(whole[40:])
        content[20 + at + 3] += 2
        with pytest.raises(ContradictionError, match="branch 'b', basket 0 with entries 0 to 3"):
            read_file(tmp_path / "a", [table(bytes(content))], 0, 3)


# Through the tree


def test_a_damaged_basket_is_told_by_branch_and_entries_and_takes_nothing_else_with_it(tmp_path):
    path = tmp_path / "a.root"
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 4, 2000)
    columns = {"x": rng.normal(size=2000), "y": lists_of(rng.normal(size=counts.sum()), counts)}
    write(path, columns, steps=(500, 1000), compression=uproot.ZLIB(1))
    tree = open_tree(Location(str(path)))
    wanted = tree.read(["x", "y"], 0, 2000)
    seek = int(tree._tables["y"].seeks[1])
    tree.close()
    whole = path.read_bytes()
    outcomes = set()
    begins = (
        f"{path}: entries 0 to 2000 of tree 'Events' can't be read (branch 'y', basket 1 with entries 500 to 1000: "
    )
    for at in [*range(0, 26, 3), *range(60, 1000, 50)]:
        content = bytearray(whole)
        content[seek + at] ^= 0x55
        path.write_bytes(content)
        damaged = open_tree(Location(str(path)))
        try:
            got = damaged.read(["x", "y"], 0, 2000)
        except PlaceError as error:
            assert str(error).startswith(begins)  # noqa: PT017
            assert str(error).endswith("damaged: replace it, or take it out of the sample")  # noqa: PT017
            outcomes.add("error")
        else:
            assert_same(got["y"], wanted["y"])
            outcomes.add("values")
        assert_same(damaged.read(["x"], 0, 2000)["x"], wanted["x"])
        assert_same(damaged.read(["y"], 0, 500)["y"], part(wanted["y"], 0, 500))
        damaged.close()
    assert outcomes == {"values", "error"}


def test_lists_that_their_counter_denies(tmp_path):
    path = with_wrong_counter(tmp_path / "a.root", [2, 5, 3, 4], at=2, says=9)
    tree = open_tree(Location(str(path)))
    with pytest.raises(
        DataError, match=r"counter 'nJet' says 9 but 'Jet_pt' has 3 objects in entry 2 of .*a\.root; the"
    ):
        tree.read(["Jet_pt"], 1, 4)
    assert tree.read(["Jet_pt"], 0, 2)["Jet_pt"].counts.tolist() == [2, 5]
    tree.close()


def test_a_file_that_shrinks_while_it_is_open(tmp_path):
    path = write(tmp_path / "a.root", {"x": np.random.default_rng(0).normal(size=50_000)})
    tree = open_tree(Location(str(path)))
    tree.read(["x"], 0, 10)
    os.truncate(path, 20_000)
    message = r"entries 0 to 10 of tree 'Events' can't be read \("
    with pytest.raises(PlaceError, match=message + "EOFError: .* truncated"):
        tree.read(["x"], 0, 10)
    tree.close()
    with pytest.raises(PlaceError, match=message + r"OSError: the file is closed\)$"):
        tree.read(["x"], 0, 10)


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("span", [(-1, 5), (5, 11), (7, 5), (11, 12)])
def test_entries_that_a_tree_does_not_have(tmp_path, kind, span):
    tree = open_tree(Location(str(write(tmp_path / "a.root", {"x": np.arange(10.0)}, kind=kind))))
    with pytest.raises(PlaceError, match=rf"entries {span[0]} to {span[1]} of tree 'Events' can't be read, it has 10"):
        tree.read(["x"], *span)
    tree.close()


@pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize(
    "name", ["uproot-HZZ", "hard_types", "nano_tt_v12", "ttH_M125_2017", "nanoAOD_2015_CMS_Open_Data_ttbar"]
)
def test_files_that_root_wrote(name):
    tree = open_tree(Location(str(REAL / f"{name}.root"), "events" if "HZZ" in name else "Events"))
    whole = [n for n in tree.names() if tree._find(n)[1] is None]  # of the others see test_parts.py
    few = whole[:: max(1, len(whole) // 60)]
    few = [n for n in few if tree.describe(n).kind != "unusable"]
    rng = random.Random(name)
    for _ in range(5):
        start, stop = sorted(rng.randint(0, tree.num_entries) for _ in range(2))
        got, wanted = tree.read(few, start, stop), by_uproot(tree, few, start, stop)
        for n in few:
            assert_same(got[n], wanted[n])
    tree.close()

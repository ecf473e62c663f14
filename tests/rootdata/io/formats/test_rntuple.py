import itertools
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import awkward as ak
import cramjam
import numpy as np
import pytest
import uproot
import xxhash
from files_for_tests import SHARED, lists_of, make_events, write
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from rootdata.causes import ContradictionError
from rootdata.errors import BranchError, FileError
from rootdata.io.formats import rntuple
from rootdata.io.formats.page_lists import Cluster, Page
from rootdata.io.formats.rntuple import ENCODINGS, INDEX_TYPES, Encoding, Field, NTupleColumn
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged
from rootdata.location import Location

NUMBERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
COMPRESSIONS = {
    "zstd": uproot.ZSTD(1),
    "zlib": uproot.ZLIB(1),
    "lz4": uproot.LZ4(1),
    "lzma": uproot.LZMA(1),
    "none": None,
}
NUM_EVENTS, STEPS = 2000, (1, 700, 700, 1500)
REAL = SHARED / "real"
ROOT_WRITTEN = ("nanoaod_ttbar_rntuple_by_root", "rntuple_by_root")


def same(one, other):
    """Compare columns to the last bit, type included."""
    if isinstance(one, Jagged):
        return isinstance(other, Jagged) and same(one.offsets, other.offsets) and same(one.content, other.content)
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def numbers(dtype, shape, rng):
    """Return numbers of any bits."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        return rng.normal(0, 1e3, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max // 2, shape, dtype=dtype)


def columns_of(num_events):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, num_events) * rng.integers(0, 2, num_events)
    columns = make_events(num_events)
    for dtype in NUMBERS:
        columns[f"flat_{dtype}"] = numbers(dtype, num_events, rng)
        columns[f"fixed_{dtype}"] = numbers(dtype, (num_events, 3), rng)
        columns[f"jagged_{dtype}"] = lists_of(numbers(dtype, counts.sum(), rng), counts)
    return columns | {"empty": lists_of(np.zeros(0, np.float32), np.zeros(num_events, np.int64))}


@pytest.fixture(scope="module", params=COMPRESSIONS)
def tree(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "a.root"
    write(path, columns_of(NUM_EVENTS), kind="RNTuple", steps=STEPS, compression=COMPRESSIONS[request.param])
    opened = open_tree(Location(str(path)))
    yield opened
    opened.close()


def usable(tree):
    return [n for n in tree.names() if tree.describe(n).kind != "unusable"]


def by_uproot(tree, names, start, stop):
    """Read whole fields by uproot alone, which is not always right about a part, and cut entries out of them."""
    with uproot.open(tree.place) as file:
        ntuple = file[tree.location.tree]
        return {n: part(plain(ntuple[tree.key_of(n)].array(), tree.describe(n)), start, stop) for n in names}


def plain(array, branch):
    if branch.kind == "jagged":
        return Jagged.from_awkward(array)
    return np.asarray(ak.to_numpy(array)).astype(branch.dtype, copy=False)


def part(column, start, stop):
    if isinstance(column, np.ndarray):
        return column[start:stop]
    offsets = column.offsets[start : stop + 1]
    return Jagged(offsets - offsets[0], column.content[offsets[0] : offsets[-1]])


# Beside uproot


@settings(max_examples=12)
@given(bounds=st.tuples(st.integers(0, NUM_EVENTS), st.integers(0, NUM_EVENTS)), data=st.data())
def test_any_range_is_what_uproot_reads(tree, bounds, data):
    start, stop = sorted(bounds)
    names = data.draw(st.lists(st.sampled_from(usable(tree)), min_size=1, max_size=9, unique=True))
    got = tree.read(names, start, stop)
    assert list(got) == names
    expected = by_uproot(tree, names, start, stop)
    assert [n for n in names if not same(got[n], expected[n])] == []


def test_every_field_is_what_uproot_reads(tree):
    names = usable(tree)
    assert len(names) == 3 * len(NUMBERS) + 4 + 2 + 1
    for start, stop in ((0, NUM_EVENTS), (699, 1501)):
        got, expected = tree.read(names, start, stop), by_uproot(tree, names, start, stop)
        assert [n for n in names if not same(got[n], expected[n])] == []


def test_an_empty_range_has_the_types_of_the_others(tree):
    names = usable(tree)
    for at in (0, 700, NUM_EVENTS):
        for name, column in tree.read(names, at, at).items():
            assert len(column) == 0
            assert (column.content if isinstance(column, Jagged) else column).dtype == tree.describe(name).dtype


def test_fields_of_a_collection_share_their_offsets(tree):
    got = tree.read(["Jet_pt", "Jet_eta", "jagged_int8"], 10, 1900)
    assert got["Jet_pt"].offsets is got["Jet_eta"].offsets
    assert got["Jet_pt"].offsets is not got["jagged_int8"].offsets


def test_threads_share_a_tree(tree):
    names = usable(tree)
    whole = tree.read(names, 0, NUM_EVENTS)
    bounds = [(a, a + 300) for a in range(0, 1700, 70)]
    with ThreadPoolExecutor(4) as pool:
        for (start, stop), got in zip(bounds, pool.map(lambda b: tree.read(names, *b), bounds), strict=True):
            assert all(len(got[n]) == stop - start for n in names)
            assert same(got["event"], whole["event"][start:stop])
            offsets = whole["Jet.pt"].offsets[start : stop + 1]
            assert same(got["Jet.pt"].content, whole["Jet.pt"].content[offsets[0] : offsets[-1]])


@pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")
@pytest.mark.parametrize("name", ROOT_WRITTEN)
def test_what_root_wrote_is_what_uproot_reads(name):
    tree = open_tree(Location(str(REAL / f"{name}.root"), "Events"))
    names = usable(tree)[::30] if len(tree.names()) > 100 else usable(tree)
    names += [n for n in ("nJet", "Jet_pt", "Muon_charge") if n in usable(tree) and n not in names]
    whole = by_uproot(tree, names, 0, tree.num_entries)
    for start, stop in ((0, tree.num_entries), (17, 18), (33, 150)):
        got = tree.read(names, start, stop)
        assert [n for n in names if not same(got[n], part(whole[n], start, stop))] == []
    tree.close()


# Every encoding, written here after the specification


def encoded(values, kind):
    """Encode the elements of a page."""
    encoding = ENCODINGS[kind]
    if encoding.dtype == "?":
        return np.packbits(values, bitorder="little").tobytes()
    stored = values.astype(encoding.dtype)
    if encoding.is_delta:
        stored = np.diff(stored, prepend=stored.dtype.type(0))
    if encoding.is_zigzag:
        stored = (stored << 1) ^ (stored >> (8 * stored.itemsize - 1))
    raw = stored.view(np.uint8).reshape(-1, stored.itemsize)
    return (raw.T if encoding.is_split else raw).tobytes()


def packed(content, algorithm, limit=1000):
    """Compress the contents of a page, in blocks of at most ``limit`` bytes; as they are where that is no shorter."""
    blocks = []
    for i in range(0, len(content), limit):
        piece = content[i : i + limit]
        data = {
            "ZS": lambda p: bytes(cramjam.zstd.compress(p)),
            "ZL": isal_zlib.compress,
            "L4": lambda p: (c := bytes(cramjam.lz4.compress_block(p, store_size=False)), xxhash.xxh64_digest(c) + c)[
                1
            ],
        }[algorithm](piece)
        blocks += [algorithm.encode(), b"\1", struct.pack("<I", len(data))[:3], struct.pack("<I", len(piece))[:3], data]
    joined = b"".join(blocks)
    return joined if len(joined) < len(content) else content


class Written:
    """Columns in clusters, in bytes; as a file and its description are.

    Parameters
    ----------
    edges : first entries of the clusters, and the number of entries
    """

    def __init__(self, edges, *, rng, algorithm="ZS", has_checksum=True):
        self.edges, self.rng, self.algorithm, self.has_checksum = edges, rng, algorithm, has_checksum
        self.bytes = b"root"
        self.found = [{} for _ in edges[1:]]

    @property
    def clusters(self):
        return [
            Cluster(a, b - a, found.get)
            for (a, b), found in zip(itertools.pairwise(self.edges), self.found, strict=True)
        ]

    def fetch(self, start, size):
        return self.bytes[start : start + size]

    def add(self, number, kind, per_cluster):
        """Write a column, in pages of any length."""
        for found, values in zip(self.found, per_cluster, strict=True):
            found[number] = []
            cuts = np.sort(self.rng.integers(0, len(values) + 1, 2))
            for page in np.split(values, cuts):
                data = packed(encoded(page, kind), self.algorithm)
                found[number].append(Page(len(page), len(self.bytes), len(data), self.has_checksum))
                self.bytes += data + (struct.pack("<Q", xxhash.xxh3_64_intdigest(data)) if self.has_checksum else b"")
        return NTupleColumn(number, ENCODINGS[kind])

    def add_lists(self, numbers, kinds, values, counts):
        """Write a column of numbers and the one of where lists end."""
        cut = [counts[a:b] for a, b in itertools.pairwise(self.edges)]
        ends = self.add(numbers[0], kinds[0], [np.cumsum(c) for c in cut])
        inner = np.split(values, np.cumsum([c.sum() for c in cut])[:-1])
        return Field(self.add(numbers[1], kinds[1], inner), lists=ends)


@pytest.mark.parametrize("kind", sorted(set(ENCODINGS) - INDEX_TYPES))
@settings(max_examples=6)
@given(
    index=st.sampled_from(sorted(INDEX_TYPES)),
    steps=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    algorithm=st.sampled_from(["ZS", "ZL", "L4"]),
    has_checksum=st.booleans(),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_encoding_comes_back(kind, index, steps, seed, algorithm, has_checksum, shares):
    rng = np.random.default_rng(seed)
    edges = np.cumsum([0, *steps]).tolist()
    file = Written(edges, rng=rng, algorithm=algorithm, has_checksum=has_checksum)
    dtype, n = ENCODINGS[kind].dtype, edges[-1]
    counts = rng.integers(0, 5, n)
    content = numbers(dtype, counts.sum(), rng)
    flat, fixed = numbers(dtype, n, rng), numbers(dtype, (n, 3), rng)
    fields = {
        "lists": file.add_lists((0, 1), (index, kind), content, counts),
        "flat": Field(file.add(2, kind, np.split(flat, edges[1:-1]))),
        "fixed": Field(file.add(3, kind, [f.reshape(-1) for f in np.split(fixed, edges[1:-1])]), shape=(3,)),
    }
    fields["counts"] = Field(fields["lists"].lists, is_count=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    rows = numbers(dtype, (len(content), 2), rng)
    pages = [page.reshape(-1) for page in np.split(rows, ends[edges[1:-1]])]
    fields["arrays"] = Field(file.add(4, kind, pages), fields["lists"].lists, shape=(2,))
    start, stop = sorted(round(s * n) for s in shares)
    got = rntuple.read(file.fetch, fields, file.clusters, start, stop)
    assert same(got["flat"], flat[start:stop])
    assert same(got["fixed"], fixed[start:stop])
    assert same(got["counts"], counts[start:stop])
    assert same(got["lists"], Jagged(ends[start : stop + 1] - ends[start], content[ends[start] : ends[stop]]))
    assert same(got["arrays"], Jagged(ends[start : stop + 1] - ends[start], rows[ends[start] : ends[stop]]))


def test_neighbouring_pages_are_read_at_once(monkeypatch):
    file = Written([0, 500, 1000], rng=np.random.default_rng(0))
    fields = {
        str(i): Field(file.add(i, 0x0D, np.split(np.random.default_rng(i).normal(size=1000), 2))) for i in range(9)
    }
    asked = []

    def fetch(start, size):
        asked.append(size)
        return file.fetch(start, size)

    rntuple.read(fetch, fields, file.clusters, 0, 1000)
    assert len(asked) == 1
    monkeypatch.setattr(rntuple, "REQUEST_BYTES", 20_000)
    asked.clear()
    rntuple.read(fetch, fields, file.clusters, 0, 1000)
    assert 4 <= len(asked) < 9
    assert max(asked) <= 20_000


# Fields that are not simple


def record(parent, role, *, name="float", repetition=0, source=None):
    return SimpleNamespace(
        parent_field_id=parent, struct_role=role, type_name=name, repetition=repetition, source_field_id=source
    )


def column(field, kind, *, way=0, first=0, nbits=0, low=None, high=None):
    return SimpleNamespace(
        field_id=field, type=kind, repr_idx=way, first_element_index=first, nbits=nbits, min_value=low, max_value=high
    )


def test_what_fields_are_made_of():
    leaf, collection, rec, variant = 0, 1, 2, 3
    fields = [
        record(0, leaf),  # 0: a number
        record(1, leaf),  # 1: stored in two ways
        record(2, leaf),  # 2: begins later
        record(3, leaf),  # 3: floats of any number of bits
        record(4, collection), record(4, collection), record(5, leaf),  # 4, 5, 6: lists of lists
        record(7, variant), record(7, leaf),  # 7, 8
        record(9, collection), record(9, rec), record(10, leaf), record(10, leaf, repetition=2),  # 9 to 12: records
        record(12, leaf),  # 13: inside of 12
        record(14, collection, source=9), record(14, leaf, source=11),  # 14, 15: what 11 is, under another name
        record(16, leaf, name="ROOT::RNTupleCardinality<std::uint32_t>", source=9),  # 16
        record(17, leaf),  # 17: without a column
        record(18, leaf, repetition=4), record(18, leaf),  # 18, 19: four numbers
        record(20, leaf), record(20, leaf),  # 20, 21: an atomic
        record(22, leaf, repetition=3), record(22, rec), record(23, leaf),  # 22 to 24: three records
    ]  # fmt: skip
    columns = [column(0, 0x0C), column(1, 0x0C), column(1, 0x19, way=1, first=2**64 - 7), column(2, 0x0C, first=5)]
    columns += [column(3, 0x1D, nbits=9, low=-1.0, high=1.0)]
    columns += [column(4, 0x0F), column(5, 0x0F), column(6, 0x0C), column(8, 0x0C), column(9, 0x0F)]
    columns += [column(11, 0x0C), column(13, 0x0C), column(19, 0x0D), column(21, 0x0D), column(24, 0x0C)]
    schema = rntuple.NTupleFields(fields, columns)
    single, double = ENCODINGS[0x0C], ENCODINGS[0x0D]
    ends = NTupleColumn(9, ENCODINGS[0x0F])
    assert schema.find(0) == Field(NTupleColumn(0, single))
    assert schema.find(1) == Field(NTupleColumn(1, single, others=(NTupleColumn(2, ENCODINGS[0x19]),)))
    assert schema.find(1).dtype == "float64"
    assert schema.find(2) == Field(NTupleColumn(3, single, first=5))
    assert schema.find(3) == Field(NTupleColumn(4, Encoding("f4", bits=9, bounds=(-1.0, 1.0))))
    assert schema.find(11) == Field(NTupleColumn(10, single), lists=ends)
    assert schema.find(14) == schema.find(15) == schema.find(11)
    assert schema.find(16) == Field(ends, is_count=True)
    assert schema.find(18) == Field(NTupleColumn(12, double), shape=(4,))
    assert schema.find(20) == Field(NTupleColumn(13, double))
    assert schema.find(24) == Field(NTupleColumn(14, single), shape=(3,))
    assert schema.find(12) == schema.find(13) == Field(NTupleColumn(11, single), lists=ends, shape=(2,))
    nested = Field(NTupleColumn(7, single), NTupleColumn(5, ENCODINGS[0x0F]), NTupleColumn(6, ENCODINGS[0x0F]))
    assert schema.find(4) == schema.find(5) == schema.find(6) == nested
    assert [schema.find(i) for i in (7, 8, 9, 17, 22)] == [None] * 5


@pytest.mark.parametrize("name", ["std::optional<float>", "std::unique_ptr<float>"])
def test_what_may_be_absent_and_arrays_of_lists_are_not_simple(name):
    fields = [record(0, 1, name=name), record(0, 0)]  # stored as a list is
    assert rntuple.NTupleFields(fields, [column(0, 0x0F), column(1, 0x0C)]).find(0) is None
    fields = [record(0, 0, repetition=3), record(0, 1), record(1, 0)]
    assert rntuple.NTupleFields(fields, [column(1, 0x0F), column(2, 0x0C)]).find(0) is None


def test_fields_that_lie_in_each_other_are_refused():
    schema = rntuple.NTupleFields([record(1, 2), record(0, 2)], [])
    with pytest.raises(ContradictionError, match="fields lie in each other"):
        schema.find(0)


# Damage


def damaged(path, at, value):
    content = bytearray(path.read_bytes())
    content[at] ^= value
    path.write_bytes(content)


def pages_of(tree, names):
    """Say where pages begin, and how long they are with their checksums."""
    columns = {c for n in names for c in (tree._field(n).values, tree._field(n).lists) if c}
    found = [page for cluster in tree._clusters for c in columns for page in cluster.pages(c.number)]
    return sorted((page.offset, page.stop - page.offset) for page in found)


@pytest.mark.long
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_pages_are_refused_or_read_but_never_crash(tmp_path, compression):
    columns = make_events(3000)
    path = write(tmp_path / "a.root", columns, kind="RNTuple", steps=(1000,), compression=COMPRESSIONS[compression])
    rng = np.random.default_rng(1)
    whole = path.read_bytes()
    refused = []
    for _ in range(60):
        path.write_bytes(whole)
        tree = open_tree(Location(str(path)))
        names = ["met", "event", "Jet_pt", "Jet_eta"]
        offset, size = pages_of(tree, names)[rng.integers(10)]
        damaged(path, offset + min(int(rng.exponential(10)), size - 1), int(rng.integers(1, 256)))
        try:
            got = tree.read(names, 0, 3000)
        except FileError as error:
            refused.append(str(error))
        else:
            assert all(len(c) == 3000 for c in got.values())
            assert got["Jet_pt"].offsets[-1] == len(got["Jet_pt"].content)
            assert (got["Jet_pt"].counts >= 0).all()
    assert len(refused) > (30 if compression in {"zstd", "zlib", "lzma"} else 3)  # what is stored as it is says nothing
    assert all(f"{path}: entries 0 to 3000 of tree 'Events' can't be read" in told for told in refused)
    unknown = "' is not known here"  # where the byte was one of the codec's name
    assert all("the file is truncated or damaged: replace it" in told or unknown in told for told in refused)
    assert sum(unknown in told for told in refused) < 5


@pytest.mark.skipif(not REAL.exists(), reason="the shared data folder is not here")
def test_a_changed_bit_in_what_root_wrote_is_found(tmp_path):
    path = tmp_path / "a.root"
    whole = (REAL / "rntuple_by_root.root").read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(30):
        path.write_bytes(whole)
        tree = open_tree(Location(str(path)))
        name = ["HT", "Jet_pt"][rng.integers(2)]
        offset, size = pages_of(tree, [name])[-1]
        damaged(path, offset + int(rng.integers(size)), 1 << int(rng.integers(8)))
        with pytest.raises(FileError, match=r"can't be read .*; the file is truncated or damaged"):
            tree.read([name], 0, tree.num_entries)
        tree.close()


def test_a_file_that_is_cut_or_closed_meanwhile_is_an_error(tmp_path):
    path = write(tmp_path / "a.root", make_events(3000), kind="RNTuple", steps=(1000,))
    tree = open_tree(Location(str(path)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(FileError, match=r"of [\d,]+ bytes at [\d,]+\); the file is truncated"):
        tree.read(["met"], 0, 3000)
    tree.close()
    with pytest.raises(FileError, match="is closed"):
        tree.read(["met"], 0, 1)


def lists_that_say(ends, pages_are=None, elements=10):
    """Describe one cluster of two entries: lists that end as given, of ``elements`` numbers in all."""
    file = Written([0, 2], rng=np.random.default_rng(0))
    lists = file.add(0, 0x0F, [np.array(ends)])
    field = Field(file.add(1, 0x0C, [np.zeros(elements, np.float32)]), lists=lists)
    if pages_are is not None:
        file.found[0][1] = pages_are(file.found[0][1])
    return file, field


@pytest.mark.parametrize(
    ("ends", "elements", "message"),
    [
        ((5, 3), 10, "a list ends before it begins"),
        ((-1, 3), 10, "a list (ends before it|begins before its cluster)"),
        ((4, 11), 10, "hold 10 elements; 11 are needed"),
        ((4, 2**62), 10, "are needed"),
        ((4,), 10, "hold 1 elements; 2 are needed"),
    ],
)
def test_lists_that_can_not_be_are_refused(ends, elements, message):
    file, field = lists_that_say(ends, elements=elements)
    for start in (0, 1):
        with pytest.raises(ContradictionError, match=message):
            rntuple.read(file.fetch, {"x": field}, file.clusters, start, 2)


@pytest.mark.parametrize(
    "lie",
    [
        lambda p: Page(2**31, p.offset, p.size, p.has_checksum),
        lambda p: Page(p.elements + 1, p.offset, p.size, p.has_checksum),
        lambda p: Page(p.elements, p.offset + 1, p.size, p.has_checksum),
        lambda p: Page(p.elements, 2**40, p.size, p.has_checksum),
        lambda p: Page(p.elements, p.offset, p.size + 1, p.has_checksum),
        lambda p: Page(p.elements, p.offset, p.size - 1, has_checksum=False),
        lambda p: Page(p.elements, p.offset, 0, has_checksum=False),
    ],
)
def test_lists_of_pages_that_lie_are_refused(lie):
    file = Written([0, 300], rng=np.random.default_rng(0))
    field = Field(file.add(0, 0x18, [np.arange(300, dtype=np.float32)]))
    file.found[0][0] = [
        lie(p) if p.elements == max(q.elements for q in file.found[0][0]) else p for p in file.found[0][0]
    ]
    with pytest.raises(
        ContradictionError, match=r"can't hold|differs|can be read|lies in another|compressed blocks of|needed|unknown"
    ):
        rntuple.read(file.fetch, {"x": field}, file.clusters, 0, 300)


def test_entries_that_no_cluster_holds_are_refused():
    file = Written([0, 10, 20, 30], rng=np.random.default_rng(0))
    field = Field(file.add(0, 0x0C, [np.zeros(10, np.float32)] * 3))
    clusters = file.clusters
    with pytest.raises(ContradictionError, match="no cluster holds entry 30"):
        rntuple.read(file.fetch, {"x": field}, clusters, 5, 31)
    with pytest.raises(ContradictionError, match="no cluster holds entry 10"):
        rntuple.read(file.fetch, {"x": field}, [clusters[0], clusters[2]], 5, 25)
    lacking = Cluster(0, 30, {}.get)
    with pytest.raises(ContradictionError, match="its pages hold 0 elements; 30 are needed"):
        rntuple.read(file.fetch, {"x": field}, [lacking], 0, 1)


# Lists of lists


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """Lists of lists in several clusters, the first of them empty in every way."""
    rng = np.random.default_rng(3)
    outer = np.concatenate([[0, 0, 0], rng.integers(0, 4, 300) * rng.integers(0, 2, 300)])
    inner = rng.integers(0, 3, outer.sum()) * rng.integers(0, 2, outer.sum())
    column = lists_of(lists_of(rng.normal(size=inner.sum()).astype(np.float32), inner), outer)
    path = tmp_path_factory.mktemp("nested") / "a.root"
    write(path, {"vv": column, "x": np.arange(303)}, kind="RNTuple", steps=(3, 40, 41, 200))
    opened = open_tree(Location(str(path)))
    yield opened, column
    opened.close()


@given(bounds=st.tuples(st.integers(0, 303), st.integers(0, 303)), names=st.permutations(["x", "flat", "num"]))
def test_lists_of_lists_are_joined_and_counted_in_any_range(nested, bounds, names):
    tree, column = nested
    start, stop = sorted(bounds)
    names = [{"flat": "flatten(vv)", "num": "num(vv)"}.get(name, name) for name in names[:2]]
    got, wanted = tree.read(names, start, stop), column[start:stop]
    expected = {"flatten(vv)": ak.flatten(wanted, axis=2), "num(vv)": ak.num(wanted, axis=2)}
    for name in {*names} & {*expected}:
        numbers = np.asarray(ak.to_numpy(ak.flatten(expected[name]))).astype(tree.describe(name).dtype)
        counts = ak.to_numpy(ak.num(expected[name])).tolist()
        assert got[name].counts.tolist() == counts
        assert same(got[name].content, numbers)


def test_lists_of_lists_are_no_column_themselves(nested):
    tree, _ = nested
    assert tree.describe("vv").kind == "unusable"
    with pytest.raises(
        BranchError, match=r"'vv' can't be used: it holds lists of lists .*: flatten\(...\) of its name"
    ):
        tree.read(["vv"], 0, 1)


@pytest.mark.parametrize("path", ["fields.root", "ntuples.root", "awkward.root"])
def test_lists_of_lists_that_root_wrote_are_joined_and_counted(path):
    place = Path(__file__).parents[3] / "data" / path
    with uproot.open(place) as file:
        trees = [n for n, kind in file.classnames(cycle=False).items() if "RNTuple" in kind and "vv" in file[n]]
        for name in trees:
            tree, column = open_tree(Location(str(place), name)), file[name]["vv"].array()
            for start, stop in ((0, len(column)), (3, len(column) - 2), (5, 6)):
                got, wanted = tree.read(["flatten(vv)", "num(vv)"], start, stop), column[start:stop]
                assert got["flatten(vv)"].to_awkward().tolist() == ak.flatten(wanted, axis=2).tolist()
                assert got["num(vv)"].to_awkward().tolist() == ak.num(wanted, axis=2).tolist()
            tree.close()
    assert trees or path == "awkward.root"

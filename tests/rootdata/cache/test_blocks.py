"""The store of decoded blocks: exact, or empty; never wrong, never full, and never in the way."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import struct
import subprocess
import threading
import time
import warnings
import zlib

import awkward as ak
import numpy as np
import pytest
from files_for_tests import listed, make_events, options, write
from hypothesis import given
from hypothesis import strategies as st

from crashes_for_tests import crash, in_child
from rootdata.__main__ import main
from rootdata.cache import blocks
from rootdata.cache.blocks import open_store
from rootdata.errors import FileError
from rootdata.events.evaluation import Block
from rootdata.events.needs import needed_branches
from rootdata.events.selection import select
from rootdata.io.store import key_of, through
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged, offsets_of
from rootdata.layouts.layout import Layout, Padded
from rootdata.layouts.packed import pack
from rootdata.layouts.pool import Pool
from rootdata.location import Location
from rootdata.options.data import parse_data
from rootdata.options.parts import PARTS
from rootdata.options.read import CacheConfig
from rootdata.scaling.transform import Transform

PLENTY = 10**9


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "blocks"


@pytest.fixture(params=["memory", "disk"])
def store(request, folder):
    return open_store(CacheConfig(dir=None if request.param == "memory" else str(folder), max_bytes=PLENTY))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores for Hypothesis, in which every example has a key of its own."""
    folder = tmp_path_factory.mktemp("blocks")
    return [open_store(CacheConfig(dir=d, max_bytes=PLENTY)) for d in (None, str(folder))]


def on_disk(folder, max_bytes=PLENTY):
    return open_store(CacheConfig(dir=str(folder), max_bytes=max_bytes))


def in_memory(max_bytes):
    return open_store(CacheConfig(dir=None, max_bytes=max_bytes))


@functools.cache
def value_of(number):
    """Make what is always kept under the key of a number: some 4 to 9 kB."""
    rng = np.random.default_rng(number)
    counts = rng.integers(0, 5, 300)
    pt = rng.normal(size=counts.sum() + 100 * (number % 5)).astype(np.float32)
    return {
        "met": rng.normal(size=300).astype(np.float32),
        "pt": Jagged(offsets_of(np.array([*counts, len(pt) - counts.sum()])), pt),
        "cov": rng.normal(size=(10, 3)),
    }


def is_same(found, expected):
    """Compare columns to the last bit, types and order included."""
    return list(found) == list(expected) and all(
        type(found[n]) is type(expected[n])
        and [(p.dtype, p.shape, p.tobytes()) for p in pieces_of(found[n])]
        == [(p.dtype, p.shape, p.tobytes()) for p in pieces_of(expected[n])]
        for n in expected
    )


def pieces_of(column):
    if isinstance(column, np.ndarray):
        return [column]
    return [column.offsets, column.content[: column.offsets[-1]]]


def files_in(folder):
    """List what lies in a cache folder, the lock left out."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def bytes_in(folder):
    return sum(p.stat().st_size for p in files_in(folder))


SIZES = [blocks._size_of(blocks._encoded(str(i), value_of(i))) for i in range(10)]


# What is put is what is got

dtypes = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i8"])


@st.composite
def numbers(draw, size, dtype=dtypes):
    """Any bits at all, NaNs with a payload among them."""
    dtype = np.dtype(draw(dtype))
    content = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    return np.frombuffer(content, np.uint8) % 2 == 1 if dtype.kind == "b" else np.frombuffer(content, dtype)


@st.composite
def columns(draw):
    n = draw(st.integers(0, 6))
    found = {}
    for name in draw(st.lists(st.text(max_size=5), unique=True, max_size=6)):
        kind = draw(st.sampled_from(["flat", "fixed", "jagged"]))
        if kind == "flat":
            found[name] = draw(numbers(n))
        elif kind == "fixed":
            width = draw(st.integers(0, 3))
            found[name] = draw(numbers(n * width)).reshape(n, width)
        else:
            offsets = np.cumsum([0, *draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))])
            native = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
            found[name] = lists(offsets, draw(numbers(int(offsets[-1]), native)))
    return found


def lists(offsets, content):
    return Jagged(np.asarray(offsets, np.int64), content)


keys = iter(range(10**9))


@given(given=columns())
def test_columns_come_back_to_the_last_bit(stores, given):
    key = str(next(keys))
    for store in stores:
        assert store.get(key) is None
        store.put(key, given)
        for _ in range(2):
            assert is_same(store.get(key), given)


def test_columns_in_any_form_are_kept_as_plain_ones(store):
    forms = {
        "of a slice": lists([2, 2, 5], np.arange(5, dtype=np.float32)),
        "offsets of 32 bits": Jagged(np.array([0, 1, 3], np.int32), np.arange(5, dtype=np.float32)),
        "strided content": lists([0, 1, 3], np.arange(20, dtype=np.int16)[::2]),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(10)[::3],
    }
    store.put("a", forms)
    found = store.get("a")
    assert {n: listed(c) for n, c in found.items()} == {n: listed(c) for n, c in forms.items()}
    assert found["of a slice"].content.dtype == np.float32
    assert found["of a slice"].offsets.tolist() == [0, 0, 3]
    assert found["strided content"].content.dtype == np.int16


@pytest.mark.parametrize(
    "column",
    [
        np.array(["a"]),
        np.array([None]),
        np.ma.masked_array([1.0], [True]),
        np.float32(1),
        [1.0, 2.0],
        ak.Array([[1.0], []]),
        Jagged(np.array([0, 1]), np.array(["a"])),
    ],
    ids=lambda column: type(column).__name__,
)
def test_what_can_not_be_told_exactly_is_not_kept(store, column):
    store.put("a", {"met": np.zeros(3), "odd": column})
    assert store.get("a") is None


def test_branches_of_a_collection_share_their_offsets(store, folder):
    offsets = np.arange(1001)
    several = {n: lists(offsets.copy(), np.zeros(1000, np.float32)) for n in ("pt", "eta", "phi")}
    store.put("a", several)
    found = store.get("a")
    assert is_same(found, several)
    assert found["pt"].offsets is found["eta"].offsets
    if folder.exists():
        assert bytes_in(folder) < 8 * 1001 + 3 * 4000 + 1000


def test_nobody_can_spoil_an_entry(store):
    store.put("a", value_of(1))
    found = store.get("a")
    for piece in (p for column in found.values() for p in pieces_of(column)):
        with pytest.raises(ValueError, match="read-only"):
            piece[0] = 0
    mine = {"met": np.zeros(3)}
    store.put("b", mine)
    mine["met"][:] = 1
    assert store.get("b")["met"].tolist() == [0, 0, 0]


def test_events_are_made_of_kept_columns_as_of_read_ones(store, tmp_path):
    path = write(tmp_path / "a.root", make_events(200))
    config = parse_data(options(path, cut="met > 0"))
    sample, location = config.samples[0], Location(str(path), "Events")
    names = needed_branches(config, sample)
    tree = open_tree(location)
    key = key_of([tree.uuid, tree.num_entries, "Events"], names=names, start=0, stop=200)
    made = []
    for _ in range(2):
        raw = through(store, key, lambda: tree.read(names, 0, 200))
        made.append(batch_of(config, sample, raw, Block(location=location, start=0, stop=200, num_entries=200)))
    tree.close()
    assert all(np.array_equal(made[0][n], made[1][n]) for n in made[0])


def batch_of(config, sample, raw, block):
    """Make the dense arrays of all events, by the way that training takes."""
    collections = tuple(Padded(name=c.name, branches=c.branches, length=3) for c in config.jagged)
    layout = Layout(kind="vector", flat=config.flat, collections=collections)
    names = (*config.flat, *(b for c in collections for b in c.branches))
    events = select(config, sample, raw, block=block, part=PARTS.index("train"))
    packed = pack(events, layout, dict.fromkeys(names, Transform()), sample=0, file=0)
    return Pool(layout, [packed]).gather(np.zeros(len(packed), np.int64), np.arange(len(packed)))


# Keys, and reading through


def test_a_key_names_everything_that_decides_the_columns():
    block = {"content": ["u", 9, "Events"], "names": ("a", "b"), "start": 0, "stop": 5, "made": "x"}
    others = {"content": ["u", "9", "Events"], "names": ("b", "a"), "start": 1, "stop": 6, "made": ""}
    changed = [block | {name: other} for name, other in others.items()]
    names = [("a",), ("ab",), ("a,b",), ('a", "b',), ()]
    found = {key_of(**b) for b in [block, *changed, *(block | {"names": n} for n in names)]}
    assert len(found) == 1 + len(others) + len(names)
    assert key_of(**block) == key_of(**block | {"names": ["a", "b"]})


@given(wanted=st.lists(st.integers(0, 5), max_size=15))
def test_a_block_is_read_once_for_every_miss(wanted):
    for max_bytes in (PLENTY, sum(SIZES[:3]), 1):
        store, read = in_memory(max_bytes), []
        for number in wanted:
            is_miss = store.get(str(number)) is None
            before = len(read)
            found = through(store, str(number), lambda n=number, read=read: read.append(n) or value_of(n))
            assert is_same(found, value_of(number))
            assert len(read) == before + is_miss
        if max_bytes == PLENTY:
            assert sorted(read) == sorted(set(wanted))


def test_without_a_store_blocks_are_read_each_time():
    assert open_store(None) is None
    read = []
    for _ in range(2):
        assert through(None, "a", lambda: read.append(1) or {"x": 1}) == {"x": 1}
    assert read == [1, 1]


def test_an_error_of_reading_is_not_kept(store):
    def fail():
        raise FileError("broken")

    with pytest.raises(FileError, match="broken"):
        through(store, "a", fail)
    assert is_same(through(store, "a", lambda: value_of(1)), value_of(1))


# The bound


@pytest.mark.parametrize("make", [lambda folder, size: in_memory(size), on_disk], ids=["memory", "disk"])
def test_the_least_recently_used_goes_first(folder, make):
    same = {"x": np.zeros(1000)}
    size = blocks._size_of(blocks._encoded("0", same))
    store = make(folder, int(4.5 * size))
    for key in "0123":
        store.put(key, same)
    assert [store.get(k) is not None for k in "1320"] == [True] * 4
    store.put("4", same)
    assert [store.get(k) is not None for k in "13204"] == [False, True, True, True, True]
    store.put("2", same)
    store.put("5", same)
    assert [store.get(k) is not None for k in "30425"] == [False, True, True, True, True]


@pytest.mark.parametrize("make", [lambda folder, size: in_memory(size), on_disk], ids=["memory", "disk"])
def test_a_block_larger_than_the_bound_is_not_kept_and_puts_nothing_out(folder, make):
    store = make(folder, SIZES[0])
    store.put("0", value_of(0))
    store.put("4", value_of(4))
    assert store.get("4") is None
    assert is_same(store.get("0"), value_of(0))


def test_memory_holds_no_more_than_the_bound():
    store = in_memory(30_000)
    for number in [*range(10), 3, 4, 3, *range(9, -1, -1)]:
        store.put(str(number), value_of(number))
        held = [len(content) for content in store._kept.values()]
        assert sum(held) == store._bytes <= 30_000
    assert len(held) > 2


def test_a_smaller_bound_is_kept_from_the_start(folder):
    store = on_disk(folder)
    for number in range(10):
        store.put(str(number), value_of(number))
    assert bytes_in(folder) == sum(SIZES)
    on_disk(folder, 20_000)
    assert 10_000 < bytes_in(folder) <= 20_000
    assert is_same(store.get("9"), value_of(9))


@pytest.mark.parametrize("text", [b"", b"0", b"%020d" % 0, b"junk", b"%020d" % 10**15])
def test_a_wrong_count_is_counted_anew(folder, text):
    store = on_disk(folder, 40_000)
    for number in range(5):
        store.put(str(number), value_of(number))
    (folder / ".lock").write_bytes(text)
    store = on_disk(folder, 40_000)
    assert all(store.get(str(number)) is not None for number in range(5))
    for number in range(5, 10):
        store.put(str(number), value_of(number))
        assert bytes_in(folder) <= 40_000
    assert int((folder / ".lock").read_bytes()) == bytes_in(folder)


# Wrong bytes


@given(data=st.data())
def test_wrong_bytes_are_never_delivered(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "wrong"
    store, value = on_disk(folder), value_of(1)
    store.put("1", value)
    (path,) = files_in(folder)
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["change", "cut", "extend", "swap", "zero"]))
    at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 100))
    if how == "change":
        for place in [at, *data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5))]:
            content[place] ^= data.draw(st.integers(0, 255))
    elif how == "cut":
        del content[at:]
    elif how == "extend":
        content += data.draw(st.binary(max_size=100))
    elif how == "swap":
        content = content[at:] + content[:at]
    else:
        content[at : at + 4096] = bytes(len(content[at : at + 4096]))
    path.write_bytes(content)
    found = store.get("1")
    assert found is None or is_same(found, value)
    assert is_same(through(store, "1", lambda: value), value)
    assert is_same(store.get("1"), value)
    assert bytes_in(folder) == SIZES[1]


def test_the_entry_of_another_key_is_not_taken(folder):
    store = on_disk(folder)
    store.put("1", value_of(1))
    (path,) = files_in(folder)
    store.put("2", value_of(2))
    (other,) = set(files_in(folder)) - {path}
    shutil.copy(path, other)
    assert store.get("2") is None
    assert is_same(store.get("1"), value_of(1))


def test_an_entry_of_another_format_is_not_taken(folder, monkeypatch):
    monkeypatch.setattr(blocks, "FORMAT", b"RDBLOCK0")
    on_disk(folder).put("1", value_of(1))
    monkeypatch.undo()
    assert on_disk(folder).get("1") is None


def old_entry(key, values):
    """Make an entry as earlier versions wrote it: RDBLOCK1, with a checksum that is right."""
    arrays = {"key": key, "arrays": [[values.dtype.str, values.shape, 0]], "columns": {"met": [0]}}
    header = json.dumps(arrays).encode()
    body = header + bytes(-(24 + len(header)) % 64) + values.tobytes() + bytes(-values.nbytes % 64)
    rest = struct.pack("<IQ", len(header), 24 + len(body)) + body
    return b"RDBLOCK1" + struct.pack("<I", zlib.crc32(rest)) + rest


def test_what_an_earlier_version_kept_is_not_taken_but_replaced(folder):
    old, value = old_entry("1", np.arange(100.0)), {"met": np.arange(50.0)}
    path = blocks._path_of(folder, "1")
    path.parent.mkdir(parents=True)
    path.write_bytes(old)
    store = on_disk(folder)
    assert blocks.usage(folder) == (1, len(old))
    assert store.get("1") is None
    assert is_same(through(store, "1", lambda: value), value)
    assert files_in(folder) == [path]
    assert is_same(store.get("1"), value)
    assert int((folder / ".lock").read_bytes()) == bytes_in(folder)


def test_what_an_earlier_version_kept_makes_room(folder):
    for number in range(10):
        path = blocks._path_of(folder, str(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(old_entry(str(number), np.arange(1000.0)))
    store = on_disk(folder, max_bytes=40_000)
    for number in range(10, 14):
        store.put(str(number), value_of(number))
    assert bytes_in(folder) <= 40_000
    assert all(is_same(store.get(str(number)), value_of(number)) for number in range(10, 14))


def test_missing_values_beside_lists_are_not_forgotten(store):
    store.put("a", {"nhits": Jagged(np.array([0, 2]), np.arange(2), np.array([True, False]))})
    assert store.get("a") is None


# Several processes and threads


def start(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def work(folder, seed, until, hits):
    """Read and write until a time; end with an error where anything wrong comes back."""
    warnings.simplefilter("error")
    rng, store = random.Random(seed), on_disk(folder, 30_000)
    while time.monotonic() < until:
        number = rng.randrange(10)
        found = store.get(str(number))
        if found is None:
            store.put(str(number), value_of(number))
        else:
            assert is_same(found, value_of(number))
            with hits.get_lock():
                hits.value += 1


@pytest.mark.long
def test_readers_and_writers_in_a_tight_folder(folder):
    on_disk(folder)
    hits = multiprocessing.get_context("fork").Value("i", 0)
    until = time.monotonic() + 2
    workers = [start(work, folder, seed, until, hits) for seed in range(3)]
    looks = 0
    while any(w.is_alive() for w in workers):
        with blocks._locked(folder, seconds=10) as total:  # a look at one moment: who lists a folder sees many
            assert bytes_in(folder) <= min(30_000, total.get())
        looks += 1
        time.sleep(0.005)
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert hits.value > 20
    assert looks > 20
    on_disk(folder, 30_000)
    assert not (folder / ".new").exists()


def test_threads_share_a_store(store):
    wrong = []

    def use(seed):
        rng = random.Random(seed)
        for _ in range(60):
            number = rng.randrange(10)
            if not is_same(through(store, str(number), lambda n=number: value_of(n)), value_of(number)):
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert all(is_same(store.get(str(n)), value_of(n)) for n in range(10))


def put_one(store, number):
    store.put(str(number), value_of(number))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_another_process_finds_what_one_has_put(folder, method):
    store = on_disk(folder)
    process = multiprocessing.get_context(method).Process(target=put_one, args=(store, 3))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert is_same(store.get("3"), value_of(3))
    assert is_same(on_disk(folder).get("3"), value_of(3))


def test_a_store_can_be_sent_to_another_process(store):
    store.put("1", value_of(1))
    sent = pickle.loads(pickle.dumps(store))
    is_shared = not hasattr(store, "_kept")
    assert (sent.get("1") is not None) == is_shared
    assert is_same(through(sent, "1", lambda: value_of(1)), value_of(1))
    assert (
        (store._folder, store._max_bytes) == (sent._folder, sent._max_bytes) if is_shared else sent._bytes == SIZES[1]
    )


def test_a_process_forked_while_a_thread_uses_the_memory_does_not_wait_for_it():
    store = in_memory(PLENTY)
    with store._lock:
        assert in_child(lambda: put_one(store, 1) or store.get("1")["met"]) == 0
    assert store.get("1") is None


def test_a_process_forked_while_the_folder_is_locked_does_not_keep_the_lock(folder):
    store = on_disk(folder)
    reading, writing = os.pipe()
    with blocks._locked(folder, seconds=1):
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
    put_one(store, 1)
    os.write(writing, b"x")
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    assert is_same(store.get("1"), value_of(1))


def test_a_lock_that_nobody_gives_back_holds_nobody_up(folder, monkeypatch):
    monkeypatch.setattr(blocks, "LOCK_SECONDS", 0.2)
    store = on_disk(folder)
    with blocks._locked(folder, seconds=1):
        began = time.monotonic()
        put_one(store, 1)
        waited = time.monotonic()
        for number in range(10):
            put_one(store, number)
        assert waited - began >= 0.2
        assert time.monotonic() - waited < 1  # ten waits would take 2 s
        assert store.get("1") is None
        with pytest.raises(FileError, match=r"others are writing to .* all the time; try again"):
            blocks.clear(folder)
    put_one(store, 1)
    assert is_same(store.get("1"), value_of(1))


# Crashes


BOUND = sum(SIZES[:4]) + 100

CHANGES = {
    "put the first": lambda folder: put_one(on_disk(folder / "new", BOUND), 5),
    "put into a full folder": lambda folder: put_one(on_disk(folder, BOUND), 9),
    "put a damaged one anew": lambda folder: put_one(on_disk(folder, BOUND), 3),  # others must go for it
    "make the folder smaller": lambda folder: on_disk(folder, BOUND // 2),
    "clear": blocks.clear,
}


@pytest.mark.long
@pytest.mark.parametrize("kind", CHANGES)
def test_a_crash_at_some_lines_harms_nothing(tmp_path, kind):
    try_crashes(tmp_path, kind, step=40)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", [kind for kind in CHANGES if kind != "put into a full folder"])  # the next one does
def test_a_crash_at_any_line_harms_nothing(tmp_path, kind):
    try_crashes(tmp_path, kind, step=1)


def try_crashes(tmp_path, kind, *, step):
    begin = tmp_path / "begin"
    store = on_disk(begin, BOUND)
    for number in range(4):
        put_one(store, number)
    damaged = blocks._path_of(begin, "3")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (begin / ".new").write_bytes(b"left by a dead process")
    line, is_over, crashes = 0, False, 0
    while not is_over:
        line += random.Random(line).randint(1, step)
        folder = tmp_path / f"at{line}"
        shutil.copytree(begin, folder)
        is_over = crash(lambda folder=folder: CHANGES[kind](folder), line=line, code=["rootdata/cache/blocks.py"])
        crashes += not is_over
        place = folder / "new" if kind == "put the first" else folder
        assert bytes_in(place) <= BOUND
        check_counted(place)
        check_usable(place)
        shutil.rmtree(folder)
    assert crashes > 2


def check_counted(folder):
    """What lies there is counted, so that those who have the folder open go on keeping the bound."""
    lock = folder / ".lock"
    if lock.exists() and lock.read_bytes():
        assert blocks.usage(folder)[1] <= int(lock.read_bytes())


def check_usable(folder):
    """Whatever happened before, nothing wrong comes back, and what is put now is found."""
    store = on_disk(folder, BOUND)
    assert not (folder / ".new").exists()
    for number in range(10):
        found = store.get(str(number))
        assert found is None or is_same(found, value_of(number))
    for number in (7, 0, 8):
        put_one(store, number)
        assert is_same(store.get(str(number)), value_of(number))
        assert bytes_in(folder) <= BOUND
    assert int((folder / ".lock").read_bytes()) == bytes_in(folder)


def write_large(folder):
    store = on_disk(folder, 10_000_000)
    for number in range(10**6):
        store.put(str(number % 7), {"x": np.full(300_000, number % 7, np.float64)})


@pytest.mark.long
def test_kill_9_in_the_middle_of_large_writes(folder):
    rng = random.Random(3)
    on_disk(folder)
    half_written = 0
    for _ in range(8):
        writers = [start(write_large, folder) for _ in range(2)]
        time.sleep(rng.uniform(0.05, 0.15))
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
        half_written += (folder / ".new").exists()
        assert bytes_in(folder) <= 10_000_000
        store = on_disk(folder, 10_000_000)
        assert not (folder / ".new").exists()
        for number in range(7):
            found = store.get(str(number))
            assert found is None or (len(found["x"]), set(found["x"])) == (300_000, {number})
        store.put("x", {"x": np.zeros(1000)})
        assert store.get("x")["x"].tolist() == [0] * 1000
    assert half_written


# Disks that are full, and folders that can't be used


@pytest.fixture
def small_disk(mount):
    """A file system of a megabyte."""
    return mount("1m")


def test_a_full_disk_turns_writing_off_with_one_warning(small_disk):
    store, large = on_disk(small_disk), {"x": np.arange(50_000.0)}
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        found = [through(store, str(number), lambda: large) for number in range(10)]
    assert all(is_same(columns, large) for columns in found)
    assert len(caught) == 1
    assert "disk" in str(caught[0].message)
    assert "reading goes on from the files" in str(caught[0].message)
    assert not (small_disk / ".new").exists()
    kept = [is_same(found, large) for n in range(10) if (found := store.get(str(n))) is not None]
    assert kept == [True] * 2
    with pytest.warns(UserWarning, match="No space left on device"):
        on_disk(small_disk).put("another", large)
    blocks.clear(small_disk)
    on_disk(small_disk).put("another", large)
    assert len(files_in(small_disk)) == 1


def test_a_disk_that_can_only_be_read_serves_what_it_has(small_disk):
    put_one(on_disk(small_disk), 1)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.warns(UserWarning, match="Read-only file system") as caught:
        store = on_disk(small_disk)
    put_one(store, 2)
    assert len(caught) == 1
    assert is_same(store.get("1"), value_of(1))
    assert store.get("2") is None
    with pytest.raises(FileError, match=r"can't be cleared .*Read-only"):
        blocks.clear(small_disk)


def test_a_write_that_ends_early_leaves_nothing(folder):
    store, large = on_disk(folder), {"x": np.arange(50_000.0)}
    put_one(store, 1)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with pytest.warns(UserWarning, match="File too large"):
            store.put("2", large)
        put_one(store, 3)
        assert store.get("3") is None
        assert is_same(store.get("1"), value_of(1))

    assert in_child(limited) == 0
    assert bytes_in(folder) == SIZES[1]
    store.put("2", large)
    assert is_same(store.get("2"), large)


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.warns(UserWarning, match=r"cache: blocks can't be kept in .*file/blocks .*reading goes on") as caught:
        store = on_disk(tmp_path / "file" / "blocks")
    assert len(caught) == 1
    assert is_same(through(store, "1", lambda: value_of(1)), value_of(1))
    put_one(pickle.loads(pickle.dumps(store)), 1)
    assert store.get("1") is None


def test_a_folder_that_is_removed_meanwhile_is_made_again(folder):
    store = on_disk(folder)
    put_one(store, 1)
    shutil.rmtree(folder)
    assert store.get("1") is None
    put_one(store, 1)
    assert is_same(store.get("1"), value_of(1))


# What people ask for


def test_usage_and_clear_touch_blocks_only(folder):
    store = on_disk(folder)
    for number in range(3):
        put_one(store, number)
    mine = [folder / "notes.txt", folder / "ab" / "notes.txt", folder / "photos" / "a.block"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert blocks.usage(folder) == (3, sum(SIZES[:3]))
    blocks.clear(folder)
    assert blocks.usage(folder) == (0, 0)
    assert files_in(folder) == sorted(mine)
    put_one(store, 1)
    assert is_same(store.get("1"), value_of(1))


def test_the_command(folder, capsys):
    store = on_disk(folder)
    store.put("a", {"x": np.zeros(10**6)})
    assert main(["cache", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 1 blocks, 0.008 GB\n"
    assert main(["cache", str(folder), "--clear"]) == 0
    assert capsys.readouterr().out == f"{folder}: 0 blocks, 0.000 GB\n"
    assert store.get("a") is None
    assert main(["cache", str(folder / "none")]) == 2
    assert "none is no folder; name the one that was given as `cache.dir`" in capsys.readouterr().err
    for action in (blocks.usage, blocks.clear):
        with pytest.raises(FileError, match="is no folder"):
            action(__file__)

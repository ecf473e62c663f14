import dataclasses
import gc
import itertools
import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rootdata.errors import ReaderError
from rootdata.jagged import Jagged
from rootdata.loading.readers import reading
from rootdata.loading.shared_memory import ALIGNMENT, FIRST_SIZE, Receiver, Sender

linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="arrays go through the pipe")
PASSED = "memfd:rootdata"


def echo(connection):
    """Send back what comes."""
    sender = Sender(connection)
    while (request := connection.recv()) is not None:
        thing, freed = request
        sender.free(freed)
        connection.send_bytes(sender.dumps(thing))


class Echo:
    """A process that sends back what it gets."""

    def __init__(self, start):
        context = multiprocessing.get_context(start)
        self.connection, theirs = context.Pipe()
        self.receiver = Receiver(self.connection)
        self.process = context.Process(target=echo, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, thing):
        # The protocol that keeps what is read-only so.
        self.connection.send_bytes(pickle.dumps((thing, self.receiver.freed()), protocol=5))
        return self.receiver.loads(self.connection.recv_bytes())

    def close(self):
        self.connection.send(None)
        self.process.join(10)
        self.connection.close()
        self.receiver.close()


@pytest.fixture(scope="module", params=["fork", "spawn"])
def there_and_back(request):
    process = Echo(request.param)
    yield process
    process.close()
    assert process.process.exitcode == 0


@pytest.fixture
def forked():
    process = Echo("fork")
    yield process
    process.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Nest:
    """What a block may be one day."""

    arrays: dict[str, Any]
    inner: Any = None


def layouts(array):
    """The same values, laid out in memory in some other way."""
    wide = np.zeros((*array.shape, 2), array.dtype)
    wide[..., 0] = array
    fixed = array.copy()
    fixed.flags.writeable = False
    return st.sampled_from([array, np.asfortranarray(array), wide[..., 0], fixed])


dtypes = st.sampled_from(["f4", "f8", "i8", "u2", "?", ">i4", "c8", "S3", "U2", "M8[s]", [("a", "i2"), ("b", "f8")]])
arrays = hnp.arrays(
    dtypes.map(np.dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=70)
).flatmap(layouts)  # fmt: skip
things = st.recursive(
    arrays | st.none() | st.text(),
    lambda inner: st.builds(Nest, st.dictionaries(st.text(), inner, max_size=3), inner) | st.tuples(inner, inner),
    max_leaves=6,
)


def is_same(a, b):
    """Say whether two things are equal to the last bit, and may be written to alike."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        alike = (a.dtype, a.shape, a.flags.writeable) == (b.dtype, b.shape, b.flags.writeable)
        return alike and a.tobytes() == b.tobytes()
    if isinstance(a, Nest):
        return is_same((*a.arrays.values(), a.inner), (*b.arrays.values(), b.inner)) and [*a.arrays] == [*b.arrays]
    return all(map(is_same, a, b)) and len(a) == len(b) if isinstance(a, tuple) else a == b


def block_of(num_events, *, value=1.0):
    """Make what a block is like: some large arrays, in a dataclass and below."""
    rng = np.random.default_rng(num_events)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 6, num_events))])
    jets = Jagged(offsets, rng.normal(size=(offsets[-1], 4)).astype(np.float32))
    return Nest({"flat": np.full((num_events, 3), value, np.float32), "label": np.arange(num_events)}, jets)


def arrays_of(block):
    return [*block.arrays.values(), block.inner.offsets, block.inner.content]


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def mapped():
    """Return how many bytes of such memory are mapped here, and how many are in use."""
    sizes, is_ours = [0, 0], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if "-" in key.split(" ")[0]:
            is_ours = PASSED in line
        elif is_ours and key in ("Size", "Rss"):
            sizes[key == "Rss"] += int(rest.split()[0]) * 1024
    return tuple(sizes)


# What arrives


@given(things=st.lists(things, min_size=1, max_size=3))
@settings(max_examples=25)
def test_everything_arrives_as_through_a_pipe(there_and_back, things):
    arrived = [there_and_back(thing) for thing in things]  # all at the same time
    # Pickled once on the way there already, which fills gaps and frees some kinds of arrays from being read-only.
    plain = [pickle.loads(pickle.dumps(thing, protocol=5)) for thing in things]
    assert all(map(is_same, [pickle.loads(pickle.dumps(thing, protocol=5)) for thing in plain], arrived))


@linux
@given(sizes=st.lists(st.integers(0, 4000), min_size=1, max_size=8), data=st.data())
@settings(max_examples=30)
def test_what_somebody_has_is_never_overwritten(there_and_back, sizes, data):
    sent = [block_of(size, value=float(i)) for i, size in enumerate(sizes)]
    held = {}
    for i, block in enumerate(sent):
        held[i] = arrays_of(there_and_back(block))
        for gone in data.draw(st.lists(st.sampled_from(sorted(held)), unique=True)):
            del held[gone][data.draw(st.integers(0, 3)) :]  # what is left of a block, if anything, keeps all of it
    for i, arrays in held.items():
        assert all(map(is_same, arrays_of(sent[i]), arrays))


@linux
def test_arrays_are_aligned_views_that_compiled_loops_take_as_those_that_were_sent(forked):
    sent = block_of(1000)
    for there, here in zip(arrays_of(sent), arrays_of(forked(sent)), strict=True):
        assert not here.flags.owndata
        assert here.ctypes.data % ALIGNMENT == 0
        assert numba.typeof(here) == numba.typeof(there)


def test_a_default_timeout_of_sockets_changes_nothing():
    socket.setdefaulttimeout(5)
    try:
        process = Echo("fork")
        assert os.get_blocking(process.connection.fileno())
        assert all(map(is_same, arrays_of(block_of(10)), arrays_of(process(block_of(10)))))
        process.close()
    finally:
        socket.setdefaulttimeout(None)


def test_without_such_memory_arrays_go_through_the_pipe(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    process = Echo("fork")
    block = process(block_of(100_000))
    assert all(map(is_same, arrays_of(block), arrays_of(block_of(100_000))))
    process.close()


# What is left


@linux
def test_two_hundred_blocks_leave_no_files_and_take_the_room_of_those_held(forked):
    forked(block_of(10))
    shared, files, held = set(Path("/dev/shm").iterdir()), descriptors(), []
    for i in range(200):
        held = [*held[-3:], forked(block_of(20_000 + i))]
    assert descriptors() == files
    assert set(Path("/dev/shm").iterdir()) == shared
    one = len(pickle.dumps(block_of(20_200), protocol=5))
    assert mapped()[1] < 8 * one  # 200 of them came


@linux
def test_memory_grows_with_what_is_held_and_is_given_back():
    before = mapped()
    process = Echo("fork")
    size = FIRST_SIZE // 3
    held = [process(np.full(size, i, np.uint8)) for i in range(7)]
    assert all((array == i).all() for i, array in enumerate(held))
    assert mapped()[1] - before[1] >= 7 * size
    process.close()
    assert [array[0] for array in held] == list(range(7))  # the process is gone, its memory is not
    del held
    assert mapped() == before


@linux
def test_a_circle_gives_its_room_back(forked):
    class Circle:
        def __init__(self, block):
            self.block, self.me = block, self

    first = Circle(forked(block_of(100)))
    where = arrays_of(first.block)[0].ctypes.data
    del first
    gc.collect()
    assert arrays_of(forked(block_of(100)))[0].ctypes.data == where


# What goes wrong


class Blocks:
    """Reads blocks of a million events; keeps to a limit of the system."""

    def __init__(self, limit=None):
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def __call__(self, number):
        return np.full(1_000_000, number) if number else number

    def close(self):
        """Nothing is open."""


@linux
def test_too_little_memory_is_an_error_that_says_so():
    with reading(partial(Blocks, 100_000), processes=1) as submit:
        with pytest.raises(ReaderError, match=r"8,000,000 bytes of memory that is shared .*: .*; take smaller chunk"):
            submit(1).result(10)
        assert submit(0).result(10) == 0


ADDRESSES = """
import resource
import numpy as np
from rootdata.loading.readers import reading
from rootdata.errors import ReaderError
from test_shared_memory import Blocks

with reading(Blocks, processes=1) as submit:
    submit(0).result()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000,) * 2)
    try:
        submit(1).result()
    except ReaderError as error:
        print(error)
"""


@linux
def test_memory_that_can_not_be_mapped_is_an_error_that_says_so():
    paths = [str(Path(__file__).parents[3] / "src"), str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", ADDRESSES], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert "bytes of memory that is shared with a reading process: Cannot allocate memory" in done.stdout, done.stderr


class Endless(Blocks):
    """Says who it is, then gives block after block."""

    def __call__(self, number):
        return super().__call__(number) if number else os.getpid()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_is_killed_while_it_sends_is_an_error(start):
    before = descriptors()
    with reading(Endless, processes=1, start=start) as submit:

        def read_on():
            for number in itertools.count(1):
                assert (submit(number).result(10) == number).all()

        killer = threading.Timer(0.2, os.kill, (submit(0).result(), signal.SIGKILL))
        killer.start()
        begin = time.monotonic()
        with pytest.raises(ReaderError, match="ended by SIGKILL while it read block"):
            read_on()
        assert time.monotonic() - begin < 5
        killer.join()
    assert descriptors() == before or start == "spawn"  # Python's own process for spawned ones stays

import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.io.local import PIECE, announce, borrow, read_into

SIZE = 3 * PIECE + 17
lengths = st.one_of(
    st.integers(0, SIZE), st.sampled_from([0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, SIZE])
)


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


@pytest.fixture(scope="module")
def handle(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fetching") / "a"
    path.write_bytes(content.tobytes())
    number = os.open(path, os.O_RDONLY)
    yield number
    os.close(number)


@given(begin=lengths, end=lengths)
def test_any_part_of_a_file_is_read(handle, content, begin, end):
    begin, end = sorted([begin, end])
    room = np.full(end - begin + 2, 99, np.uint8)
    announce(handle, begin, end)
    read_into(handle, begin, room[1:-1])
    assert (room[1:-1] == content[begin:end]).all()
    assert room[0] == room[-1] == 99


@pytest.mark.parametrize("size", [10, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("missing", [1, 9])
def test_the_end_of_a_file_is_noticed(handle, size, missing):
    with pytest.raises(EOFError, match=f"{size - missing:,} of {size:,} bytes at {SIZE - size + missing:,}"):
        read_into(handle, SIZE - size + missing, np.zeros(size, np.uint8))


def test_what_can_not_be_read_ahead_is_not_announced(handle):
    reading, writing = os.pipe()
    announce(reading, 0, 10)  # a pipe has no pages
    os.close(reading)
    os.close(writing)
    announce(reading, 0, 10)
    announce(handle, SIZE, 10 * SIZE)


def test_borrowed_memory_is_the_own_of_a_thread_and_a_purpose():
    mine = borrow(100)
    mine[:] = 1
    assert np.shares_memory(mine, borrow(50))
    assert not np.shares_memory(mine, borrow(50, "piece"))
    others = []
    threads = [threading.Thread(target=lambda: others.append(borrow(100))) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert not any(np.shares_memory(mine, other) for other in others)
    assert len(borrow(5 * PIECE)) == 5 * PIECE

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.errors import BranchError, FileError
from rootdata.loading.readers import Stop, prefetched, reading

SOURCES = Path(__file__).parents[3] / "src"


def threads():
    return sorted(t.name for t in threading.enumerate() if t.name.startswith("rootdata-"))


def wait_until(condition, *, within=5.0):
    """Say whether something becomes true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    assert wait_until(lambda: threads() == [])


ERRORS = {
    7: FileError("a.root is damaged"),
    11: BranchError("no branch"),
    13: OSError(5, "Input/output error"),
}


class Numbers:
    """Reads number n as an array of n, or raises the error of that number."""

    def __init__(self):
        self.read, self.num_closed = [], 0

    def __call__(self, number):
        if number in ERRORS:
            raise ERRORS[number]
        self.read.append(number)
        return np.full(3, number)

    def close(self):
        self.num_closed += 1


class Waiting(Numbers):
    """Waits until it is closed, as one that tries a dead server again and again."""

    def __init__(self):
        super().__init__()
        self.is_closed = threading.Event()

    def __call__(self, number):
        self.is_closed.wait()
        raise FileError("closed")

    def close(self):
        self.is_closed.set()


def blocks(reader, *, stop=None, count=None):
    """Yield block after block, a few ahead: what a stream does."""
    with reading(reader, threads=2, stop=stop) as submit:
        futures = []
        for number in itertools.count() if count is None else range(count):
            futures.append(submit(number))
            if len(futures) > 3:
                yield futures.pop(0).result()
        yield from (future.result() for future in futures)


def iteration(reader, *, depth=2, **options):
    stop = Stop()
    return prefetched(blocks(reader, stop=stop, **options), depth=depth, stop=stop)


# What is read


def test_every_block_comes_to_who_asked_for_it():
    reader = Numbers()
    with reading(reader, threads=3) as submit:
        assert len(threads()) == 4
        asked = {number: submit(number) for number in (3, 1, 2, 3, 100)}
        assert {n: future.result().tolist() for n, future in asked.items()} == {n: [n] * 3 for n in asked}
        assert submit(5).result().tolist() == [5] * 3
        assert (sorted(reader.read), reader.num_closed) == ([1, 2, 3, 3, 5, 100], 0)
    assert reader.num_closed
    submit.close()  # once more


def test_a_block_that_was_taken_is_not_kept():
    with reading(Numbers(), threads=2) as submit:
        block = weakref.ref(submit(1).result())
        assert wait_until(lambda: block() is None)


# What goes wrong


def test_errors_keep_their_type_and_say_where_they_come_from():
    with reading(Numbers(), threads=2) as submit:
        for number, kind in [(7, FileError), (11, BranchError), (13, OSError)]:
            with pytest.raises(kind) as caught:
                submit(number).result()
            assert (type(caught.value), str(caught.value)) == (kind, str(ERRORS[number]))
            assert "raise ERRORS[number]" in "".join(traceback.format_exception(caught.value))
        assert submit(1).result()[0] == 1


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_ends_the_iteration_after_what_was_good(depth):
    events, found = iteration(Numbers(), depth=depth), []
    with pytest.raises(FileError, match=r"a.root is damaged"):
        found.extend(int(block[0]) for block in events)
    assert found == list(range(7))
    assert threads() == []


# How it ends


@settings(max_examples=15)
@given(depth=st.integers(0, 4), take=st.integers(0, 6))
def test_it_may_be_closed_at_any_moment(depth, take):
    events = iteration(Numbers(), depth=depth)
    assert [int(block[0]) for block in itertools.islice(events, take)] == list(range(take))
    events.close()
    assert threads() == []


@given(depth=st.integers(0, 3), count=st.integers(0, 7))
def test_the_end_is_the_end(depth, count):
    assert [int(block[0]) for block in iteration(Numbers(), depth=depth, count=count)] == list(range(count))
    assert threads() == []


@pytest.mark.parametrize("in_circle", [False, True])
def test_what_is_dropped_half_way_ends(in_circle):
    class Notebook:
        """Keeps its cell alive, as the traceback of an interrupted one does."""

    cell = Notebook()
    cell.events, cell.me = iteration(Numbers()), cell if in_circle else None
    next(cell.events)
    assert threads()
    del cell
    if in_circle:
        gc.collect()
    assert wait_until(lambda: threads() == [])


def test_an_exception_in_a_loop_over_it_ends_it():
    def train():
        for _ in iteration(Numbers()):
            raise ValueError("nan")

    with pytest.raises(ValueError, match="nan"):
        train()
    assert threads() == []


@pytest.mark.parametrize("depth", [0, 2])
def test_closing_lets_those_give_up_who_wait_for_a_server(depth):
    reader = Waiting()
    stop = Stop()
    source = blocks(reader, stop=stop)
    events = prefetched(source, depth=depth, stop=stop)
    if depth:
        thread = threading.Timer(0.1, stop.set)
        thread.start()
        with pytest.raises(CancelledError):
            next(events)
        thread.join()
    events.close()
    source.close()
    assert threads() == []


def test_whoever_waits_is_told_at_once():
    stop = Stop()
    with reading(Waiting(), threads=2, stop=stop) as submit:
        futures = [submit(i) for i in range(10)]
        stop.set()
        for future in [*futures, submit(10)]:
            with pytest.raises(CancelledError):
                future.result(timeout=0)


def test_what_is_done_on_the_word_is_done_after_it_too():
    stop, done = Stop(), []
    stop.then(lambda: done.append(1))
    assert (stop.is_set, done) == (False, [])
    stop.set()
    stop.then(lambda: done.append(2))
    assert (stop.is_set, done) == (True, [1, 2])


# How it ends in a program of its own

PROGRAM = """
import itertools, os, signal, sys, threading, time
from rootdata.loading.readers import Stop, prefetched, reading

signal.signal(signal.SIGINT, signal.default_int_handler)

def say(word):
    os.write(1, f"{{word}}\\n".encode())  # in one piece, whoever else writes

class Reader:
    def __call__(self, number):
        if number >= 3:
            say("hangs")
            {hang}
        return number

    def close(self):
        {hang_in_close}

def blocks(stop):
    with reading(Reader(), threads=2, stop=stop) as submit:
        for number in itertools.count():
            yield submit(number).result()

stop = Stop()
events = prefetched(blocks(stop), depth={depth}, stop=stop)
for _ in range(3):
    next(events)
"""
HANG = "threading.Event().wait()"


@contextlib.contextmanager
def program(after, *, depth, hang_in_close="pass"):
    """Run the program until it hangs in a read."""
    text = PROGRAM.format(depth=depth, hang=HANG, hang_in_close=hang_in_close) + after
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("to_the_group", [True, False])
def test_ctrl_c_is_answered_within_a_second(depth, to_the_group):
    after = """
try:
    say("waits")
    next(events)
except KeyboardInterrupt:
    say("stopped")
"""
    with program(after, depth=depth) as process:
        assert sorted(process.stdout.readline() for _ in range(2)) == ["hangs\n", "waits\n"]
        begin = time.monotonic()
        (os.killpg if to_the_group else os.kill)(process.pid, signal.SIGINT)
        process.wait(10)
        assert time.monotonic() - begin < 1
        assert (process.returncode, *process.communicate()) == (0, "stopped\n", "")


@pytest.mark.parametrize(
    ("after", "hang_in_close"),
    [("events.close()", "pass"), ("del events", "pass"), ("", "pass"), ("raise SystemExit(0)", "pass"), ("", HANG)],
)
def test_a_read_that_hangs_does_not_hold_up_the_end(after, hang_in_close):
    after = f"sys.stdin.readline()\n{after}"
    with program(after, depth=2, hang_in_close=hang_in_close) as process:
        assert process.stdout.readline() == "hangs\n"
        begin = time.monotonic()
        print(file=process.stdin, flush=True)
        process.wait(10)
        assert time.monotonic() - begin < 1.5
        assert (process.returncode, process.stderr.read()) == (0, "")

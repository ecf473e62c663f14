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
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootdata.errors import BranchError, FileError, ReaderError
from rootdata.loading.readers import Readers, Stop, prefetched, reading

SOURCES = Path(__file__).parents[3] / "src"
everywhere = pytest.mark.parametrize("processes", [0, 1, 2])


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
    assert wait_until(lambda: threads() == [] and active_children() == [])


class LocalError(Exception):
    """An error that no pipe takes."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


ERRORS = {
    7: FileError("a.root is damaged"),
    11: BranchError("no branch"),
    13: OSError(5, "Input/output error"),
    17: LocalError("not sendable"),
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


class Hanging(Numbers):
    """Hangs from the third number on, whatever is closed."""

    def __call__(self, number):
        if number >= 3:
            threading.Event().wait()
        return super().__call__(number)


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


class Dying:
    """Ends its process, as one does that has no memory left."""

    def __init__(self, number):
        self.signal = number

    def __call__(self, number):
        os.kill(os.getpid(), self.signal) if self.signal else os._exit(3)

    def close(self):
        """Nothing is open."""


def blocks(make, *, processes=0, stop=None, count=None):
    """Yield block after block, a few ahead: what a stream does."""
    with reading(make, processes=processes, stop=stop) as submit:
        futures = []
        for number in itertools.count() if count is None else range(count):
            futures.append(submit(number))
            if len(futures) > 3:
                yield futures.pop(0).result()
        yield from (future.result() for future in futures)


def iteration(make, *, processes=0, depth=2, **options):
    stop = Stop()
    return prefetched(blocks(make, processes=processes, stop=stop, **options), depth=depth, stop=stop)


# What is read


@everywhere
def test_every_block_comes_to_who_asked_for_it(processes):
    with reading(Numbers, processes=processes) as submit:
        asked = {number: submit(number) for number in (3, 1, 2, 3, 100)}
        assert {n: future.result().tolist() for n, future in asked.items()} == {n: [n] * 3 for n in asked}
        assert submit(5).result().tolist() == [5] * 3


def test_threads_share_one_reader_that_is_closed_in_the_end():
    made = []
    with reading(lambda: made.append(Numbers()) or made[-1], processes=0) as submit:
        assert [submit(i).result()[0] for i in range(5)] == list(range(5))
        (reader,) = made
        assert reader.read == list(range(5))
        assert reader.num_closed == 0
    assert reader.num_closed


def test_processes_are_others_and_read_at_the_same_time():
    class Process(Numbers):
        def __call__(self, number):
            return os.getpid()

    with reading(Process, processes=2) as submit:
        found = set()
        assert wait_until(lambda: found.update(submit(i).result() for i in range(10)) or len(found) == 2)
        assert os.getpid() not in found
        assert len(active_children()) == 2


def test_a_process_can_be_spawned():
    with reading(Numbers, processes=1, start="spawn") as submit:
        assert submit(4).result().tolist() == [4, 4, 4]
        with pytest.raises(FileError, match="damaged"):
            submit(7).result()


def test_a_block_that_was_taken_is_not_kept():
    with reading(Numbers, processes=0) as submit:
        block = weakref.ref(submit(1).result())
        assert wait_until(lambda: block() is None)


# What goes wrong


@everywhere
def test_errors_keep_their_type_and_say_where_they_come_from(processes):
    with reading(Numbers, processes=processes) as submit:
        for number, kind in [(7, FileError), (11, BranchError), (13, OSError)]:
            with pytest.raises(kind) as caught:
                submit(number).result()
            assert (type(caught.value), str(caught.value)) == (kind, str(ERRORS[number]))
            assert "raise ERRORS[number]" in "".join(traceback.format_exception(caught.value))
        assert submit(1).result()[0] == 1


def test_what_can_not_be_sent_is_said():
    class Files(Numbers):
        def __call__(self, number):
            return threading.Lock() if number == 1 else super().__call__(number)

    with reading(Files, processes=1) as submit:
        with pytest.raises(ReaderError, match=r"^LocalError: not sendable$"):
            submit(17).result()
        with pytest.raises(TypeError, match=r"pickle '_thread\.lock' object"):
            submit(1).result()
        assert submit(2).result()[0] == 2


@pytest.mark.parametrize("processes", [0, 1])
def test_a_reader_that_can_not_be_made_is_an_error(processes):
    def make():
        raise FileError("no such folder")

    with pytest.raises(FileError, match="no such folder"), reading(make, processes=processes) as submit:
        submit(0).result()


@pytest.mark.parametrize(("number", "how"), [(signal.SIGKILL, "by SIGKILL"), (0, "with status 3")])
def test_a_process_that_ends_is_an_error_that_says_how(number, how):
    message = rf"reading process \d+ ended {how} while it read block 5; if .* memory, take smaller .* \(0 reads in"
    with reading(partial(Dying, number), processes=2) as submit:
        for _ in range(3):  # nobody waits for the one that is gone
            with pytest.raises(ReaderError, match=message) as caught:
                submit(5).result(timeout=10)
        assert caught.value.__suppress_context__


def test_a_process_that_is_killed_between_two_blocks_is_an_error():
    class Process(Numbers):
        def __call__(self, number):
            return os.getpid()

    with reading(Process, processes=1) as submit:
        os.kill(submit(0).result(), signal.SIGKILL)
        with pytest.raises(ReaderError, match="SIGKILL while it read block 1"):
            submit(1).result(timeout=10)


@pytest.mark.parametrize("depth", [0, 2])
@everywhere
def test_an_error_ends_the_iteration_after_what_was_good(processes, depth):
    events, found = iteration(Numbers, processes=processes, depth=depth), []
    with pytest.raises(FileError, match=r"a.root is damaged"):
        found.extend(int(block[0]) for block in events)
    assert found == list(range(7))
    assert threads() == active_children() == []


# How it ends


@pytest.mark.parametrize("processes", [0, 2])
@settings(max_examples=15)
@given(data=st.data())
def test_it_may_be_closed_at_any_moment(processes, data):
    depth = data.draw(st.integers(0, 4), label="depth")
    take = data.draw(st.integers(0, 6), label="take")
    events = iteration(Numbers, processes=processes, depth=depth)
    assert [int(block[0]) for block in itertools.islice(events, take)] == list(range(take))
    events.close()
    assert threads() == active_children() == []


@given(depth=st.integers(0, 3), count=st.integers(0, 7))
def test_the_end_is_the_end(depth, count):
    assert [int(block[0]) for block in iteration(Numbers, depth=depth, count=count)] == list(range(count))
    assert threads() == []


@pytest.mark.parametrize(("processes", "in_circle"), [(0, False), (0, True), (2, False), (2, True)])
def test_what_is_dropped_half_way_ends(processes, in_circle):
    class Notebook:
        """Keeps its cell alive, as the traceback of an interrupted one does."""

    cell = Notebook()
    cell.events, cell.me = iteration(Numbers, processes=processes), cell if in_circle else None
    next(cell.events)
    assert threads()
    del cell
    if in_circle:
        gc.collect()
    assert wait_until(lambda: threads() == active_children() == [])


def test_an_exception_in_a_loop_over_it_ends_it():
    def train():
        for _ in iteration(Numbers):
            raise ValueError("nan")

    with pytest.raises(ValueError, match="nan"):
        train()
    assert threads() == []


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_process_that_hangs_in_a_read_is_ended(depth):
    # A thread that does can't be: see below.
    events = iteration(Hanging, processes=2, depth=depth, count=4 if depth else 3)
    next(events)
    begin = time.monotonic()
    events.close()
    assert time.monotonic() - begin < 1
    assert threads() == active_children() == []


@pytest.mark.parametrize("depth", [0, 2])
def test_closing_lets_those_give_up_who_wait_for_a_server(depth):
    reader = Waiting()
    stop = Stop()
    source = blocks(lambda: reader, stop=stop)
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
    with reading(Waiting, processes=0, stop=stop) as submit:
        futures = [submit(i) for i in range(10)]
        stop.set()
        for future in [*futures, submit(10)]:
            with pytest.raises(CancelledError):
                future.result(timeout=0)


def test_readers_may_be_closed_twice():
    readers = Readers()
    readers.add(Numbers(), threads=3)
    assert len(threads()) == 4
    readers.close()
    readers.close()
    assert threads() == []


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
    with reading(Reader, processes={processes}, stop=stop) as submit:
        for number in itertools.count():
            yield submit(number).result()

stop = Stop()
events = prefetched(blocks(stop), depth={depth}, stop=stop)
for _ in range(3):
    next(events)
"""
HANG = "threading.Event().wait()"


@contextlib.contextmanager
def program(after, *, processes, depth, hang=HANG, hang_in_close="pass"):
    """Run the program until it hangs in a read."""
    text = PROGRAM.format(processes=processes, depth=depth, hang=hang, hang_in_close=hang_in_close) + after
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


def children(pid):
    return [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]


def is_running(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


combinations = pytest.mark.parametrize(("processes", "depth"), [(0, 0), (0, 2), (2, 0), (2, 2)])


@combinations
@pytest.mark.parametrize("to_the_group", [True, False])
def test_ctrl_c_is_answered_within_a_second(processes, depth, to_the_group):
    after = """
try:
    say("waits")
    next(events)
except KeyboardInterrupt:
    say("stopped")
"""
    with program(after, processes=processes, depth=depth) as process:
        assert sorted(process.stdout.readline() for _ in range(2)) == ["hangs\n", "waits\n"]
        readers = children(process.pid)
        begin = time.monotonic()
        (os.killpg if to_the_group else os.kill)(process.pid, signal.SIGINT)
        process.wait(10)
        assert time.monotonic() - begin < 1
        assert (process.returncode, *process.communicate()) == (0, "stopped\n", "")
        assert len(readers) == processes
        assert not any(is_running(reader) for reader in readers)


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("after", "hang_in_close"),
    [("events.close()", "pass"), ("del events", "pass"), ("", "pass"), ("raise SystemExit(0)", "pass"), ("", HANG)],
)
def test_a_read_that_hangs_does_not_hold_up_the_end(processes, after, hang_in_close):
    after = f"sys.stdin.readline()\n{after}"
    with program(after, processes=processes, depth=2, hang_in_close=hang_in_close) as process:
        assert process.stdout.readline() == "hangs\n"
        readers = children(process.pid)
        begin = time.monotonic()
        print(file=process.stdin, flush=True)
        process.wait(10)
        assert time.monotonic() - begin < 1.5
        assert (process.returncode, process.stderr.read()) == (0, "")
        assert not any(is_running(reader) for reader in readers)


@pytest.mark.parametrize("depth", [0, 2])
def test_reading_processes_end_when_the_training_is_killed(depth):
    with program("next(events)", processes=2, depth=depth) as process:
        assert process.stdout.readline() == "hangs\n"
        readers = children(process.pid)
        assert len(readers) == 2
        process.kill()
        process.wait(10)
        assert wait_until(lambda: not any(is_running(reader) for reader in readers))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_group_is_for_the_training_alone(number):
    after = f"""
signal.signal({int(number)}, lambda *_: say("told"))
say("listens")
while True:
    signal.pause()
"""
    with program(after, processes=2, depth=2) as process:
        assert sorted(process.stdout.readline() for _ in range(2)) == ["hangs\n", "listens\n"]
        readers = children(process.pid)
        os.killpg(process.pid, number)
        assert process.stdout.readline() == "told\n"
        assert all(is_running(reader) for reader in readers)

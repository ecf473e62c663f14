import contextlib
import errno
import fcntl
import itertools
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from files_for_tests import files_below

from rootdata import disk

SOURCES = Path(disk.__file__).parents[1]


class Child:
    """A Python process that runs some lines, and waits wherever they call ``wait()``."""

    BEGIN = """
import os, sys
from pathlib import Path
from rootdata import disk
place = Path(sys.argv[1])
def wait():
    print("here", flush=True)
    sys.stdin.readline()
"""

    def __init__(self, lines, place):
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.BEGIN + lines, place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCES)},
        )  # fmt: skip

    def until_it_waits(self):
        assert self.process.stdout.readline() == "here\n"
        return self

    def go_on(self):
        print(file=self.process.stdin, flush=True)
        return self

    def end(self):
        self.go_on()
        assert self.process.wait(30) == 0
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(30) == -signal.SIGKILL
        return self

    def close(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def child(tmp_path):
    """Start such processes; those that are left are killed at the end."""
    children = []

    def start(lines, place=tmp_path):
        children.append(Child(lines, str(place)))
        return children[-1]

    yield start
    for one in children:
        one.close()


# Files


def test_a_written_file_is_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    disk.write_atomic(path, "first")
    disk.write_atomic(path, b"second")
    assert path.read_text() == "second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert files_below(tmp_path) == ["deep", "deep/er", "deep/er/a.json"]


def test_what_is_private_stays_private(tmp_path):
    before = os.umask(0o077)
    try:
        disk.write_atomic(tmp_path / "a", "mine")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


class Interruption(BaseException):
    """What no code expects."""


@pytest.mark.parametrize("error", [ValueError("no"), OSError("no"), Interruption()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    disk.write_atomic(path, "old")

    def write():
        with disk.writing(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert files_below(tmp_path) == ["a.json"]


def test_text_that_can_not_be_encoded_leaves_nothing(tmp_path):
    with pytest.raises(UnicodeEncodeError):
        disk.write_atomic(tmp_path / "a.json", "\ud800")
    assert files_below(tmp_path) == []


def test_many_writers_never_show_half_a_file(tmp_path):
    path = tmp_path / "a.json"
    texts = {str(i) * 20_000 for i in range(4)}
    disk.write_atomic(path, next(iter(texts)))
    seen: set[str] = set()
    writers = [threading.Thread(target=lambda t=t: [disk.write_atomic(path, t) for _ in range(10)]) for t in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    for writer in writers:
        writer.join()
    assert seen <= texts
    assert files_below(tmp_path) == ["a.json"]


def test_on_a_disk_that_fills_a_file_is_the_old_one_or_the_new(mount):
    # Whatever room is left, and though there is room where temporary files usually go.
    place = mount("1m")
    assert place.stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev
    path, outcomes = place / "a", set()
    for free in range(0, 100_000, 4096):
        disk.write_atomic(path, b"old")
        with (place / "filler").open("wb") as filler:
            room = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
            filler.write(bytes(room - free))
        error = None
        try:
            disk.write_atomic(path, b"n" * 50_000)
        except OSError as caught:
            error = caught
        outcomes.add((error.errno, error.filename) if error else None)
        assert path.read_bytes() == (b"old" if error else b"n" * 50_000)
        assert files_below(place) == ["a", "filler"]
        (place / "filler").unlink()
    assert outcomes == {None, (errno.ENOSPC, str(path))}


WRITING = """
with disk.writing(place) as file:
    file.write(b"half ")
    file.flush()
    wait()
    file.write(b"and half")
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_living_one_is_let_be(child, tmp_path):
    path = tmp_path / "a[0]*.ckpt"  # a name that is a pattern, too
    dead, alive = (child(WRITING, path).until_it_waits() for _ in range(2))
    other = child(WRITING, tmp_path / "other").until_it_waits().kill()
    assert len(files_below(tmp_path)) == 3
    dead.kill()
    assert not path.exists()
    disk.write_atomic(path, "whole")
    assert path.read_text() == "whole"
    assert len(files_below(tmp_path)) == 3  # the living one's, and what another file's left
    alive.end()
    assert path.read_text() == "half and half"
    assert len(files_below(tmp_path)) == 2
    assert other.process.returncode
    disk.sweep(tmp_path)
    assert files_below(tmp_path) == [path.name]


def test_writers_and_sweepers_do_not_hurt_each_other(child, tmp_path):
    writes = "for n in range(300): disk.write_atomic(place / 'a', str(n) * 5000)\nwait()"
    sweeps = "for n in range(3000): disk.sweep(place)\nwait()"
    for one in [child(lines) for lines in (writes, writes, sweeps)]:
        one.until_it_waits().end()
    assert files_below(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "299" * 5000


def test_a_link_is_turned_at_once(tmp_path):
    for number in range(2):
        (tmp_path / f"to{number}").mkdir()
    link, seen = tmp_path / "latest", set()
    disk.link(link, "to0")

    def look():
        while len(seen) < 2:
            for _ in range(200):
                seen.add(link.readlink().name)

    with ThreadPoolExecutor() as threads:
        reader = threads.submit(look)
        for number in itertools.takewhile(lambda _: not reader.done(), itertools.count()):
            disk.link(link, f"to{number % 2}")
        reader.result()
    assert files_below(tmp_path) == ["latest", "to0", "to1"]


# Folders


def test_a_new_folder_is_nobody_elses(child, tmp_path):
    lines = "wait()\nfor _ in range(20): disk.new_folder(place / 'deep' / 'run').joinpath('mine').mkdir()\n"
    children = [child(lines).until_it_waits() for _ in range(3)]
    for one in children:
        one.go_on()
    assert [one.process.wait(30) for one in children] == [0] * 3
    made = {path.name for path in (tmp_path / "deep").iterdir()}
    assert made == {"run", *(f"run_{number}" for number in range(1, 60))}


def fill(folder, content):
    for name in ("one", "two"):
        (folder / name).write_text(content)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "deep" / "place"

    def stop():
        with disk.making(place) as made:
            fill(made, "half")
            raise Interruption

    with pytest.raises(Interruption):
        stop()
    assert files_below(tmp_path) == ["deep"]
    with pytest.raises(OSError, match=re.escape(str(place))), disk.making(place):
        raise OSError(errno.ENOSPC, "No space left on device")
    with disk.making(place) as made:
        fill(made, "whole")
        assert not place.exists()
        disk.put(made, place)
    assert contents(place) == {"one": "whole", "two": "whole"}
    with disk.making(place) as made, pytest.raises(OSError, match="not empty"):
        disk.put(made, place)
    assert [path.name for path in place.parent.iterdir()] == ["place"]


MAKING = """
with disk.making(place) as made:
    (made / "one").write_text("half")
    wait()
    disk.put(made, place)
"""


def test_what_a_killed_maker_left_is_removed_by_the_next_and_a_living_one_is_let_be(child, tmp_path):
    place = tmp_path / "set"
    dead, alive = (child(MAKING, place).until_it_waits() for _ in range(2))
    dead.kill()
    assert len(list(tmp_path.glob(".set.*.partial"))) == 2
    with disk.making(place):
        assert len(list(tmp_path.glob(".set.*.partial"))) == 2
    alive.end()
    assert files_below(tmp_path) == ["set", "set/one"]


def test_a_folder_that_nobody_can_tell_whose_it_is_goes_when_it_is_old(tmp_path):
    for name, age in (("old", 2), ("young", 0)):
        left = tmp_path / f".set.{name}.partial"
        left.mkdir()
        (left / "file").touch()
        for path in (left / "file", left):
            os.utime(path, (time.time() - age * disk.STALE_SECONDS,) * 2)
    disk.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".set.young.partial"]


def test_whoever_looks_sees_the_old_folder_or_the_new(tmp_path):
    place, seen, done = tmp_path / "place", set(), threading.Event()

    def replace(content):
        with disk.making(place) as made:
            fill(made, content)
            disk.exchange(made, place)

    def look():
        while not done.is_set():
            place.stat()  # fails where there is none
            with contextlib.suppress(FileNotFoundError):  # of an old one, which is being removed
                seen.add((place / "one").read_text())

    replace("0")
    if not exchanges(tmp_path):
        pytest.skip("this file system can't exchange two names")
    with ThreadPoolExecutor(1) as reader:
        looking = reader.submit(look)
        for number in range(100):
            replace(str(number % 3))
        done.set()
        looking.result()
    assert len(seen) > 1
    assert seen <= {"0", "1", "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def exchanges(folder):
    """Tell whether a file system can exchange two names."""
    one, other = folder / ".one", folder / ".other"
    one.mkdir(), other.mkdir()
    try:
        return disk._exchanged(one, other)
    finally:
        one.rmdir(), other.rmdir()


IN_STEPS = """
disk._exchanged = lambda one, other: False
steps, number, rename = iter(range(99)), {number}, Path.rename
def dying(path, target):
    if next(steps) == number:
        wait()
    return rename(path, target)
with disk.making(place) as made:
    (made / "one").write_text("new")
    (made / "two").write_text("new")
    Path.rename = dying
    disk.exchange(made, place)
wait()
"""


@pytest.mark.parametrize("number", range(5))
def test_where_names_can_not_be_exchanged_a_kill_loses_neither(child, tmp_path, number):
    place = tmp_path / "bundle"
    place.mkdir()
    fill(place, "old")
    child(IN_STEPS.format(number=number), place).until_it_waits().kill()
    disk.sweep(tmp_path)
    assert contents(place) in ({"one": "old", "two": "old"}, {"one": "new", "two": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("at", ["first", "second"])
def test_a_failure_between_two_renames_is_undone(tmp_path, monkeypatch, at):
    place, rename, calls = tmp_path / "bundle", Path.rename, []
    place.mkdir()
    fill(place, "old")

    def failing(path, target):
        calls.append(path)
        if len(calls) == {"first": 2, "second": 3}[at]:  # of all, the first finds that there is something
            raise OSError(errno.EIO, "broken")
        return rename(path, target)

    with disk.making(place) as made:
        fill(made, "new")
        monkeypatch.setattr(disk, "_exchanged", lambda one, other: False)
        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="broken"):
            disk.exchange(made, place)
    assert contents(place) == {"one": "old", "two": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# Locks


def test_a_lock_keeps_others_out_and_says_who_has_it(child, tmp_path):
    lock = tmp_path / ".lock"
    holder = child("with disk.hold(place / '.lock', owner=disk.myself(launch='x')): wait()").until_it_waits()
    assert disk.is_held(lock)
    with pytest.raises(disk.LockedError) as caught, disk.hold(lock, seconds=0):
        pass
    owner = caught.value.owner
    assert (owner.pid, owner.host, owner.launch) == (holder.process.pid, socket.gethostname(), "x")
    assert str(owner).startswith(f"process {holder.process.pid} on ")
    holder.end()
    assert not disk.is_held(lock)
    assert files_below(tmp_path) == []


def test_a_lock_dies_with_its_process_though_children_of_it_live(child, tmp_path):
    lines = """
with disk.hold(place / ".lock"):
    if not (forked := os.fork()):
        os.close(1)
        sys.stdin.readline()
        os._exit(0)
    (place / "forked").write_text(str(forked))
    wait()
"""
    child(lines).until_it_waits().kill()
    pid = int((tmp_path / "forked").read_text())
    os.kill(pid, 0)  # it lives; and lets go as soon as it runs
    with disk.hold(tmp_path / ".lock", seconds=20):
        os.kill(pid, signal.SIGKILL)
    assert files_below(tmp_path) == ["forked"]


def test_a_child_that_ends_takes_no_lock_with_it(child, tmp_path):
    lines = """
with disk.hold(place / ".lock"):
    if not os.fork():
        sys.exit(0)
    os.wait()
    wait()
"""
    holder = child(lines).until_it_waits()
    assert disk.is_held(tmp_path / ".lock")
    holder.end()
    assert files_below(tmp_path) == []


def test_one_at_a_time(child, tmp_path):
    # Locks whose file comes and goes with every holder: nobody may hold one that is gone.
    lines = """
wait()
for _ in range(200):
    with disk.alone(place / "thing"):
        handle = os.open(place / "inside", os.O_CREAT | os.O_EXCL)
        os.unlink(place / "inside")
        os.close(handle)
"""
    children = [child(lines).until_it_waits() for _ in range(3)]
    for one in children:
        one.go_on()
    assert [one.process.wait(60) for one in children] == [0] * 3
    assert files_below(tmp_path) == []


def test_to_ask_is_not_to_hold(tmp_path):
    lock = tmp_path / ".lock"
    assert not disk.is_held(lock)
    lock.write_text("left by a killed one")
    assert not disk.is_held(lock)
    assert disk.owner_of(lock) is None
    with disk.hold(lock, seconds=0):
        assert disk.is_held(lock)
    assert not lock.exists()


@pytest.mark.parametrize("text", ["", "a b", "é\n", "\ud800", "x" * 300])
def test_who_holds_it_is_read_as_it_was_written(tmp_path, text):
    lock, owner = tmp_path / ".lock", disk.Owner(pid=7, host=text, since=text, launch=text)
    lock.write_text("y" * 5000)
    with disk.hold(lock, owner=owner):
        assert disk.owner_of(lock) == owner


@pytest.mark.parametrize("number", disk.NO_LOCKS)
def test_without_locks_all_works_but_nobody_waits(tmp_path, monkeypatch, number):
    def refuse(handle, how):
        raise OSError(number, os.strerror(number))

    left = tmp_path / ".a.12.partial"
    left.touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with disk.alone(tmp_path / "a"), disk.alone(tmp_path / "a"):
        disk.write_atomic(tmp_path / "a", "x")
    with disk.making(tmp_path / "b") as made:
        disk.put(made, tmp_path / "b")
    with pytest.raises(OSError, match=r"\[Errno") as caught, disk.hold(tmp_path / ".lock", seconds=0):
        pass
    assert caught.value.errno == number
    assert files_below(tmp_path) == [".a.12.partial", "a", "b"]
    os.utime(left, (0, 0))
    disk.write_atomic(tmp_path / "a", "y")
    assert files_below(tmp_path) == ["a", "b"]

"""What a worker writes of itself is what others read."""

from __future__ import annotations

import subprocess
import sys
import time

from hypothesis import given
from hypothesis import strategies as st

from serve.processes.progress import BEAT, slots

NUMBERS = st.lists(st.integers(0, 2**64 - 1), max_size=12)


@given(st.lists(st.tuples(st.integers(0, 2), NUMBERS, st.floats(1e-3, 1e9)), max_size=20))
def test_each_slot_holds_what_its_worker_wrote_last(tmp_path_factory, turns):
    path = tmp_path_factory.mktemp("s") / "progress"
    ours, theirs = slots(path, workers=3, room=8), slots(path, workers=3, room=8)
    known: dict[int, tuple[frozenset[int], float]] = {}
    for worker, numbers, deadline in turns:
        ours[worker].work(numbers, deadline=deadline)
        known[worker] = frozenset(numbers[:8]), deadline
        for other, (seen, until) in known.items():
            assert theirs[other].numbers() == seen
            assert theirs[other].read()[1] == until


def test_an_idle_worker_may_be_silent_for_a_beat(tmp_path):
    [slot] = slots(tmp_path / "progress", workers=1, room=8)
    slot.rest()
    now = time.monotonic()
    assert slot.silence(now + BEAT) < 0.1
    assert slot.silence(now + BEAT + 5) > 4.9
    slot.work([1], deadline=now + 9)
    assert 2.9 < slot.silence(time.monotonic() + 3) < 3.1
    assert slot.numbers() == {1}
    slot.rest()
    assert not slot.numbers()


WRITER = """
import sys
from pathlib import Path
from serve.processes.progress import slots
[slot] = slots(Path(sys.argv[1]), workers=1, room=8)
slot.rest()
print("ready", flush=True)
while True:
    slot.work([1, 2], deadline=1e9)
    slot.rest()
"""


def test_who_reads_while_a_worker_writes_sees_no_sign_that_was_never_given(tmp_path):
    begin = time.monotonic()
    path = tmp_path / "progress"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout.readline() == "ready\n"
            [slot] = slots(path, workers=1, room=8)
            for _ in range(200_000):
                sign, deadline = slot.read()
                assert begin < sign <= time.monotonic()
                assert deadline in {0.0, 1e9}
                assert slot.numbers() <= {1, 2}
        finally:
            writer.kill()

"""What a worker writes of itself is what others read."""

from __future__ import annotations

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

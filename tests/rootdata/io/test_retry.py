import threading
import time

import pytest
from troubles_for_tests import AnswerError, chain

from rootdata.causes import brief
from rootdata.errors import BranchError, FileError
from rootdata.io.retry import Failed, LateError, failed, is_absent, is_passing, persist, within


@pytest.mark.parametrize(
    "error",
    [
        OSError("connection reset"),
        ConnectionRefusedError(),
        TimeoutError(),
        LateError("late"),
        AnswerError(503),
        AnswerError(429),
        chain(FileError("f"), OSError("x")),
        chain(FileError("f"), FileNotFoundError("http"), ConnectionRefusedError()),
        chain(FileError("f"), FileNotFoundError("http"), AnswerError(500)),
    ],
)
def test_what_networks_and_servers_do_may_pass(error):
    assert is_passing(error)
    assert not is_absent(error)


@pytest.mark.parametrize(
    "error",
    [
        FileError("changed"),
        BranchError("no branch"),
        ValueError("damaged"),
        FileNotFoundError("gone"),
        PermissionError("secret"),
        AnswerError(403),
        OSError("[ERROR] Server responded with an error: [3010] permission denied"),
        OSError("expected Chunk of length 5, received 3"),
        chain(FileError("f"), ValueError("damaged")),
        chain(FileError("f"), FileNotFoundError("http"), AnswerError(404)),
        chain(FileError("f"), OSError("[ERROR] [3011] No such file")),
    ],
)
def test_what_is_wrong_with_the_data_does_not_pass(error):
    assert not is_passing(error)


def test_an_absent_file_is_known_in_every_protocol():
    for error in (FileNotFoundError("a"), OSError("[3011] gone"), chain(FileNotFoundError("a"), AnswerError(404))):
        assert is_absent(error)


def failing(place, error):
    return failed(error, place)


class Script:
    """An attempt whose outcomes at each place are given; the last one repeats itself."""

    def __init__(self, **outcomes):
        self.outcomes = {place: list(o) for place, o in outcomes.items()}
        self.asked = []

    def __call__(self, place):
        self.asked.append(place)
        left = self.outcomes[place]
        outcome = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(outcome, Exception):
            raise outcome if isinstance(outcome, BranchError) else failing(place, outcome)
        return outcome


def test_places_are_tried_in_turn_until_one_succeeds():
    script = Script(a=[OSError("down")], b=[OSError("down"), OSError("down"), 3])
    assert persist(["a", "b"], script, patience=60) == 3
    assert script.asked == ["a", "b"] * 3


def test_a_place_that_fails_for_good_is_not_tried_again():
    script = Script(a=[FileNotFoundError("gone")], b=[OSError("down"), OSError("down"), 3])
    assert persist(["a", "b"], script, patience=60) == 3
    assert script.asked == ["a", "b", "b", "b"]


def test_nothing_waits_where_every_place_fails_for_good():
    began = time.monotonic()
    with pytest.raises(FileError, match=r"no copy can be read: a: .*gone; b: .*damaged"):
        persist(["a", "b"], Script(a=[FileNotFoundError("gone")], b=[ValueError("damaged")]), patience=60)
    with pytest.raises(FileError, match=r"^a: FileNotFoundError: gone$") as caught:
        persist(["a"], Script(a=[FileNotFoundError("gone")]), patience=60)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert time.monotonic() - began < 5


def test_what_is_definite_is_raised_as_it_is():
    script = Script(a=[BranchError("no branch")], b=[1])
    with pytest.raises(BranchError, match="no branch"):
        persist(["a", "b"], script, patience=60)
    assert script.asked == ["a"]


def test_patience_ends_and_says_what_was_done():
    began = time.monotonic()
    message = r"a: OSError: down; b: .*gone; tried \d+ times in 1 s at a, b: .*name other copies.*or raise `patience`"
    with pytest.raises(FileError, match=message) as caught:
        persist(["a", "b"], Script(a=[OSError("down")], b=[FileNotFoundError("gone")]), patience=1)
    assert 1 <= time.monotonic() - began < 5
    assert caught.value.__cause__ is not None


def test_whoever_waits_gives_up_at_once_when_told_to():
    closed = threading.Event()
    threading.Timer(0.5, closed.set).start()
    began = time.monotonic()
    with pytest.raises(FileError, match="reading was ended"):
        persist(["a"], Script(a=[OSError("down")]), patience=60, closed=closed)
    assert time.monotonic() - began < 1.5


def test_what_takes_too_long_is_left_behind():
    hang, closed = threading.Event(), threading.Event()
    assert within(10, lambda: 5, place="a") == 5
    with pytest.raises(KeyError):
        within(10, lambda: {}["x"], place="a")
    with pytest.raises(LateError, match=r"a: no answer within 0\.2 s"):
        within(0.2, hang.wait, place="a")
    threading.Timer(0.3, closed.set).start()
    began = time.monotonic()
    with pytest.raises(LateError):
        within(60, hang.wait, place="a", closed=closed)
    assert time.monotonic() - began < 1.3
    hang.set()


def test_an_outcome_tells_the_error_and_the_place():
    outcome = failed(OSError("down"), "root://a//f")
    assert isinstance(outcome, Failed)
    assert str(outcome.error) == "root://a//f: OSError: down"
    assert outcome.is_passing
    assert brief(OSError("\n first \n second")) == "OSError: first"

"""What becomes a reason, and what stays an error."""

import errno
import struct

import pytest
from troubles_for_tests import OF_ALL, OF_ONE, WordlessError, chain, raising

from rootdata.causes import reason_of
from rootdata.errors import BranchError, ConfigError, FileError, ShapeError
from rootdata.io.guard import Unusable, concerns_all, guarded
from rootdata.io.retry import LateError, PlaceError


def test_what_nothing_is_wrong_with_is_returned():
    assert guarded(lambda: 3) == 3
    assert guarded(lambda: None) is None


@pytest.mark.parametrize("error", OF_ONE, ids=repr)
def test_what_a_branch_or_a_tree_raises_is_its_reason(error):
    found = guarded(raising(error))
    assert isinstance(found, Unusable)
    assert type(error).__name__ in found.why
    assert "\n" not in found.why


@pytest.mark.parametrize("error", OF_ALL, ids=repr)
def test_what_concerns_all_that_is_read_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught:
        guarded(raising(error))
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "is_of_all"),
    [
        (chain(PlaceError("entries 0 to 5 can't be read"), ValueError("damaged")), False),
        (chain(PlaceError("entries 0 to 5 can't be read"), struct.error("5 bytes")), False),
        (chain(PlaceError("entries 0 to 5 can't be read"), OSError("expected Chunk of length 5")), False),
        (chain(PlaceError("entries 0 to 5 can't be read"), OSError(errno.EINVAL, "a place below 0")), False),
        (ShapeError("lists of lists"), False),
        (BranchError("unusable"), False),
        (chain(PlaceError("entries 0 to 5 can't be read"), MemoryError()), True),
        (chain(PlaceError("entries 0 to 5 can't be read"), OSError(errno.EIO, "disk")), True),
        (chain(PlaceError("entries 0 to 5 can't be read"), ConnectionResetError()), True),
        (chain(BranchError("unusable"), ValueError("x"), PermissionError("secret")), True),
        (FileError("was replaced by another file while it was read"), True),
        (LateError("no answer within 5 s"), True),
    ],
    ids=repr,
)
def test_what_really_happened_decides(error, is_of_all):
    assert concerns_all(error) == is_of_all


def test_a_reason_is_one_line_and_always_says_something():
    assert reason_of(ValueError("first\nsecond")) == "ValueError: first"
    assert reason_of(chain(ConfigError("outer"), KeyError("inner"))) == "KeyError: 'inner'"
    assert reason_of(WordlessError()) == "WordlessError"
    assert reason_of(AssertionError()) == "AssertionError"
    assert guarded(raising(AssertionError())) == Unusable("AssertionError in troubles_for_tests, look")

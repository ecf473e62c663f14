"""Patience with what fails and may succeed later: attempts at several places, pauses between them, deadlines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rootdata.causes import OF_THE_MACHINE, Cause, cause_of, reason_of, told
from rootdata.errors import FileError, MachineError, RootDataError
from rootdata.location import is_remote

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between two rounds of attempts
WAKE = 0.1  # seconds after which who waits looks whether it still should


class PlaceError(FileError):
    """A file can't be read at one place; a copy of it may be better."""


class LateError(PlaceError, TimeoutError):
    """A server does not answer in time."""


class Failed(Exception):  # noqa: N818 - an outcome, not an error that anybody sees
    """An attempt at one place failed; another attempt may succeed.

    Parameters
    ----------
    error : what to tell
    is_passing : whether the same attempt may succeed later
    """

    def __init__(self, error: FileError, *, is_passing: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_passing = is_passing


def failed(error: Exception, place: str) -> Failed:
    """Tell the failure of an attempt by the error that it ended with."""
    shown = error if isinstance(error, FileError) else FileError(f"{place}: {reason_of(error)}")
    if shown is not error:
        shown.__cause__ = error
    return Failed(shown, is_passing=is_passing(error))


def is_absent(error: BaseException) -> bool:
    """Say whether an error means that there is no file."""
    return cause_of(error) is Cause.ABSENT


def is_passing(error: BaseException) -> bool:
    """Say whether an error may be gone when the same is tried again: what the network and servers do, not the data."""
    return cause_of(error) is Cause.NETWORK


def why_not_open(place: str, error: Exception) -> RootDataError:
    """Say why a file can't be opened."""
    if is_absent(error):
        return PlaceError(f"{place} does not exist; check the path")
    if cause_of(error) is Cause.BYTES:
        return PlaceError(f"{place}: the file is truncated or damaged ({reason_of(error)}); replace or remove the file")
    what = f"{place} can't be {'reached' if is_passing(error) else 'opened'}"
    return blamed(error, what, is_remote=is_remote(place))


def check_range(start: int, stop: int, *, num_entries: int, place: str, tree: str | None = None) -> None:
    """Check that entries are within those of a file.

    Parameters
    ----------
    start, stop : entries to be read
    num_entries : that there are
    place : of the file
    tree : in the file; None where it has but one table

    Raises
    ------
    PlaceError
        If not: the file is not the one that was scanned.
    """
    if not 0 <= start <= stop <= num_entries:
        what = f"entries {start} to {stop}" + ("" if tree is None else f" of tree {tree!r}")
        raise PlaceError(f"{place}: {what} can't be read, it has {num_entries:,}; scan the file anew")


def blamed(error: Exception, what: str, *, is_remote: bool = False) -> RootDataError:
    """Return the error to be raised instead of one that came up while a file was read.

    Parameters
    ----------
    error : what was caught; one of this library is returned as it is
    what : could not be done, and where
    is_remote : whether a server was asked

    Returns
    -------
    :class:`PlaceError` where the file or its place is to blame, :class:`~rootdata.errors.MachineError` where this
    machine is

    Raises
    ------
    Exception
        The error itself, with a note of what could not be done, where it is a fault of this program.
    """
    if isinstance(error, RootDataError):
        return error
    cause = cause_of(error)
    if cause is Cause.BUG:
        error.add_note(what)
        raise error
    sentence = told(what, error, is_remote=is_remote)
    return MachineError(sentence) if cause in OF_THE_MACHINE else PlaceError(sentence)


def persist(
    places: Sequence[str], attempt: Callable[[str], T], *, patience: float, closed: threading.Event | None = None
) -> T:
    """Try something at one place after the other, and again after a pause, until it succeeds.

    Parameters
    ----------
    places : paths and addresses of one file and its copies
    attempt : does it at one place; raises :class:`Failed` where another attempt makes sense
    patience : seconds after the first failure during which new attempts are made
    closed : makes waiting end at once

    Raises
    ------
    FileError
        Where every place failed for good, patience has run out, or nobody waits any more; and what ``attempt`` raises.
    """
    closed = closed or threading.Event()
    failures: dict[str, Failed] = {}
    tries, began, pause = 0, 0.0, FIRST_PAUSE
    while True:
        for place in [p for p in places if p not in failures or failures[p].is_passing]:
            if closed.is_set():
                raise FileError(f"{place}: reading was ended")
            try:
                return attempt(place)
            except Failed as failure:
                tries, began = tries + 1, began or time.monotonic()
                failures[place] = failure
        waited = time.monotonic() - began
        if waited >= patience or not any(f.is_passing for f in failures.values()):
            raise _given_up(failures, tries=tries, waited=waited)
        closed.wait(min(pause, patience - waited))
        pause = min(2 * pause, LONGEST_PAUSE)


def _given_up(failures: Mapping[str, Failed], *, tries: int, waited: float) -> FileError:
    told = "; ".join(str(f.error) for f in failures.values())
    if any(f.is_passing for f in failures.values()):
        told += f"; tried {tries} times in {waited:.0f} s at {', '.join(failures)}: check the network and the servers, "
        told += "name other copies of the file in `files`, or raise `patience`"
    elif len(failures) > 1:
        told = f"no copy can be read: {told}"
    error = FileError(told)
    error.__cause__ = list(failures.values())[-1].error.__cause__
    return error


def within(seconds: float, action: Callable[[], T], *, place: str, closed: threading.Event | None = None) -> T:
    """Do something in a thread that is left behind where it takes too long.

    Parameters
    ----------
    seconds : what it may take
    action : goes on in its thread after that, and its result is thrown away
    place : where it is done, to say so
    closed : makes waiting end at once

    Raises
    ------
    LateError
        Where it takes longer, or nobody waits any more; and what ``action`` raises.
    """
    done = threading.Event()
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, action()))
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever waits
            outcome.append((False, error))
        done.set()

    threading.Thread(target=run, name="rootdata-remote", daemon=True).start()
    end = time.monotonic() + seconds
    while not done.wait(max(0.0, min(WAKE, end - time.monotonic()))):
        if time.monotonic() >= end or (closed is not None and closed.is_set()):
            raise LateError(f"{place}: no answer within {seconds:g} s")
    is_good, value = outcome[0]
    if is_good:
        return value  # type: ignore[no-any-return]
    raise value

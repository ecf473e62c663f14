"""Processes that die, as of kill -9, when they are about to run a certain line."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any


def in_child(action: Callable[[], object], *, seconds: int = 20) -> int:
    """Run something in a forked child, and return its exit status; a child that hangs is killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            warnings.simplefilter("error")
            signal.alarm(seconds)
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def crash(change: Callable[[], object], *, line: int, code: Sequence[str]) -> bool:
    """Do something in a child that dies at a line; tell whether it came to its end before.

    Parameters
    ----------
    change : what is done
    line : how many lines of the code are run before it dies, 1 for none
    code : parts of the paths of the files whose lines count
    """

    def doomed() -> None:
        _die_at_line(line, code)
        change()

    status = in_child(doomed)
    assert status in {0, -signal.SIGKILL}
    return status == 0


def _die_at_line(count: int, code: Sequence[str]) -> None:
    left = [count]

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in code):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)

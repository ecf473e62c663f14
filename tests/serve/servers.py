"""Servers in processes of their own, on a free port of loopback, for the tests that talk to them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


@dataclasses.dataclass
class Handle:
    """A server that runs in processes of its own."""

    process: subprocess.Popen[str]
    url: str
    temporary: Path
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> dict[str, list[int]]:
        """Return the process ids of ``api`` and ``worker`` processes, and of ``other`` ones."""
        found: dict[str, list[int]] = {"api": [], "worker": [], "other": []}
        for pid in children_of(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended meanwhile
                command = Path(f"/proc/{pid}/cmdline").read_text()
                kind = "worker" if "spawn_main" in command else "other" if "resource_tracker" in command else "api"
                found[kind].append(pid)
        return found

    def all_pids(self) -> list[int]:
        return [self.pid, *children_of(self.pid)]

    def is_ready(self, path: str = "/ready") -> bool:
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, *, number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def launch(
    arguments: Sequence[str],
    *,
    temporary: Path,
    environment: Mapping[str, str] | None = None,
    first: Callable[[], object] = lambda: None,
) -> subprocess.Popen[str]:
    """Start ``python ARGUMENTS`` with its messages in the file ``log`` and its temporary files in a folder.

    Parameters
    ----------
    first : is called in the new process
    """

    def begin() -> None:
        default_signals()
        first()

    paths = os.pathsep.join([str(SOURCE), str(HERE)])
    own = {"PYTHONPATH": paths, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with (temporary / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            env={**os.environ, **own, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=begin,
        )


def announced(handle: Handle, *, seconds: float) -> str:
    """Wait for the line that says where the server is; return its address."""
    os.set_blocking(handle.process.stdout.fileno(), False)
    line = poll(lambda: handle.process.stdout.readline() or ended(handle), seconds=seconds)
    words = line.split()
    if words[:1] != ["serving"]:
        raise AssertionError(f"the server did not start: {line!r}\n{handle.log.read_text()}")
    return words[1]


def ended(handle: Handle) -> str:
    status = handle.process.poll()
    return "" if status is None else f"exit status {status}"


def default_signals() -> None:
    # A shell may have told background processes to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def children_of(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits to be read off does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time that processes have used, s."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def poll(attempt: Callable[[], Any], *, seconds: float = 10.0, every: float = 0.01) -> Any:
    """Return the first true result of ``attempt``; fail when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := attempt():
            return result
        time.sleep(every)
    raise AssertionError(f"{attempt} gave nothing within {seconds} s")

"""What a tree of processes spends and holds, from ``/proc``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process at one moment.

    Parameters
    ----------
    cpu : seconds of its threads and of its children that have ended
    """

    pid: int
    parent: int
    session: int
    cpu: float


def tree(root: int) -> list[Process]:
    """List a process, its descendants, and what belongs to its session though its parent has ended."""
    every = [p for p in map(_read, Path("/proc").iterdir()) if p]
    members = {p.pid for p in every if p.pid == root or p.session == root}
    while grown := {p.pid for p in every if p.parent in members} - members:
        members |= grown
    return [p for p in every if p.pid in members]


def cpu_of(root: int) -> float:
    """Return the CPU seconds of a tree."""
    return sum(p.cpu for p in tree(root))


def peaks_of(root: int) -> dict[int, float]:
    """Return the peak of the resident set of each process of a tree, in MB."""
    found = {p.pid: _peak(p.pid) for p in tree(root)}
    return {pid: peak for pid, peak in found.items() if peak}


def _read(folder: Path) -> Process | None:
    if not folder.name.isdigit():
        return None
    try:
        text = (folder / "stat").read_text()
    except OSError:  # it has ended since
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before may hold anything; "state" is the first field
    ticks = sum(int(t) for t in fields[11:15])  # utime, stime, cutime, cstime
    return Process(pid=int(folder.name), parent=int(fields[1]), session=int(fields[3]), cpu=ticks * TICK)


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)

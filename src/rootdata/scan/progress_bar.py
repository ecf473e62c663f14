"""How far a first pass got: told to whoever wants to know, and shown as a bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class ProgressReport(Protocol):
    """Told how much was read."""

    def expect(self, entries: int) -> None:
        """``entries`` more are to be read."""

    def advance(self, entries: int) -> None:
        """``entries`` more were read."""


@contextmanager
def bar(title: str, *, show: bool = True) -> Iterator[ProgressReport | None]:
    """Show a progress bar with events a second while a pass runs."""
    if not show:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Display(*columns, TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), transient=True) as display:
        yield _Bar(display, title)


class _Bar:
    """A task of a rich progress display."""

    def __init__(self, display: Any, title: str) -> None:
        self._display = display
        self._task = display.add_task(title, total=0, rate="")
        self._total = 0

    def expect(self, entries: int) -> None:
        self._total += entries
        self._display.update(self._task, total=self._total)

    def advance(self, entries: int) -> None:
        self._display.advance(self._task, entries)
        speed = self._display.tasks[self._task].speed
        self._display.update(self._task, rate=f"{speed / 1e3:,.0f}k/s" if speed else "")

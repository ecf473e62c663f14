"""Sets on disk: ROOT files in baskets, in a folder that appears whole or not at all, with a note of what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import awkward as ak
import uproot

from rootdata import disk
from rootdata.errors import DataError
from rootdata.tth.events import SimulatedEvents, join, to_awkward
from rootdata.tth.samples import TREE

#: Raise it whenever the same seed gives other numbers.
VERSION: Final = 1
NOTE: Final = "tth.json"
BASKET_EVENTS: Final = 10_000
COMPRESSION_LEVEL: Final = 1  # of ZSTD; float32 noise gains nothing from more


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What made a set; equal notes, equal events."""

    generator: Literal["fast", "pythia", "pythia-mpi"]
    set: Literal["selected", "full"]
    n_events: int
    seed: int
    version: int = VERSION


class TreeWriter:
    """Writes one ROOT file in baskets of equal size, up to a number of events.

    Parameters
    ----------
    path : file to make
    limit : events to write; what is added beyond is dropped
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        self.missing = limit
        self._n_baskets = 1 + -(-limit // BASKET_EVENTS)
        self._file = uproot.recreate(path, compression=uproot.ZSTD(COMPRESSION_LEVEL))
        self._pending: list[SimulatedEvents] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._flush(1)

    def add(self, events: SimulatedEvents) -> int:
        """Add events and return how many were taken."""
        events = events[: self.missing]
        self.missing -= len(events)
        self._pending.append(events)
        self._flush(BASKET_EVENTS)
        return len(events)

    def _flush(self, at_least: int) -> None:
        if sum(map(len, self._pending)) < at_least:
            return
        rest = join(self._pending)
        while len(rest) >= at_least:
            self._write(to_awkward(rest[:BASKET_EVENTS]))
            rest = rest[BASKET_EVENTS:]
        self._pending = [rest]

    def _write(self, columns: dict[str, ak.Array]) -> None:
        if TREE not in self._file:
            types = {name: column.type.content for name, column in columns.items()}
            # Room for every basket at once spares rewriting the metadata of all branches.
            self._file.mktree(
                TREE, types, counter_name=lambda name: f"n{name}", initial_basket_capacity=self._n_baskets
            )
        self._file[TREE].extend(columns)


def holds(folder: Path, note: Note) -> bool:
    """Tell whether a folder has the set of ``note`` already.

    Raises
    ------
    DataError
        If it has another set, a part of this one, or anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    found = _read_note(folder)
    expected = asdict(note)
    if {name: found.get(name) for name in expected} != expected:
        got = ", ".join(f"{name}={found.get(name)!r}" for name in expected if found.get(name) != expected[name])
        asked = ", ".join(f"{name}={value!r}" for name, value in expected.items() if found.get(name) != value)
        raise DataError(
            f"folder '{folder}' holds another set: {got}; asked: {asked}; choose another folder or delete this one"
        )
    if missing := [name for name in found["files"] if not (folder / name).is_file()]:
        raise DataError(f"folder '{folder}' lacks {', '.join(missing)} of its set; delete the folder to make it anew")
    return True


def paths_in(folder: Path) -> list[Path]:
    """List the files of a set in the order in which they were written."""
    return [folder / name for name in _read_note(folder)["files"]]


@contextmanager
def new_set(folder: Path, note: Note, *, files: Sequence[str]) -> Iterator[Path]:
    """Give a folder to write into, which takes its final name when the block ends well, and disappears when it doesn't.

    Where another process finishes the same set first, its files stand and these are dropped.

    Parameters
    ----------
    folder, note : where the set goes, and what makes it
    files : names of the files that will be written

    Raises
    ------
    DataError
        If ``folder`` has something else in it by then.
    """
    with disk.making(folder) as partial:
        yield partial
        _write_note(partial, note, files=files)
        _publish(partial, folder, note)


def _publish(partial: Path, folder: Path, note: Note) -> None:
    try:
        disk.put(partial, folder)
    except OSError as error:
        if not holds(folder, note):
            raise DataError(f"folder '{folder}': {error.strerror}; choose another folder or delete this one") from error


def _write_note(folder: Path, note: Note, *, files: Sequence[str]) -> None:
    (folder / NOTE).write_text(json.dumps({**asdict(note), "files": list(files)}, indent=2) + "\n", encoding="utf-8")


def _read_note(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"folder '{folder}' has files but no readable {NOTE}: it isn't a set of events; choose another folder"
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("files"), list):
        raise DataError(f"'{folder / NOTE}' is damaged; delete the folder to make the set anew")
    return found

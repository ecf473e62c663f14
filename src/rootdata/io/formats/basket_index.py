"""Where baskets lie in files that were opened before, since opening a small file takes longer than reading it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from rootdata import cache_folder
from rootdata.io.files import state_of_open
from rootdata.jagged import Columns, Ints
from rootdata.location import State

if TYPE_CHECKING:
    from rootdata.io.formats.ttree import BasketTable

MAX_BYTES = 64_000_000  # of all that is remembered: some 5,000 files of 200 branches with a basket each
VERSION = 4
DIGEST_BYTES = 16

BasketKind = tuple[str, str, int, int, int]
"""Name, number type, width and header of a branch, as in a :class:`~rootdata.io.formats.ttree.BasketTable`, and which
of the branches counts its lists, or -1. A branch without a name is there only to count."""

Place = tuple[str, str]
"""Path of a file, and the tree in it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Baskets:
    """The basket tables of some branches of one file, packed.

    Parameters
    ----------
    state : of the file as it was
    numbers : for each branch how many baskets it has, then their entries, places and lengths
    """

    state: State
    kinds: tuple[BasketKind, ...]
    numbers: Ints

    def tables(self) -> list[BasketTable]:
        """Unpack the tables."""
        from rootdata.io.formats.ttree import BasketTable

        found, at = [], 0
        for kind in self.kinds:
            n = int(self.numbers[at])
            edges, seeks, nbytes, at = at + 1, at + n + 2, at + 2 * n + 2, at + 3 * n + 2
            parts = (self.numbers[edges:seeks], self.numbers[seeks:nbytes], self.numbers[nbytes:at])
            found.append(BasketTable(*kind[:-1], *parts))
        return [
            dataclasses.replace(table, counter=None if kind[-1] < 0 else found[kind[-1]])
            for kind, table in zip(self.kinds, found, strict=True)
            if table.name
        ]


def baskets_of(handle: int, tables: Sequence[BasketTable]) -> Baskets:
    """Pack the tables of an open file."""
    counters = {id(t.counter): t.counter for t in tables if t.counter is not None}
    places = {which: len(tables) + i for i, which in enumerate(counters)}
    named = [(t.name, t) for t in tables] + [("", t) for t in counters.values()]
    parts = [np.concatenate([[len(t.seeks)], t.entry_offsets, t.seeks, t.nbytes]) for _, t in named]
    kinds = tuple(
        (sys.intern(name), sys.intern(t.dtype), t.width, t.header, places.get(id(t.counter), -1)) for name, t in named
    )
    return Baskets(state_of_open(handle), kinds, np.concatenate([np.zeros(0, np.int64), *parts]))


class BasketIndex:
    """Remembers where baskets lie, by file and tree, within a bound.

    Threads may share it. A file that has changed is forgotten.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._known: dict[Place, Baskets] = {}
        self._kinds: dict[tuple[BasketKind, ...], tuple[BasketKind, ...]] = {}  # the same for most files: kept once
        self._left = max_bytes

    def save(self, path: Path) -> None:
        """Write what is remembered, if anything, for a later run.

        Raises
        ------
        OSError
            Where it can't be written.
        """
        if not self._known:
            return
        known, kinds = list(self._known.values()), list(self._kinds)
        states = [dataclasses.astuple(d.state) for d in known]
        text = json.dumps({"places": list(self._known), "kinds": kinds, "states": states})
        content = io.BytesIO()
        np.savez(
            content,
            text=np.frombuffer(text.encode(), np.uint8),
            kind=np.array([kinds.index(d.kinds) for d in known], np.int64),
            lengths=np.array([len(d.numbers) for d in known], np.int64),
            numbers=np.concatenate([np.zeros(0, np.int64), *(d.numbers for d in known)]),
        )
        cache_folder.write_atomic(path, _digest(content.getbuffer()) + content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Remember what :meth:`save` wrote; nothing where it is absent, damaged or of another version."""
        index = cls()
        try:
            content = path.read_bytes()
            if _digest(content[DIGEST_BYTES:]) == content[:DIGEST_BYTES]:
                for place, baskets in _unpacked(io.BytesIO(content[DIGEST_BYTES:])):
                    index.add(place, baskets)
        except (OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile):
            return cls()
        return index

    def keep(self, place: Place, look_up: Callable[[], Baskets | None]) -> None:
        """Remember a tree, if there is room, and it is not known yet."""
        baskets = None if place in self._known else look_up()
        if baskets is not None:
            self.add(place, baskets)

    def add(self, place: Place, baskets: Baskets) -> None:
        """Remember a tree, if there is room."""
        if self._left >= baskets.numbers.nbytes:
            self._left -= baskets.numbers.nbytes
            kinds = self._kinds.setdefault(baskets.kinds, baskets.kinds)
            self._known[place] = dataclasses.replace(baskets, kinds=kinds)

    def read(self, place: Place, names: Sequence[str], start: int, stop: int) -> Columns | None:
        """Read entries of a remembered tree; ``None`` where it is not known, has changed, or can't be read so.

        Parameters
        ----------
        place : path of the file, and the tree in it
        names : of the branches; those that were remembered, in the same order
        start, stop : entries, within those of the tree
        """
        known = self._known.get(place)
        if known is None or [kind[0] for kind in known.kinds if kind[0]] != list(names):
            return None
        from rootdata.causes import ContradictionError
        from rootdata.io.formats.parts import ListsOfLists
        from rootdata.io.formats.ttree import read_block
        from rootdata.io.local import LocalSource

        try:
            handle = os.open(place[0], os.O_RDONLY)
            try:
                if state_of_open(handle) == known.state:
                    found = read_block(LocalSource(handle), known.tables(), start, stop)
                    return {
                        n: c for n, c in found.items() if not isinstance(c, ListsOfLists)
                    }  # of which there are none
            finally:
                os.close(handle)
        except (OSError, EOFError, ContradictionError):
            pass  # whoever opens the file says what is wrong
        self._known.pop(place, None)
        return None


def _unpacked(content: io.BytesIO) -> Iterator[tuple[Place, Baskets]]:
    """Yield what :meth:`BasketIndex.save` put together."""
    with np.load(content) as found:
        text, kind = json.loads(found["text"].tobytes()), found["kind"].tolist()
        numbers, edges = found["numbers"], np.cumsum([0, *found["lengths"].tolist()]).tolist()
        if set(found.files) != {"text", "kind", "lengths", "numbers"} or set(text) != {"places", "kinds", "states"}:
            raise ValueError("it has fields that are not known here")
    kinds = [tuple((str(a), str(b), *map(int, rest)) for a, b, *rest in one) for one in text["kinds"]]
    for (where, tree), k, state, begin, end in zip(
        text["places"], kind, text["states"], edges[:-1], edges[1:], strict=True
    ):
        yield (where, tree), Baskets(State(*state), kinds[k], numbers[begin:end])


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=b"baskets, %d" % VERSION).digest()

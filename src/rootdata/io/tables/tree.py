"""A table of another file format, read as the trees of ROOT files are."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from rootdata.causes import Cause, ContradictionError, cause_of
from rootdata.errors import DataError, MachineError, RootDataError
from rootdata.io.block_size import entries_of_block
from rootdata.io.branches import Branch, unknown_branch, unusable_branch
from rootdata.io.contents import Contents, Listed
from rootdata.io.formats import signatures
from rootdata.io.formats.basket_index import Baskets
from rootdata.io.local import Span
from rootdata.io.retry import PlaceError, blamed, check_range, why_not_open
from rootdata.io.tables import unpacked
from rootdata.io.tables.content import Content
from rootdata.io.tables.leaves import Leaf, columns_of, leaves_of, no_events, sharing
from rootdata.jagged import Columns
from rootdata.location import Location, is_remote
from rootdata.table import Table, concatenate

TREE = "rows"  # what stands for the name of a tree, of which such files have one
FEW = 2  # blocks in a group that is read as a whole
MOST = 1 << 32  # rows of a group: formats hold lists of fewer
ASKED = 64_000_000  # bytes of a server's file that are asked for at once
OBJECTS = 4  # in a list, in the mean, where nobody knows better


class TableFile(Protocol):
    """An open file of rows in groups, each of which can be read without the others.

    ``schema`` is one of pyarrow, ``groups`` are the rows of each group, ``compression`` is what is shown of it.
    """

    schema: Any
    groups: Sequence[int]
    compression: str

    def size_of(self, leaves: Sequence[Leaf]) -> float:
        """Return about how many bytes leaves take, decoded, of all rows."""

    def spans(self, group: int, leaves: Sequence[Leaf]) -> list[Span]:
        """Say which bytes of the file reading a group takes."""

    def batches(self, group: int, leaves: Sequence[Leaf], *, rows: int) -> Iterator[Any]:
        """Read a group from its start, in record batches that have the columns of leaves.

        Parameters
        ----------
        group : its number
        leaves : to be read; batches may have others
        rows : of a batch, at most, as far as that can be
        """

    def close(self) -> None:
        """Let go what was taken to read."""


class TableFormat:
    """A kind of files with one table each; a subclass says what they are called, begin and end with, and opens them."""

    kind: str
    endings: tuple[str, ...]
    start: bytes = b""
    end: bytes = b""

    def open_file(self, content: Content) -> TableFile:
        """Read what a file says of itself."""
        raise NotImplementedError

    def open(self, location: Location, place: str) -> TableTree:
        """Open the table of a file; see :func:`rootdata.io.trees.open_tree`."""
        content: Content | None = None
        try:
            content = Content(place)
            self._check(content)
            return TableTree(self.open_file(content), content, location)
        except Exception as error:
            if content is not None:
                content.close()
            if isinstance(error, (RootDataError, MemoryError)):
                raise
            raise self._why_not_open(place, error) from error

    def look_into(self, place: str, *, leave: Callable[[Sequence[str]], str | None]) -> Contents:  # noqa: ARG002
        """Say what is in a file; see :func:`rootdata.io.trees.look_into`."""
        tree = self.open(Location(place), place)
        try:
            return Contents(tree.compression, (Listed(TREE, self.kind, tree.num_entries),))
        finally:
            tree.close()

    def _check(self, content: Content) -> None:
        place, head = content.place, content.fetch(0, signatures.LENGTH)
        why_not = signatures.why_not(head, self.kind, self.start)
        if why_not:
            raise PlaceError(f"{place}: {why_not}")
        at = max(len(self.start), content.size - len(self.end))
        if content.fetch(at, len(self.end)) != self.end:
            raise PlaceError(f"{place}: the file is truncated, it does not end as a {self.kind} file; replace it")

    def _why_not_open(self, place: str, error: Exception) -> RootDataError:
        if cause_of(error) is Cause.SETUP and isinstance(error, ImportError):
            return MachineError(
                f"{place}: reading {self.kind} files needs pyarrow, which can't be imported ({error}); "
                "pip install 'rootdata[arrow]'"
            )
        return why_not_open(place, error)


class TableTree:
    """The rows of an open file; see :class:`rootdata.io.trees.Tree`.

    Parameters
    ----------
    file : knows the format
    content : the bytes
    asked : the location that was to be opened
    """

    kind = "table"

    def __init__(self, file: TableFile, content: Content, asked: Location) -> None:
        self._file, self._content = file, content
        unreal = next((rows for rows in file.groups if not 0 <= rows < MOST), None)
        if unreal is not None:
            raise ContradictionError(f"a group of {unreal:,} rows")
        self._leaves = leaves_of(file.schema)
        self._sizes: dict[tuple[str, ...], float] = {}  # by names
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(file.groups, np.int64))]).tolist()
        self.asked, self.location = asked, dataclasses.replace(asked, tree=TREE)
        self.place, self.state = content.place, content.state
        self.compression = file.compression
        self.num_entries: int = self._starts[-1]
        self.uuid = content.mark()

    def names(self) -> list[str]:
        """Return the names of all columns, those of records with the names of their fields."""
        return list(self._leaves)

    def describe(self, name: str) -> Branch:
        """Say what a column holds; :class:`BranchError` where there is none of that name."""
        return dataclasses.replace(self._leaf(name).branch, name=name)

    def _leaf(self, name: str) -> Leaf:
        for candidate in (name, name.replace("_", ".", 1)):
            if candidate in self._leaves:
                return self._leaves[candidate]
        raise unknown_branch(name, self._leaves, where=self.place)

    def _usable(self, names: Sequence[str]) -> list[Leaf]:
        leaves = (self._leaf(name) for name in dict.fromkeys(names))
        return [leaf for leaf in leaves if leaf.branch.kind != "unusable"]

    def bytes_per_entry(self, names: Sequence[str]) -> float:
        """Return the decoded size of columns, in bytes an entry."""
        wanted = tuple(names)
        if wanted not in self._sizes:  # asked for at each read
            self._sizes[wanted] = self._file.size_of(self._usable(names)) / max(1, self.num_entries)
        return self._sizes[wanted]

    def nbytes(self, names: Sequence[str], start: int, stop: int) -> int:
        """Return about how many bytes reading entries ``start`` to ``stop`` takes.

        Parameters
        ----------
        names : of the columns
        start, stop : entries, within those of the file
        """
        return int(self.bytes_per_entry(names) * (stop - start))

    def edges(self, names: Sequence[str]) -> list[int]:
        """Return where groups begin; one that is larger than a block is cut."""
        size, edges = self.bytes_per_entry(names), {0, self.num_entries}
        for start, stop in itertools.pairwise(self._starts):
            edges.update(range(start, stop, _piece(stop - start, size) or max(1, stop - start)))
        return sorted(edges)

    def baskets(self, names: Sequence[str]) -> Baskets | None:  # noqa: ARG002 - opening costs little
        """Say that there are none."""
        return None

    def read(self, names: Sequence[str], start: int, stop: int) -> Columns:
        """Read entries ``start`` to ``stop``.

        Parameters
        ----------
        names : of the columns
        start, stop : entries, 0 <= start <= stop <= ``num_entries``

        Raises
        ------
        BranchError
            For a column that is absent, or holds no numbers.
        DataError
            For an integer or a truth value that is null.
        FileError
            For what can't be read.
        """
        check_range(start, stop, num_entries=self.num_entries, place=self.place)
        leaves = {name: self._leaf(name) for name in dict.fromkeys(names)}
        for leaf in leaves.values():
            if leaf.branch.kind == "unusable":
                raise unusable_branch(leaf.name, leaf.branch.note, where=self.place)
        try:
            return self._read(leaves, start, stop)
        except DataError as error:
            raise DataError(f"{self.place}: {error}") from error
        except Exception as error:
            what = f"{self.place}: entries {start} to {stop} can't be read"
            raise blamed(error, what, is_remote=is_remote(self.place)) from error

    def _read(self, leaves: dict[str, Leaf], start: int, stop: int) -> Columns:
        if start == stop or not leaves:
            return {name: no_events(leaf) for name, leaf in leaves.items()}
        bounds = [(max(start, low) - low, min(stop, high) - low) for low, high in itertools.pairwise(self._starts)]
        groups = {group: part for group, part in enumerate(bounds) if part[0] < part[1]}
        with self._ahead(list(groups), list(leaves.values())):
            whole = concatenate([t for group, part in groups.items() for t in self._part(leaves, group, *part)])
        if whole.num_events != stop - start:
            raise ContradictionError(f"{whole.num_events:,} rows came where {stop - start:,} are promised")
        return sharing(dict(whole.columns))

    def _ahead(self, groups: Sequence[int], leaves: Sequence[Leaf]) -> AbstractContextManager[None]:
        """Ask for the bytes of some groups at once where each request costs, unless they are many."""
        if not self._content.is_remote:
            return nullcontext()
        size = self.bytes_per_entry([leaf.name for leaf in leaves])
        whole = [group for group in groups if not _piece(self._file.groups[group], size)]  # others may be unpacked
        spans = [span for group in whole for span in self._file.spans(group, leaves)]
        if any(not 0 <= low <= high <= self._content.size for low, high in spans):
            raise ContradictionError("columns lie outside of the file")
        return self._content.source.ahead(spans) if sum(b - a for a, b in spans) <= ASKED else nullcontext()

    def _part(self, leaves: dict[str, Leaf], group: int, start: int, stop: int) -> Iterable[Table]:
        """Read rows of a group, counted from its start."""
        size, num_rows = self.bytes_per_entry(list(leaves)), self._file.groups[group]
        piece, found = _piece(num_rows, size), None
        decode = functools.partial(self._decode, leaves, group, piece or num_rows)
        if piece and start >= piece:  # those before need not be decoded each time
            kinds = [(name, leaf.name, leaf.branch.dtype) for name, leaf in leaves.items()]
            path = unpacked.place_of([self.uuid, self.state.size, self.state.version, group, kinds, piece])
            whole = functools.partial(decode, 0, num_rows)
            found = unpacked.rows(path, start, stop, size=size * num_rows, make=whole)
        return decode(start, stop) if found is None else found

    def _decode(self, leaves: dict[str, Leaf], group: int, piece: int, start: int, stop: int) -> Iterator[Table]:
        """Decode a group from its start, some rows at a time, and give those that are asked for."""
        at = 0
        for batch in self._file.batches(group, list(leaves.values()), rows=piece):
            low, high = max(start, at), min(stop, at + batch.num_rows)
            if low < high:
                part = batch.slice(low - at, high - low)
                yield Table(num_events=high - low, columns=sharing(columns_of(part, leaves)))
            at += batch.num_rows
            if at >= stop:
                return

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._content.close()


def _piece(rows: int, size: float) -> int:
    """Say how many rows of a group are read at a time; 0 where it is read as a whole.

    Parameters
    ----------
    rows : of the group
    size : of a row, in bytes
    """
    most = entries_of_block(size)
    return -(-rows // -(-rows // most)) if rows > FEW * most else 0

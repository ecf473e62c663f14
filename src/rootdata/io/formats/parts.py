"""Branches that hold several numbers in each entry, or each object: records, arrays of arrays, lists of arrays.

Each of these numbers is a column of its own, named as ROOT names it: ``Jet_tau[0]``, ``jet.pt``, ``p4.fP.fX``.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.expressions.nested import NUM
from rootdata.jagged import Column, Ints, Jagged, offsets_of

Numbers = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

MOST_PARTS = 256  # columns that a branch is divided into

_NOT_DATA = "@"  # of what uproot calls the versions and lengths that lie between the members of an object
_IS_LENGTH = 0x40000000  # bit of a number of bytes (kByteCountMask of ROOT)
_SHAPE = re.compile(r"(\[\w*\])+$")


@dataclasses.dataclass(frozen=True, slots=True)
class BranchPart:
    """One column of a branch that holds several.

    Parameters
    ----------
    suffix : of its name, behind that of the branch
    at : its first element in a row: a number, or a byte where ``dtype`` says what to make of bytes
    dtype : numpy type as it is stored; empty for numbers as the branch has them
    width : numbers an entry, 0 for one
    how : ``flatten`` or ``num``: what is made of lists, instead of a number of their objects
    """

    suffix: str
    at: int
    dtype: str = ""
    width: int = 0
    how: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ListsOfLists:
    """A column of lists of lists.

    Parameters
    ----------
    offsets : (n_events + 1,) int64; event i owns ``lengths[offsets[i]:offsets[i + 1]]``
    lengths : (n_lists,) int64, of the inner lists
    content : of all of them
    """

    offsets: Ints
    lengths: Ints
    content: Numbers

    def flattened(self) -> Jagged:
        """Join the inner lists of each event."""
        return Jagged(offsets_of(self.lengths)[self.offsets], self.content)

    def counted(self) -> Jagged:
        """Count the objects of the inner lists."""
        return Jagged(self.offsets, self.lengths)


def stem_of(name: str) -> str:
    """Return the name that those of parts begin with: without the shape and the point that ROOT may put behind it.

    Examples
    --------
    >>> stem_of("V0s.fInvMass[2]"), stem_of("evtwt."), stem_of("MET")
    ('V0s.fInvMass', 'evtwt', 'MET')
    """
    return _SHAPE.sub("", name).rstrip(".") or name


def stems_in(name: str) -> Iterator[str]:
    """Yield what the name of a part may begin with, the longest first.

    Examples
    --------
    >>> list(stems_in("p4[1].fP.fX"))
    ['p4[1].fP', 'p4[1]', 'p4']
    """
    for end in range(len(name) - 1, 0, -1):
        if name[end] in ".[":
            yield name[:end]


def parts_of(dtype: np.dtype[Any], *, is_list: bool) -> tuple[BranchPart, ...]:
    """Divide what an entry holds, or an object of its list, into columns; a single one is not divided.

    Parameters
    ----------
    dtype : of an entry or an object, as it is stored: with fields, or of some shape
    is_list : whether entries hold lists, whose columns have one number an object
    """
    found = tuple(itertools.islice(_members(dtype, "", 0, is_list), MOST_PARTS + 1))
    if is_record(dtype):
        return found
    size = dtype.base.itemsize
    return tuple(dataclasses.replace(part, at=part.at // size, dtype="") for part in found if part.suffix)


def _members(dtype: np.dtype[Any], suffix: str, at: int, is_list: bool) -> Iterator[BranchPart]:
    base, shape = dtype.base, dtype.shape
    if base.names is None:
        outer = shape if is_list else shape[:-1]
        width = 0 if is_list or not shape else shape[-1]
        if base.kind in "iufb":
            for i, place in enumerate(_places(outer)):
                yield BranchPart(suffix + _brackets(place), at + i * max(1, width) * base.itemsize, base.str, width)
        return
    for (i, place), name in itertools.product(enumerate(_places(shape)), base.names):
        if not name.rsplit("/", 1)[-1].startswith(_NOT_DATA):
            inner, offset, *_ = base.fields[name]  # type: ignore[index]
            member = f"{suffix}{_brackets(place)}.{name.replace('/', '.')}"
            yield from _members(inner, member, at + i * base.itemsize + offset, is_list)


def _places(shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, shape))


def _brackets(place: Sequence[int]) -> str:
    return "".join(f"[{i}]" for i in place)


def is_record(dtype: np.dtype[Any]) -> bool:
    """Say whether a row holds numbers of several types, or what is no number."""
    return dtype.base.names is not None


def has_header(record: np.dtype[Any]) -> bool:
    """Say whether more than members lies in an object: versions, lengths, what other objects refer to it by."""
    return any(_NOT_DATA in name for name in record.base.names or ())


def lengths_agree(rows: Bytes, record: np.dtype[Any]) -> bool:
    """Say whether objects are as long as they say in front of themselves, where they do.

    Parameters
    ----------
    rows : (n, k) of some objects, or arrays of objects
    record : of each
    """
    if f"{_NOT_DATA}num_bytes" not in (record.base.names or ())[:2]:
        return True
    said = np.ascontiguousarray(rows.reshape(-1, record.base.itemsize)[:, :4]).view(">u4")
    return bool((said == (_IS_LENGTH | (record.base.itemsize - 4))).all())


def take(column: Column | ListsOfLists, part: BranchPart) -> Column:
    """Take a part out of the column of a branch.

    Parameters
    ----------
    column : (n, k), or lists of (m, k), or of lists
    part : of its rows
    """
    if isinstance(column, ListsOfLists):
        if part.how == NUM:
            return column.counted()
        joined = column.flattened()
        return Jagged(joined.offsets, _taken(joined.content, part)) if part.dtype else joined
    if part.how and isinstance(column, Jagged):
        return column.counts
    if isinstance(column, Jagged):
        return Jagged(column.offsets, _taken(column.content, part))
    return _taken(column, part)


def _taken(rows: Numbers, part: BranchPart) -> Numbers:
    rows = rows[:, np.newaxis] if rows.ndim == 1 else rows
    count = max(1, part.width)
    stored = np.dtype(part.dtype) if part.dtype else rows.dtype
    size = count * (stored.itemsize if part.dtype else 1)
    found: Numbers = np.ascontiguousarray(rows[:, part.at : part.at + size])
    numbers = found.view(stored).astype(stored.newbyteorder("="), copy=False) if part.dtype else found
    return numbers if part.width else numbers.reshape(-1)

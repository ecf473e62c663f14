"""Where the pages of an RNTuple lie: its page lists, one for each group of clusters.

Every length that a list gives is compared with what is around it, and the whole with its checksum, before it is
believed.

The format: https://github.com/root-project/root/blob/master/tree/ntuple/doc/BinaryFormatSpecification.md
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence

import xxhash

from rootdata.causes import ContradictionError

CHECKSUM = struct.Struct("<Q")  # of a page or an envelope, behind it
PAGE_LIST = 3  # type of an envelope

_HEADER = struct.Struct("<QQ")  # type and length of an envelope, checksum of the schema
_FRAME = struct.Struct("<q")  # length of a frame; negative for that of a list, then
_ITEMS = struct.Struct("<I")  # the number of its items follows
_SUMMARY = struct.Struct("<QQ")  # first entry and number of entries of a cluster, with flags in the highest byte
_PAGE = struct.Struct("<iiQ")  # elements, negative where there is a checksum; bytes; place in the file
_LARGE_PAGE = struct.Struct("<iiQQ")  # the same with a longer number of bytes, behind that of the locator and its type
_OFFSET = struct.Struct("<q")  # elements of a column in the clusters before; negative where it has none in this one

_LARGE = 0x01
_ENTRIES = (1 << 56) - 1
_SHARDED = 0x01


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Where a page of a column lies: ``elements`` of it, in ``size`` bytes as stored."""

    elements: int
    offset: int
    size: int
    has_checksum: bool

    @property
    def stop(self) -> int:
        """Where it ends in the file, its checksum included."""
        return self.offset + self.size + CHECKSUM.size * self.has_checksum


class ColumnPages:
    """The pages of the columns of a cluster, looked at when they are asked for.

    Parameters
    ----------
    data : the envelope
    places : where the list of each column begins and ends in it
    """

    def __init__(self, data: memoryview, places: Sequence[tuple[int, int]]) -> None:
        self._data, self._places = data, places

    def __call__(self, number: int) -> Sequence[Page] | None:
        """Return the pages of a column; none where it is stored in another way in this cluster, or not at all.

        Raises
        ------
        ContradictionError
            For a list that is longer than its place.
        """
        if number >= len(self._places):
            return None
        at, end = self._places[number]
        items, at = _ITEMS.unpack_from(self._data, at)[0], at + _ITEMS.size
        pages = []
        for _ in range(items):
            page, at = _page(self._data, at, end)
            pages.append(page)
        if at + _OFFSET.size > end:
            raise ContradictionError("a list of pages is longer than its place")
        if _OFFSET.unpack_from(self._data, at)[0] >= 0:
            return pages
        if pages:
            raise ContradictionError("a column that has no pages has some")
        return None


def _page(data: memoryview, at: int, end: int) -> tuple[Page, int]:
    if at + _PAGE.size > end:
        raise ContradictionError("a list of pages is longer than its place")
    elements, size, offset = _PAGE.unpack_from(data, at)
    following = at + _PAGE.size
    if size < 0:
        if -size >> 24 != _LARGE or at + _LARGE_PAGE.size > end:
            raise ContradictionError(f"a page lies in a place of the unknown kind {-size >> 24}")
        _, _, size, offset = _LARGE_PAGE.unpack_from(data, at)
        following = at + _LARGE_PAGE.size
    return Page(abs(elements), offset, size, elements < 0), following


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """Entries that are stored together: the first, how many, and the pages of a column by its number."""

    first: int
    entries: int
    pages: ColumnPages


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Some clusters, as the footer tells of them: their page list, first entry, number of entries and of clusters."""

    data: memoryview
    first: int
    entries: int
    clusters: int


def clusters_of(groups: Iterable[Group], *, schema: int) -> list[Cluster]:
    """List the clusters of an RNTuple, by their entries.

    Parameters
    ----------
    groups : of clusters, as the footer lists them, with the bytes of their page lists
    schema : checksum of the header

    Raises
    ------
    ContradictionError
        For an envelope that is not what it says, or entries that no cluster holds, or two.
    """
    found = sorted((c for group in groups for c in _in_group(group, schema)), key=lambda c: (c.first, c.entries))
    at = 0
    for cluster in found:
        if cluster.first != at:
            raise ContradictionError(f"clusters begin at entry {cluster.first} and end at entry {at}")
        at += cluster.entries
    return found


def _in_group(group: Group, schema: int) -> list[Cluster]:
    clusters = _clusters(group.data, schema)
    first, entries = min((c.first for c in clusters), default=0), sum(c.entries for c in clusters)
    if (len(clusters), first, entries) != (group.clusters, group.first, group.entries):
        raise ContradictionError(
            f"{len(clusters)} clusters hold {entries:,} entries from {first:,} on, not {group.clusters} "
            f"{group.entries:,} from {group.first:,} on"
        )
    return clusters


def _clusters(data: memoryview, schema: int) -> list[Cluster]:
    end = len(data) - CHECKSUM.size
    if end < _HEADER.size or CHECKSUM.unpack_from(data, end)[0] != xxhash.xxh3_64_intdigest(data[:end]):
        raise ContradictionError("a list of pages differs from its checksum")
    header, of_schema = _HEADER.unpack_from(data)
    if header & 0xFFFF != PAGE_LIST or header >> 16 != len(data) or of_schema != schema:
        raise ContradictionError("a list of pages is not what the file says that it is")
    (begin, stop), (first, last) = _frames(data, _HEADER.size, end, items=2)
    summaries, clusters = _listed(data, begin, stop), _listed(data, first, last)
    if len(summaries) != len(clusters):
        raise ContradictionError(f"{len(summaries)} clusters have the pages of {len(clusters)}")
    return [_cluster(data, *places) for places in zip(summaries, clusters, strict=True)]


def _cluster(data: memoryview, summary: tuple[int, int], columns: tuple[int, int]) -> Cluster:
    if summary[1] - summary[0] < _SUMMARY.size:
        raise ContradictionError("a cluster is described by too few bytes")
    first, entries = _SUMMARY.unpack_from(data, summary[0])
    if entries >> 56 & _SHARDED:
        raise ContradictionError("a cluster is spread over others, in a way that is not known")
    return Cluster(first, entries & _ENTRIES, ColumnPages(data, _listed(data, *columns)))


def _listed(data: memoryview, at: int, end: int) -> list[tuple[int, int]]:
    """Return where the items of a list begin and end; ``at`` is behind its length."""
    if at + _ITEMS.size > end:
        raise ContradictionError("a list in a list of pages is too short")
    return _frames(data, at + _ITEMS.size, end, items=_ITEMS.unpack_from(data, at)[0])


def _frames(data: memoryview, at: int, end: int, *, items: int) -> list[tuple[int, int]]:
    """Return where frames that follow each other begin and end, each without its length."""
    found = []
    for _ in range(items):
        length = abs(_FRAME.unpack_from(data, at)[0]) if at + _FRAME.size <= end else 0
        if length < _FRAME.size or at + length > end:
            raise ContradictionError("a list in a list of pages is longer than its place")
        found.append((at + _FRAME.size, at + length))
        at += length
    return found

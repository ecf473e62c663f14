"""Where the records of a ROOT file lie: one behind the other, each with a key in front that says how long it is.

What is stored as it is, without a checksum, is known to be where it should be only by the record that it lies in.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Collection

from rootdata.io.local import Span

KEY_BYTES = 64  # a key of pages is shorter

# At the beginning of a file: "root", a version, where the first record begins and where the last one ends; the latter
# in eight bytes where the version is 1,000,000 or more (TFile::WriteHeader of ROOT).
_HEAD = struct.Struct(">4sii")
_LARGE_FILE = 1_000_000

# Of a key: fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle; then where it lies itself, and its folder, in eight
# bytes each where the version is above 1000; then the name of the class, behind its length (TKey::Streamer).
_KEY = struct.Struct(">ihiIhh")
_LARGE_KEY = 1000
_BLOB = b"\x05RBlob"


def nearest_record(content: bytes, begin: int) -> Span | None:
    """Return the last record of pages whose key is in some bytes of a file: where it begins, behind its key, and ends.

    Parameters
    ----------
    content : some bytes of the file
    begin : where the bytes begin in the file
    """
    found = None
    at = content.find(_BLOB)
    while at >= 0:
        for places in (16, 8):
            start = at - places - _KEY.size
            if start >= 0 and (record := _record(content, start, begin)) is not None:
                found = record
        at = content.find(_BLOB, at + 1)
    return found


def _record(content: bytes, at: int, begin: int) -> Span | None:
    nbytes, version, _, _, keylen, _ = _KEY.unpack_from(content, at)
    place = content[at + _KEY.size : at + _KEY.size + (8 if version > _LARGE_KEY else 4)]
    is_key = int.from_bytes(place, "big") == begin + at and 0 < keylen <= nbytes
    return (begin + at + keylen, begin + at + nbytes) if is_key else None


class Records:
    """The records of a file, listed when they are first asked for.

    Parameters
    ----------
    fetch : returns bytes of the file from an offset, of a length
    ends : lists where pages end, where that is known
    """

    def __init__(
        self, fetch: Callable[[int, int], bytes | memoryview], ends: Callable[[], Collection[int]] | None = None
    ) -> None:
        self._fetch = fetch
        self._list_ends = ends
        self._listed: list[Span] | None = None
        self._ends: Collection[int] | None = None

    def has_end(self, place: int) -> bool:
        """Say whether a page ends at some place, or that is not known."""
        if self._ends is None and self._list_ends is not None:
            self._ends = self._list_ends()
        return self._ends is None or place in self._ends

    def around(self, place: int) -> Span | None:
        """Return the record that holds a byte, from its key on; none where it is not known.

        What is before the first record is a record as well, in which no page lies.
        """
        if self._listed is None:
            self._listed = self._list()
        i = bisect.bisect_right(self._listed, place, key=lambda record: record[0]) - 1
        if i < 0:
            return None
        start, stop = self._listed[i]
        if start == 0:
            return 0, 0
        if place >= stop:
            return None
        return start + struct.unpack(">h", self._fetch(start + 14, 2))[0], stop

    def _list(self) -> list[Span]:
        try:
            _, version, at = _HEAD.unpack(self._fetch(0, _HEAD.size))
            size = 8 if version >= _LARGE_FILE else 4
            end = int.from_bytes(self._fetch(_HEAD.size, size), "big")
            found: list[Span] = [(0, at)]
            while at < end:
                length = struct.unpack(">i", self._fetch(at, 4))[0]
                if not length:
                    break
                found.append((at, at + abs(length)))  # what was deleted has a negative length
                at += abs(length)
        except (EOFError, struct.error):  # the rest is not known
            return []
        return found

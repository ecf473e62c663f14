"""FlatBuffers, in which Arrow says how its data lie: the little of them that is needed to look before reading."""

from __future__ import annotations

import struct
from typing import Any

_OUTSIDE = "the metadata of a message point outside of it"


class FlatTable:
    """A table of a FlatBuffer.

    Parameters
    ----------
    data : the whole buffer
    at : where the table lies in it
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._unpack("<i", at)

    @classmethod
    def root(cls, data: bytes) -> FlatTable:
        """Return the table that a buffer begins with."""
        return cls(data, _uint(data, 0))

    def _unpack(self, form: str, at: int) -> Any:
        if at < 0:  # struct would count from the end
            raise ValueError(_OUTSIDE)
        return struct.unpack_from(form, self._data, at)[0]

    def _place(self, number: int) -> int | None:
        """Look up where a field lies; None where it has its default."""
        if 4 + 2 * number >= self._unpack("<H", self._fields):
            return None
        offset = self._unpack("<H", self._fields + 4 + 2 * number)
        return self._at + offset if offset else None

    def byte(self, number: int) -> int:
        """Return an unsigned number of one byte, 0 by default."""
        at = self._place(number)
        return 0 if at is None else int(self._unpack("<B", at))

    def long(self, number: int) -> int:
        """Return a signed number of eight bytes, 0 by default."""
        at = self._place(number)
        return 0 if at is None else int(self._unpack("<q", at))

    def table(self, number: int) -> FlatTable | None:
        """Return a table within this one."""
        at = self._place(number)
        return None if at is None else FlatTable(self._data, at + _uint(self._data, at))

    def structures(self, number: int, form: str) -> list[tuple[int, ...]]:
        """Return a vector of structures.

        Parameters
        ----------
        number : of the field
        form : of one of them, as :mod:`struct` takes it
        """
        at = self._place(number)
        if at is None:
            return []
        start = at + _uint(self._data, at)
        size = struct.calcsize(form) * int(self._unpack("<I", start))
        if start + 4 + size > len(self._data):
            raise ValueError(_OUTSIDE)
        return list(struct.iter_unpack(form, memoryview(self._data)[start + 4 : start + 4 + size]))


def _uint(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])

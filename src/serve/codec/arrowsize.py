"""How large an Arrow stream is once decoded, said by its metadata before anything is decoded.

A compressed buffer of a few bytes may declare gigabytes. The metadata of a message is a FlatBuffer; what is read of it
here are the fields of ``Message``, ``RecordBatch``, ``DictionaryBatch`` and ``Buffer`` as ``Message.fbs`` of the Arrow
format numbers them.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

# Positions of the fields in their tables.
_HEADER_TYPE, _HEADER = 1, 2
_BATCH_ROWS, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3
_DICTIONARY_DATA = 1
# Members of the union of headers.
_DICTIONARY, _RECORDS = 2, 3


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What a message declares.

    Parameters
    ----------
    rows : of a record batch; 0 for anything else
    num_bytes : of all buffers, decoded
    """

    rows: int = 0
    num_bytes: int = 0


def size_of(metadata: bytes, body: memoryview) -> Size:
    """Read the declared size of one message.

    Parameters
    ----------
    metadata : the FlatBuffer
    body : the buffers, one after the other

    Raises
    ------
    ValueError
        Where the metadata contradict themselves.
    """
    try:
        return _size_of(_FlatTable(metadata, _uint(metadata, 0)), body)
    except (struct.error, IndexError) as error:
        raise ValueError("the metadata of a message point outside of it") from error


def _size_of(message: _FlatTable, body: memoryview) -> Size:
    kind = message.byte(_HEADER_TYPE)
    if kind not in (_DICTIONARY, _RECORDS):
        return Size()
    header = message.table(_HEADER)
    batch = header.table(_DICTIONARY_DATA) if header and kind == _DICTIONARY else header
    if batch is None:
        return Size()
    is_compressed = batch.table(_BATCH_COMPRESSION) is not None
    total = sum(_decoded(body, *b) if is_compressed else b[1] for b in batch.pairs(_BATCH_BUFFERS))
    return Size(batch.long(_BATCH_ROWS) if kind == _RECORDS else 0, total)


def _decoded(body: memoryview, offset: int, length: int) -> int:
    """Read the size that stands before compressed bytes; -1 says that these are not compressed."""
    if length <= 0:
        return 0
    if offset < 0:
        raise ValueError("a buffer begins before the message")
    (declared,) = struct.unpack_from("<q", body, offset)
    return length if declared == -1 else int(declared)


def _uint(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


class _FlatTable:
    """A table of a FlatBuffer."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._unpack("<i", at)

    def _unpack(self, form: str, at: int) -> Any:
        if at < 0:  # struct would count from the end
            raise ValueError("the metadata of a message point outside of it")
        return struct.unpack_from(form, self._data, at)[0]

    def _place(self, number: int) -> int | None:
        """Look up where a field lies; None where it has its default."""
        if 4 + 2 * number >= self._unpack("<H", self._fields):
            return None
        offset = self._unpack("<H", self._fields + 4 + 2 * number)
        return self._at + offset if offset else None

    def byte(self, number: int) -> int:
        at = self._place(number)
        return 0 if at is None else int(self._unpack("<B", at))

    def long(self, number: int) -> int:
        at = self._place(number)
        return 0 if at is None else int(self._unpack("<q", at))

    def table(self, number: int) -> _FlatTable | None:
        at = self._place(number)
        return None if at is None else _FlatTable(self._data, at + _uint(self._data, at))

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Read a vector of structures of two int64."""
        at = self._place(number)
        if at is None:
            return []
        start = at + _uint(self._data, at)
        size = 16 * int(self._unpack("<I", start))
        if start + 4 + size > len(self._data):
            raise ValueError("the metadata of a message point outside of it")
        return list(struct.iter_unpack("<qq", memoryview(self._data)[start + 4 : start + 4 + size]))

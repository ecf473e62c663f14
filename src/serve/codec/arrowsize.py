"""How large an Arrow stream is once decoded, said by its metadata before anything is decoded.

A compressed buffer of a few bytes may declare gigabytes. The metadata of a message is a FlatBuffer; what is read of it
here are the fields of ``Message``, ``RecordBatch``, ``DictionaryBatch`` and ``Buffer`` as ``Message.fbs`` of the Arrow
format numbers them.
"""

from __future__ import annotations

import dataclasses
import struct

from rootdata.io.tables.flatbuffers import FlatTable

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
        return _size_of(FlatTable.root(metadata), body)
    except (struct.error, IndexError) as error:
        raise ValueError("the metadata of a message point outside of it") from error


def _size_of(message: FlatTable, body: memoryview) -> Size:
    kind = message.byte(_HEADER_TYPE)
    if kind not in (_DICTIONARY, _RECORDS):
        return Size()
    header = message.table(_HEADER)
    batch = header.table(_DICTIONARY_DATA) if header and kind == _DICTIONARY else header
    if batch is None:
        return Size()
    is_compressed = batch.table(_BATCH_COMPRESSION) is not None
    buffers = batch.structures(_BATCH_BUFFERS, "<qq")
    total = sum(_decoded(body, at, length) if is_compressed else length for at, length in buffers)
    return Size(batch.long(_BATCH_ROWS) if kind == _RECORDS else 0, total)


def _decoded(body: memoryview, offset: int, length: int) -> int:
    """Read the size that stands before compressed bytes; -1 says that these are not compressed."""
    if length <= 0:
        return 0
    if offset < 0:
        raise ValueError("a buffer begins before the message")
    (declared,) = struct.unpack_from("<q", body, offset)
    return length if declared == -1 else int(declared)

"""Decompress what ROOT compressed, with the fastest of the libraries that can; the interpreter lock is released."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rootdata.causes import ContradictionError

Bytes = npt.NDArray[np.uint8]

# Before each block: two letters, method, compressed and uncompressed size of three bytes each (RZip.cxx of ROOT).
_BLOCK_HEADER = 9
_LZMA_MEMORY = 1 << 28  # bytes that a dictionary may take; the largest of the usual ones has a quarter of it


def inflate(stored: memoryview, size: int) -> Bytes:
    """Decompress a basket or a page: stored as it is where that is as short, or in blocks of up to 16 MB.

    No more than ``size`` bytes are ever made of damaged ones.

    Parameters
    ----------
    stored : as it lies in the file, without a key
    size : of what comes out, in bytes

    Raises
    ------
    ContradictionError
        Where sizes or checksums disagree, or for an algorithm whose name can't be one.
    NotImplementedError
        For an unknown algorithm, and the one that ROOT used twenty years ago.
    ImportError
        Where the library that decompresses is absent.
    """
    if len(stored) == size:
        return np.frombuffer(stored, np.uint8)
    blocks, at, total = [], 0, 0
    while total < size and at < len(stored):
        sizes = stored[at + 3 : at + _BLOCK_HEADER]
        packed, plain = int.from_bytes(sizes[:3], "little"), int.from_bytes(sizes[3:], "little")
        blocks.append((bytes(stored[at : at + 2]), stored[at + _BLOCK_HEADER : at + _BLOCK_HEADER + packed], plain))
        at, total = at + _BLOCK_HEADER + packed, total + plain
    if at != len(stored):
        raise ContradictionError(f"compressed blocks of {at:,} bytes in a place of {len(stored):,}")
    if total != size:  # before anything of that size is allocated
        raise ContradictionError(f"compressed blocks of {total:,} bytes, not {size:,}")
    pieces = [_inflate_block(algorithm, packed, plain) for algorithm, packed, plain in blocks]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.uint8), *pieces])


def _inflate_block(algorithm: bytes, packed: memoryview, size: int) -> Bytes:
    if algorithm == b"CS":
        raise NotImplementedError("compression 'CS', which ROOT used twenty years ago, can't be undone")
    if algorithm not in _ALGORITHMS:
        if algorithm.isalnum():  # in front of sizes that agree with each other
            raise NotImplementedError(f"compression {algorithm.decode()!r} is not known here")
        raise ContradictionError(f"the compression {algorithm!r} is unknown")
    if not size:
        raise ContradictionError("a compressed block of nothing")
    try:
        found = _ALGORITHMS[algorithm](packed, size)
    except (ContradictionError, ImportError, MemoryError):
        raise
    except Exception as error:  # the libraries have no common base for what broken bytes raise
        raise ContradictionError(f"bytes that can't be decompressed ({type(error).__name__}: {error})") from error
    if len(found) != size:
        raise ContradictionError(f"{len(found):,} bytes after decompression, not {size:,}")
    return found


# Imported where they are used: a library that is absent concerns the files that need it, and no others.


def _zlib(packed: memoryview, size: int) -> Bytes:
    from isal import isal_zlib

    stream = isal_zlib.decompressobj()
    found = stream.decompress(packed, size)
    if not stream.eof:  # and so its checksum was not compared
        raise ContradictionError("compressed bytes that have no end")
    return np.frombuffer(found, np.uint8)


def _zstd(packed: memoryview, size: int) -> Bytes:
    import cramjam

    found = np.empty(size, np.uint8)
    return found[: cramjam.zstd.decompress_into(packed, found.data)]


def _lz4(packed: memoryview, size: int) -> Bytes:
    import cramjam
    import xxhash

    if xxhash.xxh64_intdigest(packed[8:]) != int.from_bytes(packed[:8], "big"):
        raise ContradictionError("compressed bytes that differ from their checksum")
    found = np.empty(size, np.uint8)
    return found[: cramjam.lz4.decompress_block_into(packed[8:], found.data, output_len=size)]


def _lzma(packed: memoryview, size: int) -> Bytes:
    import lzma  # which an interpreter may be built without

    stream = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
    found = stream.decompress(packed, max_length=size + 1)
    if not stream.eof:
        raise ContradictionError("compressed bytes that have no end")
    return np.frombuffer(found, np.uint8)


_ALGORITHMS: dict[bytes, Callable[[memoryview, int], Bytes]] = {b"ZL": _zlib, b"ZS": _zstd, b"L4": _lz4, b"XZ": _lzma}

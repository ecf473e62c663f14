"""Decompress what ROOT compressed, with the fastest of the libraries that can; the interpreter lock is released."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

# Before each block: two letters, method, compressed and uncompressed size of three bytes each (RZip.cxx of ROOT).
_BLOCK_HEADER = 9


def inflate(stored: memoryview, size: int) -> Bytes:
    """Decompress a basket or a page: stored as it is where that is as short, or in blocks of up to 16 MB.

    Parameters
    ----------
    size : of what comes out, in bytes

    Raises
    ------
    ValueError
        Where sizes or checksums disagree; and what the libraries raise.
    NotImplementedError
        For the algorithm that ROOT used twenty years ago.
    """
    if len(stored) == size:
        return np.frombuffer(stored, np.uint8)
    blocks, at, total = [], 0, 0
    while total < size and at < len(stored):
        sizes = stored[at + 3 : at + _BLOCK_HEADER]
        packed, plain = int.from_bytes(sizes[:3], "little"), int.from_bytes(sizes[3:], "little")
        blocks.append((bytes(stored[at : at + 2]), stored[at + _BLOCK_HEADER : at + _BLOCK_HEADER + packed], plain))
        at, total = at + _BLOCK_HEADER + packed, total + plain
    if at > len(stored):
        raise ValueError(f"the last compressed block is longer than what is left of {len(stored):,} bytes")
    if total != size:  # before anything of that size is allocated
        raise ValueError(f"compressed blocks of {total:,} bytes, not {size:,}")
    pieces = [_inflate_block(algorithm, packed, plain) for algorithm, packed, plain in blocks]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, np.uint8), *pieces])


def _inflate_block(algorithm: bytes, packed: memoryview, size: int) -> Bytes:
    # Imported where they are used: a library that is absent concerns the files that need it, and no others.
    if algorithm == b"ZL":
        from isal import isal_zlib

        found = np.frombuffer(isal_zlib.decompress(packed, bufsize=size), np.uint8)
    elif algorithm == b"ZS":
        import cramjam

        found = np.empty(size, np.uint8)
        found = found[: cramjam.zstd.decompress_into(packed, found.data)]
    elif algorithm == b"L4":
        import cramjam
        import xxhash

        if xxhash.xxh64_intdigest(packed[8:]) != int.from_bytes(packed[:8], "big"):
            raise ValueError("the checksum is wrong")
        found = np.empty(size, np.uint8)
        found = found[: cramjam.lz4.decompress_block_into(packed[8:], found.data, output_len=size)]
    elif algorithm == b"XZ":
        import lzma  # which an interpreter may be built without

        found = np.frombuffer(lzma.LZMADecompressor().decompress(packed, max_length=size + 1), np.uint8)
    elif algorithm == b"CS":
        raise NotImplementedError("compression 'CS', which ROOT used twenty years ago, can't be undone")
    else:
        raise ValueError(f"unknown compression {algorithm!r}")
    if len(found) != size:
        raise ValueError(f"{len(found):,} bytes, not {size:,}")
    return found

"""Bodies that were right, spoilt at random."""

from __future__ import annotations

import numpy as np


def spoil(body: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, write odd numbers, cut, leave out, repeat and move pieces: one to three of them."""
    data = bytearray(body)
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(data) + 1, 2))
        kind = rng.integers(6)
        if kind == 0 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            odd = [b"\xff" * 4, b"\xff" * 8, b"\x00" * 4, b"\x7f\xff\xff\xff"[::-1], b"\x80\x00\x00\x00"[::-1], b"\x01"]
            piece = odd[rng.integers(len(odd))]
            data[start : start + len(piece)] = piece
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[start : min(stop, start + 16)]
        elif kind == 4:
            data[start:start] = data[start:stop][:64]
        else:
            data[start:stop] = data[start:stop][::-1]
        data = data or bytearray(b"\0")
    return bytes(data)

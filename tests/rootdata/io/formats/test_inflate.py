import lzma
import tracemalloc
import zlib

import cramjam
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from rootdata.causes import Cause, ContradictionError, cause_of
from rootdata.io.formats.inflate import inflate


def lz4(content):
    packed = bytes(cramjam.lz4.compress_block(content, store_size=False))
    return xxhash.xxh64_digest(packed) + packed


CODECS = {
    b"ZL": lambda content: zlib.compress(content, 1),
    b"ZS": lambda content: bytes(cramjam.zstd.compress(content)),
    b"XZ": lambda content: lzma.compress(content, preset=0),
    b"L4": lz4,
}


def block(codec, packed, plain):
    """Put in front of compressed bytes what ROOT does: the codec, their length, and that of what they become."""
    return codec + b"\1" + len(packed).to_bytes(3, "little") + plain.to_bytes(3, "little") + packed


@given(st.lists(st.tuples(st.sampled_from(sorted(CODECS)), st.integers(1, 3000)), min_size=1, max_size=4))
def test_blocks_of_any_codec_come_back(blocks):
    pieces = [np.random.default_rng(i).integers(0, 3, n, np.uint8).tobytes() for i, (_, n) in enumerate(blocks)]
    stored = b"".join(block(c, CODECS[c](p), len(p)) for (c, _), p in zip(blocks, pieces, strict=True))
    content = b"".join(pieces)
    if len(stored) != len(content):
        assert inflate(memoryview(stored), len(content)).tobytes() == content
    assert inflate(memoryview(content), len(content)).tobytes() == content


@pytest.mark.parametrize("codec", CODECS)
def test_no_more_is_made_than_was_declared(codec):
    bomb = CODECS[codec](bytes(1 << 23))
    tracemalloc.start()
    with pytest.raises(ContradictionError):
        inflate(memoryview(block(codec, bomb, 5000)), 5000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:1] + bytes([packed[1] ^ 0xFF]) + packed[2:],
        lambda packed: b"",
    ],
)
def test_bytes_that_are_not_whole_are_refused(codec, damage):
    content = np.random.default_rng(0).integers(0, 3, 3000, np.uint8).tobytes()
    stored = block(codec, damage(CODECS[codec](content)), len(content))
    with pytest.raises(ContradictionError):
        inflate(memoryview(stored), len(content))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("step", [-1, 1, 100, 1 << 20])
def test_sizes_that_disagree_are_refused(codec, step):
    content = bytes(2000)
    packed = CODECS[codec](content)
    with pytest.raises(ContradictionError):  # inside and outside say the same, but not what comes out
        inflate(memoryview(block(codec, packed, 2000 + step)), 2000 + step)
    with pytest.raises(ContradictionError, match=r"compressed blocks of 2,000 bytes, not"):
        inflate(memoryview(block(codec, packed, 2000)), 2000 + step)
    with pytest.raises(ContradictionError, match=r"compressed blocks of [\d,]+ bytes in a place of"):
        inflate(memoryview(block(codec, packed, 2000) + b"more"), 2000)


def test_what_is_compressed_in_an_unknown_way_is_told():
    with pytest.raises(NotImplementedError, match="'QQ' is not known here") as caught:
        inflate(memoryview(block(b"QQ", b"whatever", 100)), 100)
    assert cause_of(caught.value) is Cause.FORMAT
    with pytest.raises(ContradictionError, match="unknown"):
        inflate(memoryview(block(b"\xff\0", b"whatever", 100)), 100)
    with pytest.raises(ContradictionError, match="a compressed block of nothing"):
        inflate(memoryview(block(b"ZL", b"", 0) + block(b"ZL", zlib.compress(bytes(50)), 50)), 50)

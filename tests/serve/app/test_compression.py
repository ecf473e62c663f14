"""Compressed bodies against what Python's own libraries compress, in any pieces."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from serve.app.compression import STEP, Inflater, UnknownCoding, inflater_of
from serve.errors import BadRequest


def raw(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


COMPRESS = {
    "gzip": ("gzip", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw),
}
DATA = st.binary(max_size=2000) | st.integers(0, 3).map(lambda n: b"x" * (n * STEP))


def inflate(coding: str, body: bytes, size: int = 1 << 16) -> bytes:
    inflater = Inflater(coding)
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    parts = [part for piece in pieces for part in inflater.feed(piece)]
    inflater.finish()
    assert all(len(part) <= STEP for part in parts)
    return b"".join(parts)


@given(data=DATA, name=st.sampled_from(sorted(COMPRESS)), size=st.integers(1, 5000))
def test_what_was_compressed_comes_back(data, name, size):
    coding, compress = COMPRESS[name]
    assert inflate(coding, compress(data), size) == data


@given(data=st.binary(min_size=1, max_size=200), name=st.sampled_from(sorted(COMPRESS)), draw=st.data())
def test_what_ends_too_early_is_refused(data, name, draw):
    coding, compress = COMPRESS[name]
    body = compress(data)
    ends = {len(gzip.compress(data[: len(data) // 2]))} if name == "two members" else set()  # after the first one
    stop = draw.draw(st.integers(1, len(body) - 1).filter(lambda stop: stop not in ends))
    with pytest.raises(BadRequest):
        inflate(coding, body[:stop])


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("rest", [b"x", b"\0" * 10, b"\x1f\x8b"])
def test_what_goes_on_after_its_end_is_refused(name, rest):
    coding, compress = COMPRESS[name]
    with pytest.raises(BadRequest):
        inflate(coding, compress(b"some events") + rest)


@given(body=st.binary(min_size=1, max_size=300), coding=st.sampled_from(["gzip", "deflate"]))
def test_noise_is_refused_or_inflated_and_nothing_else(body, coding):
    try:
        inflate(coding, body)
    except BadRequest as error:
        assert coding in error.message  # noqa: PT017


def test_none_at_all_is_an_empty_body():
    assert inflate("gzip", b"") == inflate("deflate", b"") == b""


def test_many_empty_members_are_refused_soon():
    with pytest.raises(BadRequest, match="after its end"):
        inflate("gzip", gzip.compress(b"") * 100_000)


def test_much_out_of_little_is_never_in_memory_at_once():
    body = gzip.compress(b"\0" * (200 * STEP))
    tracemalloc.start()
    for _ in itertools.islice(Inflater("gzip").feed(body), 20):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * STEP


def asked(*codings: str) -> Request:
    headers = [(b"content-encoding", coding.encode()) for coding in codings]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", " gzip "])
def test_codings_that_are_taken(coding):
    assert inflater_of(asked(coding)) is not None


def test_bodies_as_they_are():
    assert inflater_of(asked()) is inflater_of(asked("identity")) is None


@pytest.mark.parametrize("codings", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "gzip"], ["gzip, deflate"], [""]])
def test_codings_that_are_not_taken(codings):
    with pytest.raises(UnknownCoding, match="gzip or deflate") as caught:
        inflater_of(asked(*codings))
    assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}

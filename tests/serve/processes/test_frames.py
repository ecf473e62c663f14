from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.messages import Reply, Request
from serve.processes import frames

WORDS = st.text(max_size=20)
OPTIONS = st.dictionaries(WORDS, WORDS, max_size=3)
BODIES = st.binary(max_size=300)
REQUESTS = st.builds(
    Request,
    road=WORDS,
    model=WORDS,
    version=st.integers(0, 2**53),
    content_type=WORDS,
    accept=WORDS,
    options=OPTIONS,
    body=BODIES,
    path=st.none() | WORDS,
    deadline=st.floats(0, 1e9),
)
REPLIES = st.builds(
    Reply,
    status=st.integers(100, 599),
    body=BODIES,
    content_type=WORDS,
    headers=OPTIONS,
    path=st.none() | WORDS,
    num_events=st.integers(0, 2**53),
    seconds=st.floats(0, 1e9),
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(bounds)]


@given(st.lists(REQUESTS, max_size=6), st.lists(st.integers(0, 10_000), max_size=20))
def test_requests_come_out_whole_however_the_stream_is_cut(requests, cuts):
    stream = b"".join(b"".join(frames.pack_request(n, r, deadline=r.deadline)) for n, r in enumerate(requests))
    decoder = frames.Decoder()
    found = [frames.unpack_request(*frame) for piece in pieces(stream, cuts) for frame in decoder.feed(piece)]
    assert found == list(enumerate(requests))


@given(st.lists(REPLIES, max_size=6), st.lists(st.integers(0, 10_000), max_size=20))
def test_replies_come_out_whole_however_the_stream_is_cut(replies, cuts):
    stream = b"".join(b"".join(frames.pack_reply(n, r)) for n, r in enumerate(replies))
    decoder = frames.Decoder()
    found = [frames.unpack_reply(*frame) for piece in pieces(stream, cuts) for frame in decoder.feed(piece)]
    assert found == list(enumerate(replies))


def test_the_deadline_of_the_frame_counts():
    request = Request(road="r", model="m", version=1)
    decoder = frames.Decoder()
    [frame] = decoder.feed(b"".join(frames.pack_request(7, request, deadline=12.5)))
    assert frames.unpack_request(*frame) == (7, Request(road="r", model="m", version=1, deadline=12.5))


@pytest.mark.parametrize(
    "stream",
    [b"\xff" * 12, b"\x02\0\0\0" + b"\0" * 8 + b"{}", b"\x02\0\0\0" + b"\0" * 8 + b"[x", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_bytes_that_are_no_frames_are_refused(stream):
    with pytest.raises(frames.FrameError, match="out of step"):
        frames.Decoder().feed(stream)

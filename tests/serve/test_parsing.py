"""JSON in pieces is JSON, whatever the pieces are."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve import parsing
from serve.errors import BadRequest

WORDS = st.sampled_from(["", "a", ",", "]", "[", "},{", "],[", '"', '\\"', "\\", ": [", "\u00e9", "]]", "\n"])
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), WORDS)
VALUES = st.recursive(
    PLAIN | st.lists(st.integers(0, 99), max_size=40) | st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:"), ("\r\n, ", " : ")])
ODD = st.sampled_from([b"", b",", b"]", b"[", b"}", b"{", b'"', b"\\", b":", b"1", b"NaN", b" ", b"\xff", b",]", b"-"])


def outcome(text: bytes, *, in_pieces: bool) -> Any:
    """Return what a text says, written so that 1 and 1.0 differ; or what is wrong with it."""
    try:
        found = parsing.finished(parsing.parse_object_in_pieces(text)) if in_pieces else parsing.parse_object(text)
    except BadRequest as error:
        return str(error)
    return orjson.dumps(found)


@given(
    document=st.dictionaries(WORDS, VALUES, max_size=4),
    separators=SEPARATORS,
    piece=st.integers(0, 40),
    odd=st.none() | st.tuples(st.floats(0, 1), st.integers(0, 2), ODD),
)
def test_a_text_in_pieces_says_what_it_says_whole(document, separators, piece, odd):
    text = json.dumps(document, separators=separators, ensure_ascii=False).encode()
    if odd is not None:
        place = int(odd[0] * len(text))
        text = text[:place] + odd[2] + text[place + odd[1] :]
    expected = outcome(text, in_pieces=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "PIECE", piece)
        assert outcome(text, in_pieces=True) == expected


@pytest.mark.parametrize("text", [b"[" * 5000, b'{"a":' * 5000, b'{"a": ' + b"[" * 240 + b"]" * 240 + b"}"])
def test_what_is_nested_deeply_is_told_as_ever(text, monkeypatch):
    expected = outcome(text, in_pieces=False)
    monkeypatch.setattr(parsing, "PIECE", 10)
    assert outcome(text, in_pieces=True) == expected


LISTS = {
    "numbers": list(range(1000)),
    "lists": [[i, 2.5] for i in range(300)],
    "lists of lists": [[[i], [], [1, 2]] for i in range(200)],
    "objects": [{"a": i, "b": [i]} for i in range(200)],
    "words": [f"w{i}" for i in range(400)],
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("indent", [None, 1])
def test_each_piece_of_what_is_usual_is_short_and_none_is_tiny(kind, indent, monkeypatch):
    sizes, loads = [], orjson.loads

    def load(text):
        sizes.append(len(text))
        return loads(text)

    text = json.dumps({"first": LISTS[kind], "second": {"third": LISTS[kind]}}, indent=indent).encode()
    monkeypatch.setattr(parsing, "PIECE", 200)
    monkeypatch.setattr(parsing.orjson, "loads", load)
    steps = parsing.parse_object_in_pieces(text)
    number = sum(1 for _ in steps)
    assert max(sizes) <= 500
    assert len(text) / 500 <= number <= len(text) / 100
    assert len(sizes) <= 2 * number + 10

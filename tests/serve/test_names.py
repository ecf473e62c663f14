"""Names are plain words: never a path, a look-alike or something to be quoted."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve import names
from serve.errors import BadRequest

BAD = ["", ".", "..", ".hidden", "-o", "_x", "ttH.", "a/b", "a\\b", "../ttH", "a b", "a\n", "a\x00", "ttH\u2024",
       "\uff54tH", "tt\u041d", "a%2e", "a@b", "a:b", "x" * 101, "\u202ea"]  # fmt: skip


@pytest.mark.parametrize("check", [names.model, names.alias, names.tag])
@pytest.mark.parametrize("text", BAD)
def test_what_is_no_word_is_refused(check, text):
    with pytest.raises(BadRequest, match="allowed are 1 to 100 letters") as caught:
        check(text)
    assert caught.value.field == check.__name__


@pytest.mark.parametrize("text", ["ttH", "7TeV", "a.b-c_d", "x" * 100, "a", "a_", "con..d"])
def test_words_are_taken_as_they_are(text):
    assert names.model(text) == names.tag(text) == names.alias(text) == text


@given(st.text(max_size=110) | st.from_regex(r"[\w./-]{1,110}", fullmatch=True))
def test_what_is_taken_is_safe_everywhere(text):
    if names.is_word(text):
        assert text.isascii() and quote(text, safe="") == text and len(text) <= 100  # noqa: PT018
        assert not text.startswith(".") and not text.endswith(".") and "/" not in text  # noqa: PT018


@pytest.mark.parametrize("text", ["latest", "1", "042", "\uff11"])
def test_an_alias_is_no_version(text):
    with pytest.raises(BadRequest, match="already means a version"):
        names.alias(text)


@pytest.mark.parametrize("value", ["0", "-1", "+1", "01", "1.0", "", "1_0", "\uff11", "1" * 10, 0, -3, True])
def test_other_versions_are_refused(value):
    with pytest.raises(BadRequest, match="whole number from 1"):
        names.version(value)


@given(st.integers(1, 999_999_999))
def test_versions_are_taken_as_numbers_and_texts(number):
    assert names.version(number) == names.version(str(number)) == number

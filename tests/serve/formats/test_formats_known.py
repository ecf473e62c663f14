from __future__ import annotations

import pytest

from rootdata.errors import ConfigError
from serve.codec import media
from serve.errors import NotAcceptable, UnsupportedType
from serve.formats.format import Format
from serve.formats.known import FORMATS, Formats


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, media.JSON),
        ("", media.JSON),
        ("*/*", media.JSON),
        ("application/*", media.JSON),
        ("application/json; charset=utf-8", media.JSON),
        ("Application/X-Root", media.ROOT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", media.JSON),
        ("application/json;q=0.5, application/vnd.apache.arrow.stream", media.ARROW),
        ("application/vnd.rootdata.columns, */*", media.COLUMNS),
        ("application/x-root;q=0, */*;q=0.1", media.JSON),
        ("application/x-root;q=many, application/json;q=0.1", media.JSON),
    ],
)
def test_the_best_format_is_chosen(accept: str | None, chosen: str) -> None:
    assert Formats().choose(accept) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/json;q=0", ",,;q=1", "x" * 10_000])
def test_what_is_not_offered_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="answers come as application/json, ") as error:
        Formats().choose(accept)
    assert len(str(error.value)) < 400


class Whole(Format):
    """A format that names nothing but its content type."""

    content_type = "text/x-nobody"


class Nameless(Format):
    """A format without a content type."""


class Again(Format):
    """A format that would take the place of another."""

    content_type = media.JSON


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("serve.formats.nowhere.Lines", "can't be made"),
        ("lines", "allowed: 'application/json', "),
        ("pathlib.Path", "is no format"),
        (f"{__name__}.Nameless", "content_type in lower case"),
        (f"{__name__}.Again", "which another format has"),
    ],
)
def test_what_is_no_format_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Formats([name])


def test_a_format_of_ones_own_is_known_to_its_server_alone() -> None:
    own = Formats([f"{__name__}.Whole"])
    assert own.choose("text/x-nobody") == own.of_events("Text/X-Nobody; charset=utf-8").content_type == "text/x-nobody"
    assert list(own.takes) == list(own.gives) == [*Formats().takes, "text/x-nobody"]
    with pytest.raises(UnsupportedType, match="got 'text/x-nobody'; allowed: application/json, "):
        Formats().of_events("text/x-nobody")
    with pytest.raises(NotAcceptable):
        Formats().choose("text/x-nobody")


def test_what_is_built_in_stays_where_it_is() -> None:
    kinds = [media.JSON, media.COLUMNS, media.ARROW, media.ROOT]
    assert list(FORMATS.names()[: len(kinds)]) == kinds
    assert [Formats().of_events(kind).content_type for kind in kinds] == kinds

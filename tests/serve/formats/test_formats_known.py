from __future__ import annotations

import pytest

from serve.codec import media
from serve.errors import NotAcceptable
from serve.formats.known import Formats


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

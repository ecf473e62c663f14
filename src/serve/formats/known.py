"""Which formats a server takes and gives: those that are built in, announced by packages, or named by its options."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from rootdata.errors import ConfigError
from rootdata.registry import Registry
from serve.codec import media
from serve.codec.media import Described
from serve.errors import NotAcceptable, UnsupportedType
from serve.formats.format import Format

FORMATS = Registry(
    "format",
    group="serve.formats",
    built_in={
        media.JSON: "serve.formats.text:JSONEvents",
        media.COLUMNS: "serve.formats.columns:BinaryColumns",
        media.ARROW: "serve.formats.arrow:Arrow",
        media.ROOT: "serve.formats.root:ROOT",
    },
)


class Formats:
    """The formats of one server, by content type.

    Parameters
    ----------
    own : dotted names of classes besides those of the registry

    Raises
    ------
    ConfigError
        For a name that leads nowhere or to no format, or for two formats of one content type.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        self._known: dict[str, Format] = {}
        for name in (*FORMATS.names(), *own):
            self._add(FORMATS.find(FORMATS.check(name, "--format")), name)
        self.choose = functools.lru_cache(maxsize=256)(self._choose)  # clients say the same few things again and again

    def _add(self, found: Format, name: str) -> None:
        if (
            not isinstance(found, Format)
            or "/" not in found.content_type
            or found.content_type != found.content_type.lower()
        ):
            raise ConfigError(
                f"--format: {name!r} is no format; expected a class derived from serve.formats.format.Format, with a "
                "content_type in lower case, such as 'application/x-ndjson'"
            )
        if found.content_type in self._known:
            raise ConfigError(
                f"--format: {name!r} is of the content type {found.content_type!r}, which another format has"
            )
        self._known[found.content_type] = found

    @property
    def takes(self) -> Mapping[str, Described]:
        """Content types of events, and how OpenAPI describes them."""
        return {name: f.takes for name, f in self._known.items() if f.takes is not None}

    @property
    def gives(self) -> Mapping[str, Described]:
        """Content types of scores, and how OpenAPI describes them."""
        return {name: f.gives for name, f in self._known.items() if f.gives is not None}

    def of_events(self, content_type: str | None) -> Format:
        """Find the format of a body from the header ``Content-Type``, JSON where it is missing.

        Raises
        ------
        UnsupportedType
            For a content type that events can't have.
        """
        name = media.JSON if content_type is None else content_type
        found = self._known.get(name)
        if found is None:
            name = name.partition(";")[0].strip().lower()
            found = self._known.get(name)
        if found is None or found.takes is None:
            raise UnsupportedType(
                f"Content-Type: got {name[:80]!r}; allowed: {', '.join(self.takes)} "
                f"(curl: -H 'Content-Type: {media.JSON}')",
                field="Content-Type",
            )
        return found

    def of_scores(self, content_type: str) -> Format:
        """Find the format of an answer.

        Raises
        ------
        NotAcceptable
            For a content type that answers don't have.
        """
        found = self._known.get(content_type)
        if found is None or found.gives is None:
            raise self._not_offered(content_type)
        return found

    def _choose(self, accept: str | None) -> str:
        """Pick the content type of an answer from the header ``Accept``, JSON where all are as welcome.

        Raises
        ------
        NotAcceptable
            Where none of the named formats is offered.

        Examples
        --------
        >>> Formats().choose("text/html, */*;q=0.1")
        'application/json'
        """
        wanted = [_weighed(part) for part in (accept or "*/*").lower().split(",") if part.strip()]
        for weight, name in sorted(wanted, key=lambda pair: -pair[0]):
            if weight > 0 and name in ("*/*", "application/*"):
                return media.JSON
            if weight > 0 and name in self.gives:
                return name
        raise self._not_offered(accept)

    def _not_offered(self, accept: str | None) -> NotAcceptable:
        return NotAcceptable(
            f"Accept: got {(accept or '')[:80]!r}; answers come as {', '.join(self.gives)}", field="Accept"
        )


@functools.cache
def formats_of(own: tuple[str, ...]) -> Formats:
    """Return the formats of a server whose settings name some of its own."""
    return Formats(own)


def _weighed(part: str) -> tuple[float, str]:
    name, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:]), name
            except ValueError:
                return 0.0, name
    return 1.0, name

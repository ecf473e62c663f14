"""What a format is: a content type, how events are read from it and scores written in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from rootdata.table import Table
from serve.codec.media import BINARY, JSON, Described
from serve.codec.schema import Schemas
from serve.errors import NotAcceptable
from serve.settings import Settings

Floats = npt.NDArray[np.float32]
Rows = list[Any]
"""Events as JSON holds them, not yet checked."""
Target = Path | IO[bytes]

FEW = 32  # events of a request up to which they are checked together with those of others: it costs next to nothing


class Writer(Protocol):
    """Takes the scores of events, piece by piece."""

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """What an answer may say besides the scores.

    Parameters
    ----------
    columns : names of the scores, and of what regressions predict
    regressions : those of the columns that hold physical values
    """

    model: str
    version: int
    columns: Sequence[str]
    regressions: Sequence[str] = ()


class Format:
    """How events are written in requests, and scores in answers, of one content type.

    Users make their own: a class without arguments that says its ``content_type``, and defines :meth:`decode`,
    :meth:`writer` or both. Heavy libraries are imported in the methods, since processes that only speak HTTP make
    formats, too.
    """

    content_type = ""
    """The content type, in lower case."""
    takes: Described | None = BINARY
    """How OpenAPI describes a body with events; None where events can't be sent so."""
    gives: Described | None = BINARY
    """How OpenAPI describes a body with scores; None where answers don't come so."""
    is_file = False
    """Whether a body with events is a file, which may be larger than the memory and is read by :meth:`tables`."""
    explains = False
    """Whether :meth:`encode` has room for what is said of each event."""

    def decode(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the events of a body.

        Parameters
        ----------
        body : of one request, uncompressed
        schemas : what the model wants
        settings : with the limits of a request

        Raises
        ------
        BadRequest, InvalidEvents, TooLarge
            Naming what is wrong, where, in which event.
        """
        raise NotImplementedError

    def read(self, body: bytes, schemas: Schemas, *, settings: Settings, as_table: bool) -> Table | Rows:  # noqa: ARG002
        """Read the events of a small body; up to ``FEW`` may stay as they are, to be checked with those of others.

        Parameters
        ----------
        body : of one request, uncompressed
        schemas : what the model wants
        settings : with the limits of a request
        as_table : whether all events are to be decoded now
        """
        return self.decode(body, schemas, settings=settings)

    def slices(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Iterator[Table]:
        """Read the events of a long body a few at a time.

        Parameters
        ----------
        body : of one request, uncompressed
        schemas : what the model wants
        settings : with the limits of a request

        Raises
        ------
        Unsliced
            At any time, where that can't be done; then :meth:`slices_again` is asked.
        """
        yield self.decode(body, schemas, settings=settings)

    def slices_again(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Iterator[Table | None]:
        """Read the events of a long body in another way, from the first on; None as often as none can be told yet.

        Parameters
        ----------
        body : the same as before
        schemas : what the model wants
        settings : with the limits of a request

        Raises
        ------
        BadRequest, InvalidEvents, TooLarge
            As :meth:`decode`.
        """
        raise NotImplementedError

    def tables(self, path: str, schemas: Schemas, *, options: Mapping[str, str], settings: Settings) -> Iterator[Table]:
        """Read the events of a file piece by piece.

        Parameters
        ----------
        path : of a file on this machine
        schemas : what the model wants
        options : of the request, such as ``tree``
        settings : with the limits of an event; a file may have any number of them
        """
        raise NotImplementedError

    def writer(self, target: Target, heading: Heading) -> Writer:
        """Make what writes the scores of many events in constant memory.

        Parameters
        ----------
        target : path of a file that is made, or replaced; or a file open for bytes
        heading : model, version and names of the columns
        """
        raise NotImplementedError

    def encode(self, heading: Heading, scores: Floats, explain: Sequence[Mapping[str, Any]] | None = None) -> bytes:  # noqa: ARG002
        """Write the scores of a few events.

        Parameters
        ----------
        heading : model, version and names of the columns
        scores : (n, columns)
        explain : of each event what was unlike the training events; None unless the format ``explains``
        """
        target = _Kept()
        with self.writer(target, heading) as answer:
            answer.write(scores)
        return target.getvalue()

    def answer(self, heading: Heading, scores: Floats, explain: Sequence[Mapping[str, Any]] | None = None) -> bytes:
        """Write scores as :meth:`encode`.

        Parameters
        ----------
        heading : model, version and names of the columns
        scores : (n, columns)
        explain : of each event what was unlike the training events

        Raises
        ------
        NotAcceptable
            If the format has no room for ``explain``.
        """
        if explain is not None and not self.explains:
            raise NotAcceptable(f"explain: answers come as {JSON} alone; got {self.content_type!r}", field="explain")
        return self.encode(heading, scores, explain)


class FileWriter:
    """A writer that adds bytes to ``file`` as scores come; a subclass says which.

    Parameters
    ----------
    target : path of a file that is made, or replaced; or a file open for bytes, which stays open
    """

    def __init__(self, target: Target, heading: Heading) -> None:
        self.heading = heading
        self._is_own = isinstance(target, Path)
        self.file: IO[bytes] = target.open("wb") if isinstance(target, Path) else target

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_own:
            self.file.close()


class _Kept(BytesIO):
    """A file in memory that keeps its bytes when a library closes it."""

    def close(self) -> None:
        pass

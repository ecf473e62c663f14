"""Events and scores as columns that lie as they do in memory (see :mod:`serve.codec.binary`)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from rootdata import columnar
from rootdata.table import Table
from serve.codec import binary, media
from serve.codec.schema import Schemas
from serve.formats.by_column import ByColumn
from serve.formats.format import Floats, Format, Heading, Target, Writer
from serve.settings import Settings


class BinaryColumns(Format):
    """The format that costs least, and that the clients use."""

    content_type = media.COLUMNS

    def decode(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the events of a body.

        Parameters
        ----------
        body : a header, and the buffers that it describes
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        return binary.decode(body, schemas, settings=settings)

    def writer(self, target: Target, heading: Heading) -> Writer:
        """Make what writes the scores of many events in constant memory."""
        return _ColumnsWriter(target, heading)

    def encode(self, heading: Heading, scores: Floats, explain: Sequence[Mapping[str, Any]] | None = None) -> bytes:  # noqa: ARG002
        """Write the scores of a few events.

        Parameters
        ----------
        heading : names the columns; the format has no place for model and version
        scores : (n, columns)
        explain : None: the format has no place for it
        """
        flat = dict(zip(heading.columns, np.ascontiguousarray(scores.T, np.float32), strict=True))
        return binary.encode(Table(num_events=len(scores), columns=flat))


class _ColumnsWriter(ByColumn):
    def as_bytes(self, values: Floats) -> bytes:
        return values.astype("<f4", copy=False).tobytes()

    def join(self, parts: Sequence[IO[bytes]]) -> None:
        columns = [{"name": name, "dtype": "<f4"} for name in self.heading.columns]
        start = columnar.head({"num_events": self.num_events, "counts": [], "columns": columns})
        self.file.write(start)
        end = len(start)
        for part in parts:
            shutil.copyfileobj(part, self.file)
            end += part.tell()
            self.file.write(bytes(columnar.padded(end) - end))
            end = columnar.padded(end)

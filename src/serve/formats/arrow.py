"""Events and scores as Arrow streams (see :mod:`serve.codec.arrow`)."""

from __future__ import annotations

from rootdata.table import Table
from serve.codec import media
from serve.codec.schema import Schemas
from serve.formats.format import Format, Heading, Target, Writer
from serve.settings import Settings


class Arrow(Format):
    """A column for each branch, with lists for what an event has several of."""

    content_type = media.ARROW

    def decode(self, body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
        """Read the events of a body.

        Parameters
        ----------
        body : an Arrow IPC stream, not a file
        schemas : the branches that the model takes
        settings : with the limits of a request
        """
        from serve.codec import arrow

        return arrow.decode(body, schemas, settings=settings)

    def writer(self, target: Target, heading: Heading) -> Writer:
        """Make what writes the scores of many events in constant memory."""
        from serve.codec import arrow

        return arrow.ArrowScoreWriter(target, heading.columns)

"""The format that costs least, columns as they lie in memory (:mod:`rootdata.columnar`): what a server checks of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rootdata import columnar
from rootdata.columnar import Header
from rootdata.errors import ColumnsError
from rootdata.table import Table
from serve.codec import schema
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents
from serve.parsing import check_names, parse_object
from serve.settings import Settings


def decode(body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
    """Decode the columns of some events.

    Parameters
    ----------
    body : a header and the buffers that it describes, see :mod:`rootdata.columnar`
    schemas : the branches that the model takes
    settings : with the limits of a request

    Returns
    -------
    columns that share the memory of ``body`` where they have the type that the model wants

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming what is wrong, where, in which event.
    """
    with _refused(BadRequest):
        text, start = columnar.header_of(body)
        header = Header.of(parse_object(text, what="header"))
        wanted = schemas.of([c.name for c in header.columns])
        schema.check_events(header.num_events, settings)
        check_names([c.name for c in header.columns], wanted.specs)
        table = columnar.columns_of(
            header, body, start, check=lambda counts, name: schema.check_counts(counts, name, settings)
        )
    return schema.conform(table.columns, table.num_events, wanted, settings)


def encode(table: Table) -> bytes:
    """Write columns: an answer; :class:`InvalidEvents` for a column of a type that the format does not know."""
    with _refused(InvalidEvents):
        return columnar.encode(table)


@contextlib.contextmanager
def _refused(kind: type[BadRequest | InvalidEvents]) -> Iterator[None]:
    """Say what is wrong with columns as the server says it."""
    try:
        yield
    except ColumnsError as error:
        raise kind(str(error), field=error.field) from error

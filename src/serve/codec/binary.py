"""The format that costs least, columns as they lie in memory (:mod:`rootdata.columnar`): what a server checks of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rootdata import columnar
from rootdata.bundle.manifest import Manifest
from rootdata.columnar import DTYPES, NUMBER_TYPES, Entry, Header, head, padded
from rootdata.errors import ColumnsError
from rootdata.table import Table
from serve.codec import schema
from serve.errors import BadRequest, InvalidEvents
from serve.parsing import check_keys, check_names, given, parse_object, shown
from serve.settings import Settings

__all__ = ["decode", "encode", "head", "padded"]


def decode(body: bytes, manifest: Manifest, *, settings: Settings) -> Table:
    """Decode the columns of some events.

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
        header = _parsed(parse_object(text, what="header"))
        wanted = schema.schema_of(manifest, [c.name for c in header.columns])
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


def _parsed(plain: Mapping[str, Any]) -> Header:
    check_keys(plain, known=("num_events", "counts", "columns"), needed=("num_events", "columns"), what="header")
    counts, columns = plain.get("counts", []), plain["columns"]
    if type(counts) is not list or not all(type(name) is str for name in counts):
        raise BadRequest(f"header: counts: got {given(counts)}; expected a list of names", field="counts")
    if type(columns) is not list:
        raise BadRequest(f"header: columns: got {given(columns)}; expected a list of objects", field="columns")
    return Header(num_events=plain["num_events"], counts=tuple(counts), columns=tuple(map(_parse_column, columns)))


def _parse_column(plain: Any) -> Entry:
    if type(plain) is not dict:
        raise BadRequest(f"header: columns: got {given(plain)}; expected an object", field="columns")
    known = ("name", "dtype", "counts", "width")
    check_keys(plain, known=known, needed=("name", "dtype"), what="header: columns")
    name, dtype, counts, width = (plain.get(key) for key in known)
    if type(name) is not str:
        raise BadRequest(f"header: columns: name: got {given(name)}; expected a string", field="columns")
    if type(dtype) is not str or dtype not in NUMBER_TYPES:
        message = f"header: column {shown(name)}: dtype: got {given(dtype)}; allowed: {', '.join(DTYPES)}"
        raise BadRequest(message, field=name[:60])
    if counts is not None and (type(counts) is not str or width is not None):
        message = f"header: column {shown(name)}: counts: got {given(counts)}; expected one name, and no width"
        raise BadRequest(message, field=name[:60])
    return Entry(name=name, dtype=NUMBER_TYPES[dtype], counts=counts, width=width)

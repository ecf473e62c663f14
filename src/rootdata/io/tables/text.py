"""CSV files: a line with the names of the columns, then a line of numbers for each event.

What a column holds follows from all of its values, so a file is looked through once. What was found is kept beside the
unpacked rows, as is the table itself, of which a text can't be read from the middle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rootdata import disk
from rootdata.causes import ContradictionError
from rootdata.io.local import Span
from rootdata.io.retry import PlaceError
from rootdata.io.tables import unpacked
from rootdata.io.tables.content import Content
from rootdata.io.tables.leaves import Leaf, paths_of
from rootdata.io.tables.tree import TableFormat

SEPARATORS = ",\t;"
LOOKED_AT = 1 << 16  # bytes that a header has at most
PIECE = 1 << 20  # bytes that are decoded at a time; a line may not be longer
_TRUTHS = {"true", "false"}
_BAD_VALUE = re.compile(r"CSV column #(?P<column>\d+).*invalid value '(?P<value>.*)'", re.DOTALL)


class CsvFormat(TableFormat):
    """Files of text with separators."""

    kind = "CSV"
    endings = (".csv", ".tsv")

    def open_file(self, content: Content) -> _CsvFile:
        """Read the names of the columns, and find out what each holds."""
        return _CsvFile(content)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What looking through a file told: its rows, and of each column the type."""

    rows: int
    types: tuple[str, ...]


class _CsvFile:
    def __init__(self, content: Content) -> None:
        self.compression = "none"
        self._content = content
        self._separator, self._names, self._body = _header_of(content)
        found = self._known() or self._keep(self._look_through())
        self.schema = _schema_of(dict(zip(self._names, found.types, strict=True)))
        self.groups: Sequence[int] = [found.rows] if found.rows else []

    def size_of(self, leaves: Sequence[Leaf]) -> float:
        """Return the bytes that leaves take."""
        return float(sum(self.groups) * sum(np.dtype(leaf.branch.dtype).itemsize for leaf in leaves))

    def spans(self, group: int, leaves: Sequence[Leaf]) -> list[Span]:  # noqa: ARG002 - all of it is needed
        """Say where the lines lie."""
        return [(self._body, self._content.size)]

    def batches(self, group: int, leaves: Sequence[Leaf], *, rows: int) -> Iterator[Any]:  # noqa: ARG002 - there is one
        """Read the file from its start."""
        for batch in self._stream(self.schema, only=paths_of(leaves)):
            for low in range(0, batch.num_rows, rows):
                yield batch.slice(low, rows)

    def close(self) -> None:
        """Do nothing: the file is another's."""

    def _stream(self, schema: Any, *, only: Sequence[str] = ()) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import csv

        if not self._content.fetch(self._body, LOOKED_AT).strip():
            return
        source = self._content.reader()
        source.seek(self._body)
        yield from csv.open_csv(
            pa.PythonFile(source, mode="r"),
            read_options=csv.ReadOptions(
                use_threads=False, block_size=PIECE, column_names=list(self._names)
            ),
            parse_options=csv.ParseOptions(delimiter=self._separator),
            convert_options=csv.ConvertOptions(
                column_types=schema, include_columns=list(only), true_values=["true", "True"],
                false_values=["false", "False"], null_values=["", "NA", "NULL", "null", "None"],
            ),
        )  # fmt: skip

    def _look_through(self) -> _Found:
        """Decode everything, each column as the narrowest type that all of its values have."""
        import pyarrow as pa

        wider = {"int64": "double", "bool": "string", "double": "string"}
        types = dict.fromkeys(self._names, "int64")
        while True:
            rows, gaps = 0, Counter[str]()
            try:
                for batch in self._stream(_schema_of(types)):
                    rows += batch.num_rows
                    gaps.update({n: batch.column(i).null_count for i, n in enumerate(self._names)})
                break
            except pa.ArrowInvalid as error:
                bad = _BAD_VALUE.search(str(error))
                name = self._names[int(bad["column"])] if bad else ""
                if bad is None or types[name] == "string":
                    raise ContradictionError(str(error).splitlines()[0]) from error
                is_truth = types[name] == "int64" and bad["value"].strip().lower() in _TRUTHS
                types[name] = "bool" if is_truth else wider[types[name]]
        # An integer can't be missing; as a real number it can.
        types |= {name: "double" for name, kind in types.items() if kind == "int64" and gaps[name]}
        return _Found(rows=rows, types=tuple(types[name] for name in self._names))

    def _place(self) -> Any:
        content = [self._content.mark(), self._content.state.size, self._content.state.version, "columns"]
        return unpacked.place_of(content).with_suffix(".json")

    def _known(self) -> _Found | None:
        try:
            plain = json.loads(self._place().read_text())
            found = _Found(rows=int(plain["rows"]), types=tuple(plain["types"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if len(found.types) == len(self._names) else None

    def _keep(self, found: _Found) -> _Found:
        with contextlib.suppress(OSError):  # the next one looks again
            disk.write_atomic(self._place(), json.dumps(dataclasses.asdict(found)))
        return found


def _schema_of(types: Mapping[str, str]) -> Any:
    import pyarrow as pa

    kinds = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
    return pa.schema([(name, kinds[kind]) for name, kind in types.items()])


def _header_of(content: Content) -> tuple[str, tuple[str, ...], int]:
    """Return the separator, the names of the columns, and where the lines of values begin."""
    head = content.fetch(0, LOOKED_AT)
    if b"\0" in head:
        raise PlaceError(f"{content.place}: this is no text of numbers; replace or remove the file")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    first, end, _ = text.partition(b"\n")
    if not end and len(head) == LOOKED_AT:
        raise PlaceError(f"{content.place}: its first line does not end within {LOOKED_AT:,} bytes; replace the file")
    body, line = len(head) - len(text) + len(first) + len(end), first.decode(errors="replace")
    counts = Counter(c for c in re.sub(r'"[^"]*"', "", line) if c in SEPARATORS)
    separator = counts.most_common(1)[0][0] if counts else ","
    names = [name.strip().strip('"') for name in line.rstrip("\r").split(separator)]
    if all(_is_number(name) for name in names):
        raise PlaceError(
            f"{content.place}: its first line, {line[:60]!r}, holds numbers; write the names of the columns there"
        )
    return separator, tuple(name or f"column{i}" for i, name in enumerate(names)), body


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

"""Events as an Arrow stream, and scores as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rootdata.bundle.manifest import BranchSpec
from rootdata.jagged import Column, Jagged, offsets_of
from rootdata.table import Table
from serve.codec import schema
from serve.codec.arrowsize import size_of
from serve.codec.casting import Array, Locate, in_events, in_lists
from serve.codec.schema import Schema, Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge
from serve.faults import is_lack
from serve.parsing import check_all_there
from serve.settings import Settings

MAX_BATCHES = 10_000  # a batch costs more than a row: many empty ones would keep a worker busy

Floats = npt.NDArray[np.float32]


def decode(body: bytes, schemas: Schemas, *, settings: Settings) -> Table:
    """Decode a stream of record batches, one column for each branch; other columns are ignored.

    Parameters
    ----------
    body : an Arrow IPC stream, not a file
    schemas : the branches that the model takes
    settings : with the limits of a request

    Raises
    ------
    BadRequest, InvalidEvents, TooLarge
        Naming what is wrong, where, in which event.
    """
    try:
        stream, wanted = _read(body, schemas, settings)
    except ServeError:
        raise
    except Exception as error:  # the library has no common base for what broken bytes raise
        if is_lack(error):
            raise
        raise BadRequest(f"body: this is no Arrow stream ({_brief(error)}); send one, not a file") from error
    columns = {name: _column(stream.column(name), spec, settings) for name, spec in wanted.specs.items()}
    return schema.conform(columns, stream.num_rows, wanted, settings)


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]


def _read(body: bytes, schemas: Schemas, settings: Settings) -> tuple[Any, Schema]:
    """Read the columns that are needed, once it is known that they are not too large, and check their buffers."""
    _check_sizes(body, settings)
    with pa.ipc.open_stream(body) as reader:
        names = reader.schema.names
        wanted = schemas.of(names)
        needed = [name for name in names if name in wanted.specs]
        check_all_there(names, wanted.specs)
        if len(needed) > len(wanted.specs):
            twice = next(name for i, name in enumerate(needed) if name in needed[:i])
            raise InvalidEvents(f"column {twice!r} is there twice; send it once", field=twice)
        stream = reader.read_all().select(needed)
    stream.validate(full=True)  # what reading alone does not: offsets that point outside of their buffers
    return stream, wanted


def _check_sizes(body: bytes, settings: Settings) -> None:
    rows, num_bytes, batches = 0, 0, 0
    for message in pa.ipc.MessageReader.open_stream(body):
        size = size_of(bytes(message.metadata), memoryview(message.body or b""))
        rows, num_bytes, batches = rows + size.rows, num_bytes + size.num_bytes, batches + 1
        schema.check_events(rows, settings)
        if num_bytes > settings.max_body:
            raise TooLarge(f"body: its columns decode to {num_bytes} bytes or more; {settings.max_body} are allowed")
        if batches > MAX_BATCHES:
            raise TooLarge(f"body: got more than {MAX_BATCHES} record batches; send fewer, larger ones")


def _column(chunks: Any, spec: BranchSpec, settings: Settings) -> Column:
    array = chunks.combine_chunks()
    if not _is_list(array.type):
        return _numbers(array, spec, in_events(spec.name))
    if array.null_count:
        event = _first_null(array)
        raise InvalidEvents(f"{spec.name!r} of event {event}: got null; expected a list", field=spec.name, event=event)
    counts = np.asarray(pc.list_value_length(array)).astype(np.int64)
    offsets = offsets_of(counts)
    # Views may share their values: what they add up to has nothing to do with the size of the stream.
    if int(offsets[-1]) > settings.max_body:
        message = f"{spec.name!r}: got {offsets[-1]} values; {settings.max_body} are allowed in a request"
        raise TooLarge(message, field=spec.name)
    content = _numbers(array.flatten(), spec, in_lists(spec.name, offsets))
    if spec.kind == "fixed":
        return _fixed(content, counts, spec)
    return Jagged(offsets, content)


def _is_list(kind: Any) -> bool:
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def _fixed(content: Array, counts: Array, spec: BranchSpec) -> Array:
    if (counts != spec.width).any():
        event = int(np.flatnonzero(counts != spec.width)[0])
        message = f"{spec.name!r} of event {event}: got {counts[event]} values; expected {spec.width}"
        raise InvalidEvents(message, field=spec.name, event=event)
    return content.reshape(-1, spec.width)


def _numbers(array: Any, spec: BranchSpec, locate: Locate) -> Array:
    """Take numbers without nulls, or with nulls as NaN where the branch has floats."""
    kind, is_float = array.type, np.dtype(spec.dtype).kind == "f"
    is_truth = pa.types.is_boolean(kind)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or (is_truth and spec.dtype == "bool")):
        expected = "truth values or numbers" if spec.dtype == "bool" else "numbers"
        raise InvalidEvents(f"{spec.name!r}: got {str(kind)[:60]}; expected {expected}", field=spec.name)
    if array.null_count and not is_float:
        field, name, event = locate(_first_null(array))
        message = f"{name} of event {event}: got null; expected a value, as {spec.dtype} has none that means missing"
        raise InvalidEvents(message, field=field, event=event)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _first_null(array: Any) -> int:
    return int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])


class ArrowScoreWriter:
    """Writes scores as a stream, batch by batch; a context manager.

    Parameters
    ----------
    target : path, or a file open for bytes
    columns : names of the scores, which become float32 columns
    """

    def __init__(self, target: Path | Any, columns: Sequence[str]) -> None:
        self._schema = pa.schema([(name, pa.float32()) for name in columns])
        self._sink = pa.OSFile(str(target), "wb") if isinstance(target, Path) else target
        self._owns_sink = isinstance(target, Path)
        self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""
        arrays = [pa.array(np.ascontiguousarray(column, np.float32)) for column in scores.T]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if self._owns_sink:
            self._sink.close()

"""Scores to the body of an answer: at once, or piece by piece into a file."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson

from rootdata.table import Table
from serve.codec import arrow, binary, media, rootfile
from serve.errors import NotAcceptable

Floats = npt.NDArray[np.float32]


class Writer(Protocol):
    """Takes the scores of events, piece by piece."""

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def encode(
    accept: str,
    *,
    model: str,
    version: int,
    columns: Sequence[str],
    scores: Floats,
    explain: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[bytes, str]:
    """Write scores in one of the formats of answers.

    Parameters
    ----------
    accept : content type
    scores : (n, columns)
    explain : for each event what was unlike the training events; JSON alone can say it

    Returns
    -------
    body, content type

    Raises
    ------
    NotAcceptable
        For a format that is not offered, or that has no room for ``explain``.
    """
    if accept == media.JSON:
        return _json(model, version, columns, scores, explain), accept
    if explain is not None:
        raise NotAcceptable(f"explain: answers come as {media.JSON} alone; got {accept!r}", field="explain")
    if accept == media.COLUMNS:
        flat = dict(zip(columns, np.ascontiguousarray(scores.T, np.float32), strict=True))
        return binary.encode(Table(num_events=len(scores), columns=flat)), accept
    kinds: dict[str, Any] = {media.ARROW: arrow.ScoreWriter, media.ROOT: rootfile.ScoreWriter}
    if accept not in kinds:
        raise media.not_offered(accept)
    target = _Kept()
    with kinds[accept](target, columns) as answer:
        answer.write(scores)
    return target.getvalue(), accept


class _Kept(BytesIO):
    """A file in memory that keeps its bytes when a library closes it."""

    def close(self) -> None:
        pass


def _json(
    model: str, version: int, columns: Sequence[str], scores: Floats, explain: Sequence[Mapping[str, Any]] | None
) -> bytes:
    by_column = np.ascontiguousarray(scores.T, np.float32)
    answer: dict[str, Any] = {
        "model": model,
        "version": version,
        "num_events": len(scores),
        "scores": dict(zip(columns, by_column, strict=True)),
    }
    if explain is not None:
        answer["explain"] = explain
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def writer(accept: str, path: Path, columns: Sequence[str], *, model: str, version: int) -> Writer:
    """Open a file for the scores of many events, which are written in constant memory.

    Parameters
    ----------
    accept : content type
    path : of a file that is made, or replaced

    Raises
    ------
    NotAcceptable
        For a format that is not offered.
    """
    if accept == media.ARROW:
        return arrow.ScoreWriter(path, columns)
    if accept == media.ROOT:
        return rootfile.ScoreWriter(path, columns)
    if accept == media.JSON:
        return _JSONWriter(path, columns, model=model, version=version)
    if accept == media.COLUMNS:
        return _BinaryWriter(path, columns)
    raise media.not_offered(accept)


class _ByColumn:
    """Keeps the columns of scores in files of their own until the end, where formats want one after the other."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, columns
        self._num_events = 0
        self._files = contextlib.ExitStack()
        self._parts: list[IO[bytes]] = [
            self._files.enter_context(tempfile.TemporaryFile(dir=path.parent))  # noqa: SIM115 - the stack closes it
            for _ in columns
        ]

    def write(self, scores: Floats) -> None:
        """Add events: (n, columns) float32."""
        if not len(scores):
            return
        for part, values in zip(self._parts, np.ascontiguousarray(scores.T, np.float32), strict=True):
            part.write(self._bytes(values))
        self._num_events += len(scores)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._files:
            if kind is None:
                for part in self._parts:
                    part.seek(0)
                with self._path.open("wb") as file:
                    self._join(file)

    def _bytes(self, values: Floats) -> bytes:
        raise NotImplementedError

    def _join(self, file: IO[bytes]) -> None:
        raise NotImplementedError


class _JSONWriter(_ByColumn):
    def __init__(self, path: Path, columns: Sequence[str], *, model: str, version: int) -> None:
        super().__init__(path, columns)
        self._model, self._version = model, version

    def _bytes(self, values: Floats) -> bytes:
        separator = b"," if self._num_events else b""
        return separator + orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]

    def _join(self, file: IO[bytes]) -> None:
        start = {"model": self._model, "version": self._version, "num_events": self._num_events}
        file.write(orjson.dumps(start)[:-1] + b',"scores":{')
        for number, (name, part) in enumerate(zip(self._columns, self._parts, strict=True)):
            file.write((b"," if number else b"") + orjson.dumps(name) + b":[")
            shutil.copyfileobj(part, file)
            file.write(b"]")
        file.write(b"}}")


class _BinaryWriter(_ByColumn):
    def _bytes(self, values: Floats) -> bytes:
        return values.astype("<f4", copy=False).tobytes()

    def _join(self, file: IO[bytes]) -> None:
        columns = [{"name": name, "dtype": "<f4"} for name in self._columns]
        file.write(binary.head({"num_events": self._num_events, "counts": [], "columns": columns}))
        for part in self._parts:
            shutil.copyfileobj(part, file)
            file.write(bytes(binary.padded(file.tell()) - file.tell()))

"""What was seen of the models of a repository, kept in a file beside them.

A server that has just started would otherwise read every manifest before it can list the models. Whatever can't be
read, or no longer fits the files, is looked at again; where the file can't be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import orjson

from rootdata import disk
from rootdata.bundle.manifest import Manifest

_SCHEMA = 1
_FEW = 16  # models that are read again sooner than the file is written

Stamp = Sequence[int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a manifest says, as far as lists and searches need it.

    Parameters
    ----------
    features : names of branches and features that the model takes, sorted
    """

    author: str
    description: str
    created: str
    columns: tuple[str, ...]
    metrics: Mapping[str, float]
    features: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Take it out of a manifest."""
        inputs = (name for tensor in manifest.inputs for name in tensor.features)
        return cls(
            author=manifest.author,
            description=manifest.description,
            created=manifest.created,
            columns=tuple(manifest.columns),
            metrics=dict(manifest.metrics),
            features=tuple(sorted({*(branch.name for branch in manifest.branches), *inputs})),
            tags=tuple(manifest.tags),
        )

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what :func:`dataclasses.asdict` gave."""
        lists = {name: tuple(plain[name]) for name in ("columns", "features", "tags")}
        return cls(**{**plain, **lists})


class Index:
    """What was seen of each model, and of which state of its files.

    Parameters
    ----------
    root : of the repository
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[list[int], Mapping[str, Any]]] | None = None
        self._fresh: set[str] = set()

    def get(self, name: str) -> tuple[Stamp, Mapping[str, Any]] | None:
        """Return what is known of a model, and of which state."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(name)

    def put(self, name: str, stamp: Stamp, plain: Mapping[str, Any]) -> None:
        """Remember what was seen of a model.

        Parameters
        ----------
        name : of the model
        stamp : state of its files when they were looked at
        plain : what the look has found, as JSON can hold it
        """
        if self._known is not None:
            self._known[name] = (list(stamp), plain)
            self._fresh.add(name)

    def save(self, names: Sequence[str]) -> None:
        """Write what is known of these models, where that is much more than the file has."""
        if len(self._fresh) < _FEW or self._known is None:
            return
        kept = {name: known for name in names if (known := self._known.get(name)) is not None}
        body = orjson.dumps({"schema": _SCHEMA, "models": kept})
        through = self._root / ".staging"
        with contextlib.suppress(OSError):  # a repository that is read-only, or full
            through.mkdir(exist_ok=True)
            disk.write_atomic(self._path, body, through=through)
        self._fresh.clear()

    @property
    def _path(self) -> Path:
        return self._root / ".index"

    def _read(self) -> dict[str, tuple[list[int], Mapping[str, Any]]]:
        try:
            plain = orjson.loads(self._path.read_bytes())
            if plain["schema"] != _SCHEMA:
                return {}
            return {name: (list(stamp), dict(seen)) for name, (stamp, seen) in plain["models"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

"""How events are read: nothing here changes which events come, nor their order."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from rootdata.errors import ConfigError
from rootdata.options import typed, values
from rootdata.options.typed import option

CACHE_IN_MEMORY = 4_000_000_000  # bytes, where none are given
CACHE_ON_DISK = 50_000_000_000
MOST_PREFETCHED = 256  # slabs: 2 to 4 GB


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """Where decoded blocks are kept.

    Parameters
    ----------
    dir : folder on a local disk; ``None`` keeps them in memory
    max_bytes : never exceeded; the least recently used blocks go first
    """

    dir: str | None
    max_bytes: int


def _cache(value: Any, where: str) -> CacheConfig | None:
    if value is None or isinstance(value, CacheConfig):
        return value
    if value == "memory":
        return CacheConfig(dir=None, max_bytes=CACHE_IN_MEMORY)
    if isinstance(value, str):
        raise ConfigError(f"{where}: got {value!r}; allowed: 'memory', or {{'dir': ..., 'max_bytes': ...}}")
    table = values.mapping(value, where, "'memory', or {'dir': '/scratch/me/blocks', 'max_bytes': 50_000_000_000}")
    values.reject_unknown(table, ["dir", "max_bytes"], where=where)
    folder = table.get("dir")
    default = CACHE_IN_MEMORY if folder is None else CACHE_ON_DISK
    return CacheConfig(
        dir=None if folder is None else values.path(folder, f"{where}.dir"),
        max_bytes=values.positive(table.get("max_bytes") or default, f"{where}.max_bytes"),
    )


def _workers(value: Any, where: str) -> int:
    """Allow as many reading threads as make sense at most: some more than there are processors."""
    return values.natural(value, where, most=max(16, 4 * (os.cpu_count() or 1)))


def _prefetch(value: Any, where: str) -> int:
    return values.natural(value, where, most=MOST_PREFETCHED)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReadConfig:
    """How events are read.

    Parameters
    ----------
    num_workers : threads that read and decode ahead; 0: as many as there are processors, at most 4
    prefetch : slabs of batches (about 8 MB each, 16 where batches are large) made ahead of time; 0: none
    patience : seconds during which a remote file that fails is tried again, or a server that does not answer asked
    deadline : seconds that one attempt to read a block of a remote file may take, or one question about a file
    cache : where decoded blocks are kept: ``"memory"``, or ``{"dir": "/scratch/blocks", "max_bytes": 50_000_000_000}``
    """

    num_workers: int = option(_workers, 0, is_optional=True)
    prefetch: int = option(_prefetch, 2, is_optional=True)
    patience: float = option(values.seconds, 120.0, is_optional=True)
    deadline: float = option(values.seconds, 60.0, is_optional=True)
    cache: CacheConfig | None = option(_cache, None, takes=str | Mapping[str, Any] | None)

    @property
    def threads(self) -> int:
        """How many threads read at the same time."""
        return self.num_workers or min(4, os.cpu_count() or 1)


def parse_read(plain: Mapping[str, Any], *, where: str = "the reading options") -> ReadConfig:
    """Check the options that say how events are read, each alone and beside the others.

    Parameters
    ----------
    plain : options of :class:`ReadConfig`
    where : what holds them, for an error about an unknown one

    Raises
    ------
    ConfigError
        As :func:`rootdata.options.typed.parse`.
    """
    return typed.parse(ReadConfig, plain, where=where)

"""What was deleted, until it is restored or goes for good: folders ``name@version@time`` in the trash."""

from __future__ import annotations

import logging
import math
import time
import uuid
from pathlib import Path

from rootdata import disk
from rootdata.causes import reason_of
from serve.errors import ServeError
from serve.models.workspace import TRASH, Workspace

_log = logging.getLogger("serve")


class Trash:
    """The trash of a repository.

    Parameters
    ----------
    workspace : of the repository
    max_bytes, max_days : what stays when something is put there; None for all of it
    """

    def __init__(self, workspace: Workspace, *, max_bytes: int | None, max_days: float | None) -> None:
        self._workspace, self._folder = workspace, workspace.root / TRASH
        self._max_bytes, self._max_days = max_bytes, max_days

    def put(self, place: Path, what: str) -> None:
        """Move a folder into the trash; the lock is held.

        Parameters
        ----------
        place : the folder
        what : ``name@version``, or ``name@all``
        """
        place.rename(self._folder / f"{what}@{time.time():.6f}@{uuid.uuid4().hex[:8]}")
        disk.sync(place.parent)
        disk.sync(self._folder)

    def last(self, what: str) -> Path | None:
        """Return the folder of that name that was deleted last."""
        found = sorted(self._folder.glob(f"{what}@*"))
        return found[-1] if found else None

    def limit(self) -> None:
        """Remove for good what is beyond the limits; where that can't be done now, the log says so."""
        if self._max_bytes is None and self._max_days is None:
            return
        days = math.inf if self._max_days is None else self._max_days
        try:
            self.purge(days=days, max_bytes=self._max_bytes)
        except (OSError, ServeError) as error:
            _log.error("the trash can't be kept within its limits: %s", reason_of(error))

    def purge(self, *, days: float, max_bytes: int | None) -> int:
        """Remove for good what is older or more, see :meth:`serve.models.repository.Repository.purge`."""
        with self._workspace.staging() as area, self._workspace.locked():  # what is half removed can't be restored
            left = sorted(self._folder.iterdir(), key=_time_of)
            sizes = [0 if max_bytes is None else _size_of(path) for path in left]
            kept, old = sum(sizes), []
            for path, size in zip(left, sizes, strict=True):
                is_old = time.time() - _time_of(path) > days * 86_400
                if is_old or (max_bytes is not None and kept > max_bytes):
                    old.append(path)
                    kept -= size
            for path in old:
                path.rename(area / path.name)
        return len(old)


def _time_of(trashed: Path) -> float:
    """Read from its name when something was deleted."""
    try:
        return float(trashed.name.split("@")[2])
    except (IndexError, ValueError):
        return trashed.lstat().st_mtime


def _size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

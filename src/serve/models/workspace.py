"""Where changes are prepared: one lock for whoever changes something, folders for what is not whole yet."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from rootdata import disk
from serve import atomic
from serve.faults import changes

OWNER = ".owner"  # of a staging area: locked while whoever made it lives
TRASH = ".trash"
_STAGING, _NUMBERS = ".staging", ".numbers"
_UNCHANGED = "the models can't be changed"


class Workspace:
    """The part of a repository that readers do not see.

    Parameters
    ----------
    root : the folder of models; it is made by the first change
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Say why what is done inside can't be done.

        Raises
        ------
        ReadOnly, NoRoom, Conflict
            In place of the system's errors.
        """
        with changes(_UNCHANGED):
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of those who change something, as in :meth:`changing`."""
        with self.changing():
            for folder in (_STAGING, TRASH, _NUMBERS):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            with atomic.locked(self.root / ".lock"):
                yield

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder on the repository's file system, which goes away at the end."""
        area = self.root / _STAGING / uuid.uuid4().hex
        with self.locked():  # so that `recover` never sees one without its owner
            area.mkdir()
            owner = os.open(area / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            atomic.try_lock(owner)
        try:
            yield area
        finally:
            shutil.rmtree(area, ignore_errors=True)
            os.close(owner)

    def recover(self, *, seconds: float = 86_400.0) -> int:
        """Remove what crashed writers left behind, and return how many things that were.

        Parameters
        ----------
        seconds : what is younger stays. The lock of a living writer protects its files at any age; this is for file
            systems on which locks are not seen by other machines
        """
        with self.locked():
            left = [p for p in (self.root / _STAGING).iterdir() if time.time() - p.lstat().st_mtime >= seconds]
            dead = [p for p in left if not _is_owned(p)]
            for path in dead:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return len(dead)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the repository as a whole; the lock is held."""
        disk.write_atomic(path, data, through=self.root / _STAGING)

    def retired(self, name: str) -> int:
        """Return the highest version of a model that was deleted; 0 if none was."""
        try:
            return int((self.root / _NUMBERS / name).read_text())
        except FileNotFoundError:
            return 0

    def retire(self, name: str, version: int) -> None:
        """Let no version up to this one be used again."""
        highest = max(version, self.retired(name))
        self.write(self.root / _NUMBERS / name, f"{highest}\n".encode())


def _is_owned(path: Path) -> bool:
    """Tell whether the process that made a staging area lives."""
    try:
        handle = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not atomic.try_lock(handle)
    finally:
        os.close(handle)

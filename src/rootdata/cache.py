"""What is kept on local disk between runs, written so that a reader sees the old file or the new one, never half."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def folder() -> Path:
    """Return the cache folder: ``$ROOTDATA_CACHE``, or ``rootdata`` in the user's cache folder.

    It may be one that can't be written or read; whoever uses it goes on without.
    """
    given, base = os.environ.get("ROOTDATA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given).expanduser() if given else Path(base or Path.home() / ".cache") / "rootdata"
    except RuntimeError:  # a user without a home, as in some containers: no folder at all
        return Path(os.devnull) / "rootdata"


def specs_path(fingerprint: str) -> Path:
    """Return where the specs of a fingerprint are kept."""
    return folder() / "specs" / f"{fingerprint}.json"


def directories_path(fingerprint: str) -> Path:
    """Return where is kept where the baskets of small files lie."""
    return folder() / "directories" / f"{fingerprint}.bin"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under its name only once it is whole.

    Raises
    ------
    OSError
        Where the folder can't be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let other processes wait that are about to make the same file; where locks can't be had, nobody waits.

    Whoever waited finds the file, and so need not make it.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(lock.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            held.callback(_remove, lock)
        yield


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)

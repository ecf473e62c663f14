"""What is kept on local disk between runs, written so that a reader sees the old file or the new one, never half."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from rootdata.disk import alone, write_atomic

__all__ = ["alone", "baskets_path", "folder", "specs_path", "write_atomic"]


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


def names_path() -> Path:
    """Return the file that notes the names under which each file's content was read."""
    return folder() / "names.jsonl"


def baskets_path(fingerprint: str) -> Path:
    """Return the file that says where the baskets of small files lie."""
    return folder() / "baskets" / f"{fingerprint}.bin"


def forget(fingerprint: str) -> None:
    """Remove kept specs: a file was found to hold something else, although its state is the one that they describe."""
    with contextlib.suppress(OSError):
        specs_path(fingerprint).unlink(missing_ok=True)
        baskets_path(fingerprint).unlink(missing_ok=True)

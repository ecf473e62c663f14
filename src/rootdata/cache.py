"""What is kept on local disk between runs, written so that a reader sees the old file or the new one, never half."""

from __future__ import annotations

import os
from pathlib import Path

from rootdata.disk import alone, write_atomic

__all__ = ["alone", "directories_path", "folder", "specs_path", "write_atomic"]


def folder() -> Path:
    """Return the cache folder: ``$ROOTDATA_CACHE``, or ``rootdata`` in the user's cache folder."""
    given = os.environ.get("ROOTDATA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given).expanduser() if given else Path(base) / "rootdata"


def specs_path(fingerprint: str) -> Path:
    """Return where the specs of a fingerprint are kept."""
    return folder() / "specs" / f"{fingerprint}.json"


def names_path() -> Path:
    """Return the file that notes under which names contents were read."""
    return folder() / "names.jsonl"


def directories_path(fingerprint: str) -> Path:
    """Return where is kept where the baskets of small files lie."""
    return folder() / "directories" / f"{fingerprint}.bin"

"""Child processes for which the rights of files mean what they say, also where root runs the tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"
_DROP_FROM_BOUND = 24  # PR_CAPBSET_DROP of Linux
_OVER_FILES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root read and write everything
_KEEP_CAPABILITIES, _AMBIENT, _RAISE = 8, 47, 2  # PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
_CAPABILITY_VERSION = 0x20080522
NOBODY = 65534


def heed_rights() -> None:
    """Give up, for the program that is executed next, what root may do with files of any mode."""
    libc = ctypes.CDLL(None)
    for capability in _OVER_FILES:
        libc.prctl(_DROP_FROM_BOUND, capability, 0, 0, 0)  # an ordinary user has nothing to give up


def be_nobody() -> None:
    """Be another user than root for the program that is executed next, one who may read everything and write nothing.

    Reading stays allowed since the interpreter may lie where only root looks. An ordinary user stays who it is.
    """
    if os.geteuid() != 0:
        return
    libc, may_read = ctypes.CDLL(None), 1 << _OVER_FILES[1]
    libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    words = ctypes.c_uint32 * 6  # effective, permitted, inheritable; and the same for capabilities from 32 on
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), words(may_read, may_read, may_read, 0, 0, 0))
    libc.prctl(_AMBIENT, _RAISE, _OVER_FILES[1], 0, 0)


def run(
    words: Sequence[str | Path],
    *,
    cwd: Path,
    environment: Mapping[str, str | None] | None = None,
    source: Path = SOURCES,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run ``python WORDS`` with these rights; a variable of ``None`` is not set."""
    plain = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={name: value for name, value in plain.items() if value is not None},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        preexec_fn=heed_rights,
        check=False,
    )


def skip_where_rights_mean_nothing(folder: Path) -> None:
    """Skip the test where children may read what they must not: there is nothing to see then."""
    secret = folder / "secret"
    secret.touch(mode=0o000)
    if run(["-c", f"open({str(secret)!r})"], cwd=folder).returncode == 0:
        pytest.skip("NO RIGHTS: this system lets the tests read files of mode 000; nothing of permissions was tested")

"""The check of an upload, in a process of its own: whatever a file does to it, the server goes on.

The child (:mod:`serve.upload.child`) has limits on memory and time, no standard input and no terminal; it is killed
when its time is over, and is the first that a machine without memory left kills.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rootdata.bundle.manifest import BATCHING, MANIFEST, MODEL
from serve.errors import InvalidModel, OutOfOrder, Overloaded, ServeError, TooLarge
from serve.faults import public
from serve.upload.archives import BUNDLE

MAX_TEXT = 16_000_000  # bytes of manifest.json and its like
_MAX_ANSWER = 1_000_000
_PAGE = 8192  # bytes, more than a file system gives away in one piece
_TIME_IS_OVER = (None, -signal.SIGXCPU, -signal.SIGALRM)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an upload may take.

    Parameters
    ----------
    size : bytes of the graph, or of all that an archive unpacks to
    memory : bytes of address space
    seconds : of CPU time, and of time
    """

    size: int = 1_000_000_000
    memory: int = 4_000_000_000
    seconds: float = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the check of a model found.

    Parameters
    ----------
    opset : version of ONNX's operators
    takes_no_events : whether a batch of zero events can be run
    parity : largest difference to the scores of the manifest's sample; ``None`` where there is no sample
    memory : bytes that the process took at most
    batching : as in :class:`rootdata.bundle.manifest.Manifest`
    notes : sentences about what was changed or settled by the check
    """

    opset: int
    takes_no_events: bool
    parity: float | None
    memory: int
    batching: str
    notes: list[str]


_DEFAULT = Limits()


def check(
    folder: str | Path,
    *,
    limits: Limits = _DEFAULT,
    features: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    batching: str | None = None,
) -> Report:
    """Check a bundle in a folder that nobody else writes to.

    A graph that comes without a manifest gets one, by what it declares, and by what it does on made-up values or on
    those of ``sample.json``.

    Parameters
    ----------
    folder : of the bundle; its manifest is written where there is none, or where requests turn out to have to be run
        one by one
    limits : of the process that checks
    features, columns : for a graph without a manifest: what lies along the second axis of its input and its scores
    batching : as in :class:`rootdata.bundle.manifest.Manifest`; ``None`` leaves it to the manifest and the check

    Raises
    ------
    InvalidModel
        Saying what is wrong with the files, the graph or the manifest, and what to do.
    TooLarge
        For too many bytes.
    """
    folder = Path(folder).absolute()
    _check_files(folder, limits)
    if batching not in (None, *BATCHING):
        raise InvalidModel(f"batching: got {batching!r:.80}; allowed: {', '.join(BATCHING)}", field="batching")
    task = {
        "folder": str(folder), "features": _listed(features), "columns": _listed(columns), "batching": batching,
    }  # fmt: skip
    return Report(**_run("check", task, limits))


def unpack(archive: str | Path, into: str | Path, *, limits: Limits = _DEFAULT, is_named: bool = True) -> list[str]:
    """Unpack an uploaded archive into an empty folder; return the names of the files.

    Parameters
    ----------
    archive : its kind is told by its content, not by its name
    into : an empty folder
    limits : of the process that unpacks, and of the files' size
    is_named : as in :func:`serve.upload.archives.unpack`

    Raises
    ------
    InvalidModel
        For anything but an archive of a bundle's plain files.
    TooLarge
        For too many bytes or members.
    """
    paths = {"archive": str(Path(archive).absolute()), "into": str(Path(into).absolute())}
    task = {**paths, "max_bytes": limits.size, "is_named": is_named}
    found: list[str] = _run("unpack", task, limits)["files"]
    return found


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _check_files(folder: Path, limits: Limits) -> None:
    """Refuse what is no plain file of a bundle, and too many bytes."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    for name, seen in found.items():
        if name not in BUNDLE:
            raise InvalidModel(f"{name[:100]!r} does not belong to a bundle; allowed: {', '.join(BUNDLE)}")
        if not stat.S_ISREG(seen.st_mode) or seen.st_nlink > 1:
            raise InvalidModel(f"{name} is no plain file; links and devices are not taken", field=name)
        allowed = limits.size if name == MODEL else MAX_TEXT
        if seen.st_size > allowed:
            raise TooLarge(f"{name} has {seen.st_size} bytes; allowed are {allowed}", field=name)
    if MODEL not in found:
        raise InvalidModel(f"there is no {MODEL}; a bundle has {MODEL} and {MANIFEST}, as the export made them")


def _run(command: str, task: Mapping[str, Any], limits: Limits) -> Any:
    """Let a child do a task; return what it answers or raise what it complains of."""
    text = json.dumps({"command": command, "task": task, "limits": dataclasses.asdict(limits)})
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
        code = _wait(_start(text, output, complaints), limits.seconds)
        if code == 0:
            return _answer(_tail(output, _MAX_ANSWER))
        said = _tail(complaints, 2000)
        if not said.strip():
            _check_room(complaints)
        raise _failure(code, said, limits)


def _start(text: str, output: IO[bytes], complaints: IO[bytes]) -> subprocess.Popen[bytes]:
    alone = {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    return subprocess.Popen(  # noqa: S603  # this interpreter, and names of files that nobody parses
        [sys.executable, "-P", "-m", "serve.upload.child", text],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=complaints,
        env={**os.environ, **alone},
        start_new_session=True,
    )


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Return the exit status, or ``None`` for a process that had to be killed."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(file: IO[bytes], size: int) -> str:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - size))
    return file.read(size).decode(errors="replace")


def _answer(text: str) -> Any:
    found = json.loads(text)
    if "error" not in found:
        return found
    kind = next((k for k in (TooLarge, Overloaded, OutOfOrder) if k.__name__ == found["error"]), InvalidModel)
    raise kind(found["message"], field=found["field"], code=found["code"])


def _failure(code: int | None, complaints: str, limits: Limits) -> ServeError:
    if code in _TIME_IS_OVER:
        return InvalidModel(f"the check took more than {limits.seconds:g} s; the graph is too slow, or never ends")
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return InvalidModel(
            f"onnxruntime crashed on the graph ({name}), or it needs more than {limits.memory} bytes of memory; "
            "run it on a machine of your own first"
        )
    why = public("".join(complaints.strip().splitlines()[-1:])[:300]) or f"it ended with status {code}"
    return OutOfOrder(f"the check could not be run ({why}); whoever runs the server has to mend that")


def _check_room(file: IO[bytes]) -> None:
    """Find out whether a child could say nothing because there is no room for it.

    Raises
    ------
    OSError
        If so.
    """
    file.seek(0, os.SEEK_END)
    file.write(b"\n" * _PAGE)
    file.flush()

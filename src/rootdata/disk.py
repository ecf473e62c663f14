"""What is written to disk: whole files, whole folders, folders of one's own, and locks.

Nothing appears under its final name before it is whole and on disk: it is written beside it, on the same file system,
under a name that begins with a dot and ends in ``.partial``, and renamed. What a killed process leaves under such a
name is removed by whoever writes the same file or folder next; what somebody is writing is left alone.

Locks are ``flock`` on files: the kernel drops them when a process dies, and Linux carries them over NFS. A lock's file
says who holds it. Where a file system has no locks, nobody waits, and what is left behind is removed after a day.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime as dt
import errno
import fcntl
import functools
import glob
import itertools
import json
import os
import secrets
import shutil
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
STALE_SECONDS = 86_400.0  # what was not touched for so long is nobody's, where locks can't tell
POLL_SECONDS = 0.02

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux
_HERE = -100  # AT_FDCWD
_CANT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


# Files


def write_atomic(path: Path, content: str | bytes, *, through: Path | None = None, mode: int = 0o666) -> None:
    """Write a file under its name only once it is whole, and on disk.

    Parameters
    ----------
    path : replaced as a whole; folders above it are made
    content : text is written as UTF-8
    through, mode : as :func:`writing` takes them

    Raises
    ------
    OSError
        Where it can't be written; what was there stays, and nothing else is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    with writing(path, through=through, mode=mode) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path, *, through: Path | None = None, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Give a file to write into, which takes its name when the block ends well, and disappears when it doesn't.

    Parameters
    ----------
    path : replaced as a whole; folders above it are made
    through : folder of the same file system in which it is written first; by default that of the file
    mode : its rights, but for those that the process gives nobody

    Raises
    ------
    OSError
        Where it can't be written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path if through is None else through / path.name
    sweep(draft.parent, path.name)
    temporary, handle = _new_file(draft, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say whose
            error.filename = str(path)
        raise
    sync(path.parent)


def _new_file(path: Path, mode: int) -> tuple[Path, int]:
    """Make a file beside a place, and lock it, which tells others that somebody writes it."""
    while True:
        temporary = _beside(path)
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # taken for a dead one's, before it was locked
            os.close(handle)
            continue
        except OSError:  # no locks here
            return temporary, handle
        if _is_at(handle, temporary):
            return temporary, handle
        os.close(handle)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def link(path: Path, target: str) -> None:
    """Make a symbolic link to a folder, or let the one that is there point at it."""
    with alone(path):
        temporary = path.with_name(f".{path.name}{PARTIAL}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target, target_is_directory=True)
        temporary.replace(path)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to disk, so that they survive a power cut."""
    # Not every file system can sync a folder; on those that can't, names are safe by themselves.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Folders


def new_folder(path: Path) -> Path:
    """Make a folder that nobody has yet: under the given name, or with ``_1``, ``_2`` behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        folder = path.with_name(f"{path.name}_{number}") if number else path
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside a place, to be filled and put there by :func:`put`; what is left of it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent, folder.name)
    partial = _beside(folder)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            held.enter_context(hold(_lock_of(partial)))
        try:
            partial.mkdir()
            yield partial
        except OSError as error:
            if error.filename is None:  # a full disk does not say whose
                error.filename = str(folder)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def put(made: Path, folder: Path) -> None:
    """Move a folder to its place where there is none, or an empty one.

    Raises
    ------
    OSError
        Where there is something else.
    """
    _sync_all(made)
    made.rename(folder)
    sync(folder.parent)


def exchange(made: Path, folder: Path) -> None:
    """Move a folder to its place, and what was there to where the folder was made.

    Whoever looks sees the old one or the new one. Where a file system can't exchange two names at once, there is none
    for a moment between two renames.
    """
    try:
        put(made, folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        if not _exchanged(made, folder):
            _exchange_in_steps(made, folder)
        sync(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where that is not known here."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None or call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return call is not None
    number = ctypes.get_errno()
    if number in _CANT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _exchange_in_steps(made: Path, folder: Path) -> None:
    old = _old_of(made)
    folder.rename(old)
    try:
        made.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    old.rename(made)


def _old_of(made: Path) -> Path:
    return made.with_name(f"{made.name}.old")


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            sync(path)


# What killed processes leave


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left half-written in a folder.

    Parameters
    ----------
    folder : may be absent; nothing is removed from folders in it
    name : of the file or folder that they wrote; by default any
    """
    known = "*" if name == "*" else glob.escape(name)
    for lock in folder.glob(f".{known}.*{PARTIAL}.lock"):
        with contextlib.suppress(OSError, LockedError), hold(lock, seconds=0):
            _sweep_made(lock.with_suffix(""))
    for left in folder.glob(f".{known}.*{PARTIAL}"):
        with contextlib.suppress(OSError):
            if left.is_dir():
                _sweep_folder(left)
            else:
                _sweep_file(left)


def _sweep_made(made: Path) -> None:
    old, place = _old_of(made), made.with_name(made.stem.rpartition(".")[0][1:])
    if old.exists() and not place.exists():  # killed between two renames
        old.rename(place)
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)


def _sweep_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        pass
    except OSError:
        if _is_stale(path):
            path.unlink()
    finally:
        os.close(handle)


def _sweep_folder(path: Path) -> None:
    if not _lock_of(path).exists() and _is_stale(path):
        shutil.rmtree(path, ignore_errors=True)


def _is_stale(path: Path) -> bool:
    newest = max((found.stat().st_mtime for found in (path, *path.glob("*"))), default=0.0)
    return newest < time.time() - STALE_SECONDS


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


# Locks

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""What a file system says that has no locks."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who holds a lock.

    Parameters
    ----------
    launch : what the processes that were started together have in common
    """

    pid: int
    host: str
    since: str
    launch: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class LockedError(Exception):
    """Somebody else holds a lock.

    Attributes
    ----------
    owner : where that is known
    """

    def __init__(self, path: Path, owner: Owner | None) -> None:
        super().__init__(f"{path} is locked by {owner or 'somebody else'}")
        self.owner = owner


def myself(*, launch: str = "") -> Owner:
    """Describe this process."""
    now = dt.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return Owner(pid=os.getpid(), host=socket.gethostname(), since=now, launch=launch)


@contextlib.contextmanager
def hold(path: Path, *, seconds: float | None = None, owner: Owner | None = None) -> Iterator[None]:
    """Hold a lock, whose file is made, and removed at the end; a child that is forked meanwhile does not hold it.

    Parameters
    ----------
    path : of the lock's file, in a folder that exists
    seconds : to wait at most for somebody else; by default as long as it takes
    owner : what the file says; by default what it said before

    Raises
    ------
    LockedError
        If somebody else still holds it then.
    OSError
        Where locks can't be had.
    """
    held = _Held(path, _locked(path, until=None if seconds is None else time.monotonic() + seconds))
    try:
        if owner is not None:
            held.say(owner)
        yield
    finally:
        held.release()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from making the same file at the same time; where there are no locks, nothing keeps them.

    Whoever waited finds the file, and so need not make it.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold(lock))
        yield


def is_held(path: Path) -> bool:
    """Tell whether somebody, this process included, holds a lock."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask do not meet each other
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def owner_of(path: Path) -> Owner | None:
    """Return who held a lock last; ``None`` where that can't be told."""
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


class _Held:
    """The open file of a lock, until it is released, in the process that took it alone."""

    def __init__(self, path: Path, handle: int) -> None:
        self._handle = handle
        self.release = weakref.finalize(self, _let_go, path, handle, os.getpid())
        os.register_at_fork(after_in_child=functools.partial(_forget, weakref.ref(self)))

    def say(self, owner: Owner) -> None:
        """Write down who holds the lock; a full disk does not matter."""
        text = json.dumps(dataclasses.asdict(owner)).encode() + b"\n"
        with contextlib.suppress(OSError):
            os.pwrite(self._handle, text, 0)
            os.ftruncate(self._handle, len(text))


def _forget(held: weakref.ref[_Held]) -> None:
    if (kept := held()) is not None:
        kept.release()


def _let_go(path: Path, handle: int, pid: int) -> None:
    if os.getpid() == pid:  # a forked child has the file open, too, and only closes it
        with contextlib.suppress(OSError):
            path.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _locked(path: Path, *, until: float | None) -> int:
    """Open the file of a lock and lock it; it may be removed by whoever had it, and is made anew then."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock(handle, until=until)
            if _is_at(handle, path):
                return handle
        except BlockingIOError:
            owner = owner_of(path)
            os.close(handle)
            raise LockedError(path, owner) from None
        except OSError:  # no locks here
            path.unlink(missing_ok=True)
            os.close(handle)
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def lock(handle: int, *, until: float | None) -> None:
    """Take the lock of an open file, which is dropped when it is closed.

    Parameters
    ----------
    handle : file descriptor
    until : time of the monotonic clock; ``None`` waits for ever

    Raises
    ------
    BlockingIOError
        Where somebody else has it all the time.
    """
    if until is None:
        fcntl.flock(handle, fcntl.LOCK_EX)
        return
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether an open file is still the one of this name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False

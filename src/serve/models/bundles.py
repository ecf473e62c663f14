"""Bundles in folders: which files they are, whether they are whole, and a copy of them."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from rootdata import disk
from rootdata.bundle.manifest import BUNDLE_FILES, MANIFEST, MODEL, OPTIONAL_FILES, Manifest, load_manifest, open_bundle
from rootdata.errors import BundleError
from serve.errors import InvalidModel


def stamp(folder: str) -> tuple[int, ...]:
    """Say which files a manifest was read from: another state of them has another stamp.

    Raises
    ------
    OSError
        For a file that is not there.
    """
    a, b = os.lstat(f"{folder}/{MANIFEST}"), os.lstat(f"{folder}/{MODEL}")
    return (a.st_ino, a.st_mtime_ns, a.st_size, a.st_mode, b.st_ino, b.st_mtime_ns, b.st_size, b.st_mode)


def manifest_or_reason(folder: Path) -> Manifest | str:
    """Return the manifest of a bundle, or why it can't be used."""
    try:
        _check_regular(folder)
        manifest = load_manifest(folder)
        _check_size(folder, manifest)
    except (BundleError, OSError) as error:
        return _hiding(folder, error)
    return manifest


def copy(source: Path, target: Path) -> None:
    """Copy the files of a bundle, follow no links, and put everything on disk.

    Raises
    ------
    InvalidModel
        If a file is missing or no plain file, or the graph is not the one of the manifest, byte for byte.
    """
    target.mkdir()
    for name in BUNDLE_FILES:
        try:
            given = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENOENT and name in OPTIONAL_FILES:
                continue
            remedy = "a bundle has model.onnx and manifest.json as plain files"
            raise InvalidModel(f"{name} can't be read ({error.strerror}); {remedy}", field=name) from error
        with os.fdopen(given, "rb") as file, (target / name).open("xb") as copy:
            if not stat.S_ISREG(os.fstat(given).st_mode):
                raise InvalidModel(f"{name} is no regular file; a bundle has plain files only", field=name)
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fchmod(copy.fileno(), 0o444)
            os.fsync(copy.fileno())
    disk.sync(target)
    _check_whole(target)


def _check_whole(folder: Path) -> None:
    try:
        _check_size(folder, open_bundle(folder))
    except BundleError as error:
        raise InvalidModel(_hiding(folder, error)) from error


def _check_regular(folder: Path) -> None:
    for file in (MANIFEST, MODEL):
        if not stat.S_ISREG((folder / file).lstat().st_mode):
            raise BundleError(f"{file} is no regular file; links are not followed, publish a copy")


def _check_size(folder: Path, manifest: Manifest) -> None:
    found = (folder / MODEL).stat().st_size
    if found != manifest.size:
        raise BundleError(f"{MODEL} has {found} bytes, {MANIFEST} says {manifest.size}; copy the whole bundle")


def _hiding(folder: Path, error: Exception) -> str:
    """Return the sentence of an error without the folder: whoever reads it need not know where the repository lies."""
    return str(error).replace(f"{folder}/", "")

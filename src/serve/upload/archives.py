"""Unpack an uploaded archive: a few files of known names, no more bytes than allowed, and nothing else.

Run it in a process with limits (:mod:`serve.upload.child`): headers of an archive can be as evil as its contents.
"""

from __future__ import annotations

import json
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rootdata.bundle.manifest import BUNDLE_FILES, MANIFEST, MODEL
from serve.errors import InvalidModel, TooLarge

PARAMS, LABELS = "params.json", "labels.txt"  # as TFaaS has them
SAMPLE = "sample.json"  # tensors to try a graph on, as a request to /v2/models/NAME/infer has them
BUNDLE = (*BUNDLE_FILES, PARAMS, LABELS, SAMPLE)
KNOWN = {name: name for name in BUNDLE} | {"labels": LABELS, "labels.csv": LABELS}
MAX_MEMBERS = 32
MAX_RATIO = 200  # unpacked to packed; weights compress by less than 2
FREE_BYTES = 10_000_000  # below which the ratio does not matter
_STEP = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError)

Member = tuple[str, int, IO[bytes]]


def unpack(archive: Path, into: Path, *, max_bytes: int, is_named: bool = True) -> list[str]:
    """Write the files of a tar, tar.gz or zip archive into a folder.

    They lie at the top of the archive or in one folder; any ``*.onnx`` becomes ``model.onnx``, as in TFaaS's bundles.

    Parameters
    ----------
    archive : its kind is told by its content, not by its name
    into : an empty folder
    max_bytes : of all files together
    is_named : whether the name of the model is known; if not, and no ``params.json`` says it, one is written with the
        name of the folder

    Returns
    -------
    Names of the files

    Raises
    ------
    InvalidModel
        For no archive, or a broken one, or one with anything but plain files of known names.
    TooLarge
        For too many bytes or members.
    """
    limit = min(max_bytes, max(FREE_BYTES, MAX_RATIO * archive.stat().st_size))
    written: dict[str, int] = {}
    folders: set[str] = set()
    try:
        for path, size, file in _members(archive):
            name = _name_of(path)
            folders.add(path.removeprefix("./").rpartition("/")[0])
            if name in written:
                raise InvalidModel(f"{_shown(path)}: the archive holds {name} twice; keep one")
            if size > limit - sum(written.values()):
                raise _too_large(limit)
            written[name] = _copy(file, into / name, limit=limit - sum(written.values()))
    except (*_BROKEN, OSError, RuntimeError, ValueError) as error:  # zipfile: RuntimeError for a password
        if isinstance(getattr(error, "errno", None), int):  # of this machine: no room, say
            raise
        raise InvalidModel(f"the archive can't be read ({error}); make it again with tar or zip") from error
    if MODEL not in written:
        raise InvalidModel(f"the archive holds no *.onnx; pack {MODEL} and {MANIFEST}, as the export made them")
    if not is_named and PARAMS not in written and len(folders) == 1 and "" not in folders:
        (into / PARAMS).write_text(json.dumps({"name": folders.pop()}))
    return list(written)


def _members(archive: Path) -> Iterator[Member]:
    """Give path, declared size and contents of each file, in the order of the archive."""
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
    elif start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        yield from _tar_members(archive, mode="r|gz" if start.startswith(b"\x1f\x8b") else "r|")
    else:
        raise InvalidModel("this is no archive; expected tar, tar.gz or zip")


def _tar_members(archive: Path, *, mode: str) -> Iterator[Member]:
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        for number, member in enumerate(tar):
            _check_number(number)
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else None
            if file is None or member.issparse():
                raise InvalidModel(f"{_shown(member.name)} is no plain file; links and devices are not taken")
            yield member.name, member.size, file


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for number, member in enumerate(packed.infolist()):
            _check_number(number)
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise InvalidModel(f"{_shown(member.filename)} is no plain file; links and devices are not taken")
            with packed.open(member) as file:
                yield member.filename, member.file_size, file


def _check_number(number: int) -> None:
    if number >= MAX_MEMBERS:
        raise TooLarge(f"the archive holds more than {MAX_MEMBERS} members; pack the files of one bundle only")


def _name_of(path: str) -> str:
    """Say as which file a member is kept, never where the archive would like to have it."""
    parts = path.removeprefix("./").split("/")
    if len(parts) > 2 or any(p in {"", ".", ".."} or "\\" in p or ":" in p for p in parts):
        raise InvalidModel(f"{_shown(path)}: files lie at the top of the archive or in one folder")
    name = MODEL if parts[-1].endswith(".onnx") else KNOWN.get(parts[-1])
    if name is None:
        raise InvalidModel(f"{_shown(path)} does not belong to a bundle; allowed: *.onnx, {', '.join(list(KNOWN)[1:])}")
    return name


def _copy(file: IO[bytes], target: Path, *, limit: int) -> int:
    """Write a member, however long it says it is; return its bytes."""
    size = 0
    with target.open("xb") as copy:
        while part := file.read(_STEP):
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            copy.write(part)
    return size


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the archive unpacks to more than the {limit} bytes that are allowed for it")


def _shown(path: str) -> str:
    return repr(path[:100])

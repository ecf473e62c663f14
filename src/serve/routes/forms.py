"""Fields out of a form (``multipart/form-data``): files from disk to disk, or small ones in memory."""

from __future__ import annotations

import binascii
import dataclasses
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from pathlib import Path

from serve.errors import BadRequest

MAX_PARTS = 16
_MAX_TEXT = 1000  # bytes of a field that is no file
_MAX_HEADERS = 10_000
_STEP = 1 << 20
_BYTES = "application/octet-stream"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FormField:
    """A field of a form.

    Parameters
    ----------
    is_binary : whether it says that it is just bytes: what some clients of old write in base64
    start, stop : where its content lies in the body
    """

    name: str
    is_file: bool
    is_binary: bool
    start: int
    stop: int


def unpack(body: Path, content_type: str, *, files: Mapping[str, Path], is_base64: bool = False) -> dict[str, str]:
    """Write the files of a form, and return its other fields.

    Parameters
    ----------
    body : file with the form
    content_type : with the boundary
    files : field name to where its file is to be written; what the client calls the file does not matter
    is_base64 : whether files of just bytes are written in base64

    Raises
    ------
    BadRequest
        For what is no form, unknown files, and fields that are there twice.
    """
    boundary = _boundary(content_type)
    if body.stat().st_size == 0:
        raise BadRequest("form: the body is empty", field="body")
    texts: dict[str, str] = {}
    with body.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for part in _parts(view, b"--" + boundary):
            if part.name in texts:
                raise _twice(part)
            texts[part.name] = "" if part.is_file else _text(view, part)
            if part.is_file:
                _write(view, part, files, is_base64=is_base64 and part.is_binary)
    return texts


def fields(body: bytes, content_type: str, *, is_base64: bool = False) -> dict[str, bytes]:
    """Return the fields of a small form that is in memory.

    Parameters
    ----------
    body : the form
    content_type : with the boundary
    is_base64 : as in :func:`unpack`

    Raises
    ------
    BadRequest
        For what is no form, fields that are there twice, and what is no base64.
    """
    found: dict[str, bytes] = {}
    for part in _parts(body, b"--" + _boundary(content_type)):
        if part.name in found:
            raise _twice(part)
        content = body[part.start : part.stop]
        found[part.name] = b"".join(from_base64([content])) if is_base64 and part.is_binary else content
    return found


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not re.fullmatch(r"[ -~]{1,70}", boundary):
        raise BadRequest("Content-Type: a form needs a boundary of 1 to 70 characters", field="Content-Type")
    return boundary.encode()


def _twice(part: FormField) -> BadRequest:
    return BadRequest(f"form: {part.name[:40]!r} is there twice; send it once", field=part.name[:40])


def _parts(view: mmap.mmap | bytes, line: bytes) -> Iterator[FormField]:
    """Give the fields between the lines that separate them."""
    if view[: len(line)] != line:
        raise BadRequest("form: it does not start with the boundary of its Content-Type", field="body")
    at = len(line)
    for _ in range(MAX_PARTS):
        if view[at : at + 2] == b"--":
            return
        stop, head = view.find(b"\r\n" + line, at), view.find(b"\r\n\r\n", at, at + _MAX_HEADERS)
        if head < 0 or stop < head + 2:
            raise BadRequest("form: a field has no end or no header; send it whole", field="body")
        yield _part(view[at:head], head + 4, max(stop, head + 4))
        at = stop + 2 + len(line)
    raise BadRequest(f"form: more than {MAX_PARTS} fields", field="body")


def _part(headers: bytes, start: int, stop: int) -> FormField:
    said, kind = Message(), ""
    for text in headers.decode("utf-8", errors="replace").split("\r\n"):
        key, _, value = text.partition(":")
        if key.lower() == "content-disposition":
            said["Content-Disposition"] = value.strip()
        elif key.lower() == "content-type":
            kind = value.strip().lower()
    name = said.get_param("name", header="Content-Disposition")
    if not isinstance(name, str) or not name:
        raise BadRequest("form: a field has no name", field="body")
    is_file = said.get_param("filename", header="Content-Disposition") is not None
    return FormField(name=name, is_file=is_file, is_binary=is_file and kind == _BYTES, start=start, stop=stop)


def _text(view: mmap.mmap, part: FormField) -> str:
    if part.stop - part.start > _MAX_TEXT:
        raise BadRequest(f"form: {part.name[:40]!r} has more than {_MAX_TEXT} bytes", field=part.name[:40])
    return view[part.start : part.stop].decode("utf-8", errors="replace")


def _write(view: mmap.mmap, part: FormField, files: Mapping[str, Path], *, is_base64: bool) -> None:
    if part.name not in files:
        raise BadRequest(f"form: {part.name[:40]!r} is not known; files are {', '.join(files)}", field=part.name[:40])
    pieces = (view[low : min(low + _STEP, part.stop)] for low in range(part.start, part.stop, _STEP))
    with files[part.name].open("xb") as file:
        file.writelines(from_base64(pieces) if is_base64 else pieces)


def from_base64(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decode base64, in lines or not, piece by piece.

    Raises
    ------
    BadRequest
        For what is none.
    """
    left = b""
    try:
        for piece in pieces:
            left += piece.translate(None, b"\r\n")
            stop = max(0, len(left) - 1) // 4 * 4  # the last four may be its end
            quads, left = left[:stop], left[stop:]
            # What has an end in front of more is refused as such.
            yield binascii.a2b_base64(quads + left if quads.endswith(b"=") else quads, strict_mode=True)
        yield binascii.a2b_base64(left, strict_mode=True)
    except binascii.Error as error:
        raise BadRequest(f"body: this is no base64 ({error}); send files as they are", field="body") from error

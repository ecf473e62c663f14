"""What a file is, told by its first bytes: a ROOT file, or something else that goes by such a name."""

from __future__ import annotations

LENGTH = 64  # bytes that are looked at

_VERSION = b"\0"  # the first byte of it, of four that follow the word; no text has one

# First bytes, in lower case, to what such files are, and what can be done.
_KNOWN = (
    (b"\x1f\x8b", "a gzip archive", "unpack it with gunzip"),
    (b"\xfd7zxz", "an xz archive", "unpack it with xz -d"),
    (b"(\xb5/\xfd", "a zstd archive", "unpack it with zstd -d"),
    (b"bzh", "a bzip2 archive", "unpack it with bunzip2"),
    (b"pk\x03\x04", "a zip archive", "unpack it with unzip"),
    (b"\x89hdf", "an HDF5 file", "convert it"),
    (b"par1", "a Parquet file", "convert it"),
    (b"version https://git-lfs", "a pointer of Git LFS", "get the file itself with git lfs pull"),
    (b"<!doctype html", "a web page, as servers send for a login or an error", "log in, or check the address"),
    (b"<html", "a web page, as servers send for a login or an error", "log in, or check the address"),
    (b"<?xml", "an XML document, as servers send for an error", "log in, or check the address"),
)


def why_not_root(head: bytes) -> str:
    r"""Say why a file is no ROOT file, and what can be done; empty if it begins as one.

    Parameters
    ----------
    head : the first :data:`LENGTH` bytes, fewer where it ends

    Examples
    --------
    >>> why_not_root(b"")
    'the file is empty; replace or remove the file'
    >>> why_not_root(b"root\0\1"), why_not_root(b"root:x:0:0")[:22]
    ('', 'this is not a ROOT fil')
    """
    if not head:
        return "the file is empty; replace or remove the file"
    if head.startswith(b"root") and head[4:5] in (b"", _VERSION):
        return ""
    start = head.lower().lstrip(b"\xef\xbb\xbf \t\r\n")
    for first, kind, remedy in _KNOWN:
        if start.startswith(first):
            return f"this is not a ROOT file but {kind} ({remedy}); replace or remove the file"
    return "this is not a ROOT file; replace or remove the file"

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
    (b"par1", "a Parquet file", "let its name end in .parquet"),
    (b"arrow1", "an Arrow file", "let its name end in .arrow"),
    (b"fea1", "a Feather file of version 1", "write it anew as version 2"),
    (b"root\0", "a ROOT file", "let its name end in .root"),
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
    # A text may begin with "root", too: the version that follows begins with a zero.
    return why_not(head, "ROOT", b"root" + _VERSION if len(head) > 4 else b"root")


def why_not(head: bytes, kind: str, start: bytes) -> str:
    """Say why a file is none of a kind, and what can be done; empty if it begins as one.

    Parameters
    ----------
    head : the first :data:`LENGTH` bytes, fewer where it ends
    kind : of files
    start : what they begin with; empty where that may be anything
    """
    if not head:
        return "the file is empty; replace or remove the file"
    if start and head.startswith(start):
        return ""
    a = "an" if kind[0] in "AEIO" else "a"
    text = head.lower().lstrip(b"\xef\xbb\xbf \t\r\n")
    for first, other, remedy in _KNOWN:
        if text.startswith(first):
            return f"this is not {a} {kind} file but {other} ({remedy}); replace or remove the file"
    return f"this is not {a} {kind} file; replace or remove the file" if start else ""

"""The bytes of a file that is no ROOT file, here or on a server, as a file object for the library that decodes it."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import weakref
from typing import Any

from rootdata.io.files import state_of_open
from rootdata.io.local import ByteSource, LocalSource
from rootdata.io.remote import RemoteSource
from rootdata.io.retry import PlaceError
from rootdata.location import State, is_remote

ENDS = 65_536  # bytes at both ends of a file, which tell it from others


class _RemoteBytes(RemoteSource):
    """The bytes of a remote file of any kind, in few large requests."""

    def why_not(self, head: bytes) -> str:  # noqa: ARG002 - whoever knows the format looks at its head
        return ""


class Content:
    """The bytes of a file.

    Parameters
    ----------
    place : path of a regular file, or address

    Raises
    ------
    FileError
        For a place that is no file.
    OSError
        Where it can't be opened.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.source: ByteSource
        self._remote: _RemoteBytes | None = None
        if is_remote(place):
            self.source = self._remote = _RemoteBytes(place)
            self.state, self.size = self._remote.state, self._remote.num_bytes
            if not self.size:
                self.close()
                raise PlaceError(f"{place}: the server does not say how long the file is; copy it, and read the copy")
            return
        handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # what is no file might never open
        self._end = weakref.finalize(self, os.close, handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            self.close()
            raise PlaceError(f"{place} can't be opened, it is no regular file; name a file")
        self.source = LocalSource(handle)
        self.state = state_of_open(handle)
        self.size = self.state.size

    state: State

    def reader(self) -> ContentReader:
        """Return a file object with a place of its own; libraries may read ahead in threads."""
        return ContentReader(self)

    @property
    def is_remote(self) -> bool:
        """Whether each request costs."""
        return self._remote is not None

    def mark(self) -> str:
        """Return a hash of both ends: what a file says of itself, and where its data lie, stands there."""
        hashed = hashlib.sha256(str(self.size).encode())
        size = min(ENDS, self.size)
        for at in (0, self.size - size):
            hashed.update(self.source.fetch(at, size))
        return hashed.hexdigest()[:32]

    def fetch(self, at: int, size: int) -> bytes:
        """Return bytes from some place on, fewer at the end."""
        at = min(at, self.size)
        return bytes(self.source.fetch(at, min(size, self.size - at)))

    def close(self) -> None:
        """Close the file."""
        if self._remote is not None:
            self._remote.__exit__(None, None, None)
        else:
            if isinstance(getattr(self, "source", None), LocalSource):
                self.source.forget()  # type: ignore[attr-defined]
            self._end()


class ContentReader(io.RawIOBase):
    """Bytes to be read from any place; closing it closes nothing else.

    Parameters
    ----------
    content : of the file
    """

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read from any place."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._content.size}[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, out: Any, /) -> int:
        """Read from the place on; fewer bytes at the end."""
        view = memoryview(out)
        size = max(0, min(len(view), self._content.size - self._at))
        view[:size] = self._content.source.fetch(self._at, size)
        self._at += size
        return size

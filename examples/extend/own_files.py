"""A storage protocol of one's own: ``shelf://2026/a.root`` is a file below the folder ``$SHELF``.

Make it known by ``fsspec.register_implementation("shelf", "own_files.Shelf")``.
"""

import os
from pathlib import Path
from typing import Any

from fsspec.spec import AbstractFileSystem


class Shelf(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Lists and opens; fsspec makes patterns and reads of parts of it."""

    protocol = "shelf"

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder, or tell of a file."""
        name = self._strip_protocol(path).strip("/")
        place = self._place(name)
        files = {f"{name}/{p.name}".strip("/"): p for p in place.iterdir()} if place.is_dir() else {name: place}
        return [self._about(name, place) for name, place in sorted(files.items())] if detail else sorted(files)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return self._place(self._strip_protocol(path).strip("/")).open(mode)

    @staticmethod
    def _place(name: str) -> Path:
        return Path(os.environ["SHELF"], name)

    @staticmethod
    def _about(name: str, place: Path) -> dict[str, Any]:
        status = place.stat()  # raises FileNotFoundError, which is told
        kind = "directory" if place.is_dir() else "file"
        return {"name": name, "type": kind, "size": status.st_size, "mtime": status.st_mtime}

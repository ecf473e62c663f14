"""Bundles to archives, on disk."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootdata.bundle.manifest import BUNDLE_FILES, MODEL
from serve.client.errors import InvalidInput

FILES = (*BUNDLE_FILES, "labels.txt", "sample.json")


@contextmanager
def packed(source: Path) -> Iterator[Path]:
    """Give an archive of the folder of a bundle; a file, a graph or an archive, is given as it is.

    Raises
    ------
    InvalidInput
        For a path that is neither.
    """
    if source.is_file():
        yield source
        return
    files = {name: source / name for name in FILES if (source / name).is_file()}
    if MODEL not in files:
        raise InvalidInput(f"{source}: expected the folder of a bundle (with {MODEL}), an .onnx file or an archive")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "bundle.tar"
        # Weights hardly compress: it would take most of the time of an upload, at both ends, to save a twelfth of it.
        with tarfile.open(archive, "w") as tar:
            for name, path in files.items():
                tar.add(path, name, recursive=False)
        yield archive

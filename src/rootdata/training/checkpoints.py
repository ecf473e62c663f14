"""Checkpoints that are whole: on disk under another name before they take the one that they are looked for by."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from rootdata import disk
from rootdata.errors import FileError

_Base: Any = TorchCheckpointIO
if importlib.util.find_spec("lightning") is not None and not TYPE_CHECKING:
    # The two distributions of Lightning do not know each other's classes; a child of both works in both trainers.
    from lightning.pytorch.plugins.io import TorchCheckpointIO as Other

    _Base = type("_Base", (TorchCheckpointIO, Other), {})


class AtomicCheckpointIO(_Base):  # type: ignore[misc]
    """Write a checkpoint beside its place, bring it to disk, and rename it: ``Trainer(plugins=AtomicCheckpointIO())``.

    Lightning writes into the folder for temporary files and copies from there where that is another file system: a
    full disk, or a kill, then leaves half a file in the place of the checkpoint that was there. What is no local path
    (``s3://...``) is left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save; where that fails, what was there stays.

        Parameters
        ----------
        checkpoint : what Lightning saves; anything that ``torch.save`` takes
        path : of the file; a URL is left to Lightning
        storage_options : of Lightning's own way of saving, which is taken where there are any

        Raises
        ------
        FileError
            Where the file can't be written.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with disk.writing(Path(path)) as file:
                torch.save(checkpoint, file)
        except Exception as error:
            # What torch says of a disk that is full is a consequence: it goes on writing.
            cause = _system_error(error)
            if cause is None:
                raise
            raise FileError(
                f"checkpoint {path} can't be written ({cause.strerror}); the ones before are whole; make room or "
                "choose another place, and go on from the last"
            ) from error


def _system_error(error: BaseException | None) -> OSError | None:
    """Find what the system said first in a chain of errors."""
    found = None
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            found = error
        error = error.__cause__ or error.__context__
    return found

"""A table of metrics that is whole at every moment."""

from __future__ import annotations

import csv
import io
import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as lightning_loggers
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]
from pytorch_lightning.utilities import rank_zero_only

from rootdata import disk


class CSVLogger(lightning_loggers.CSVLogger):
    """Write ``metrics.csv`` and ``hparams.yaml`` as Lightning's logger does, but never half of a line or a file.

    Lightning empties both files before it writes them anew, the latter every few steps: a kill, or a full disk, in
    between leaves nothing of what was there.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the two files."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _TableWriter(self.log_dir)
        return self._experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left; where that fails after another error, that other error is the one that is raised."""
        try:
            super().finalize(status)
        except OSError as error:
            if status == "success":
                raise
            warnings.warn(f"the last metrics can't be written ({error})", stacklevel=2)


class _TableWriter(ExperimentWriter):
    """Rows are added to the table; a table with more columns, and the parameters, take the place of the old ones."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._table = Path(self.metrics_file_path)
        self._has_parameters = False

    def log_hparams(self, params: dict[str, Any]) -> None:
        self.hparams.update(params)
        self._has_parameters = False

    def save(self) -> None:
        if not self._has_parameters:
            self._save_parameters(Path(self.log_dir, self.NAME_HPARAMS_FILE))
            self._has_parameters = True
        if self.metrics:
            self._save_metrics(self._table)
            self.metrics = []

    def _save_parameters(self, path: Path) -> None:
        with disk.making(path) as folder:
            save_hparams_to_yaml(str(folder / path.name), self.hparams)
            disk.sync(folder / path.name)
            (folder / path.name).replace(path)

    def _save_metrics(self, path: Path) -> None:
        is_there = path.is_file()
        columns = sorted({*self.metrics_keys, *(key for row in self.metrics for key in row)})
        if is_there and columns == self.metrics_keys:
            _append(path, _lines(columns, self.metrics))
            return
        before = list(csv.DictReader(path.read_text().splitlines())) if is_there else []
        disk.write_atomic(path, _lines(columns, [dict(zip(columns, columns, strict=True)), *before, *self.metrics]))
        self.metrics_keys = columns


def _lines(columns: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue()


def _append(path: Path, text: str) -> None:
    """Add lines to a file: all, or none where there is no room."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        size, data = os.fstat(handle).st_size, text.encode()
        try:
            while data:
                data = data[os.write(handle, data) :]
        except OSError as error:
            os.ftruncate(handle, size)
            error.filename = str(path)
            raise
    finally:
        os.close(handle)

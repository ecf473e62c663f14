"""Batches for XGBoost: ``QuantileDMatrix(XGBoostBatches.of(data))``, or ``ExtMemQuantileDMatrix`` with a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rootdata.errors import LibraryError
from rootdata.frameworks.batches import Batches, Rows

try:
    import xgboost
except ImportError as error:
    raise LibraryError.of("xgboost", error, install="rootdata[trees]") from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


PAGE = 32_768  # events that lie together on disk; for each of many small pages the trees would keep a memory of its own


class XGBoostBatches(xgboost.DataIter):  # type: ignore[misc] # its types are not looked into
    """Rows, labels and weights, as XGBoost reads them: several times from the start, as it makes its bins.

    Parameters
    ----------
    read : begins anew, and yields rows (n, columns), labels and weights of batches
    folder : of what ``ExtMemQuantileDMatrix`` keeps on disk; None for nothing
    """

    def __init__(self, read: Callable[[], Iterator[Rows]], *, folder: Path | None = None) -> None:
        super().__init__(cache_prefix=None if folder is None else str(folder / "bins"))
        self._read, self._folder = read, folder
        self._batches: Iterator[Rows] = iter(())

    @classmethod
    def of(
        cls, data: RootDataModule, part: str = "train", *, missing: float = np.nan, folder: Path | None = None
    ) -> XGBoostBatches:
        """Wrap one part of a data module of the vector layout.

        Parameters
        ----------
        data : not scaled, as trees need no scaling
        part : ``train``, ``val`` or ``test``; training events come once each, in file order
        missing : takes the place of what is missing; a number below all others, said to XGBoost as no value, keeps its
            bins at a byte each
        folder : as for the class
        """
        source = Batches(data, part, ordered=True)
        return cls(lambda: source.rows(missing=missing), folder=folder)

    def reset(self) -> None:
        """Begin anew."""
        self._batches = self._read() if self._folder is None else _pages(self._read())

    def next(self, input_data: Any) -> bool:
        """Hand over a batch, or a page of several with a folder; False at the end."""
        found = next(self._batches, None)
        if found is not None:
            rows, label, weight = found
            input_data(data=rows, label=label, weight=weight)
        return found is not None


def _pages(batches: Iterator[Rows]) -> Iterator[Rows]:
    """Join batches until a page is full."""
    parts: list[Rows] = []
    for rows in batches:
        parts.append(rows)
        if sum(len(label) for _, label, _ in parts) >= PAGE:
            yield _joined(parts)
            parts = []
    if parts:
        yield _joined(parts)


def _joined(parts: list[Rows]) -> Rows:
    x, label, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return x, label, weight

"""Batches for LightGBM: ``Dataset(LightGBMRows(...), label=..., weight=...)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rootdata.errors import ConfigError, LibraryError
from rootdata.frameworks.batches import Array, Batches, Rows

try:
    import lightgbm
except ImportError as error:
    raise LibraryError.of("lightgbm", error, install="rootdata[trees]") from error

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule


class LightGBMRows(lightgbm.Sequence):  # type: ignore[misc] # its types are not looked into
    """Rows as LightGBM reads them: it asks for them by number, those of each pass in rising order.

    Parameters
    ----------
    read : begins anew, and yields rows (n, columns), labels and weights of batches
    num_events : that it yields
    """

    batch_size = 4096

    def __init__(self, read: Callable[[], Iterator[Rows]], num_events: int) -> None:
        self._read, self._num_events = read, num_events
        self._begin()

    def _begin(self) -> None:
        self._batches, self._start, self._rows = self._read(), 0, np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return self._num_events

    def __getitem__(self, which: int | slice | list[int]) -> Array:
        if isinstance(which, slice):
            at, stop, step = which.indices(len(self))
            if step != 1 or at >= stop:
                return self[list(range(at, stop, step))]
            parts = []
            while at < stop:
                here = self._from(at)[: stop - at]
                parts.append(here)
                at += len(here)
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        if isinstance(which, list):
            return np.stack([self[i] for i in which]) if which else self._from(0)[:0]
        row: Array = self._from(range(len(self))[which])[0]  # IndexError where there is none
        return row.astype(np.float64)  # a sample, of which bins are made

    def _from(self, row: int) -> Array:
        """Return the rows of the batch that holds a row, from there on."""
        if row < self._start:
            self._begin()
        while row >= self._start + len(self._rows):
            self._start += len(self._rows)
            self._rows = next(self._batches)[0]
        return self._rows[row - self._start :]


def dataset(data: RootDataModule, part: str = "train", *, reference: Any = None, **options: Any) -> Any:
    """Make a ``lightgbm.Dataset`` of one part of a data module of the vector layout; training events once each.

    Parameters
    ----------
    data : not scaled, as trees need no scaling
    part : ``train``, ``val`` or ``test``
    reference : the data set of the training events, of which the bins are taken, for another part
    options : more arguments of ``lightgbm.Dataset``

    Raises
    ------
    ConfigError
        For several targets, and another layout.
    DataError
        As :class:`rootdata.frameworks.batches.Batches`.
    """
    source = Batches(data, part, ordered=True)
    label, weight = labels_of(source.rows, source.num_events)
    rows = LightGBMRows(source.rows, source.num_events)
    return lightgbm.Dataset(rows, label=label, weight=weight, reference=reference, **options)


def labels_of(read: Callable[[], Iterator[Rows]], num_events: int) -> tuple[Array, Array]:
    """Read labels and weights of all events, (n,) float32 each."""
    label = np.empty(num_events, np.float32)
    weight, at = np.empty_like(label), 0
    for rows, labels, weights in read():
        if labels.ndim > 1:
            raise ConfigError(
                f"targets: got {labels.shape[1]}; LightGBM learns one number of an event; make a model of each"
            )
        here = slice(at, at := at + len(rows))
        label[here], weight[here] = labels, weights
    return label, weight

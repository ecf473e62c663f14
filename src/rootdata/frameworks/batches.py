"""The batches of one part as numpy arrays: what every other framework is fed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ConfigError, DataError
from rootdata.loading.stream import shares_of
from rootdata.options.data import TARGETS

if TYPE_CHECKING:
    from rootdata.loading.datamodule import RootDataModule
    from rootdata.loading.dataset import RootDataset

Array = npt.NDArray[Any]
Inputs = dict[str, Array]
Triple = tuple[Inputs, Array, Array]
"""Input tensors by name, what is to be learnt, and the weights of the events."""

Rows = tuple[Array, Array, Array]
"""Inputs (events, columns) of the vector layout, what is to be learnt, and the weights of the events."""

TRUTHS = ("label", TARGETS)


class Batches:
    """The batches of one part, an epoch at a time: the events, order and lengths that a Lightning trainer gets.

    Iterating gives the next epoch: of training events in another order each time, of others in file order.

    Parameters
    ----------
    data : a data module, or a data set of one part
    part : ``train``, ``val`` or ``test``; of a data set that is known
    ordered : give training events as others: each once, in file order, without shuffling
    truth : what is to be learnt, ``label`` or ``targets``; by default targets where there are no labels

    Attributes
    ----------
    epoch : number of the one that comes next
    inputs : names of the input tensors
    mean_weight : mean size of the weights of training events, which weights are divided by

    Raises
    ------
    ConfigError, DataError
        For what is no data, a part without events, and a truth that the data do not have.
    """

    def __init__(
        self,
        data: RootDataModule | RootDataset,
        part: str = "train",
        *,
        ordered: bool = False,
        truth: str | None = None,
    ) -> None:
        if not hasattr(data, "dataset") and not hasattr(data, "batches"):
            raise ConfigError(
                f"data: got {type(data).__name__}; allowed: a RootDataModule(samples=..., ...), a RootDataset"
            )
        self._events: RootDataset = data.dataset(part, ordered=ordered) if hasattr(data, "dataset") else data
        self.epoch, self.inputs = 0, tuple(self._events.shapes)
        self.shapes = self._events.shapes
        self.is_shuffled = self._events.part == "train" and not ordered
        config, specs = self._events.data, self._events.specs
        self.classes = config.classes
        self._truth = _truth(truth, has_labels=any(specs.of_classes("train")[0]), has_targets=bool(config.targets))
        drawn = specs.events_of("train") if ordered else shares_of(config, specs, self._events.order)
        self.mean_weight = specs.mean_weight("train", drawn) or 1.0

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self._events)

    @property
    def num_events(self) -> int:
        """Events of an epoch."""
        return min(self._events.num_events, len(self) * self.batch_size)  # drop_last

    @property
    def batch_size(self) -> int:
        """Events of every batch but the last of an epoch, which may be smaller."""
        return self._events.order.batch_size

    def batches(self, epoch: int = 0, *, start: int = 0) -> Iterator[dict[str, Array]]:
        """Yield the batches of a given epoch, from number ``start`` on: every tensor by its name."""
        for batch in self._events.batches(epoch, start=start):
            yield {name: tensor.numpy() for name, tensor in batch.items()}

    def triples(self, epoch: int = 0, *, start: int = 0) -> Iterator[Triple]:
        """Yield inputs, truth and weights of the batches of a given epoch, from number ``start`` on.

        Weights are divided by the mean size of those of training events: a loss that averages over a batch is then that
        of the Lightning networks here, and a boosted tree's leaves are as heavy as without weights.
        """
        for batch in self.batches(epoch, start=start):
            yield self.triple(batch)

    def triple(self, batch: Mapping[str, Array]) -> Triple:
        """Return inputs, truth and weights of a batch."""
        return {name: batch[name] for name in self.inputs}, batch[self._truth], batch["weight"] / self.mean_weight

    def __iter__(self) -> Iterator[Triple]:
        """Yield inputs, truth and weights of the batches of the next epoch."""
        epoch = self.epoch
        self.epoch += 1
        return self.triples(epoch)

    def rows(self, epoch: int = 0, *, missing: float = np.nan) -> Iterator[Rows]:
        """Yield the batches of a given epoch for what knows no masks: rows, truth and weights, see :func:`rows_of`.

        A single target is one number an event, (n,), as estimators want it.
        """
        for inputs, truth, weight in self.triples(epoch):
            one = truth[:, 0] if truth.ndim == 2 and truth.shape[1] == 1 else truth
            yield rows_of(inputs, missing=missing), one, weight

    def table(self, epoch: int = 0) -> tuple[Array, Array, Array]:
        """Return all events of an epoch at once, of the vector layout: inputs (n, columns), truth, weights (n,).

        Missing values are NaN, as estimators want them that tell them apart.

        Raises
        ------
        ConfigError
            For another layout.
        """
        x, y, w = (np.concatenate(columns) for columns in zip(*self.rows(epoch), strict=True))
        return x, y, w


def rows_of(inputs: Mapping[str, Array], *, missing: float = np.nan) -> Array:
    """Return the inputs of the vector layout as one array, (events, columns), for what knows no masks.

    Parameters
    ----------
    inputs : ``x`` and ``mask``
    missing : takes the place of what is missing, or padding

    Raises
    ------
    ConfigError
        For another layout.
    """
    if set(inputs) != {"x", "mask"}:
        raise ConfigError(f"layout: got one of {', '.join(inputs)}; an event is one row in layout=vector")
    return np.where(inputs["mask"], inputs["x"], np.float32(missing))


def _truth(asked: str | None, *, has_labels: bool, has_targets: bool) -> str:
    there = {"label": has_labels, TARGETS: has_targets}
    if asked is not None and asked not in TRUTHS:
        raise ConfigError(f"truth: got {asked!r}; allowed: {', '.join(TRUTHS)}")
    if asked is not None and not there[asked]:
        raise ConfigError(f"truth: got {asked!r}, and the data have none; give samples a label, or `targets`")
    found = asked or next((name for name, is_there in there.items() if is_there), None)
    if found is None:
        raise DataError("the data have neither labels nor targets; give every sample its label, or `targets`")
    return found

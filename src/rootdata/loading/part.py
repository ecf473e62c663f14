"""The batches of one part for one rank, as arrays: what a data set of torch, or of any other framework, wraps."""

from __future__ import annotations

import functools
from collections.abc import Generator
from typing import Any

from rootdata.arena import shared
from rootdata.errors import ConfigError, DataError
from rootdata.io.store import Store
from rootdata.loading.position import identity_of
from rootdata.loading.readers import Stop
from rootdata.loading.stream import Arrays, Recipe, plan_of, share_of, slabs
from rootdata.options.parsed import Options
from rootdata.options.parts import PARTS
from rootdata.scan.scanned import Scanned


class Part:
    """The batches of one part for one rank.

    Parameters
    ----------
    scanned : what is known of the data set
    options : in which order events come, and how they are read
    name : ``train`` (shuffled, mixed by weight where asked), ``val`` or ``test`` (every event once, in file order)
    rank, world_size : take this part of every batch
    ordered : give training events as validation ones: each once, in file order, the last batch included
    balanced : weight training events as in training: balanced and reweighted
    store : where decoded blocks are kept

    Raises
    ------
    ConfigError, DataError
        Where there is nothing to give, or not enough for every rank.
    """

    def __init__(
        self,
        scanned: Scanned,
        options: Options,
        name: str,
        *,
        rank: int = 0,
        world_size: int = 1,
        ordered: bool = False,
        balanced: bool = True,
        store: Store | None = None,
    ) -> None:
        if name not in PARTS:
            raise ConfigError(f"part: got {name!r}; allowed: {', '.join(PARTS)}")
        self.scanned, self.options, self.name = scanned, options, name
        self.rank, self.world_size = rank, world_size
        self.is_training = name == "train" and not ordered
        self._store = store
        self._lender = shared()  # so that it lives from one epoch to the next
        # what can't be scaled, or drawn, is refused now
        _ = scanned.transforms, scanned.target_transforms, scanned.layout
        self._recipe = Recipe(scanned=scanned, part=PARTS.index(name), balanced=balanced, read=options.read)
        self._plan = plan_of(self._recipe, options.order, training=self.is_training, world_size=world_size)
        self._check_size()

    def _check_size(self) -> None:
        if self.num_events < self.world_size:  # said by every rank: one that went on would wait for those that do not
            raise DataError(
                f"{self.name}: got {self.num_events} events for {self.world_size} ranks, each needs one; take fewer "
                f"ranks, or a larger share for {self.name} in split"
            )
        if not len(self):
            raise DataError(
                f"drop_last: the {self.num_events} events are fewer than a batch of {self.options.order.batch_size}"
            )

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which event is the n-th of an epoch, and what of it is seen; as primitives."""
        return identity_of(self.options.data, self.options.order, self.scanned.specs)

    @property
    def has_observers(self) -> bool:
        """Whether the batches hold observers: those of training do where that was asked for."""
        return not self.is_training or self.options.data.observe_training

    @property
    def batch_size(self) -> int:
        """Events of this rank in a batch."""
        return share_of(self.options.order.batch_size, self.rank, self.world_size)

    @property
    def num_events(self) -> int:
        """Events of an epoch, over all ranks."""
        return self._plan.num_events

    def __len__(self) -> int:
        """Return the batches of an epoch for this rank: in training, of every rank."""
        whole, rest = divmod(self.num_events, self.options.order.batch_size)
        return whole + (1 if self._gives(rest) else 0)

    def _gives(self, rest: int) -> bool:
        """Say whether the last, smaller batch is given: it is not where that was asked, or a rank can't train on it."""
        if self.is_training:
            return not self.options.order.drop_last and rest >= self.world_size
        return share_of(rest, self.rank, self.world_size) > 0

    def read_amplification(self) -> float:
        """Return how often an event is read in an epoch by all ranks together."""
        return self._plan.read_amplification(self.world_size)

    def slabs(self, epoch: int, *, start: int, stop: Stop) -> Generator[Arrays, None, None]:
        """Yield the events of an epoch as arrays, several batches at a time; see :func:`rootdata.loading.stream.slabs`.

        Parameters
        ----------
        epoch : from 0; decides the order where there is shuffling
        start : number of the first batch
        stop : ends the waiting for blocks once it is set
        """
        return slabs(
            self._recipe, self._plan, epoch=epoch, start=start, rank=self.rank, world_size=self.world_size,
            drawn_by=(self.options.order.seed, epoch) if self.is_training else (), store=self._store, stop=stop,
        )  # fmt: skip

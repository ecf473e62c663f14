"""What trees of any library that boosts them have in common: rounds, and events that are kept as bins."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rootdata import disk
from rootdata.arena import give_back
from rootdata.errors import ConfigError
from rootdata.frameworks.batches import Rows
from rootdata.loading.dataset import RootDataset
from rootdata.models.estimators.estimator import Estimator, arrays_of
from rootdata.models.estimators.libraries import needed, said
from rootdata.models.estimators.rounds import Rounds
from rootdata.options import values

SMALL_DIFFERENCE = 1e-5  # of probabilities


class Boosted(Estimator):
    """Boosted trees: each round adds one, or one for each of more than two classes.

    The library reads the events as training begins and keeps them as bins, without which the memory would be that of
    all events.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : how many
    trees : rounds between two looks at the validation part, which are an epoch
    params : of the library, by its names
    threads : by default as many as torch has
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int,
        trees: int,
        params: Mapping[str, Any],
        threads: int | None,
    ) -> None:
        super().__init__(shapes, classes=classes)
        needed(self.library)
        self.trees = values.positive(trees, "model.trees")
        self.threads = torch.get_num_threads() if threads is None else values.positive(threads, "model.threads")
        self.params = dict(params)
        self._check()
        self._events: RootDataset | None = None
        self._train: Any = None
        self._held = contextlib.ExitStack()
        self._forgotten = weakref.finalize(self, self._held.close)  # however the process ends, but by kill -9

    def _check(self) -> None:
        """Let the library look at its options: one event of each class, one round.

        Raises
        ------
        ConfigError
            With what it says; where its answers are no probabilities, or others than its raw scores stand for.
        """
        label, trial = np.arange(self.classes), copy.copy(self)
        x = np.repeat(label.astype(np.float32)[:, None], self.n_inputs, axis=1)
        reason = said(lambda: trial.try_on(x, label))
        if reason:
            raise ConfigError(f"model: {self.library} refuses its options: {reason}; check model.params and the others")
        given, logits = np.asarray(trial.native(x)), torch.from_numpy(np.asarray(trial.raw(x), np.float64))
        expected = logits.sigmoid() if self.classes == 2 else logits.reshape(len(x), -1).softmax(dim=1)
        if given.shape != expected.shape or not np.allclose(given, expected.numpy(), atol=SMALL_DIFFERENCE):
            raise ConfigError(
                f"model.params: {self.library} gives no probabilities of classes with these, by which it is tested and "
                f"served; leave the objective, and what bends its answers, as they are (got {self.params})"
            )

    def epoch_of(self, events: RootDataset) -> Rounds:
        """Say what an epoch is made of."""
        self._events = events
        return Rounds(events, self.trees)

    def read(self) -> Iterator[Rows]:
        """Yield the training events in batches, the same ones in the same order each time."""
        if self._events is None:
            raise ConfigError(
                f"{type(self).__name__} reads the training events by itself; give the trainer a RootDataModule"
            )
        batches = arrays_of(self._events, mean_weight=self.mean_weight)
        return ((batch["x"], batch["label"], batch["weight"]) for batch in batches)

    @property
    def num_events(self) -> int:
        """Training events that :meth:`read` yields."""
        events = self._events
        return 0 if events is None else min(events.num_events, len(events) * events.order.batch_size)

    def place(self) -> Path:
        """Make a folder for what is kept on disk while it trains, beside the outputs."""
        return self._held.enter_context(disk.making(Path(self.trainer.default_root_dir, "bins")))

    def learn(self, batch: Any) -> None:  # noqa: ARG002
        """Do one round; with the first one the events are read."""
        number = self.trainer.global_step - 1  # this one is counted; epochs may be limited to fewer than their rounds
        if self._train is None:
            self._train = self.binned()
            give_back()  # of what the bins were made of
            self.begin(self._train, number)
        self.grow(number)

    def binned(self) -> Any:
        """Read the training events into the library's own form."""
        raise NotImplementedError

    def begin(self, events: Any, rounds: int) -> None:
        """Begin with no tree, or go on behind those of a checkpoint.

        Parameters
        ----------
        events : as :meth:`binned` made them
        rounds : that were done before
        """
        raise NotImplementedError

    def grow(self, number: int) -> None:
        """Do a round."""
        raise NotImplementedError

    def tried(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> Any:
        """Return trees of one round with a few events."""
        raise NotImplementedError

    def on_fit_end(self) -> None:
        """Forget the bins."""
        self._forget()

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Forget the bins."""
        self._forget()

    def _forget(self) -> None:
        self._train = None
        self._held.close()

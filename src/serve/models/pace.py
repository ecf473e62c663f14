"""Long work in slices: how many events go through a model before a worker looks at what else has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import numpy.typing as npt

from rootdata.bundle.assemble import Tensors
from rootdata.table import Table, cut
from serve.models.session import SLICE, Model

Outputs = list[npt.NDArray[Any]]
Content = TypeVar("Content", bound=Table | Tensors)

_FIRST = 128  # events of the first slice of a model that takes several at a time
_STEP = 0.03  # s that a slice may take


class Pace:
    """The number of events of the next slice: as many as are likely to take :data:`_STEP`.

    Parameters
    ----------
    model : whose events they are
    """

    def __init__(self, model: Model) -> None:
        self._least = 1 if model.runs_alone else max(1, model.manifest.fixed_batch or 1)
        self.size = 1 if model.runs_alone else self._whole(_FIRST)

    def learn(self, num_events: int, seconds: float) -> None:
        """Adapt the size to the time that a slice took."""
        fitting = int(num_events * min(2.0, _STEP / max(seconds, 1e-6)))
        self.size = self._whole(min(SLICE, max(fitting, self.size) if seconds < _STEP else fitting))

    def _whole(self, size: int) -> int:
        """Round down to a multiple of what the graph takes at a time, since the rest would be filled up."""
        return max(1, size // self._least) * self._least


def length(content: Table | Tensors, model: Model) -> int:
    """Count the events of what a graph is run on; what has no axis of events can't be cut, and counts as one."""
    if isinstance(content, Table):
        return content.num_events
    return 1 if model.runs_alone else len(next(iter(content.values())))


def run_in_slices(
    contents: Iterable[Content], model: Model, run: Callable[[Content, int], Outputs]
) -> Iterator[tuple[Content, Outputs]]:
    """Run a model on a few events at a time.

    Parameters
    ----------
    contents : one after the other; each is run at least once, as there may be no events at all
    model : says whether its graph takes several events at a time, and how many
    run : takes some events and the number of the first

    Returns
    -------
    some events and the outputs for them, again and again
    """
    pace, first = Pace(model), 0
    for content in contents:
        low, stop = 0, length(content, model)
        while low < max(1, stop):
            high = min(low + pace.size, stop)
            part = content if (low, high) == (0, stop) else _cut(content, low, high)
            started = time.perf_counter()
            outputs = run(part, first + low)
            pace.learn(high - low, time.perf_counter() - started)
            yield part, outputs
            low = max(high, 1)
        first += stop


def _cut(content: Content, low: int, high: int) -> Content:
    if isinstance(content, Table):
        return cast("Content", cut(content, low, high))
    return cast("Content", {name: values[low:high] for name, values in content.items()})

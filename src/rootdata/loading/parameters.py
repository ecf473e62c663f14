"""Parameters of a network, such as a mass hypothesis: drawn for the events that have none of their own.

Baldi, Cranmer, Faucett, Sadowski, Whiteson, "Parameterized neural networks for high-energy physics", arXiv:1601.07913.
What is drawn follows from the event (its file's name, tree and entry), the seed and the epoch alone: not from who reads
it, in which order, or after which interruption.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from rootdata.events.selection import Events
from rootdata.events.split import uniform
from rootdata.jagged import Ints
from rootdata.layouts.packed import Packed
from rootdata.loading.readers import Reader
from rootdata.location import Location
from rootdata.scan.scanned import Scanned

Singles = npt.NDArray[np.float32]


def draw(
    choices: Mapping[str, Singles], location: Location, entry: Ints, *, drawn_by: tuple[int, ...]
) -> dict[str, Singles]:
    """Draw a value of every parameter for some events of a file.

    Parameters
    ----------
    choices : of each parameter, the values that are as likely
    location : of the file
    entry : (n,)
    drawn_by : seed and epoch; nothing where every epoch is to be the same, as in validation
    """
    return {
        name: values[(uniform(entry, location, what=f"parameter {name} {drawn_by}") * len(values)).astype(np.int64)]
        for name, values in choices.items()
    }


def with_parameters(
    reader: Reader[Packed], scanned: Scanned, locate: Callable[[int], Location], drawn_by: tuple[int, ...]
) -> Reader[Packed]:
    """Let a reader of blocks draw the parameters of events that have none; itself where there are no parameters.

    Parameters
    ----------
    reader : of packed blocks, by number
    scanned : what is known of the data set
    locate : says in which file a block lies
    drawn_by : as in :func:`draw`
    """
    return _Drawing(reader, scanned, locate, drawn_by) if scanned.config.parameters else reader


class _Drawing:
    """Reads blocks, and puts values into copies of them: a store may keep what was read."""

    def __init__(
        self, reader: Reader[Packed], scanned: Scanned, locate: Callable[[int], Location], drawn_by: tuple[int, ...]
    ) -> None:
        self._reader, self._locate, self._drawn_by = reader, locate, drawn_by
        self._places = {p.name: scanned.layout.flat.index(p.name) for p in scanned.config.parameters}
        self._choices = {}
        for name, values in scanned.choices.items():  # scaled, as a block is
            self._choices[name] = np.empty_like(values)
            scanned.transforms[name].apply(values, self._choices[name])

    def __call__(self, number: int) -> Packed:
        packed = self._reader(number)
        flat = packed.flat.copy()
        for name, values in draw(self._choices, self._locate(number), packed.entry, drawn_by=self._drawn_by).items():
            column = flat[:, self._places[name]]
            column[:] = np.where(np.isnan(column), values, column)
        return dataclasses.replace(packed, flat=flat)

    def close(self) -> None:
        self._reader.close()


def drawn_columns(events: Events, location: Location, scanned: Scanned) -> dict[str, Singles]:
    """Return the parameters of the selected events of a block, (n,) each, unscaled, drawn as in validation.

    Parameters
    ----------
    events : selected
    location : of their file
    scanned : what is known of the data set
    """
    if not scanned.config.parameters:
        return {}
    found = draw(scanned.choices, location, events.entry, drawn_by=())
    own = {name: np.asarray(events.flat[name], np.float32) for name in found}
    return {name: np.where(np.isnan(own[name]), values, own[name]) for name, values in found.items()}

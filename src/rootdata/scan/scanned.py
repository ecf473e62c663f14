"""A data set that was scanned: its specs, and what follows from them for every part and every rank, made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from rootdata import cache_folder
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.layouts.grid import grids
from rootdata.layouts.layout import Layout, Padded, kept_fraction
from rootdata.options.data import DataConfig
from rootdata.scaling.fit import fit
from rootdata.scaling.transform import Transform
from rootdata.scan.specs import Specs

AUTO_KEEPS = 0.999  # of all objects; what length="auto" promises


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scanned:
    """What is known of a data set.

    Parameters
    ----------
    config : what an event is
    specs : what the first pass learnt
    """

    config: DataConfig
    specs: Specs

    @functools.cached_property
    def layout(self) -> Layout:
        """Where every number of an event goes."""
        return layout_of(self.config, self.specs)

    @functools.cached_property
    def transforms(self) -> Mapping[str, Transform]:
        """The fitted scaling of every feature.

        Raises
        ------
        DataError
            For a feature that is constant or missing everywhere.
        """
        return transforms_of(self.config, self.specs)

    @functools.cached_property
    def baskets(self) -> BasketIndex:
        """Where the baskets of files lie that were opened before."""
        return BasketIndex.load(cache_folder.baskets_path(self.specs.fingerprint))


def layout_of(config: DataConfig, specs: Specs) -> Layout:
    """Decide the lengths and the grids, and with them where every number goes.

    An image is no larger for more objects, so that it keeps all that the training events have.

    Raises
    ------
    DataError
        As :func:`rootdata.layouts.grid.grids`.
    """
    drawn = grids(config.images, lambda column: (specs.columns[column].low, specs.columns[column].high))
    collections = tuple(
        Padded(
            name=c.name,
            branches=c.branches,
            length=_length(c.length, specs.multiplicity[c.name], keeps=1.0 if c.name in drawn else AUTO_KEEPS),
            form=config.form_of(c),
            grid=drawn.get(c.name),
        )
        for c in config.jagged
    )
    return Layout(kind=config.layout, flat=specs.flat, collections=collections, pad=config.pad)


def _length(asked: int | str, histogram: Sequence[int], *, keeps: float) -> int:
    if isinstance(asked, int):
        return asked
    longest = max((m for m, n in enumerate(histogram) if n), default=0)
    fits = (m for m in range(1, longest + 1) if kept_fraction(histogram, m) >= keeps)
    return next(fits, max(1, longest))


def transforms_of(config: DataConfig, specs: Specs) -> dict[str, Transform]:
    """Fit the scaling of every feature; see :func:`rootdata.scaling.fit.fit` for what is refused.

    What is nothing but an axis of an image stays as it is.
    """
    names = dict.fromkeys((*specs.flat, *(b for c in config.jagged for b in c.branches)))
    unscaled = config.coordinates
    return {
        name: Transform() if name in unscaled else fit(name, config.scaling_of(name), specs.columns[name])
        for name in names
    }

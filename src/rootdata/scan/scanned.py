"""A data set that was scanned: its specs, and what follows from them for every part and every rank, made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rootdata import cache_folder
from rootdata.errors import ConfigError, DataError
from rootdata.events.statistics import ColumnStats
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.layouts.grid import grids
from rootdata.layouts.layout import Layout, Padded, kept_fraction
from rootdata.options.columns import Parameter, TargetColumn
from rootdata.options.data import DataConfig
from rootdata.scaling.fit import fit
from rootdata.scaling.transform import Transform
from rootdata.scan.specs import Specs

Singles = npt.NDArray[np.float32]

DRAWN_LEVELS = 4096  # of the distribution that a parameter is drawn from
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

    def edges(self, bins: int) -> dict[str, Singles]:
        """Return edges of quantile bins for every input tensor; see :meth:`rootdata.RootDataModule.edges`.

        Raises
        ------
        ConfigError
            Where the first pass kept no quantiles.
        """
        shares = np.linspace(0.0, 1.0, bins + 1)
        found = {name: self._edges_of(name, shares) for name in self.transforms}
        return self.layout.arranged(found)

    def _edges_of(self, feature: str, shares: npt.NDArray[np.float64]) -> Singles:
        stats = self.specs.columns[feature]
        if stats.quantiles is None:
            raise ConfigError("quantiles: got false; the network encodes by quantiles of the features; set it to true")
        if not stats.count:
            return np.zeros(len(shares), np.float32)
        edges = np.array([stats.quantiles.at(share) for share in shares])
        scaled = np.empty(len(edges), np.float32)
        self.transforms[feature].apply(edges, scaled)
        return scaled

    @functools.cached_property
    def target_transforms(self) -> Mapping[str, Transform]:
        """The fitted scaling of every target, in their order.

        Raises
        ------
        DataError
            For a target that is constant.
        """
        return {t.name: _of_target(t, self.specs.targets[t.name]) for t in self.config.targets}

    @functools.cached_property
    def choices(self) -> Mapping[str, Singles]:
        """The values that each parameter is drawn from, each as likely, unscaled.

        Raises
        ------
        DataError
            Where no training event has a value.
        """
        return {p.name: _choices(p, self.specs.columns[p.name]) for p in self.config.parameters}

    @functools.cached_property
    def baskets(self) -> BasketIndex:
        """Where the baskets of files lie that were opened before."""
        return BasketIndex.load(cache_folder.baskets_path(self.specs.fingerprint))


def _choices(parameter: Parameter, stats: ColumnStats) -> Singles:
    if parameter.values:
        return np.array(parameter.values, np.float32)
    if stats.quantiles is None or not stats.quantiles.count:
        raise DataError(
            f"parameters.{parameter.name}: none of the training events has a value to draw from; check its classes, or "
            f"give parameters.{parameter.name}.values"
        )
    return np.array([stats.quantiles.at((i + 0.5) / DRAWN_LEVELS) for i in range(DRAWN_LEVELS)], np.float32)


def check_elements(config: DataConfig, specs: Specs) -> None:
    """Refuse options of elements that a branch does not have, which is known once its width is.

    Raises
    ------
    ConfigError
    """
    features = _features(config, specs)
    known = {"default", *config.features, *features}
    for option in ("scale", "clip", "pad"):
        table = getattr(config, option)
        wrong = next((k for k in table if k not in known), None) if isinstance(table, Mapping) else None
        if wrong is None:
            continue
        branch = wrong.rpartition("[")[0]
        width = sum(name.rpartition("[")[0] == branch for name in features)
        allowed = f"{branch}[0] to {branch}[{width - 1}], or {branch} for all of them" if width else branch
        has = f"{width} numbers an event" if width else "no elements"
        raise ConfigError(f"{option}.{wrong}: {branch!r} has {has}; allowed: {allowed}")


def _of_target(target: TargetColumn, stats: ColumnStats) -> Transform:
    where = f"targets.{target.name}: {target.value!r}"
    if stats.count and stats.low == stats.high:
        raise DataError(
            f"{where} is constant ({stats.low:g}) in the {stats.count:,} training events; a network has nothing to "
            "learn of it: leave it out, or check the expression and the cuts"
        )
    try:
        return fit(target.name, target.scale, stats)
    except DataError as error:
        raise DataError(f"{where} can't be scaled: {error}") from error


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
            keeps_all=config.keeps_all(c),
        )
        for c in config.jagged
    )
    pads = {name: pad for name in _features(config, specs) if (pad := config.pad_of(name))}  # others are 0
    return Layout(kind=config.layout, flat=specs.flat, collections=collections, pads=pads)


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
    unscaled = config.coordinates
    return {
        name: Transform()
        if name in unscaled
        else fit(name, config.scaling_of(name), specs.columns[name], clip=config.clip_of(name))
        for name in _features(config, specs)
    }


def _features(config: DataConfig, specs: Specs) -> list[str]:
    """List every feature once, fixed-size branches expanded."""
    return list(dict.fromkeys((*specs.flat, *(b for c in config.jagged for b in c.branches))))

"""The scalings that are built in: where the middle of a column lies, and how wide it is."""

from __future__ import annotations

import statistics
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from rootdata.errors import DataError
from rootdata.events.quantiles import Quantiles
from rootdata.events.statistics import ColumnStats, Moments
from rootdata.scaling.curves import SIGNED_LOG, Curve, Segments

KNOTS = 128  # segments of a learnt distribution
TAIL = 0.0005  # share of the values on either side that a normal distribution is cut off at


class ScalingKind(Protocol):
    """A way to scale columns, ``(curve(x) - shift) / width``, of which shift and width are learnt.

    Attributes
    ----------
    curve : bends the values first; ``None`` leaves them as they are
    needs_quantiles : whether it asks the first pass for quantiles
    is_learnt : whether anything is learnt at all

    A kind may learn its curve, too: one with a method ``learn_curve(stats)`` has that of its column. The first pass
    knows nothing of it, so that ``curve`` is ``None`` then.
    """

    curve: Curve | None
    needs_quantiles: bool
    is_learnt: bool

    def location(self, stats: ColumnStats) -> tuple[float, float]:
        """Return shift and width.

        Parameters
        ----------
        stats : of the training events; its ``curve_moments`` are those of ``curve(x)``
        """


class Standard:
    """Mean 0 and standard deviation 1."""

    curve: ClassVar[Curve | None] = None
    needs_quantiles = False
    is_learnt = True

    def location(self, stats: ColumnStats) -> tuple[float, float]:
        """Return mean and standard deviation, of what the curve makes of the values."""
        moments = stats.moments if self.curve is None else _known(stats.curve_moments)
        return moments.mean, moments.std


class Log(Standard):
    """``sign(x) log(1 + |x|)``, then mean 0 and standard deviation 1."""

    curve: ClassVar[Curve | None] = SIGNED_LOG


class MinMax(Standard):
    """From 0 to 1."""

    def location(self, stats: ColumnStats) -> tuple[float, float]:
        """Return the smallest value and the range."""
        return float(stats.low), float(stats.high) - float(stats.low)


class Robust(Standard):
    """Median 0, and quartiles 1 apart."""

    needs_quantiles = True

    def location(self, stats: ColumnStats) -> tuple[float, float]:
        """Return median and interquartile range."""
        lower, middle, upper = (_quantiles_of(stats).at(q) for q in (0.25, 0.5, 0.75))
        return middle, upper - lower


class Uniform(Standard):
    """To a uniform distribution between 0 and 1: the share of training values below a value.

    Of the distribution :data:`KNOTS` + 1 quantiles are kept; between them it is taken as uniform. Equal values get the
    middle of the shares that they cover.
    """

    needs_quantiles = True

    def location(self, stats: ColumnStats) -> tuple[float, float]:
        """Return shift 0 and width 1; width 0 for a column of one value."""
        return 0.0, float(stats.low < stats.high)

    def learn_curve(self, stats: ColumnStats) -> Curve:
        """Put straight lines through the quantiles."""
        known = _quantiles_of(stats)
        shares = np.linspace(0.0, 1.0, KNOTS + 1)
        knots, first, counts = np.unique([known.at(q) for q in shares], return_index=True, return_counts=True)
        heights = self._heights((shares[first] + shares[first + counts - 1]) / 2)
        return Segments(tuple(knots.tolist()), tuple(heights.tolist()))

    def _heights(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return shares


class Normal(Uniform):
    """To a normal distribution of mean 0 and standard deviation 1, by the quantiles; it ends at +-3.3."""

    def _heights(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        normal = statistics.NormalDist()
        return np.array([normal.inv_cdf(min(max(q, TAIL), 1.0 - TAIL)) for q in shares])


class Unscaled(Standard):
    """As it is."""

    is_learnt = False

    def location(self, stats: ColumnStats) -> tuple[float, float]:  # noqa: ARG002 - nothing is learnt
        """Return shift 0 and width 1."""
        return 0.0, 1.0


def _quantiles_of(stats: ColumnStats) -> Quantiles:
    if stats.quantiles is None:
        raise DataError("the specs hold no quantiles; scan again")
    return stats.quantiles


def _known(moments: Moments | None) -> Moments:
    if moments is None:
        raise DataError("the specs hold no moments of what the scaling makes of the values; scan again")
    return moments

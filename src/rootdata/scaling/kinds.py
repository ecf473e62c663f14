"""The scalings that are built in: where the middle of a column lies, and how wide it is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from rootdata.errors import DataError
from rootdata.events.statistics import ColumnStats, Moments
from rootdata.scaling.curves import SIGNED_LOG, Curve


class ScalingKind(Protocol):
    """A way to scale columns, ``(curve(x) - shift) / width``, of which shift and width are learnt.

    Attributes
    ----------
    curve : bends the values first; ``None`` leaves them as they are
    needs_quantiles : whether it asks the first pass for quantiles
    is_learnt : whether anything is learnt at all
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
        if stats.quantiles is None:
            raise DataError("the specs hold no quantiles; scan again")
        lower, middle, upper = (stats.quantiles.at(q) for q in (0.25, 0.5, 0.75))
        return middle, upper - lower


class Unscaled(Standard):
    """As it is."""

    is_learnt = False

    def location(self, stats: ColumnStats) -> tuple[float, float]:  # noqa: ARG002 - nothing is learnt
        """Return shift 0 and width 1."""
        return 0.0, 1.0


def _known(moments: Moments | None) -> Moments:
    if moments is None:
        raise DataError("the specs hold no moments of what the scaling makes of the values; scan again")
    return moments

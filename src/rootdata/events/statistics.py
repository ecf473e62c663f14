"""Mergeable statistics of one column: the sum of two parts is the statistics of the whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rootdata.events.quantiles import Quantiles
from rootdata.missing import Masked, as_type, find_missing, mask_sentinels


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of finite values."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Measure values (n,) float32 or float64, all finite."""
        _, _, mean, m2 = _moments_of(values)
        return cls(count=len(values), mean=mean, m2=m2)

    def merge(self, other: Moments) -> Moments:
        """Add two parts, after Chan, Golub and LeVeque (1979)."""
        if not (self.count and other.count):
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        m2 = self.m2 + other.m2 + delta * delta * self.count * other.count / count
        return Moments(count=count, mean=mean, m2=m2)

    @property
    def std(self) -> float:
        """Standard deviation of the population."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ColumnStats:
    """What one pass learns of a column.

    Parameters
    ----------
    nans, infinities, sentinels : values that are missing, by kind
    low, high : smallest and largest value that is not missing, exactly
    moments : of the values that are not missing
    curve_moments : of what its scaling's curve makes of the values that are not missing, where it has one
    quantiles : of the values that are not missing, where a scaling asks for them
    """

    nans: int = 0
    infinities: int = 0
    sentinels: int = 0
    low: float = math.inf
    high: float = -math.inf
    moments: Moments = dataclasses.field(default_factory=Moments)
    curve_moments: Moments | None = None
    quantiles: Quantiles | None = None

    @classmethod
    def of(
        cls,
        values: npt.NDArray[Any] | Masked,
        *,
        missing: Sequence[float] = (),
        curve: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None,
        quantiles: bool = False,
    ) -> Self:
        """Measure a column.

        Parameters
        ----------
        values : (n,) of any number type; what is masked counts as NaN
        missing : values that stand for "none", such as -999
        curve : bends (n,) float64 before its moments are taken, as its scaling does
        quantiles : whether its scaling asks for them
        """
        masked = 0
        if isinstance(values, Masked):
            masked, values = int((~values.valid).sum()), values.values[values.valid]
        present, nans, infinities, sentinels = _present(values, missing)
        real = present if present.dtype in (np.float32, np.float64) else present.astype(np.float64)
        low, high, mean, m2 = _moments_of(real)
        if len(present) and present.dtype.itemsize == 8 and present.dtype.kind in "iu":
            low, high = int(present.min()), int(present.max())
        return cls(
            nans=nans + masked,
            infinities=infinities,
            sentinels=sentinels,
            low=low,
            high=high,
            moments=Moments(count=len(real), mean=mean, m2=m2),
            curve_moments=None if curve is None else Moments.of(curve(real.astype(np.float64))),
            quantiles=Quantiles.of(real) if quantiles else None,
        )

    @property
    def count(self) -> int:
        """Number of values that are not missing."""
        return self.moments.count

    @property
    def missing(self) -> int:
        """Number of values that are missing."""
        return self.nans + self.infinities + self.sentinels

    def merge(self, other: ColumnStats) -> ColumnStats:
        """Add two parts of the same column."""
        curved, quantiles = self.curve_moments, self.quantiles
        if curved is not None and other.curve_moments is not None:
            curved = curved.merge(other.curve_moments)
        if quantiles is not None and other.quantiles is not None:
            quantiles = quantiles.merge(other.quantiles)
        return ColumnStats(
            nans=self.nans + other.nans,
            infinities=self.infinities + other.infinities,
            sentinels=self.sentinels + other.sentinels,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            moments=self.moments.merge(other.moments),
            curve_moments=curved,
            quantiles=quantiles,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain: dict[str, Any] = {
            "nans": self.nans,
            "infinities": self.infinities,
            "sentinels": self.sentinels,
            "low": self.low if self.count else None,
            "high": self.high if self.count else None,
            "moments": dataclasses.astuple(self.moments),
        }
        if self.curve_moments is not None:
            plain["curve_moments"] = dataclasses.astuple(self.curve_moments)
        if self.quantiles is not None:
            plain["quantiles"] = self.quantiles.to_dict()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` wrote."""
        log, quantiles = plain.get("curve_moments"), plain.get("quantiles")
        return cls(
            nans=plain["nans"],
            infinities=plain["infinities"],
            sentinels=plain["sentinels"],
            low=math.inf if plain["low"] is None else plain["low"],
            high=-math.inf if plain["high"] is None else plain["high"],
            moments=_moments(plain["moments"]),
            curve_moments=None if log is None else _moments(log),
            quantiles=None if quantiles is None else Quantiles.from_dict(quantiles),
        )


def _moments(plain: Sequence[Any]) -> Moments:
    return Moments(count=int(plain[0]), mean=float(plain[1]), m2=float(plain[2]))


def _moments_of(values: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    """Return low, high, mean and sum of squared deviations of values (n,) float32 or float64, all finite."""
    from rootdata.events import moments  # here: who only applies a scaling, as servers do, need not wait for numba

    if not len(values):
        return math.inf, -math.inf, 0.0, 0.0
    low, high, mean, m2 = moments.moments_of(values)
    return low, high, mean, m2


def _present(values: npt.NDArray[Any], missing: Sequence[float]) -> tuple[npt.NDArray[Any], int, int, int]:
    """Return what is not missing, and count what is: NaN, infinities, sentinels."""
    if values.dtype not in (np.float32, np.float64):
        return _present_in_numpy(values, missing)
    from rootdata.events import moments  # here, as above

    values = np.require(values, requirements=("C", "A"))
    own = {as_type(sentinel, values.dtype) for sentinel in missing} - {None}
    counts = moments.count_missing(values, np.array(list(own), values.dtype))
    marks = find_missing(mask_sentinels(values, missing)) if any(counts) else None
    return (values if marks is None else values[~marks], *counts)


def _present_in_numpy(values: npt.NDArray[Any], missing: Sequence[float]) -> tuple[npt.NDArray[Any], int, int, int]:
    """Do the same for types that the compiled loops don't take; sentinels are compared in a column's own type."""
    marks = find_missing(mask_sentinels(values, missing))
    if marks is None:
        return values, 0, 0, 0
    gone = values[marks]
    nans = int(np.isnan(gone).sum()) if values.dtype.kind == "f" else 0
    infinities = int(np.isinf(gone).sum()) if values.dtype.kind == "f" else 0
    return values[~marks], nans, infinities, len(gone) - nans - infinities

"""Scaling of columns: learnt from the specs, applied, inverted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.config import Scaling
from rootdata.errors import DataError
from rootdata.missing import Array, Masked, values_of
from rootdata.statistics import ColumnStats, signed_log

Floats = npt.NDArray[np.float32]

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float64).tiny)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Transform:
    """``(f(x) - shift) * factor``, where f is the identity or ``sign(x) log(1 + |x|)``.

    float32 columns are computed in float32, all others in float64 and rounded at the end: an event number of 19 digits
    keeps its differences. An exported graph does the same, so that training and serving agree.
    """

    shift: float = 0.0
    factor: float = 1.0
    log: bool = False

    def apply(self, column: Array | Masked, out: Floats) -> None:
        """Scale a column into ``out``, NaN where it is missing, or beyond float32 when it is scaled.

        Parameters
        ----------
        column : (n,) of any number type
        out : (n,) float32, any stride
        """
        values = values_of(column)
        wide = values if values.dtype == np.float32 else values.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.log:
                wide = signed_log(wide)
            if self.shift:
                wide = wide - wide.dtype.type(self.shift)
            if self.factor != 1.0:
                np.multiply(wide, wide.dtype.type(self.factor), out=out, casting="same_kind")
            else:
                out[:] = wide
        if isinstance(column, Masked):
            out[~column.valid] = np.nan
        finite = np.isfinite(out)
        if not finite.all():
            out[~finite] = np.nan

    def invert(self, scaled: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Undo :meth:`apply`, to float32 rounding."""
        values = scaled.astype(np.float64) / self.factor + self.shift
        return np.copysign(np.expm1(np.abs(values)), values) if self.log else values


def fit(column: str, scaling: Scaling, stats: ColumnStats) -> Transform:
    """Turn what was learnt of a column into its transform.

    Parameters
    ----------
    stats : of training events alone

    Raises
    ------
    DataError
        For a column without a single real value, one that its scaling would divide by nothing, or one that does not
        fit into float32 when it is scaled.
    """
    kind = scaling.kind
    if not stats.count and (kind not in {"given", "none"} or (kind == "none" and stats.missing)):
        raise DataError(
            f"feature {column!r} has no real value in the training events ({_missing(stats)}); remove it from the "
            "features, or check the cuts and `missing`"
        )
    is_learnt = kind not in {"given", "none"}
    transform = _learnt(column, kind, stats) if is_learnt else Transform(shift=scaling.shift, factor=scaling.factor)
    if stats.count:
        _check_fits(column, kind, transform, stats)
    return transform


def _learnt(column: str, kind: str, stats: ColumnStats) -> Transform:
    shift, spread, log = _location(kind, stats)
    if not (math.isfinite(shift) and math.isfinite(spread)):
        raise DataError(
            f"feature {column!r} goes from {stats.low:g} to {stats.high:g} in the training events: what {kind!r} "
            f"computes of it is beyond float64; {_remedy(column, stats)}"
        )
    if not spread > 1e-12 * abs(shift):
        raise DataError(
            f"feature {column!r} {_narrow(kind, spread, stats)} in the {stats.count} training values and can't be "
            f"scaled by {kind!r}; remove it from the features, or keep it as it is with scale={{{column!r}: 'none'}}"
        )
    return Transform(shift=shift, factor=1.0 / spread, log=log)


def _location(kind: str, stats: ColumnStats) -> tuple[float, float, bool]:
    if kind == "minmax":
        return float(stats.low), float(stats.high) - float(stats.low), False
    if kind == "robust":
        if stats.quantiles is None:
            raise DataError("the specs hold no quantiles; scan again")
        lower, middle, upper = (stats.quantiles.at(q) for q in (0.25, 0.5, 0.75))
        return middle, upper - lower, False
    if kind == "log":
        moments = stats.log_moments
        if moments is None:
            raise DataError("the specs hold no logarithmic moments; scan again")
        return moments.mean, moments.std, True
    return stats.moments.mean, stats.moments.std, False


def _narrow(kind: str, spread: float, stats: ColumnStats) -> str:
    """Say why there is no spread to divide by."""
    low, high = float(stats.low), float(stats.high)
    if stats.low == stats.high:
        return f"is constant ({low:g})"
    if kind == "robust" and not spread:
        return f"has equal quartiles, though it goes from {low:g} to {high:g},"
    if not spread and (high - low) ** 2 < SMALLEST:
        return f"goes from {low:g} to {high:g}, so close that float64 can't hold the squares of differences,"
    return f"is nearly constant (from {stats.low!r} to {stats.high!r})"


def _check_fits(column: str, kind: str, transform: Transform, stats: ColumnStats) -> None:
    """Refuse what float32 can't hold: scaled values, and on the way to them what a column of float32 computes with."""
    ends = np.array([stats.low, stats.high], np.float64)
    moved = float(np.abs((signed_log(ends) if transform.log else ends) - transform.shift).max())
    numbers = {"scaled values": moved * abs(transform.factor)}
    if np.abs(ends).max() <= LARGEST:  # a column of float64 alone has values above, and is computed in that
        numbers |= {"a factor": abs(transform.factor), "a shift": abs(transform.shift), "differences": moved}
    for what, number in numbers.items():
        if not number <= LARGEST:
            raise DataError(
                f"feature {column!r} goes from {stats.low:g} to {stats.high:g} in the training events: scaled by "
                f"{kind!r} it takes {what} of up to {number:.2g}, and float32 ends at {LARGEST:.2g}; "
                f"{_remedy(column, stats)}"
            )


def _remedy(column: str, stats: ColumnStats) -> str:
    largest = max(abs(float(stats.low)), abs(float(stats.high)))
    power = -round(math.log10(largest)) if largest else 0
    # A column of float32 is multiplied in float32, which has no 1e39; what is larger or smaller is float64.
    most = 37 if 1e-45 <= largest <= LARGEST else 300
    unit = f"1e{min(max(power, -most), most):+d}"
    return f"choose another scale for it, or derive it in other units: derived={{{column!r}: '{column} * {unit}'}}"


def _missing(stats: ColumnStats) -> str:
    kinds: Mapping[str, int] = {"NaN": stats.nans, "infinite": stats.infinities, "sentinels": stats.sentinels}
    return ", ".join(f"{n} {k}" for k, n in kinds.items() if n) or "there are none at all"

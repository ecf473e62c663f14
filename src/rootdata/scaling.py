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
from rootdata.missing import Array, Masked, find_missing, values_of
from rootdata.statistics import ColumnStats, signed_log

Floats = npt.NDArray[np.float32]


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
        """Scale a column into ``out``, NaN where it is missing.

        Parameters
        ----------
        column : (n,) of any number type
        out : (n,) float32, any stride
        """
        marks, values = find_missing(column), values_of(column)
        wide = values if values.dtype == np.float32 else values.astype(np.float64)
        if self.log:
            with np.errstate(invalid="ignore"):
                wide = signed_log(wide)
        if self.shift:
            wide = wide - wide.dtype.type(self.shift)
        if self.factor != 1.0:
            np.multiply(wide, wide.dtype.type(self.factor), out=out, casting="same_kind")
        else:
            out[:] = wide
        if marks is not None:
            out[marks] = np.nan

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
        For a column without a single real value, or a constant one that its scaling would divide by zero.
    """
    if scaling.kind == "given":
        return Transform(shift=scaling.shift, factor=scaling.factor)
    if scaling.kind == "none" and not stats.missing:
        return Transform()
    if not stats.count:
        raise DataError(
            f"feature {column!r} has no real value in the training events ({_missing(stats)}); remove it from the "
            "features, or check the cuts and `missing`"
        )
    if scaling.kind == "none":
        return Transform()
    shift, spread, log = _location(scaling.kind, stats)
    if not spread > 0.0 or not math.isfinite(spread) or spread <= 1e-12 * abs(shift):
        raise DataError(
            f"feature {column!r} is {_spread(stats)} in the {stats.count} training values and can't be scaled by "
            f"{scaling.kind!r}; remove it from the features, or keep it as it is with scale={{{column!r}: 'none'}}"
        )
    return Transform(shift=shift, factor=1.0 / spread, log=log)


def _location(kind: str, stats: ColumnStats) -> tuple[float, float, bool]:
    if kind == "minmax":
        return float(stats.low), float(stats.high - stats.low), False
    if kind == "robust":
        return stats.quantile(0.5), stats.quantile(0.75) - stats.quantile(0.25), False
    if kind == "log":
        moments = stats.log_moments
        if moments is None:
            raise DataError("the specs hold no logarithmic moments; scan again")
        return moments.mean, moments.std, True
    return stats.moments.mean, stats.moments.std, False


def _spread(stats: ColumnStats) -> str:
    return f"constant ({stats.low:g})" if stats.low == stats.high else "nearly constant"


def _missing(stats: ColumnStats) -> str:
    kinds: Mapping[str, int] = {"NaN": stats.nans, "infinite": stats.infinities, "sentinels": stats.sentinels}
    return ", ".join(f"{n} {k}" for k, n in kinds.items() if n) or "there are none at all"

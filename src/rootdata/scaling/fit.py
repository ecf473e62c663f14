"""What was learnt of a column, turned into its transform; what can't be scaled is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from rootdata.errors import ConfigError, DataError
from rootdata.events.statistics import ColumnStats
from rootdata.options.columns import Scaling, TakenScaling
from rootdata.registry import SCALINGS
from rootdata.scaling.curves import SIGNED_LOG, Segments
from rootdata.scaling.kinds import ScalingKind
from rootdata.scaling.transform import Transform

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float64).tiny)


def fit(column: str, scaling: Scaling, stats: ColumnStats, *, clip: float | None = None) -> Transform:
    """Turn what was learnt of a column into its transform.

    Parameters
    ----------
    column : name of the feature, for errors
    scaling : the kind that is asked for, or the numbers where it is ``given``
    stats : of training events alone
    clip : size at which scaled values are cut off

    Raises
    ------
    ConfigError
        For a column that is not where its scaling was to be taken from.
    DataError
        For a column without a single real value, one that its scaling would divide by nothing, or one that does not
        fit into float32 when it is scaled.
    """
    kind = kind_of(scaling)
    if not stats.count and kind is not None and (kind.is_learnt or stats.missing):
        raise DataError(
            f"feature {column!r} has no real value in the training events ({_missing(stats)}); remove it from the "
            "features, or check the cuts and `missing`"
        )
    if kind is not None and kind.is_learnt:
        transform = _learnt(column, scaling.kind, kind, stats)
    elif isinstance(scaling, TakenScaling):
        transform = _taken(column, scaling)
    else:
        transform = Transform(shift=scaling.shift, factor=scaling.factor, curve=None if kind is None else kind.curve)
    transform = dataclasses.replace(transform, clip=transform.clip if clip is None else clip)
    if stats.count:
        _check_fits(column, scaling.kind, transform, stats)
    return transform


def kind_of(scaling: Scaling) -> ScalingKind | None:
    """Return the object of a scaling; ``None`` for one that is given in numbers."""
    kind: ScalingKind | None = None if scaling.kind == "given" else SCALINGS.find(scaling.kind)
    return kind


def _learnt(column: str, name: str, kind: ScalingKind, stats: ColumnStats) -> Transform:
    shift, spread = kind.location(stats)
    if not (math.isfinite(shift) and math.isfinite(spread)):
        raise DataError(
            f"feature {column!r} goes from {stats.low:g} to {stats.high:g} in the training events: what {name!r} "
            f"computes of it is beyond float64; {_remedy(column, stats)}"
        )
    if not spread > 1e-12 * abs(shift):
        raise DataError(
            f"feature {column!r} {_narrow(name, spread, stats)} in the {stats.count} training values and can't be "
            f"scaled by {name!r}; remove it from the features, or keep it as it is with scale={{{column!r}: 'none'}}"
        )
    learn = getattr(kind, "learn_curve", None)
    return Transform(shift=shift, factor=1.0 / spread, curve=kind.curve if learn is None else learn(stats))


def _taken(column: str, scaling: TakenScaling) -> Transform:
    if not scaling.is_known:
        raise ConfigError(
            f"scale.from={scaling.place}: feature {column!r} is not scaled there; give it a scaling of its own, as "
            f"scale={{'from': ..., {column!r}: 'standard'}}, or all that are not there by `default`"
        )
    curve = SIGNED_LOG if scaling.log else Segments(scaling.knots, scaling.heights) if scaling.knots else None
    return Transform(shift=scaling.shift, factor=scaling.factor, curve=curve, clip=scaling.clip)


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
    moved = float(np.abs((ends if transform.curve is None else transform.curve.apply(ends)) - transform.shift).max())
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

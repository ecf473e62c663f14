"""What scales a column: applied, and inverted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.missing import Array, Masked, values_of
from rootdata.scaling.curves import Curve, name_of

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Transform:
    """``(curve(x) - shift) * factor``, cut off at +-``clip``.

    float32 columns are computed in float32, all others in float64 and rounded at the end: an event number of 19 digits
    keeps its differences. An exported graph does the same, so that training and serving agree: its twins are
    :func:`rootdata.layouts.kernels.lay_out`, for float32 without a curve, and
    :class:`rootdata.bundle.graph.deployed.Scaler`.
    """

    shift: float = 0.0
    factor: float = 1.0
    curve: Curve | None = None
    clip: float | None = None

    @property
    def described(self) -> tuple[float, float, str, float | None]:
        """What it does, as primitives: the same in every process."""
        return self.shift, self.factor, name_of(self.curve), self.clip

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
            if self.curve is not None:
                wide = self.curve.apply(wide)
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
        if self.clip is not None:
            np.clip(out, -self.clip, self.clip, out=out)

    def invert(self, scaled: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Undo :meth:`apply`, to float32 rounding; what was cut off comes back as where that was."""
        values = scaled.astype(np.float64) / self.factor + self.shift
        return values if self.curve is None else self.curve.invert(values)

"""Functions that bend a column before it is shifted and scaled: the same one for arrays and for tensors."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


class Curve(Protocol):
    """A function of one number that never falls, with its inverse.

    What is kept is kept under its name (see :func:`name_of`): one that computes something else has another name; one
    that is learnt gives itself a ``name``. Its twins :meth:`apply`, in training, and :meth:`torch`, in the exported
    graph, must agree to rounding.
    """

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Compute it, (n,) float32 or float64 in the same type; NaN stays NaN."""

    def invert(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Undo :meth:`apply`."""

    def torch(self, values: Tensor) -> Tensor:
        """Compute it, of any shape, with operations that ONNX has."""


@dataclasses.dataclass(frozen=True, slots=True)
class SignedLog:
    """``sign(x) log(1 + |x|)``."""

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Compute it."""
        logs: npt.NDArray[Any] = np.copysign(np.log1p(np.abs(values)), values)
        return logs

    def invert(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Undo it."""
        return np.copysign(np.expm1(np.abs(values)), values)

    def torch(self, values: Tensor) -> Tensor:
        """Compute it for tensors: ONNX has no log1p, and some runtimes have no sign.

        What ``1 + |x|`` rounds away of a small x is put back by a ratio (W. Kahan, as in HP's calculators).
        """
        import torch  # here, so that what scales no tensors does not load it

        size = values.abs()
        above = size + 1.0
        left = above - 1.0
        is_tiny = left == 0.0
        ratio = size / torch.where(is_tiny, torch.ones_like(left), left)
        log = torch.where(is_tiny, size, torch.log(above) * ratio)
        return torch.where(values < 0.0, -log, log)


SIGNED_LOG = SignedLog()


@dataclasses.dataclass(frozen=True, slots=True)
class Segments:
    """Straight lines from knot to knot; what lies outside goes to the first or the last one, infinities become NaN.

    Parameters
    ----------
    knots : (k,) values, rising
    heights : (k,) what they become, rising
    """

    knots: tuple[float, ...]
    heights: tuple[float, ...]

    @property
    def name(self) -> str:
        """Its class and a digest of its knots."""
        content = np.array([self.knots, self.heights], np.float64).tobytes()
        return f"{__name__}.Segments:{hashlib.sha256(content).hexdigest()[:16]}"

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Compute it in float64."""
        heights: npt.NDArray[Any] = np.interp(values, self.knots, self.heights)
        heights[~np.isfinite(values)] = np.nan
        return heights.astype(values.dtype)

    def invert(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Undo it, for what lies between the first knot and the last."""
        return np.interp(values, self.heights, self.knots)

    def torch(self, values: Tensor) -> Tensor:
        """Compute it in float64, as a sum over the segments: ONNX has no search in a sorted list."""
        import torch  # here, as above

        points = torch.tensor([self.knots, self.heights], dtype=torch.float64, device=values.device)
        knots, heights = points[0], points[1]
        climbed = torch.minimum(torch.maximum(values.double().unsqueeze(-1), knots[:-1]), knots[1:]) - knots[:-1]
        found = (climbed / knots.diff() * heights.diff()).sum(dim=-1) + heights[0]
        return torch.where(torch.isfinite(values), found, torch.full_like(found, math.nan)).to(values.dtype)


def name_of(curve: Curve | None) -> str:
    """Name a curve by its class, or as it does itself, the same in every process; empty where there is none."""
    if curve is None:
        return ""
    name: str = getattr(curve, "name", "")
    return name or f"{type(curve).__module__}.{type(curve).__qualname__}"

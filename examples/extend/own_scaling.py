"""A scaling of one's own: ``asinh(x)``, then mean 0 and standard deviation 1.

Use it by its dotted name: ``scale={"default": "standard", "Jet_pt": "own_scaling.Asinh"}``.
"""

import numpy as np
import torch

from rootdata.scaling.kinds import Standard


class AsinhCurve:
    """Linear near 0 and logarithmic far from it."""

    def apply(self, values):
        """Compute it for arrays."""
        return np.arcsinh(values)

    def invert(self, values):
        """Undo it."""
        return np.sinh(values)

    def torch(self, values):
        """Compute the same for tensors, which the exported graph does."""
        return torch.asinh(values)


class Asinh(Standard):
    """What :class:`Standard` learns, it learns of ``asinh(x)`` here."""

    curve = AsinhCurve()

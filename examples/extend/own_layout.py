"""A layout of one's own: features before objects, as one-dimensional convolutions want them.

Use it by its dotted name: ``layout="own_layout.ChannelsFirst"``.
"""

import numpy as np

from rootdata.layouts.tokens import Tokens


class ChannelsFirst(Tokens):
    """As ``tokens``, with ``<name>`` (events, features, length)."""

    masks_objects = False  # the second axis is not that of objects: graphs are made for the full length

    def shapes(self, layout):
        """Swap the axes of every collection."""
        swapped = {c.name: (len(c.branches), c.length) for c in layout.collections}
        return {**super().shapes(layout), **swapped}

    def gather(self, layout, rows, arrays):
        """Gather as ``tokens`` does, and swap."""
        tokens = {name: array.swapaxes(1, 2) if array.ndim == 3 else array for name, array in arrays.items()}
        made = {name: np.empty(array.shape, array.dtype) for name, array in tokens.items()}
        super().gather(layout, rows, made)
        for name, array in made.items():
            tokens[name][...] = array

    def tensors(self, layout, made):
        """Do the same in the exported graph."""
        tokens = super().tensors(layout, made)
        return {name: values.transpose(1, 2) if values.ndim == 3 else values for name, values in tokens.items()}

    def unpack(self, layout, arrays):
        """Swap back."""
        swapped = {name: array.swapaxes(1, 2) if array.ndim == 3 else array for name, array in arrays.items()}
        return super().unpack(layout, swapped)

"""A form of one's own: the leading object of a collection as a row, with 0 where there is none.

Use it by its dotted name: ``jagged: {jets: {branches: [Jet_pt, Jet_eta], form: own_form.Leading}}``.
"""

import numpy as np

from rootdata.errors import ShapeError


class Leading:
    """``<name>`` (events, features) of the first object, and ``<name>_is_there_mask`` (events, 1)."""

    def shapes(self, layout, collection):
        """Return one row, and one mark."""
        name = collection.name
        return {name: (len(collection.columns),), f"{name}_is_there_mask": (1,)}

    def gather(self, layout, collection, rows, arrays):
        """Copy all objects that are kept, and take the first."""
        shape = (len(rows.rows), collection.length)
        objects, there = np.empty((*shape, len(collection.columns)), np.float32), np.empty(shape, np.bool_)
        rows.objects(layout.collections.index(collection), objects, there)
        arrays[collection.name][...] = np.where(there[:, :1], objects[:, 0], 0)
        arrays[f"{collection.name}_is_there_mask"][...] = there[:, :1]

    def tensors(self, layout, collection, made):
        """Do the same in the exported graph."""
        there = made[f"{collection.name}_mask"][:, :1]
        first = made[collection.name][:, 0]
        return {collection.name: first * there, f"{collection.name}_is_there_mask": there}

    def unpack(self, layout, collection, arrays):
        """Refuse: the others are gone."""
        raise ShapeError(f"{collection.name}: of the form {type(self).__name__} only the first object is left")

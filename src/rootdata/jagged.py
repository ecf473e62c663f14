"""Lists of any length, one per event, as numpy arrays side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import ShapeError
from rootdata.missing import Bools, Masked

Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Jagged:
    """A jagged column.

    Parameters
    ----------
    offsets : (n_events + 1,) int64, rising; event i owns ``content[offsets[i]:offsets[i + 1]]``
    content : (n_objects,) or (n_objects, n_features)
    valid : (n_objects,), True where there is a value; ``None`` if all are, or those that are not are NaN
    """

    offsets: Ints
    content: npt.NDArray[Any]
    valid: Bools | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        """Objects per event, (n_events,) int64."""
        return np.diff(self.offsets)

    @classmethod
    def of(cls, offsets: Ints, values: npt.NDArray[Any] | Masked) -> Jagged:
        """Give events their objects, of which some values may be missing."""
        return cls(offsets, values.values, values.valid) if isinstance(values, Masked) else cls(offsets, values)

    @property
    def values(self) -> npt.NDArray[Any] | Masked:
        """What the objects are, with what is missing."""
        return self.content if self.valid is None else Masked(self.content, self.valid)

    def trimmed(self) -> Jagged:
        """View the lists alone: offsets from 0, and no content before or behind them."""
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first == 0 and last == len(self.content):
            return self
        return Jagged.of(self.offsets - first if first else self.offsets, self.values[first:last])

    @classmethod
    def from_awkward(cls, array: Any) -> Jagged:
        """Take the buffers of an awkward array of one list level, or of fixed-size lists.

        Raises
        ------
        ShapeError
            If ``array`` is not exactly one list level deep.
        """
        import awkward as ak

        if isinstance(array, np.ndarray) and array.ndim == 2:
            return cls.from_fixed(array)
        if array.ndim != 2:
            raise ShapeError(f"expected a list of numbers an event, got {array.type}")
        layout = array.layout
        if not _is_plain(layout):
            layout = ak.to_packed(ak.from_regular(array)).layout.to_ListOffsetArray64(True)
        offsets = np.asarray(layout.offsets.data)
        content = np.asarray(ak.to_numpy(layout.content))[: offsets[-1]]
        return cls(offsets, content.astype(content.dtype.newbyteorder("="), copy=False))

    @classmethod
    def from_fixed(cls, column: npt.NDArray[Any] | Masked) -> Jagged:
        """Take a column (n_events, k) as lists of equal length."""
        offsets = np.arange(len(column) + 1, dtype=np.int64) * column.shape[1]
        if isinstance(column, Masked):
            return cls(offsets, column.values.reshape(-1), column.valid.reshape(-1))
        return cls(offsets, column.reshape(-1))

    def to_awkward(self) -> Any:
        """View the column as an awkward array, without a copy; of option type where values may be missing."""
        import awkward as ak

        content: Any = ak.contents.NumpyArray(self.content)
        if self.valid is not None:
            content = ak.contents.ByteMaskedArray(ak.index.Index8(self.valid.view(np.int8)), content, valid_when=True)
        return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(self.offsets), content))

    def take_events(self, keep: Bools) -> Jagged:
        """Keep the events where ``keep`` (n_events,) is true."""
        if keep.all():
            return self
        counts = self.counts
        return Jagged.of(offsets_of(counts[keep]), self.values[np.repeat(keep, counts)])

    def take_objects(self, keep: Bools) -> Jagged:
        """Keep the objects where ``keep`` (n_objects,) is true; no event is lost."""
        return Jagged.of(offsets_of(keep)[self.offsets], self.values[keep])


Column = npt.NDArray[Any] | Jagged
"""One value, or a fixed number of them, an event: numpy (n,) or (n, k); or a list an event."""

Columns = dict[str, Column]
"""Branch name to its column in a block."""


def _is_plain(layout: Any) -> bool:
    """Say whether the buffers can be taken as they are, which is what uproot makes."""
    import awkward as ak

    is_list = isinstance(layout, ak.contents.ListOffsetArray) and isinstance(layout.content, ak.contents.NumpyArray)
    return is_list and layout.offsets.data.dtype == np.int64 and len(layout.offsets) > 0 and layout.offsets[0] == 0


def digest(columns: Mapping[str, Column]) -> str:
    """Return a checksum of 128 bits over names, types, shapes and every bit of the values.

    The same however the columns were read, alone or as part of a longer array.

    Examples
    --------
    >>> digest({"a": np.arange(3)}) == digest({"a": np.arange(9)[:3]}), digest({"a": np.arange(3)}) == digest({})
    (True, False)
    """
    import xxhash  # not for clients of a server, who have lists, and files never

    found = xxhash.xxh3_128()
    known: dict[int, bytes] = {}  # branches of a collection share their offsets
    for name, column in columns.items():
        if isinstance(column, Jagged):
            first, last = int(column.offsets[0]), int(column.offsets[-1])
            if id(column.offsets) not in known:
                known[id(column.offsets)] = _digest(column.offsets - first if first else column.offsets)
            found.update(f"{name} list ".encode() + known[id(column.offsets)])
            column = column.content[first:last]
        found.update(f"{name} {column.dtype.str} {column.shape} ".encode() + _digest(column))
    return found.hexdigest()


def _digest(array: npt.NDArray[Any]) -> bytes:
    import xxhash

    return xxhash.xxh3_128_digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def same_offsets(first: Ints, second: Ints) -> bool:
    """Say whether lists have the same lengths; where both are one array, it costs nothing."""
    return first is second or np.array_equal(first, second)


def offsets_of(counts: npt.NDArray[Any]) -> Ints:
    """Sum up counts: where each event's objects start, and the total.

    Examples
    --------
    >>> offsets_of(np.array([2, 0, 1])).tolist()
    [0, 2, 2, 3]
    """
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets

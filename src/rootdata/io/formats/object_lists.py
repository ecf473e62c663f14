"""Lists of numbers that uproot reads object by object, though they lie in the file as others do."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

VECTOR_HEADER = 10  # bytes before the numbers of a std::vector: how many follow, a version, how many numbers
ARRAY_HEADER = 4  # bytes before those of a TArray, and of a list in a list: how many numbers

# A link of ATLAS (xAOD) as ROOT streams it: in front of an ElementLink, and of what it derives from, its length and
# version, then the checksum that stands for the version.
LINK = np.dtype(
    [
        *((f"@{name}{i}" if i else f"@{name}", kind) for i in ("", "_base")
          for name, kind in (("num_bytes", ">u4"), ("version", ">u2"), ("checksum", ">u4"))),
        ("m_persKey", ">u4"),
        ("m_persIndex", ">u4"),
    ]
)  # fmt: skip

_CONTAINERS = {"AsVector", "AsSet", "AsBitSet"}


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectList:
    """How the lists of a branch are stored.

    Parameters
    ----------
    dtype : of the numbers
    header : bytes in front of each list
    is_nested : whether the entries hold lists of such lists
    """

    dtype: np.dtype[Any]
    header: int
    is_nested: bool = False

    @property
    def from_dtype(self) -> np.dtype[Any]:
        """Type of the numbers, or records, as they are stored, by uproot's word for it."""
        return self.dtype if self.dtype.names else self.dtype.newbyteorder(">")

    @property
    def to_dtype(self) -> np.dtype[Any]:
        """Type of the numbers as they are to be."""
        return self.dtype if self.dtype.names else self.dtype.newbyteorder("=")


def object_list_of(reading: Any) -> ObjectList | None:
    """Say how lists lie in the file; none where what uproot would read by ``reading`` is something else."""
    if type(reading).__name__ != "AsObjects":
        return None
    model = reading.model
    if getattr(model, "__name__", "").startswith("Model_TArray"):
        return ObjectList(np.dtype(model.dtype), ARRAY_HEADER)
    items = _items_of(model, has_header=True)
    if isinstance(items, np.dtype):
        return ObjectList(items, VECTOR_HEADER) if items.kind in "iufb" else None
    inner = _items_of(items, has_header=False)
    if type(model).__name__ == "AsVector" and getattr(inner, "__name__", "").startswith("Model_ElementLink_"):
        return ObjectList(LINK, VECTOR_HEADER, is_nested=True)
    if type(model).__name__ == "AsVector" and isinstance(inner, np.dtype) and inner.kind in "iufb":
        return ObjectList(inner, VECTOR_HEADER, is_nested=True)
    return None


def _items_of(model: Any, *, has_header: bool) -> Any:
    """Return what a container holds: numbers of some type, or objects; none where it is another one."""
    is_known = type(model).__name__ in _CONTAINERS and model.header == has_header
    return getattr(model, "_items", None) if is_known else None

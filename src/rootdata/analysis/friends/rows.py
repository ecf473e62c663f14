"""KeptRows that come in any order, from any rank, kept on disk until they are written in the order of their files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rootdata.analysis.friends.columns import ENTRY, SELECTED
from rootdata.analysis.friends.tree import ROWS
from rootdata.errors import DataError

Arrays = Mapping[str, npt.NDArray[Any]]
_TYPES = "types.json"
ROUNDING = 1e-2  # of two scores of one event in different batches, in whatever precision a network computes
_SAMPLE = ".sample"  # beside the columns, none of which can be called so


class KeptRows:
    """The rows that one rank has, and at the end those of all of them.

    Parameters
    ----------
    folder : which all ranks see
    rank : of this process
    numbers : for each file of the data set, the number of the one that is written for it
    samples : their names
    """

    def __init__(self, folder: Path, *, rank: int, numbers: Sequence[int], samples: Sequence[str]) -> None:
        self._folder, self._rank = folder, rank
        self.numbers, self._samples = tuple(numbers), tuple(samples)
        self._known: np.dtype[Any] | None = None

    def add(self, index: npt.NDArray[np.int64], columns: Arrays) -> None:
        """Append rows.

        Parameters
        ----------
        index : (n, 3), sample, file and entry of each
        columns : name to (n,)
        """
        dtype = _stored({name: values.dtype for name, values in columns.items()})
        if self._known is None:
            text = json.dumps([[name, values.dtype.str] for name, values in columns.items()])
            (self._folder / f"{self._rank}.{_TYPES}").write_text(text)
            self._known = dtype
        if dtype != self._known:
            raise DataError(
                f"a batch gave {dict(dtype.fields or {})}, those before it {dict(self._known.fields or {})}"
            )
        rows = np.empty(len(index), dtype)
        rows[_SAMPLE], rows[ENTRY] = index[:, 0], index[:, 2]
        for name, values in columns.items():
            rows[name] = values
        files = np.array(self.numbers)[index[:, 1]]
        for number in np.unique(files).tolist():
            with self._place(number, self._rank).open("ab") as file:
                file.write(rows[files == number].tobytes())

    def _place(self, number: int, rank: int) -> Path:
        return self._folder / f"{number}.{rank}.rows"

    def types(self) -> dict[str, np.dtype[Any]]:
        """Return the types of the columns, of whichever rank had rows."""
        for path in sorted(self._folder.glob(f"*.{_TYPES}")):
            return {name: np.dtype(text) for name, text in json.loads(path.read_text())}
        return {}

    def in_order(
        self, number: int, num_entries: int, fills: Mapping[str, Any], *, place: str
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the rows of all ranks for one file in the order of its entries, a piece at a time.

        Parameters
        ----------
        number : of the file
        num_entries : of its tree
        fills : column name to what stands where there is no row
        place : path of the file, for errors

        Yields
        ------
        the first entry of a piece, and its columns, with ``selected`` where there was a row

        Raises
        ------
        DataError
            For an entry of two samples that differs between them, as in labels, weights or scores.
        """
        if not num_entries:
            return
        types = self.types()
        own = np.dtype([(SELECTED, bool), (_SAMPLE, np.int32), *types.items()])
        whole = np.memmap(self._folder / f"{number}.whole", own, "w+", shape=(num_entries,))
        none = np.zeros(1, own)
        for name, fill in fills.items():
            none[name] = fill
        for start in range(0, num_entries, ROWS):
            whole[start : start + ROWS] = none
        for path in self._folder.glob(f"{number}.*.rows"):
            for rows in _pieces(path, _stored(types)):
                at = rows[ENTRY]
                self._check(rows, whole[at], place)  # against those of other pieces
                whole[SELECTED][at] = True
                for name in (_SAMPLE, *types):
                    whole[name][at] = rows[name]
                self._check(rows, whole[at], place)  # against those of this one
        for start in range(0, num_entries, ROWS):
            piece = np.array(whole[start : start + ROWS])
            yield start, {name: piece[name] for name in (SELECTED, *types)}

    def _check(self, rows: npt.NDArray[Any], there: npt.NDArray[Any], place: str) -> None:
        """Refuse an entry that another sample has otherwise: only one row can stand beside it."""
        twice = there[SELECTED] & (there[_SAMPLE] != rows[_SAMPLE])
        if not twice.any():  # as for nearly all files
            return
        for name in (n for n in rows.dtype.names or () if n not in {_SAMPLE, ENTRY}):
            differs = there[name] != rows[name]
            if not (name in {"label", "weight"} or name.startswith("weight_")) and rows.dtype[name].kind == "f":
                differs &= ~np.isclose(there[name], rows[name], rtol=ROUNDING, atol=ROUNDING, equal_nan=True)
            bad = np.flatnonzero(twice & differs)
            if len(bad):
                row, other = rows[bad[0]], there[bad[0]]
                first, second = sorted((int(row[_SAMPLE]), int(other[_SAMPLE])))
                raise DataError(
                    f"entry {row[ENTRY]} of {place} is in the samples {self._samples[first]!r} and "
                    f"{self._samples[second]!r} with another {name} each, and a friend tree has one row for it; make "
                    "their cuts exclude each other, or predict them one by one"
                )


def _stored(types: Mapping[str, np.dtype[Any]]) -> np.dtype[Any]:
    """Return the type of a row on disk."""
    return np.dtype([(_SAMPLE, np.int32), (ENTRY, np.int64), *types.items()])


def _pieces(path: Path, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    with path.open("rb") as file:
        while len(rows := np.fromfile(file, dtype, count=ROWS)):
            yield rows

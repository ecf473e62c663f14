"""Branches of another number type than that of the training: the same events, missing where they are."""

from __future__ import annotations

import numpy as np
import pytest

from rootdata.analysis.friends.conform import conform
from rootdata.bundle.manifest import BranchSpec
from rootdata.events.evaluation import Block
from rootdata.jagged import Jagged, offsets_of
from rootdata.location import Location

SPECS = (
    BranchSpec(name="x", dtype="float64"),
    BranchSpec(name="cov", dtype="float64", kind="fixed", width=2),
    BranchSpec(name="pt", dtype="float64", kind="jagged"),
)
BLOCK = Block(location=Location("x.root"), start=0, stop=2, num_entries=2)


@pytest.mark.parametrize("sentinel", [-999.9, -999, 0.1, 1e-300, 1e300])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_sentinel_is_one_in_any_type(sentinel, dtype):
    with np.errstate(over="ignore"):
        marks = np.array([sentinel, 3], dtype)
    raw = {"x": marks, "cov": np.array([marks, marks[::-1]]), "pt": Jagged(offsets_of(np.array([0, 2])), marks)}
    found = conform(raw, SPECS, BLOCK, np.arange(2), missing={"x": (), "default": (sentinel, -5.0)}).columns
    is_held = marks[0] not in (0.0, np.inf)  # else it is one of many numbers that the type rounds to these
    expected = np.array([sentinel if is_held else marks[0], 3.0])
    assert found["x"].tolist() == marks.astype("f8").tolist()
    assert found["cov"].tolist() == [expected.tolist(), expected[::-1].tolist()]
    assert found["pt"].content.tolist() == expected.tolist()
    assert marks.dtype == np.dtype(dtype)

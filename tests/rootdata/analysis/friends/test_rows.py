"""Rows come back in the order of the files, whichever rank had them, and in whichever order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata.analysis.friends import rows
from rootdata.analysis.friends.rows import KeptRows
from rootdata.errors import DataError


@given(st.integers(1, 3), st.integers(0, 40), st.integers(1, 9), st.randoms(use_true_random=False))
def test_all_ranks_together_give_each_entry_once(tmp_path_factory, world, entries, size, draw):
    folder, original = tmp_path_factory.mktemp("rows"), rows.ROWS
    pairs = [(file, entry) for file in range(3) for entry in range(entries) if draw.random() < 0.6]
    draw.shuffle(pairs)
    numbers = [0, 1, 0]  # the last file is the first one again, as two samples share one
    pairs = [(file, entry) for file, entry in pairs if file != 2 or (0, entry) not in pairs]
    rows.ROWS = 7
    try:
        ranks = [KeptRows(folder, rank=rank, numbers=numbers, samples="abcdef") for rank in range(world)]
        for low in range(0, len(pairs), size):
            index = np.array([(5, file, entry) for file, entry in pairs[low : low + size]])
            ranks[low // size % world].add(index, {"score": (index[:, 2] + 100 * (index[:, 1] == 1)).astype("f4")})
        for number in (0, 1):
            found = list(ranks[0].in_order(number, entries, {"score": -1.0} if pairs else {}, place="x"))
            given_ = {entry for file, entry in pairs if numbers[file] == number}
            assert [start for start, _ in found] == list(range(0, entries, 7))
            selected = np.concatenate([c["selected"] for _, c in found] or [np.zeros(0, bool)])
            assert set(np.flatnonzero(selected)) == given_
            if pairs and entries:
                score = np.concatenate([c["score"] for _, c in found])
                assert score.tolist() == [e + 100.0 * number if e in given_ else -1.0 for e in range(entries)]
    finally:
        rows.ROWS = original


def test_a_batch_of_other_columns_is_refused(tmp_path):
    kept, index = KeptRows(tmp_path, rank=0, numbers=[0], samples="a"), np.zeros((1, 3), np.int64)
    kept.add(index, {"score": np.zeros(1, "f4")})
    with pytest.raises(DataError, match="a batch gave"):
        kept.add(index, {"score": np.zeros(1, "f8")})


@pytest.mark.parametrize("size", [1, 4])  # in two pieces, and in one
@pytest.mark.parametrize("name", ["label", "weight", "weight_up", "score_signal", "mass"])
def test_an_entry_of_two_samples_is_refused_where_they_say_different_things_of_it(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(rows, "ROWS", size)
    kept = KeptRows(tmp_path, rank=0, numbers=[0, 1, 0], samples=["a", "b", "c"])
    index = np.array([(0, 0, 3), (1, 1, 5), (0, 0, 5), (2, 2, 5)])
    rounded = np.array([0.0, 1.0, np.nan, np.nan]), np.array([0.1, 0.2, 0.3, 0.3001])
    kept.add(index, {"a": rounded[0], "b": rounded[1], name: np.array([1.0, 2.0, 1.0, 1.0])})
    found = np.concatenate([c["selected"] for _, c in kept.in_order(0, 7, {}, place="x.root")])
    assert np.flatnonzero(found).tolist() == [3, 5]
    kept.add(index[:1] * 0 + [2, 2, 3], {"a": np.zeros(1), "b": np.full(1, 0.1), name: np.full(1, 7.0)})
    told = rf"entry 3 of x.root is in the samples 'a' and 'c' with another {name} each, .*; make their cuts exclude"
    with pytest.raises(DataError, match=told):
        list(kept.in_order(0, 7, {}, place="x.root"))

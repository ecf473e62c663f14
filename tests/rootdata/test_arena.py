import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rootdata import arena
from rootdata.arena import SMALL, Lender, shared

LARGE = (1000, 300)  # of float32: above SMALL


def place(array):
    return array.ctypes.data


def test_memory_that_nobody_has_is_lent_again():
    lender = Lender()
    first = lender.empty(LARGE, np.float32)
    where = place(first)
    del first
    assert place(lender.empty((999, 300), np.float32)) == where


@pytest.mark.parametrize(
    "keep",
    [
        lambda a: a,
        lambda a: a[10:20],
        lambda a: a[10:20][2:],
        lambda a: a.reshape(-1)[5:],
        lambda a: a.view(np.int32),
        lambda a: a.T,
        lambda a: memoryview(a),
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a)[3],
        lambda a: torch.from_numpy(a[7:]).view(-1),
    ],
)
def test_memory_is_not_lent_while_anybody_has_a_view(keep):
    lender = Lender()
    first = lender.empty(LARGE, np.float32)
    first[:] = 7
    where, kept = place(first), keep(first)
    del first
    second = lender.empty(LARGE, np.float32)
    second[:] = -1
    assert place(second) != where
    assert (np.asarray(kept).view(np.float32) == 7).all()
    del kept
    assert place(lender.empty(LARGE, np.float32)) == where


@given(st.lists(st.integers(0, 5 * SMALL), max_size=8), st.sampled_from(["f4", "i8", "?"]))
def test_arrays_are_like_those_of_numpy(sizes, dtype):
    lender = Lender()
    arrays = [lender.empty(n // np.dtype(dtype).itemsize, dtype) for n in sizes]
    for i, array in enumerate(arrays):
        array[:] = i % 2
        assert (array.dtype, array.shape) == (np.dtype(dtype), (sizes[i] // array.itemsize,))
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert array.flags.aligned
    assert all((array == i % 2).all() for i, array in enumerate(arrays))


def test_a_lender_goes_to_another_process_without_its_memory():
    lender = Lender()
    lender.empty(LARGE, np.float32)
    assert len(pickle.dumps(lender)) < 100
    assert pickle.loads(pickle.dumps(lender)) is not lender


def test_all_share_one_lender_while_somebody_has_it(monkeypatch):
    monkeypatch.setattr(arena, "_shared", lambda: None)  # data sets of other tests may still be there
    lender = shared()
    assert shared() is lender
    assert pickle.loads(pickle.dumps(lender)) is lender
    gone = weakref.ref(lender)
    array = lender.empty(LARGE, np.float32)
    del lender
    assert gone() is None
    array[:] = 1  # what was lent outlives it
    assert (array == 1).all()


def test_small_arrays_are_numpys_own():
    assert Lender().empty(SMALL - 1, np.uint8).flags.owndata


def test_threads_never_get_the_same_memory():
    lender, wrong = Lender(), []

    def work(number):
        for _ in range(300):
            array = lender.empty(LARGE, np.float32)
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

import warnings

import numba
import pytest
from numba.core import caching

from rootdata import compiling
from rootdata.compiling import compiled

SIGNATURE = [numba.int64(numba.int64)]


def doubled(n):
    return 2 * n


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Compile a function whose code is kept in a folder; the warnings are collected."""

    def make(function=doubled, folder=tmp_path):
        compiling._warn.cache_clear()
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            return compiled(SIGNATURE)(function), [str(w.message) for w in caught]

    yield make
    compiling._warn.cache_clear()


def test_compiled_code_is_kept(made, tmp_path):
    function, told = made()
    assert (function(21), told) == (42, [])
    assert list(tmp_path.rglob("*.nbc"))


def test_code_that_can_not_be_kept_works_and_warns_once(made, monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])  # as with an installation and a home to be read only
    function, (told,) = made()
    assert function(21) == 42
    assert told.startswith("compiled code can't be kept (no folder for it can be written); ")
    assert "NUMBA_CACHE_DIR" in told
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled(SIGNATURE)(lambda n: n + 1)(1) == 2  # said once, not for each function


def test_kept_code_that_can_not_be_read_is_compiled_anew(made, tmp_path):
    made()
    for kept in tmp_path.rglob("*.nbi"):
        kept.write_bytes(b"\x80garbage")
    function, told = made()
    assert function(21) == 42
    assert len(told) == 1


def test_a_user_without_a_home_leaves_no_folder_called_so(made, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiling.Path, "home", nowhere)
    function, told = made()
    assert function(21) == 42
    assert len(told) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_a_function_stays_one(made):
    with pytest.raises(numba.core.errors.TypingError):
        made(lambda n: n.nothing)

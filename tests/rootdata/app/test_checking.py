import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rootdata.app import checking
from rootdata.errors import ConfigError
from rootdata.scan.executors import Executor


class Thing:
    """A target for the tests."""

    def __init__(self, size: int, *, names: typing.Sequence[str] = ()):
        self.size, self.names = size, names


def test_a_helper_is_what_others_refer_to():
    node = {"_target_": f"{__name__}.Thing", "size": 3, "width": 4}
    config = OmegaConf.create({"thing": node})
    checking.check(config, known={"thing": typing.Any}, used={"thing.width"})
    with pytest.raises(ConfigError, match=r"'thing\.width' is not an option"):
        checking.check(config, known={"thing": typing.Any}, used=set())


@pytest.mark.parametrize(
    ("source", "reason", "line"),
    [
        ("x = 1\nimport nothing_there\n", "ModuleNotFoundError: No module named 'nothing_there'", 2),
        ("from os import nothing_there\n", "ImportError: cannot import name 'nothing_there' from 'os' .*", 1),
        ("\nclass Net(Base): pass\n", "NameError: name 'Base' is not defined", 2),
        ("import os\nos.nothing_there\n", "AttributeError: module 'os' has no attribute 'nothing_there'", 2),
        ("def f(:\n", "SyntaxError: invalid syntax", 1),
    ],
)
def test_why_the_module_of_a_target_fails_is_told_with_the_line(tmp_path, monkeypatch, source, reason, line):
    (tmp_path / "pack_for_tests").mkdir()
    place = tmp_path / "pack_for_tests/failing.py"
    place.write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    told = rf"^_target_ '\S+' can't be imported: {reason} \({place}, line {line}\)$"
    with pytest.raises(ConfigError, match=told):
        checking.load("pack_for_tests.failing.Net")


KEYS = (
    "model.lr", "model.dropout", "model.hidden", "data.clip", "data.batch_size", "data.patience",
    "callbacks.early_stopping.patience",
)  # fmt: skip


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("model.lrr", "nearest: 'model.lr'"),
        ("model.cliip", "nearest: 'data.clip'"),
        ("model.qqqqq", "known: 'model.dropout', 'model.hidden', 'model.lr'"),
        ("batchsize", "nearest: 'data.batch_size'"),
        ("callback.early_stopping.patience", "nearest: 'callbacks.early_stopping.patience'"),
        ("dataa.patience", "nearest: 'data.patience'"),
    ],
)
def test_a_key_is_near_by_its_own_name_and_not_by_that_of_its_group(key, near):
    assert checking.explain_key(key, known=dict.fromkeys(KEYS, True)) == f"{key!r} is not an option; {near}"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.jets.axis.range", "'data.jets.axis.range' is not set in the configuration; write '+data.jets.axis.ran"),
        ("data.jets.axis.bin", "'data.jets.axis.bin' is not an option; nearest: 'data.jets.axis.bins'"),
        ("callbacks.stopping.range", "'callbacks.stopping.range' is not an option; known: "),
    ],
)
def test_what_is_within_an_option_may_be_added(key, words):
    known = ["data.jets", "data.jets.axis", "data.jets.axis.bins", "callbacks.stopping", "callbacks.stopping._target_"]
    assert checking.explain_key(key, known=dict.fromkeys(known, True)).startswith(words)


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [3, -1], [True, 2.0, "3", None, [3], {}]),
        (float, [3, 2.5], [True, "3", None, []]),
        (str, ["a", ""], [3, None, ["a"], {}]),
        (bool, [True], [1, "true", None]),
        (int | None, [3, None], ["3", 2.5]),
        (typing.Optional[float], [3, None], ["3"]),  # noqa: UP045
        (Path, ["a/b"], [3, ["a"]]),
        (str | Executor | None, ["tcp://host:8786", None], [3, ["a"]]),
        (typing.Literal["vector", "tokens"], ["vector"], ["vectors", None, 3]),
        (list[int], [[], [1, 2]], [["a"], 1, "1", {}]),
        (typing.Sequence[str], [["a"]], ["a", [1], {"a": 1}]),
        (tuple[float, ...], [[1.5]], [["a"]]),
        (dict[str, int], [{"a": 1}], [[1], "a", 3]),
        (typing.Mapping[str, typing.Any] | str, [{"a": 1}, "a"], [3, ["a"]]),
        (Thing | int, [3, {"_target_": "x"}], ["a", None]),
        (typing.Callable[[], None] | None, [None, {"_target_": "x"}], []),
        (typing.Any, [3, None, [], {}], []),
    ],
)
def test_values_and_annotations(hint, good, bad):
    assert [checking.fits(value, hint) for value in good] == [True] * len(good)
    assert [checking.fits(value, hint) for value in bad] == [False] * len(bad)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_a_union_fits_what_one_of_its_parts_fits(value):
    parts = [int, float, str, None, list[int], bool]
    expected = any(checking.fits(value, part) for part in parts)
    assert checking.fits(value, typing.Union[tuple(parts)]) == expected  # noqa: UP007

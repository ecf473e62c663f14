"""Tables fit the terminal, and cut no name so that two look alike."""

import re
from pathlib import Path

import numpy as np
import pytest
from files_for_tests import make_events, write
from rich.console import Console

from rootdata.errors import ConfigError
from rootdata.inspection.choice import choose, choose_features
from rootdata.inspection.files import inspect
from rootdata.inspection.tables import overview, select, tables, typename_of
from rootdata.io.branches import Branch

LONG = [f"AnalysisLargeRJetsAuxDyn_JetConstitScaleMomentum_version{i}_pt" for i in range(4)]


@pytest.fixture
def found(tmp_path):
    rng = np.random.default_rng(0)
    events = make_events(300) | {name: rng.normal(size=300) for name in LONG} | {"HLT_Mu": rng.random(300) < 0.5}
    return inspect([str(write(tmp_path / "a.root", events))])


def shown(renderable, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize("width", [60, 80, 109, 110, 160, 240])
def test_lines_fit_and_names_are_whole(found, width):
    for renderable in (overview(found, choose(found), width=width), tables(found, width=width)):
        text = shown(renderable, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…\n" not in text
        joined = "".join(line.strip().split("  ")[0] for line in text.splitlines() if line.strip())
        assert all(name in joined for name in LONG)


def test_the_choice_comes_first_and_says_why_not_the_rest(found):
    text = shown(overview(found, choose(found), width=160), 160)
    order = [
        text.index(words) for words in ("trees", "features that would be taken", "left out", "label is taken from")
    ]
    assert order == sorted(order)
    assert re.search(r"met +float ", text)
    assert re.search(r"Jet_pt +float\[\]", text)
    assert re.search(r"identifiers: they tell .* 1 +event", text)
    assert re.search(r"trigger bits and flags, not looked at +1 +HLT_Mu", text)
    assert not re.search(r"^ is_signal +", text, re.MULTILINE)


def test_a_part_is_shown_on_request(found):
    assert select(found) is None
    assert select(found, collections=["Jet"]) == ["Jet_pt", "Jet_eta"]
    assert select(found, match="version[13]") == [LONG[1], LONG[3]]
    assert select(found, collections=["Jet"], match="^met$") == ["met", "Jet_pt", "Jet_eta"]
    text = shown(tables(found, width=160, wanted=select(found, collections=["Jet"])), 160)
    assert "Jet_eta" in text
    assert "version1" not in text


def test_a_part_that_is_none(found):
    with pytest.raises(ConfigError, match="--collection: 'Jets' is none; nearest: 'Jet'"):
        select(found, collections=["Jets"])
    with pytest.raises(ConfigError, match=r"--match: '\(' is no regular expression"):
        select(found, match="(")
    with pytest.raises(ConfigError, match="--match: no branch has 'jet_ptt' in its name; nearest: 'Jet_pt'"):
        select(found, match="jet_ptt")


@pytest.mark.parametrize(
    ("branch", "typename"),
    [
        (Branch("x", "flat", "float32"), "float"),
        (Branch("x", "flat", "float64"), "double"),
        (Branch("x", "flat", "bool"), "bool"),
        (Branch("x", "flat", "uint8"), "uint8_t"),
        (Branch("x", "jagged", "int32"), "int32_t[]"),
        (Branch("x", "fixed", "float32", width=3), "float[3]"),
        (Branch("x", "unusable"), ""),
    ],
)
def test_types_are_called_as_uproot_calls_them(branch, typename):
    assert typename_of(branch) == typename


def test_the_types_are_those_of_uproot(tmp_path):
    import uproot

    columns = {t: np.ones(9, t) for t in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
    columns["fixed"] = np.ones((9, 3), np.float32)
    path = write(tmp_path / "a.root", {f"b_{i}": values for i, values in enumerate(columns.values())})
    ours = {name: typename_of(column.branch) for name, column in inspect([str(path)]).columns.items()}
    with uproot.open(path) as file:
        assert ours == {name: branch.typename for name, branch in file["Events"].items()}


def test_branches_of_friends_are_shown_with_their_friend_and_can_be_features():
    place = Path(__file__).parents[2] / "data" / "friends.root"
    found = inspect([f"{place}:Events"])
    text = shown(tables(found, width=160), 160)
    for name, friend in (("z", "extra"), ("extra.x", "extra"), ("w", "near"), ("zs", "extra")):
        assert re.search(rf"^ *{re.escape(name)} .*of friend '{friend}'", text, re.MULTILINE)
    assert len(re.findall("of friend", text)) == text.count("of friend 'extra'") + 4
    assert re.search(r"^ *x +float[^']*$", text, re.MULTILINE)
    assert {"x", "z", "extra.x"} <= {*choose_features(found).flat}

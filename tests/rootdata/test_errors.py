import builtins
import importlib
import inspect
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootdata import errors
from rootdata.errors import RootDataError, nearest

KINDS = {
    "ConfigError": ValueError,
    "ExpressionError": ValueError,
    "FileError": OSError,
    "MachineError": RuntimeError,
    "LibraryError": ImportError,
    "BranchError": KeyError,
    "DataError": ValueError,
    "SpecsError": ValueError,
    "ResumeError": ValueError,
    "ShapeError": ValueError,
    "ColumnsError": ValueError,
    "BundleError": ValueError,
}


def test_the_tree_is_the_documented_one():
    found = {n: c for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, RootDataError)}
    assert set(found) == {"RootDataError", *KINDS}
    for name, builtin in KINDS.items():
        assert found[name].__bases__ == (RootDataError, builtin)
        assert f"{name} " in errors.__doc__
        assert f"({builtin.__name__})" in errors.__doc__


@pytest.mark.parametrize("name", KINDS)
def test_every_error_is_caught_by_its_base_and_by_its_builtin_kind(name):
    for kind in (RootDataError, KINDS[name], Exception):
        with pytest.raises(kind):
            raise getattr(errors, name)("what: got; allowed")


@pytest.mark.parametrize("name", ["RootDataError", *KINDS])
def test_a_sentence_is_shown_as_it_was_written_and_survives_a_process(name):
    error = getattr(errors, name)("branch 'a' not found; nearest: 'b'")
    assert str(error) == "branch 'a' not found; nearest: 'b'"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("name", ["RootDataError", *KINDS])
def test_an_error_without_a_sentence_says_its_name(name):
    assert str(getattr(errors, name)()) == name


def test_builtin_names_are_not_hidden():
    assert not {n for n in vars(errors) if not n.startswith("_")} & set(vars(builtins))


@pytest.mark.parametrize(
    ("name", "known", "clause"),
    [
        ("jet_ptt", ["jet_pt", "jet_phi", "met"], "nearest: 'jet_pt', 'jet_phi'"),
        ("Jet_Pt", ["jet_pt"], "nearest: 'jet_pt'"),
        ("JET_PT", ["Jet_pt", "met"], "nearest: 'Jet_pt'"),
        ("xyz", ["met", "ht"], "known: 'ht', 'met'"),
        ("xyz", [], "there are none"),
        ("xyz", [str(i) for i in range(10, 30)], "known: " + ", ".join(f"'{i}'" for i in range(10, 22)) + ", ..."),
        ("5", [5, 6], "nearest: '5'"),
    ],
)
def test_the_nearest_names_are_said(name, known, clause):
    assert nearest(name, known) == clause


def test_names_that_differ_in_case_alone_are_all_said():
    assert nearest("ht", ["HT", "Ht", "met"]).startswith("nearest: ")
    assert "'HT'" in nearest("ht", ["HT", "Ht", "met"])
    assert "'Ht'" in nearest("ht", ["HT", "Ht", "met"])


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=20))
def test_any_names_make_a_clause_of_known_ones(name, known):
    clause = nearest(name, known)
    assert clause.split(":")[0] in ("nearest", "known", "there are none")
    assert any(repr(k) in clause for k in known) or not known


FRAMEWORKS = {
    "keras": "rootdata[keras]",
    "jax": "rootdata[jax]",
    "tensorflow": "rootdata[tensorflow]",
    "fastai": "rootdata[fastai]",
    "xgboost": "rootdata[trees]",
    "lightgbm": "rootdata[trees]",
}


@pytest.mark.parametrize("library", FRAMEWORKS)
def test_a_framework_that_is_not_installed_is_named_with_its_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"rootdata.frameworks.{library}", raising=False)
    with pytest.raises(errors.LibraryError) as caught:
        importlib.import_module(f"rootdata.frameworks.{library}")
    assert str(caught.value) == f"{library} is not installed; pip install '{FRAMEWORKS[library]}' brings it"
    assert caught.value.name == library


def test_a_framework_that_lacks_something_says_what():
    lacks = ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    sentence = str(errors.LibraryError.of("keras", lacks, install="rootdata[keras]", more=", or another"))
    assert sentence == (
        "keras can't be imported: No module named 'tensorflow'; pip install 'rootdata[keras]' brings it, or another"
    )

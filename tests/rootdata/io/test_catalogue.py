"""A catalogue of files by many hands: every tree is inspected, and every usable column is what uproot reads.

The files are those that wheels of ``scikit-hep-testdata`` hold (``pip install scikit-hep-testdata==0.3.12``, the last
one with files in it), and those of experiments. ``python tests/rootdata/io/catalogue_for_tests.py FILES`` counts.
"""

import importlib.util
from pathlib import Path

import pytest
from catalogue_for_tests import check
from files_for_tests import SHARED

DATA = Path(__file__).parents[2] / "data"
PACKAGE = importlib.util.find_spec("skhep_testdata")
PUBLIC = sorted((Path(str(PACKAGE.origin)).parent / "data").glob("*.root")) if PACKAGE is not None else []
REAL = sorted((SHARED / "real").glob("*.root"))


@pytest.mark.parametrize("path", [DATA / "divided.root", DATA / "fields.root"], ids=lambda path: path.stem)
def test_files_of_our_own(path):
    counts = check(path)
    assert counts["files"] == 1
    assert counts["jagged"] > 2


@pytest.mark.long
@pytest.mark.skipif(not PUBLIC, reason="scikit-hep-testdata is not installed with its files")
@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.stem)
def test_files_that_show_what_uproot_met(path):
    assert check(path)["files"] == 1


@pytest.mark.long
@pytest.mark.skipif(not REAL, reason="the shared data folder is not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_files_of_experiments(path):
    counts = check(path)
    assert counts["trees"] > counts["trees that can't be used"]
    assert counts["jagged"] > 0

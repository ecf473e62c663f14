"""The files that all estimators are trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from estimators_for_tests import write_classes


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory, write_tree: Callable[..., Path]) -> Path:
    """Three samples, one of each class."""
    return write_classes(tmp_path_factory.mktemp("estimators"), write_tree)

"""The summary fits the terminal, and cuts no name so that two look alike."""

import pytest
from files_for_tests import make_events, write
from rich.console import Console

import rootdata


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_that_begin_alike_stay_apart_in_a_narrow_terminal(tmp_path, width):
    events = make_events(300)
    names = [f"AnalysisLargeRJetsAuxDyn_JetConstitScaleMomentum_version{i}" for i in range(3)]
    path = write(tmp_path / "a.root", events | {name: events["met"] + i for i, name in enumerate(names)})
    data = rootdata.RootDataModule({"a": {"files": str(path)}}, flat=names, label="is_signal == 1", batch_size=50)
    data.prepare_data()
    console = Console(width=width)
    with console.capture() as capture:
        console.print(data.summary())
    first = "".join(line.strip().split("  ")[0] for line in capture.get().splitlines())
    assert all(name in first for name in names)
    assert max(map(len, capture.get().splitlines())) <= width

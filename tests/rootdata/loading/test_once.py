"""What a fit and a test do once: options are parsed, files are found, and each file is looked at."""

import socket
import time
from collections import Counter

import pytest
import pytorch_lightning as pl
import torch
from files_for_tests import make_events, write

import rootdata.io.files
import rootdata.options.parsed
import rootdata.scan.lookup
from rootdata.errors import FileError
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        return self.layer(batch["x"]).mean()

    def validation_step(self, batch, number):
        return None

    def test_step(self, batch, number):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def counts(monkeypatch):
    """Count calls of what has to happen once."""
    found = Counter()

    def count(module, name):
        original = getattr(module, name)

        def counted(*arguments, **options):
            found[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(rootdata.options.parsed, "parse_data")
    count(rootdata.options.parsed, "parse_order")
    count(rootdata.scan.lookup, "find_files")
    count(rootdata.io.files, "state_of")
    return found


def test_a_fit_and_a_test_parse_and_find_once(tmp_path, counts):
    paths = [str(write(tmp_path / f"{i}.root", make_events(50, seed=i))) for i in range(4)]
    plain = {"samples": {"all": {"files": paths}}, "flat": ["met"], "batch_size": 25}
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    RootDataModule(**plain).prepare_data()  # the first pass
    counts.clear()
    data, net = RootDataModule(**plain), Net()
    trainer = pl.Trainer(max_epochs=2, enable_model_summary=False, **options)
    trainer.fit(net, data)
    trainer.test(net, data, verbose=False)
    assert counts == {"parse_data": 1, "parse_order": 1, "find_files": 1, "state_of": 4}


class Silent:
    """A server that takes connections and never says a word."""

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/a.root"
        return self

    def __exit__(self, *_):
        self._socket.close()


@pytest.mark.long
def test_patience_and_deadline_are_those_of_everything_that_waits_for_a_server():
    with Silent() as server:
        begun = time.monotonic()
        with pytest.raises(FileError, match="no answer within 1 s"):
            RootDataset({"samples": {"all": {"files": server.url}}, "flat": ["met"], "patience": 2, "deadline": 1})
        assert time.monotonic() - begun < 12  # 37 s, where one of the steps waits for a time of its own


@pytest.mark.long
def test_a_listing_waits_as_long_as_it_may():
    with Silent() as server:
        pattern = server.url.replace("a.root", "*.root")
        begun = time.monotonic()
        with pytest.raises(FileError, match=r"where the server can't list, name every file"):
            RootDataset({"samples": {"all": {"files": pattern}}, "flat": ["met"], "patience": 1, "deadline": 1})
        assert time.monotonic() - begun < 8

"""The first pass on the workers of dask: the same specs to the last bit, the same errors, and workers that die."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import uproot
from files_for_tests import make_events, options, scanned, write
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rootdata.__main__ import main
from rootdata.errors import BranchError, ConfigError, DataError, FileError, RootDataError
from rootdata.io import trees
from rootdata.options.data import parse_data
from rootdata.options.read import ReadConfig
from rootdata.scan.first_pass import scan
from rootdata.scan.lookup import specs_for
from rootdata.scan.sources import find_files

dask = pytest.importorskip("dask", reason="rootdata[cluster] is not installed")
distributed = pytest.importorskip("distributed", reason="rootdata[cluster] is not installed")
from rootdata.scan.executors import connected  # noqa: E402 - after it is known that dask is there

ROOT = Path(__file__).parents[3]
HERE = sys.modules[__name__]
IN_THREADS = {"processes": False, "protocol": "tcp://", "dashboard_address": ":0"}
SPLIT = {"train": 0.5, "val": 0.3, "test": 0.2}
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of dask's own
pytestmark = QUIET


@pytest.fixture(scope="module")
def cluster():
    """Address of a scheduler in this process with three workers, which speak TCP as others do."""
    with distributed.LocalCluster(n_workers=3, threads_per_worker=2, **IN_THREADS) as running:
        yield running.scheduler_address


@pytest.fixture
def several(tmp_path, small_blocks):
    """Options for files of very different sizes: no block, one, some, and more than a task has."""
    for i, (num_events, step) in enumerate([(150, 40), (0, 1), (30, 100), (200, 3), (90, 20)]):
        kind = "RNTuple" if i == 4 else "TTree"
        write(tmp_path / f"{i}.root", make_events(num_events, i), kind=kind, steps=range(step, num_events, step))
    samples = {
        "a": {"files": [str(tmp_path / f"{i}.root") for i in (3, 1, 0)]},
        "b": {"files": str(tmp_path / "[24].root"), "cut": "met > 20", "weight": "weight"},
    }
    scale = {"met": "robust", "Jet_pt": "log", "default": "standard"}
    return options("", samples=samples, scale=scale, split=SPLIT, derived={"ht": "sum(Jet_pt)"}, flat=["met", "ht"])


def texts_of(specs):
    return json.dumps(specs.to_dict())


@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_specs_are_the_same_to_the_last_bit(cluster, several, fraction):
    plain = several | {"fraction": fraction}
    here, there = scanned(plain), scanned(plain, scheduler=cluster)
    assert texts_of(there) == texts_of(here)
    assert [len(f.blocks) for f in here.files] == [67, 0, 4, 1, 5]


def test_bad_files_are_skipped_alike(cluster, several, tmp_path):
    content = (tmp_path / "3.root").read_bytes()
    (tmp_path / "3.root").write_bytes(content[: len(content) // 2])
    write(tmp_path / "2.root", {"met": np.zeros(5)})
    plain = several | {"on_bad_file": "skip"}
    here, there = scanned(plain), scanned(plain, scheduler=cluster)
    assert texts_of(there) == texts_of(here)
    assert [s.position for s in there.skipped] == [0, 3]


class Counter:
    def __init__(self):
        self.expected, self.advanced, self.threads = 0, 0, set()

    def expect(self, entries):
        self.expected += entries

    def advance(self, entries):
        self.advanced += entries
        self.threads.add(threading.current_thread())


def test_progress_is_told_of_every_entry(cluster, several):
    counter, config = Counter(), parse_data(several)
    scan(config, find_files(config), progress=counter, scheduler=cluster)
    assert counter.expected == counter.advanced == 470
    assert counter.threads == {threading.main_thread()}


def test_cached_specs_need_no_scheduler(cluster, several):
    config = parse_data(several)
    first = specs_for(config, progress=False, scheduler=cluster)
    assert specs_for(config, progress=False, scheduler="tcp://127.0.0.1:1") == first
    assert specs_for(config, progress=False) == first


@pytest.mark.parametrize("place", ["alone.yaml", "configs/data/mine.yaml"])
def test_the_command_takes_the_address(cluster, tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    options = {"samples": {"a": {"files": str(write(tmp_path / "a.root", make_events(50))), "label": 1}}}
    OmegaConf.save(options | {"flat": ["met"]}, tmp_path / place)
    assert main(["scan", place, "--scheduler", "tcp://127.0.0.1:1"]) == 2
    assert "scheduler: 'tcp://127.0.0.1:1' can't be reached" in capsys.readouterr().err
    assert main(["scan", place, "--scheduler", cluster]) == 0
    assert "50 entries in" in capsys.readouterr().out
    HydraConfig.instance().cfg = None


# Executors of others


@pytest.mark.long
@pytest.mark.parametrize("kind", ["threads", "processes", "a dask client"])
def test_any_executor_gives_the_same_specs(cluster, several, kind):
    makers = {
        "threads": lambda: ThreadPoolExecutor(2),
        "processes": lambda: ProcessPoolExecutor(
            2, mp_context=multiprocessing.get_context("spawn"), initializer=cut_small_blocks
        ),
        "a dask client": lambda: distributed.Client(cluster, set_as_default=False),
    }
    with makers[kind]() as executor:
        assert texts_of(scanned(several, scheduler=executor)) == texts_of(scanned(several))
        assert executor.submit(int, "3").result() == 3  # it stays open


def test_an_error_is_the_same_whoever_runs_the_task(several, tmp_path):
    (tmp_path / "3.root").write_bytes((tmp_path / "3.root").read_bytes()[:-100])
    with ThreadPoolExecutor(2) as executor, pytest.raises(FileError) as there:
        scanned(several, scheduler=executor)
    with pytest.raises(FileError) as here:
        scanned(several)
    assert str(there.value) == str(here.value)


def break_down():
    os._exit(3)


def cut_small_blocks():
    trees.BLOCK_ENTRIES = 1  # as the fixture does in this process


@pytest.mark.long
def test_an_executor_that_breaks_down_is_an_error(several):
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn, initializer=break_down) as executor,
        pytest.raises(FileError, match="scheduler: ProcessPoolExecutor broke down"),
    ):
        scanned(several, scheduler=executor)


def test_what_runs_nothing_is_refused(several):
    with pytest.raises(ConfigError, match=r"scheduler: got 5; takes the address of a dask scheduler, or an executor"):
        scanned(several, scheduler=5)


# Errors


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_branch(path):
    write(path, {"met": np.zeros(5, np.float32)})


def jagged(path):
    columns = make_events(5)
    write(path, columns | {"met": columns["Jet"]["pt"]})


def negative(path):
    """Give events a weight that is not finite, which is no matter of bad files."""
    write(path, make_events(5) | {"weight": np.full(5, np.inf)})


@pytest.mark.parametrize("spoil", [truncated, without_branch, jagged, negative])
def test_errors_are_the_same(cluster, several, tmp_path, spoil):
    for name in ("2", "4"):  # the first one in order is named, whoever fails first
        spoil(tmp_path / f"{name}.root")
    with pytest.raises(RootDataError) as here:
        scanned(several)
    with pytest.raises(RootDataError) as there:
        scanned(several, scheduler=cluster)
    assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    assert "2.root" in str(there.value)


def all_errors():
    kinds, found = [RootDataError], []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found += [kind] if kind.__module__ == "rootdata.errors" else []
    return found


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_errors_can_be_sent(kind):
    error = pickle.loads(pickle.dumps(kind("what: got; allowed")))
    assert (type(error), str(error), error.args) == (kind, "what: got; allowed", ("what: got; allowed",))


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("nonsense", "missing port number"),
        ("127.0.0.1", "missing port number"),
        ("foo://127.0.0.1:5", "unknown address scheme 'foo'"),
    ],
)
def test_what_is_no_address_is_refused(several, address, what):
    with pytest.raises(ConfigError, match=rf"scheduler: '{address}' can't be reached \(.*{what}.*check the address"):
        scanned(several, scheduler=address)


def test_a_scheduler_that_is_not_there_is_named(several):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"scheduler: '{address}' can't be reached \(ConnectionRefused"):
            scanned(several, scheduler=address)


def test_a_scheduler_without_workers_is_named(several):
    with (
        distributed.LocalCluster(n_workers=0, **IN_THREADS) as empty,
        pytest.raises(ConfigError, match=r"has no worker after 0\.2 s; start some with `dask worker tcp://"),
    ):
        scanned(several, scheduler=empty.scheduler_address, read=ReadConfig(patience=0.2))


def wait_for(path):
    """Run until a file appears."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)


def test_what_still_runs_is_given_up_after_an_error(cluster, tmp_path):
    tasks = [partial(int, "x"), *[partial(wait_for, tmp_path / "never")] * 20]
    begun = time.monotonic()
    with pytest.raises(ValueError, match="invalid literal"), connected(cluster, patience=10) as submit:
        submit(tasks)[0].result()
    assert time.monotonic() - begun < 30
    (tmp_path / "never").touch()
    with connected(cluster, patience=10) as submit:
        assert [r.result() for r in submit([partial(pow, 2, n) for n in range(50)])] == [2**n for n in range(50)]


# In processes of their own


@pytest.fixture(scope="module")
def processes():
    """Address of a scheduler with two worker processes, which are started anew when they die."""
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(HERE)  # the workers have no tests
    seldom = {"distributed.scheduler.allowed-failures": 1}  # deaths of the workers that have a task
    with (
        dask.config.set(seldom),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as running,
    ):
        yield running.scheduler_address
    cloudpickle.unregister_pickle_by_value(HERE)


@pytest.mark.long
def test_worker_processes_learn_the_same(processes, tmp_path):
    for i, num_events in enumerate((45_000, 0, 300, 450_000, 21_000)):
        columns = {"met": np.random.default_rng(i).exponential(50, num_events).astype(np.float32)}
        write(tmp_path / f"{i}.root", columns, steps=range(10_000, num_events, 10_000), compression=uproot.ZLIB(1))
    plain = options(tmp_path, jagged=None, scale="robust", split=SPLIT)
    here, there = scanned(plain), scanned(plain, scheduler=processes)
    assert texts_of(there) == texts_of(here)
    assert [len(f.blocks) for f in here.files] == [3, 0, 1, 23, 2]
    with pytest.raises(BranchError, match=r"branch 'mett' not found; nearest: 'met' .*0\.root"):
        scanned(plain | {"flat": ["mett"]}, scheduler=processes)
    with pytest.raises(DataError, match=r"label 'met' is .*0\.root"):
        scanned(plain | {"label": "met"}, scheduler=processes)


def die_once(marker: Path) -> int:
    """Kill the process that runs this, unless that was done before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die() -> None:
    """Kill the process that runs this, each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_what_a_dead_worker_had_goes_to_another(processes, tmp_path):
    tasks = [partial(pow, 3, 3), partial(die_once, tmp_path / "died"), *[partial(pow, 2, n) for n in range(20)]]
    with connected(processes, patience=60) as submit:
        results = [r.result() for r in submit(tasks)]
    assert (tmp_path / "died").exists()
    assert [results[0], *results[2:]] == [27, *[2**n for n in range(20)]]
    assert results[1] != os.getpid()


@pytest.mark.long
def test_a_task_that_kills_every_worker_is_given_up(processes):
    with (
        pytest.raises(FileError, match=r"scheduler tcp://.*: the workers that took over a task died one after the"),
        connected(processes, patience=60) as submit,
    ):
        submit([die])[0].result()


@pytest.mark.long
def test_a_scheduler_that_goes_away_is_named(tmp_path):
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),  # by which a client looks for it again
        distributed.LocalCluster(n_workers=1, **IN_THREADS) as running,
        connected(running.scheduler_address, patience=60) as submit,
    ):
        (result,) = submit([partial(wait_for, tmp_path / "end")])
        closing = threading.Thread(target=running.sync, args=[running.scheduler.close])
        closing.start()
        with pytest.raises(FileError, match=r"scheduler tcp://.*: the connection was lost"):
            result.result()
        (tmp_path / "end").touch()
        closing.join()

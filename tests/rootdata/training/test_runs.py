"""Who gets which folder; ``tests/test_kills.py`` starts and kills whole trainings."""

import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from files_for_tests import files_below

from rootdata import disk
from rootdata.errors import ConfigError, FileError
from rootdata.training import runs

SOURCES = Path(runs.__file__).parents[2]
DDP = {"strategy": "ddp", "devices": 2}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Leave out what started these tests."""
    for name in (*itertools.chain(*runs._RANKS), *runs._LAUNCHES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def other(tmp_path):
    """Start a process that holds the lock of a folder; return its number, and a function that kills it."""
    with contextlib.ExitStack() as started:

        def hold(folder, **environment):
            code = (
                "import sys; from pathlib import Path; from rootdata.training import runs\n"
                "with runs.locked(Path(sys.argv[1])): print('here', flush=True); sys.stdin.read()"
            )
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            known = {**os.environ, **environment, "PYTHONPATH": str(SOURCES)}
            process = started.enter_context(subprocess.Popen([sys.executable, "-c", code, folder], env=known, **pipes))
            started.callback(process.kill)
            assert process.stdout.readline() == b"here\n"

            def kill():
                process.send_signal(signal.SIGKILL)
                assert process.wait(30) == -signal.SIGKILL

            return process.pid, kill

        yield hold


# Processes of one training


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({}, 0),
        ({"LOCAL_RANK": "0", "RANK": "0"}, 0),
        ({"LOCAL_RANK": "1"}, 1),  # Lightning's own
        ({"RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "1"}, 5),  # torchrun, the second of the second node
        ({"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, 4),
        ({"NODE_RANK": "1"}, 1),  # Lightning on the second node, before it starts others
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, 3),
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "3"}, 0),  # a torchrun in each task of a job
        ({"OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2"}, 2),
        ({"RANK": "", "LOCAL_RANK": "x"}, 0),
    ],
)
def test_the_number_of_a_process_is_in_its_environment(monkeypatch, environment, number):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runs.rank() == number
    assert runs.follows(DDP) is (number > 0)


@pytest.mark.parametrize(
    ("trainer", "is_part"),
    [
        ({"devices": 1}, False),  # as in trainer=cpu: each process trains for itself
        ({"devices": "1", "strategy": "auto", "num_nodes": 1}, False),
        ({"devices": [1]}, False),
        ({"devices": 1, "strategy": "ddp"}, True),
        ({"devices": 1, "num_nodes": 2}, True),
        ({"devices": 2}, True),
        ({"devices": "auto"}, True),
        (None, True),
    ],
)
def test_a_trainer_of_one_device_is_a_training_of_its_own(monkeypatch, trainer, is_part):
    monkeypatch.setenv("RANK", "1")
    assert runs.follows(trainer) is is_part


def test_the_first_process_is_found_by_the_others_whatever_the_time(tmp_path, monkeypatch, other):
    words = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "node01", "MASTER_PORT": "29500"}
    _, kill = other(tmp_path / "killed", **words)
    kill()
    other(tmp_path / "another training", **words | {"MASTER_PORT": "29501"})
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(runs.new_place(tmp_path / "12:00:01", is_first=False)), daemon=True
    )
    waiting.start()
    first = runs.new_place(tmp_path / "12:00:00", is_first=True)
    waiting.join(0.3)
    assert not found  # not before it is locked
    with runs.locked(first):
        waiting.join(10)
    assert found == [first]
    assert not (tmp_path / "12:00:01").exists()


def test_where_nothing_is_known_of_the_launch_the_remedy_is_named(tmp_path, monkeypatch, other):
    other(tmp_path / "somebody")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"process 1 of this training .*same hydra\.run\.dir="):
        runs.new_place(tmp_path / "mine", is_first=False)


# Locked folders


def test_a_folder_in_use_is_refused_by_the_name_of_who_has_it(tmp_path, other, monkeypatch):
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.1)
    folder = tmp_path / "deep" / "run"
    pid, kill = other(folder)
    with pytest.raises(ConfigError, match=rf"deep/run is in use by another training \(process {pid} on "):
        runs.locked(folder).__enter__()
    kill()
    with runs.locked(folder):
        assert disk.owner_of(folder / runs.LOCK).pid == os.getpid()
    assert files_below(tmp_path) == ["deep", "deep/run"]


def test_a_look_of_somebody_who_sweeps_is_waited_for(tmp_path):
    held = disk.hold(tmp_path / runs.LOCK)
    held.__enter__()
    timer = threading.Timer(0.3, held.__exit__, (None, None, None))
    timer.start()
    with runs.locked(tmp_path):
        pass
    timer.join()


def test_what_killed_trainings_left_is_removed_here_and_beside_and_nowhere_else(tmp_path, other):
    killed, alive, ended, mine = (tmp_path / name for name in ("killed", "alive", "ended", "mine"))
    left = [".last.ckpt.12345678.partial", ".bundle.12.partial", ".bundle.12.partial.lock"]
    other(alive)
    _, kill = other(killed)
    kill()
    for folder in (killed, alive, ended, mine):
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").touch()
        (folder / "checkpoints" / left[0]).touch()
        (folder / left[1]).mkdir()
        (folder / left[2]).touch()
    with runs.locked(mine):
        for folder in (killed, mine):
            assert sorted(path.name for path in folder.rglob("*") if path.name != runs.LOCK) == [
                "checkpoints", "config.yaml",
            ]  # fmt: skip
        for folder in (alive, ended):
            assert all(next(folder.rglob(name), None) for name in left)
    assert not (killed / runs.LOCK).exists()


def test_a_folder_that_can_not_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"file/run can't be written \(.*; choose another folder: hydra\.run\.dir"):
        runs.locked(tmp_path / "file" / "run").__enter__()


def test_where_there_are_no_locks_a_warning_says_so(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(disk.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.warns(UserWarning, match=r"can't be locked \(.*No locks available.*start no other"),
        runs.locked(tmp_path),
    ):
        pass
    assert files_below(tmp_path) == []


# What may go into a folder


def config(**changed):
    plain = {
        "seed": 1, "ckpt_path": None, "resume": None, "paths": {"output_dir": "x"},
        "data": {"batch_size": 5}, "model": {"lr": 0.1}, "trainer": {"max_epochs": 3},
    }  # fmt: skip
    return plain | changed


@pytest.fixture(params=["checkpoints/last.ckpt", "metrics.json", "bundle/manifest.json"])
def used(request, tmp_path):
    """The folder of a training that left something."""
    (tmp_path / request.param).parent.mkdir(exist_ok=True)
    (tmp_path / request.param).touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    return tmp_path


@pytest.mark.parametrize("further", [{}, {"ckpt_path": "a.ckpt"}, {"resume": "auto"}])
@pytest.mark.parametrize(
    ("changed", "place"),
    [({"seed": 2}, "seed"), ({"model": {"lr": 0.2}}, "model.lr"), ({"data": {"batch_size": 6}}, "data.batch_size")],
)
def test_another_training_is_never_mixed_in(used, changed, place, further):
    with pytest.raises(ConfigError, match=rf"holds a training that differs in {place}: .*; choose another folder"):
        runs.refuse_mixture(used, config(**changed, **further))


def test_the_same_training_is_gone_on_with_and_not_begun_again(used):
    with pytest.raises(ConfigError, match=r"a training of this configuration; resume=auto goes on with it"):
        runs.refuse_mixture(used, config())
    for trainer in ({"max_epochs": 3}, {"max_epochs": 9}):
        runs.refuse_mixture(used, config(ckpt_path="a.ckpt", trainer=trainer))


def test_where_no_checkpoint_is_found_to_go_on_from_nothing_is_begun_among_the_results(used):
    with pytest.raises(ConfigError, match="holds results, and no checkpoint that this training can go on from"):
        runs.refuse_mixture(used, config(resume="auto"))


def test_results_of_nobody_knows_what_are_not_mixed_with(used):
    (used / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"results of a training, and no config\.yaml that says of which"):
        runs.refuse_mixture(used, config(resume="auto"))


def test_what_is_no_result_is_in_nobodys_way(tmp_path):
    for name in ("config.yaml", "specs.json", "train.log", "mine.ckpt"):
        (tmp_path / name).write_text(yaml.safe_dump(config(seed=5)))
    runs.refuse_mixture(tmp_path, config())


def test_a_script_with_options_of_its_own_is_not_asked(used):
    runs.refuse_mixture(used, {"anything": 1})


def test_what_is_being_trained_is_not_gone_on_with(tmp_path, other):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    pid, kill = other(theirs)
    (theirs / "config.yaml").write_text(yaml.safe_dump(config()))
    (tmp_path / "latest").symlink_to(theirs)
    runs.refuse_twin(mine, config(seed=2))
    with pytest.raises(ConfigError, match=rf"resume=auto: this .* is being trained in .*theirs \(process {pid} on "):
        runs.refuse_twin(mine, config())
    runs.refuse_twin(theirs, config())  # that is this one
    kill()
    runs.refuse_twin(mine, config())


def test_the_lock_says_who_in_plain_json(tmp_path):
    with runs.locked(tmp_path):
        content = json.loads((tmp_path / runs.LOCK).read_text())
    assert content.keys() == {"pid", "host", "since", "launch"}

"""Scripts that are started together, sharing a folder or not: small ones, which write what a training would."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from files_for_tests import files_below
from omegaconf import OmegaConf

from rootdata.app.folders import OwnFolder
from rootdata.errors import RootDataError
from rootdata.training import runs

SOURCES = Path(__file__).parents[3] / "src"
COMMANDS = {"config.yaml", "hydra.yaml", "overrides.yaml"}

SCRIPT = """
import os, sys, time
from pathlib import Path
from rootdata.app import launch

@launch.main(config_path="configs", config_name="train")
def main(config):
    folder = Path(config.paths.output_dir)
    for name in ("config.yaml", "weights", "metrics"):
        (folder / name).write_text(str(config.seed))
        time.sleep(config.seconds)
    if config.kill:
        os.kill(os.getpid(), 9)

main()
"""

CONFIG = {
    "seed": 0, "seconds": 0.1, "kill": False, "paths": {"output_dir": "${hydra:runtime.output_dir}"},
    "trainer": {"devices": 1},
    "hydra": {
        "run": {"dir": "outputs/${now:%Y}"}, "sweep": {"dir": "sweeps/${now:%Y}"},
        "callbacks": {"own_folder": {"_target_": "rootdata.app.folders.OwnFolder"}}, "output_subdir": None,
    },
}  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """Start such a script in a folder; return a function that waits for its status and what it said."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*words, **environment):
        process = subprocess.Popen(
            [sys.executable, "script.py", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCES), **environment},
        )  # fmt: skip

        def wait():
            said = process.communicate(timeout=60)[1].strip()
            return process.returncode, said

        return wait

    return run


def seeds_of(folder):
    """Return the seeds in all that a script wrote, and in what it was told, of a folder in which nothing is left."""
    assert set(files_below(folder)) >= {"config.yaml", "weights", "metrics", "script.log"}
    assert {path.name for path in (folder / ".hydra").iterdir()} == COMMANDS
    told = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    assert not [name for name in files_below(folder) if "partial" in name or "lock" in name]
    written = [(folder / name).read_text() for name in ("config.yaml", "weights", "metrics")]
    composed = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["seed"]
    return {*map(int, written), composed, *(int(word.removeprefix("seed=")) for word in told if "seed=" in word)}


@pytest.mark.long
def test_who_starts_at_the_same_time_gets_a_folder_of_its_own(start, tmp_path):
    waits = [start(f"seed={seed}") for seed in (1, 2, 3)]
    assert [wait() for wait in waits] == [(0, "")] * 3
    folders = sorted((tmp_path / "outputs").iterdir())
    assert [folder.name[4:] for folder in folders] == ["", "_1", "_2"]
    seeds = [seeds_of(folder) for folder in folders]
    assert sorted(map(len, seeds)) == [1, 1, 1]
    assert set.union(*seeds) == {1, 2, 3}


@pytest.mark.long
@pytest.mark.parametrize("word", ["hydra.run.dir=mine", pytest.param("paths.output_dir=mine", marks=pytest.mark.long)])
def test_of_those_who_name_one_folder_the_first_has_it(start, tmp_path, word):
    waits = {seed: start(f"seed={seed}", word, "seconds=1") for seed in (1, 2)}
    ended = {seed: wait() for seed, wait in waits.items()}
    (first,) = [seed for seed, (status, _) in ended.items() if status == 0]
    ((status, said),) = [told for seed, told in ended.items() if seed != first]
    assert (status, len(said.splitlines())) == (2, 1)
    assert "mine is in use by another training (process " in said
    assert {int((tmp_path / "mine" / name).read_text()) for name in ("config.yaml", "weights", "metrics")} == {first}
    if word.startswith("hydra"):
        assert seeds_of(tmp_path / "mine") == {first}
    assert start(f"seed={first + 2}", word)()[0] == 0  # it is free again


@pytest.mark.long
def test_sweeps_that_start_at_the_same_time_have_jobs_of_their_own(start, tmp_path):
    waits = [start("-m", f"seed={seed},{seed + 1}") for seed in (1, 3)]
    assert [wait()[0] for wait in waits] == [0, 0]
    sweeps = sorted((tmp_path / "sweeps").iterdir())
    seeds = {tuple(sorted(seeds_of(sweep / job).pop() for job in "01")) for sweep in sweeps}
    assert (len(sweeps), seeds) == (2, {(1, 2), (3, 4)})
    assert [name for sweep in sweeps for name in files_below(sweep) if "lock" in name] == []


@pytest.mark.long
def test_a_folder_with_a_difficult_name_serves_a_sweep(start, tmp_path):
    name = "it's=a,${now:%Y}"
    status, said = start("-m", "seed=1,2", r"hydra.sweep.dir='it\'s=a,${now:%Y}'")()
    assert (status, said) == (0, "")
    (sweep,) = [path for path in tmp_path.iterdir() if path.name.startswith("it")]
    assert sweep.name[:-4] == name[: name.index("$")]
    assert [seeds_of(sweep / job) for job in "01"] == [{1}, {2}]


@pytest.mark.long
def test_processes_of_one_training_share_the_folder_that_the_first_made(start, tmp_path):
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "localhost", "MASTER_PORT": "29511", "WORLD_SIZE": "2"}
    (tmp_path / "outputs").mkdir()
    words = ["trainer.devices=2", "seed=1", "seconds=1"]
    waits = [start(*words, **torchrun, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in (1, 0)]
    assert [wait() for wait in waits] == [(0, "")] * 2
    (folder,) = (tmp_path / "outputs").iterdir()
    assert seeds_of(folder) == {1}


@pytest.mark.long
def test_processes_that_train_for_themselves_have_folders_of_their_own(start, tmp_path):
    slurm = {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    waits = [start(f"seed={rank}", **slurm, SLURM_PROCID=str(rank)) for rank in (0, 1)]
    assert [wait() for wait in waits] == [(0, "")] * 2
    assert [len(seeds_of(folder)) for folder in (tmp_path / "outputs").iterdir()] == [1, 1]


def test_one_folder_by_two_names_is_one(start, tmp_path):
    (tmp_path / "outputs" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "outputs" / "real")
    assert start("seed=1", "hydra.run.dir=outputs/real", "paths.output_dir=link")() == (0, "")
    assert seeds_of(tmp_path / "outputs" / "real") == {1}


@pytest.mark.long
def test_what_a_killed_one_left_is_in_nobodys_way(start, tmp_path):
    assert start("seed=1", "kill=true", "hydra.run.dir=outputs/mine")()[0] == -9
    folder = tmp_path / "outputs" / "mine"
    assert ".lock" in files_below(folder)
    assert start("seed=2", "hydra.run.dir=outputs/mine")() == (0, "")
    assert seeds_of(folder) == {2}


@pytest.mark.long
def test_what_goes_to_the_jobs_of_a_cluster_is_without_the_lock(tmp_path):
    config, callback = (
        OmegaConf.create({**CONFIG, "hydra": {**CONFIG["hydra"], "overrides": {"hydra": []}}}),
        OwnFolder(),
    )
    config.hydra.sweep.dir = str(tmp_path / "sweep")
    callback.on_multirun_start(config)
    try:
        sent = pickle.loads(pickle.dumps(callback))  # as launchers do with all callbacks
        assert isinstance(sent, OwnFolder)
        sent.on_multirun_end(config)
        with pytest.raises(RootDataError, match="another training"), runs.locked(tmp_path / "sweep"):
            pass
    finally:
        callback.on_multirun_end(config)
    with runs.locked(tmp_path / "sweep"):
        pass


def test_what_hydra_is_asked_to_write_elsewhere_is_written(start, tmp_path):
    assert start("seed=1", "hydra.output_subdir=told")() == (0, "")
    (folder,) = (tmp_path / "outputs").iterdir()
    assert {path.name for path in (folder / "told").iterdir()} == COMMANDS

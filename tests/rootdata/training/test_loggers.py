"""The table of metrics, against Lightning's own logger, on full disks, and when its writer is killed."""

import csv
import errno
import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml
from files_for_tests import files_below
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import loggers as lightning_loggers

from rootdata.training.loggers import CSVLogger

NUMBERS = st.floats(allow_nan=False, width=32)
ROWS = st.lists(st.dictionaries(st.sampled_from(["loss", "auc", "val/loss", 'odd, "name"']), NUMBERS), max_size=8)
PARAMETERS = {"hidden": [64, 32], "lr": 1e-3, "name": "ttH", "shapes": {"x": (4,)}}


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(kind, folder, rows):
    """Log rows, each saved at once as Lightning does, and return what is in the files."""
    logger = kind(folder, name="csv", version="")
    logger.log_hyperparams(PARAMETERS)
    for step, row in enumerate(rows):
        logger.log_metrics(row, step)
        logger.save()
    logger.finalize("success")
    there = folder / "csv"
    return table(there) if rows else [], yaml.safe_load((there / "hparams.yaml").read_text()), files_below(there)


@given(ROWS)
def test_it_writes_what_lightning_writes(tmp_path_factory, rows):
    ours, theirs = (tmp_path_factory.mktemp("logs") for _ in range(2))
    assert write(CSVLogger, ours, rows) == write(lightning_loggers.CSVLogger, theirs, rows)


def test_an_old_table_is_not_added_to(tmp_path):
    write(CSVLogger, tmp_path, [{"loss": 1.0}, {"auc": 2.0}])
    with pytest.warns(UserWarning, match="Previous log files"):
        rows, *_ = write(CSVLogger, tmp_path, [{"loss": 3.0}])
    assert rows == [{"loss": "3.0", "step": "0"}]


def test_on_a_full_disk_lines_are_whole(mount):
    place, failed = mount("64k"), 0
    logger = CSVLogger(place, name="csv", version="")
    logger.log_hyperparams(PARAMETERS)
    for step in range(60):
        logger.log_metrics({f"a metric {number}": float(step) for number in range(1 + 40 * (step > 50))}, step)
        if step == 10:
            room = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
            (place / "filler").write_bytes(bytes(room))
        try:
            logger.save()
        except OSError as error:
            assert errno.errorcode[error.errno] == "ENOSPC"  # noqa: PT017
            failed += 1
        rows = table(place / "csv")
        assert (place / "csv" / "metrics.csv").read_bytes().endswith(b"\n")
        assert [row["step"] for row in rows] == [str(number) for number in range(len(rows))]
    assert failed
    with pytest.warns(UserWarning, match="the last metrics can't be written .*No space left"):
        logger.finalize("failed")
    with pytest.raises(OSError, match="No space left"):
        logger.finalize("success")
    (place / "filler").unlink()
    logger.finalize("success")
    assert len(table(place / "csv")) == 60  # what could not be written then was not forgotten
    assert files_below(place) == ["csv", "csv/hparams.yaml", "csv/metrics.csv"]


def log_until_killed(folder):
    try:
        logger = CSVLogger(folder, name="csv", version="")
        for step in range(10**6):
            if step % 10 == 0:
                logger.log_hyperparams(PARAMETERS | {"step": step})
            logger.log_metrics({f"metric {step // 20}": 1.0, "loss": 0.5}, step)
            logger.save()
    finally:
        os._exit(1)


@pytest.mark.long
def test_killed_at_any_moment_it_leaves_whole_files(tmp_path):
    moments, rows = random.Random(3), 0
    for number in range(20):
        folder = tmp_path / str(number)
        pid = os.fork()
        if not pid:
            log_until_killed(folder)
        while not (folder / "csv" / "metrics.csv").exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines = (folder / "csv" / "metrics.csv").read_text().splitlines()
        assert {line.count(",") for line in lines} == {lines[0].count(",")}
        found = table(folder / "csv")
        assert [row["step"] for row in found] == [str(step) for step in range(len(found))]
        parameters = yaml.safe_load((folder / "csv" / "hparams.yaml").read_text())
        assert parameters.keys() == {*PARAMETERS, "step"}
        rows += len(found)
    assert rows > 50


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = CSVLogger(tmp_path, name="csv", version="")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    logger.finalize("success")
    assert files_below(tmp_path) == []


def test_the_configuration_names_it():
    path = Path(__file__).parents[3] / "configs" / "logger" / "csv.yaml"
    assert yaml.safe_load(path.read_text())["csv"]["_target_"] == "rootdata.training.loggers.CSVLogger"

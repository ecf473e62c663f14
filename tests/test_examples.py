"""The examples that make the pictures of the documentation run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("event_image", ["--events", "1000"]),
        ("reweighting", ["--events", "5000"]),
        ("attention", ["--events", "3000", "--epochs", "1"]),
        ("decoded_event", ["--events", "1000", "--epochs", "1"]),
    ],
)
def test_the_picture_is_drawn(tmp_path: Path, name: str, options: list[str]) -> None:
    picture = tmp_path / "picture.png"
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--out", str(picture), *options]
    environment = {**os.environ, "ROOTDATA_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")

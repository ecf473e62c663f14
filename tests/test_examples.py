"""The examples that make the pictures of the documentation run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_image_of_an_event_is_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "event.png"
    command = [sys.executable, str(ROOT / "examples" / "event_image.py"), "--out", str(picture), "--events", "1000"]
    environment = {**os.environ, "ROOTDATA_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")

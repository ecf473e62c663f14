"""The examples that make the pictures of the documentation run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [["event_image.py"], ["decoded_event.py", "--epochs", "1"]], ids=lambda words: words[0]
)
def test_the_picture_of_an_event_is_drawn(words: list[str], tmp_path: Path) -> None:
    picture, (script, *options) = tmp_path / "event.png", words
    command = [sys.executable, str(ROOT / "examples" / script), "--out", str(picture), "--events", "1000", *options]
    environment = {**os.environ, "ROOTDATA_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")

"""What is printed, wherever it goes."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    """Let signs that a stream has no letters for be written as escapes: how a file is called is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

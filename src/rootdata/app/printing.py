"""What is printed, wherever it goes."""

from __future__ import annotations

import io
import sys


def print_anything() -> None:
    """Write characters that a stream can't encode as escapes: an odd file name is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

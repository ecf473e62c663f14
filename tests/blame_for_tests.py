"""Run the command line and the data set over some places in one process, and print what each ended in as JSON.

``python blame_for_tests.py JOBS``, a JSON list of [how, place, variables]: how is ``inspect``, ``scan`` or ``dataset``,
and the variables are those of the environment, of which one that is null is not set.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
import warnings
from typing import Any

from rootdata.__main__ import main
from rootdata.loading.dataset import RootDataset


def options(place: str) -> dict[str, Any]:
    return {
        "samples": {"all": {"files": place}}, "flat": ["met"], "scale": "none", "split": {"train": 1.0},
        "batch_size": 100, "patience": 1.0, "deadline": 5.0,
    }  # fmt: skip


def dataset(place: str) -> str:
    plain = options(place)
    read = {name: plain.pop(name) for name in ("patience", "deadline")}
    return str(sum(len(batch["label"]) for batch in RootDataset(plain, **read)))


def outcome(how: str, place: str) -> dict[str, str]:
    """Say how it ended (``ok``, ``told`` or ``raised``), the words, and the warnings."""
    said, told = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(said):
        warnings.simplefilter("always")
        with contextlib.redirect_stderr(told):
            try:
                if how == "dataset":
                    end, words = "ok", dataset(place)
                else:
                    status = main([how, place, *(["--entries", "50"] if how == "inspect" else [])])
                    end, words = ("ok", said.getvalue()) if status == 0 else ("told", told.getvalue())
            except Exception as error:  # noqa: BLE001 - this is what is asked for
                is_told = type(error).__module__.startswith("rootdata.")
                end, words = ("told" if is_told else "raised"), f"{type(error).__name__}: {error}"
                if not is_told:
                    words += "".join(traceback.format_exception(error)[-3:])
    return {"end": end, "words": words, "warnings": "\n".join(str(w.message) for w in caught)}


if __name__ == "__main__":
    for how, place, variables in json.loads(sys.argv[1]):
        for name, value in variables.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
        print(json.dumps(outcome(how, place)), file=sys.__stdout__, flush=True)

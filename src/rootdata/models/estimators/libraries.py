"""Libraries that may be absent, and what they say of options that are wrong."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from rootdata.errors import BundleError, ConfigError

EXTRA = "pip install 'rootdata[trees]'"
CONVERTERS = ("onnxmltools", "skl2onnx")  # of models into ONNX graphs
DISTRIBUTIONS = {"xgboost": ("xgboost-cpu", "xgboost"), "sklearn": ("scikit-learn",)}
COMPLAINTS = (r"(Parameters: .* are not used)", r"\[Warning\] (Unknown parameter: .*)", r"\[Fatal\] (.*)")


def needed(*names: str) -> None:
    """Refuse where a library is not installed.

    Raises
    ------
    ConfigError
        Saying how to get it.
    """
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(f"{' and '.join(absent)}: not installed; {EXTRA} brings it")


def distribution_of(library: str) -> str:
    """Name what a library was installed as."""
    for name in DISTRIBUTIONS.get(library, ()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            return name
    return library


def said(act: Callable[[], object]) -> str:
    """Do something with a library, and return what it complains of in one line; empty where it does not.

    XGBoost warns of names that it does not know, LightGBM prints them.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            act()
    except Exception as error:  # noqa: BLE001 - each library has its own classes
        return told(str(error)) or type(error).__name__
    text = printed.getvalue() + "".join(f"{told(str(warning.message))}\n" for warning in seen)
    return next((match[1] for pattern in COMPLAINTS if (match := re.search(pattern, text))), "")


def told(text: str) -> str:
    r"""Take the sentence out of a library's message: without time, file and stack.

    Examples
    --------
    >>> told('[10:59:08] WARNING: /src/learner.cc:790: \nParameters: { "dept" } are not used.\n')
    'Parameters: { "dept" } are not used'
    """
    text = text.partition("Stack trace")[0]
    text = re.sub(r"\[\d\d:\d\d:\d\d\] (WARNING: )?\S+:\d+: ", "", text)
    return " ".join(text.split()).rstrip(". ")


def written(name: str, library: str, write: Callable[[], Any]) -> Any:
    """Return the ONNX graph that a converter writes.

    Parameters
    ----------
    name : of the model
    library : that converts it
    write : does so

    Raises
    ------
    BundleError
        Where it can't, with what it says.
    """
    try:
        return write()
    except Exception as error:  # each converter has its own classes
        said = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{name} can't be written as an ONNX graph by {library}: {told(said).partition('. ')[0][:300]}"
        ) from error


def converter(name: str) -> Any:
    """Import what writes models of a library as ONNX graphs.

    Raises
    ------
    BundleError
        Where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BundleError(f"{name}, which writes the ONNX graph, is not installed; {EXTRA} brings it") from error

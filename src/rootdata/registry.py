"""Kinds of things that users may add to: what is built in, what a package announces, what a dotted name leads to."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import pkgutil
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from rootdata.causes import brief
from rootdata.errors import ConfigError, nearest


def resolve(name: str) -> Any:
    """Import what a dotted name leads to.

    Each module is imported by itself: :func:`pkgutil.resolve_name` takes one that is there, and fails, for absent.
    """
    parts = name.partition(":")[0].split(".")
    for module in (".".join(parts[: i + 1]) for i in range(len(parts))):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            break
    return pkgutil.resolve_name(name)


def why_not(error: Exception) -> str:
    """Say why an import failed, and where, if it did within a module that was found."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [(f, n) for f, n in traceback.walk_tb(error.__traceback__) if f.f_code.co_name == "<module>"]
    if not frames:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    frame, line = frames[-1]
    return f"{brief(error)} ({frame.f_code.co_filename}, line {line})"


class Registry:
    """Finds objects by their names.

    A name is one that is built in, one that an installed package announces as an entry point, or the dotted name of a
    class of one's own, ``my_package.my_module.MyLayout``. An object is made once, without arguments.

    Parameters
    ----------
    what : they are, in errors
    group : of entry points
    built_in : name to where the class is, ``module:Class``
    protocol : where the protocol is that all of them have to follow; it is not looked at without one
    """

    def __init__(self, what: str, *, group: str, built_in: Mapping[str, str], protocol: str | None = None) -> None:
        self.what, self.group = what, group
        self._built_in, self._protocol = dict(built_in), protocol

    @functools.cached_property
    def _places(self) -> dict[str, str]:
        announced = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=self.group)}
        return announced | self._built_in  # nobody takes a name away that is built in

    def names(self) -> tuple[str, ...]:
        """Return the names that are built in or announced."""
        return tuple(dict.fromkeys((*self._built_in, *self._places)))

    def check(self, value: Any, where: str) -> str:
        """Return a name that leads to something.

        Parameters
        ----------
        value : name of something built in or installed, or the dotted name of a class
        where : what to name in an error

        Raises
        ------
        ConfigError
            For a name that is unknown, that can't be imported, or that leads to something else.
        """
        known = self.names()
        if not isinstance(value, str) or (value not in known and "." not in value):
            allowed = ", ".join(map(repr, known))
            hint = nearest(str(value), known)
            near = f"; {hint}" if hint.startswith("nearest") else ""
            raise ConfigError(f"{where}: got {value!r}; allowed: {allowed}, or the dotted name of a class{near}")
        if value in self._built_in:  # which is there; importing it takes a while
            return value
        try:
            found = self.find(value)
        except Exception as error:
            raise ConfigError(f"{where}: the {self.what} {value!r} can't be made: {why_not(error)}") from error
        lacks = [] if self._protocol is None else list(_lacking(found, pkgutil.resolve_name(self._protocol)))
        if lacks:
            raise ConfigError(
                f"{where}: {value!r} is no {self.what}: it lacks {', '.join(lacks)}; see {self._protocol}, or take one "
                f"of {', '.join(map(repr, self.names()))}"
            )
        return value

    @functools.cache  # noqa: B019 - a registry lives as long as its module
    def find(self, name: str) -> Any:
        """Return the object of a name, which was checked."""
        return resolve(self._places.get(name, name))()


def _lacking(found: Any, protocol: type) -> Iterator[str]:
    """Name what an object does not have of a protocol, and which methods can't be called as it says."""
    for name in protocol.__annotations__:
        if not hasattr(found, name):
            yield name
    for name, meant in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(meant):
            continue
        arguments = list(inspect.signature(meant).parameters)[1:]  # without self
        try:
            inspect.signature(getattr(found, name, None)).bind(*arguments)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            yield f"{name}({', '.join(arguments)})"


SCALINGS = Registry(
    "scaling",
    group="rootdata.scalings",
    protocol="rootdata.scaling.kinds:ScalingKind",
    built_in={
        "standard": "rootdata.scaling.kinds:Standard",
        "minmax": "rootdata.scaling.kinds:MinMax",
        "robust": "rootdata.scaling.kinds:Robust",
        "log": "rootdata.scaling.kinds:Log",
        "uniform": "rootdata.scaling.kinds:Uniform",
        "normal": "rootdata.scaling.kinds:Normal",
        "none": "rootdata.scaling.kinds:Unscaled",
    },
)
LAYOUTS = Registry(
    "layout",
    group="rootdata.layouts",
    protocol="rootdata.layouts.layout:LayoutKind",
    built_in={
        "vector": "rootdata.layouts.vector:Vector",
        "tokens": "rootdata.layouts.tokens:Tokens",
        "image": "rootdata.layouts.image:Images",
        "jagged": "rootdata.layouts.jagged:JaggedEvents",
    },
)
FORMS = Registry(
    "form",
    group="rootdata.forms",
    protocol="rootdata.layouts.forms:Form",
    built_in={
        "tokens": "rootdata.layouts.tokens:TokenForm",
        "wrapped": "rootdata.layouts.tokens:WrappedForm",
        "image": "rootdata.layouts.image:ImageForm",
        "jagged": "rootdata.layouts.jagged:JaggedForm",
    },
)
FILE_FORMATS = Registry(
    "file format",
    group="rootdata.file_formats",
    built_in={
        "parquet": "rootdata.io.tables.parquet:ParquetFormat",
        "arrow": "rootdata.io.tables.arrow:ArrowFormat",
        "csv": "rootdata.io.tables.text:CsvFormat",
    },
)
SCORERS = Registry(
    "scorer",
    group="rootdata.scorers",
    built_in={
        "bundle": "rootdata.analysis.friends.scorer:Bundles",
        "http": "serve.scorer:ServedModels",
        "https": "serve.scorer:ServedModels",
    },
)

"""What is read: samples, their files, and friends of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from rootdata.errors import ConfigError
from rootdata.options import typed, values, weighting
from rootdata.options.typed import option
from rootdata.options.weighting import WeightSource


def _files(value: Any, where: str) -> tuple[str | tuple[str, ...], ...]:
    files = tuple(_file(one, where) for one in values.listed(value, where))
    if not files:
        raise ConfigError(f"{where} is empty: give a path, a glob or a list of those")
    return files


def _file(value: Any, where: str) -> str | tuple[str, ...]:
    """Check a path, or a list of paths at which copies of one file lie."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise ConfigError(f"{where}: got an empty list of replicas; name at least one place of the file")
        return tuple(values.path(v, where) for v in value)
    return values.path(value, where)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FriendFiles:
    """Files with trees that are read beside those of a sample.

    Parameters
    ----------
    files : paths, URLs, globs, folders, ``path:tree``
    alias : what their branches are called by, ``alias.branch``; empty for the name of their tree
    """

    files: tuple[str, ...]
    alias: str = ""


def _friends(value: Any, where: str) -> tuple[FriendFiles, ...]:
    if isinstance(value, (list, tuple)) and any(isinstance(one, FriendFiles) for one in value):
        return tuple(value)  # taken apart from a sample that was checked
    if isinstance(value, Mapping):
        return tuple(FriendFiles(files=_paths(v, f"{where}.{k}"), alias=str(k)) for k, v in value.items())
    return (FriendFiles(files=_paths(value, where)),) if value else ()


def _paths(value: Any, where: str) -> tuple[str, ...]:
    return tuple(values.path(one, where) for one in values.listed(value, where))


def _own_parameters(value: Any, where: str) -> tuple[tuple[str, str | float], ...]:
    table = values.mapping(dict(value) if isinstance(value, tuple) else value or {}, where, "{'mass': 500}")
    found = {str(name): weighting.weight(one, f"{where}.{name}") for name, one in table.items()}
    return tuple((name, one) for name, one in found.items() if one is not None)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A physics process and its files.

    Parameters
    ----------
    files : paths, URLs, globs, folders, ``path:tree`` or lists of those; a tuple in it holds replicas of one file
    tree : name of the tree, where a file holds several
    label : class number of every event of the sample
    cut : expression; events where it is false are left out
    weight : number or expression that multiplies the weight of every event
    cross_section : in pb; or ``data`` for recorded events, which have none
    luminosity : in fb^-1; by default that of all samples
    sum_of_weights : where the sum of its generator weights stands; by default as for all samples
    parameters : name of a parameter to its value in the sample, a number or an expression
    friends : files with trees that are read beside those of ``files``, entry by entry; or name to files of such
    """

    name: str
    files: tuple[str | tuple[str, ...], ...] = option(_files, decides=())  # what was found is compared
    tree: str | None = option(values.text, None, is_optional=True)
    label: int | None = option(values.natural, None, is_optional=True)
    cut: str | None = option(values.optional_expression, None)
    weight: str | float | None = option(weighting.weight, None)
    cross_section: float | Literal["data"] | None = option(weighting.cross_section, None, is_silent=True)
    luminosity: float | None = option(weighting.positive, None, is_silent=True)
    sum_of_weights: WeightSource | None = option(weighting.weight_source, None, is_silent=True)
    parameters: tuple[tuple[str, str | float], ...] = option(
        _own_parameters, (), takes=Mapping[str, Any] | None, is_silent=True
    )
    friends: tuple[FriendFiles, ...] = option(_friends, (), decides=())  # as of files


def is_normalised(sample: Sample) -> bool:
    """Say whether a sample is weighted to a luminosity."""
    return isinstance(sample.cross_section, float)


def parse_samples(value: Any, where: str) -> tuple[Sample, ...]:
    """Check samples by name."""
    table = values.mapping(value, where, "{'ttH': {'files': 'ttH*.root', 'label': 1}, ...}")
    if not table:
        raise ConfigError("no samples: got an empty mapping; name at least one, {'ttH': {'files': 'ttH*.root'}}")
    return tuple(typed.named(Sample, name, one, where, short="files") for name, one in table.items())

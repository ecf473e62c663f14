"""Which files belong to which sample."""

from __future__ import annotations

from collections.abc import Sequence

from rootdata.errors import FileError
from rootdata.io.files import find, identity
from rootdata.io.friends.match import befriended
from rootdata.location import Location
from rootdata.options.data import DataConfig
from rootdata.options.read import ReadConfig


def find_files(config: DataConfig, *, read: ReadConfig = ReadConfig()) -> list[tuple[int, Location]]:
    """Find the files of all samples.

    Parameters
    ----------
    config : names the files of each sample
    read : how long servers are waited for

    Returns
    -------
    (position of the sample, location) of every file, sample by sample

    Raises
    ------
    FileError
        Where a path matches nothing, or two samples share a file and tree.
    """
    found: list[tuple[int, Location]] = []
    for i, sample in enumerate(config.samples):
        locations = find(sample.files, tree=sample.tree, where=f"samples.{sample.name}.files", read=read)
        for friend in sample.friends:
            where = f"samples.{sample.name}.friends{friend.alias and f'.{friend.alias}'}"
            beside = find(friend.files, where=where, read=read)
            locations = befriended(locations, beside, alias=friend.alias, where=where)
        found += [(i, location) for location in locations]
    check_owners(config, found)
    return found


def check_owners(config: DataConfig, found: Sequence[tuple[int, Location]]) -> None:
    """Refuse events that would count for two samples, or twice for one."""
    owners: dict[Location, list[int]] = {}
    for i, location in found:
        before = owners.setdefault(identity(location), [])
        sample = config.samples[i]
        if i in before:
            raise FileError(
                f"samples.{sample.name}.files: {location.path}, tree {location.tree!r}, is named twice, its events "
                "would count double; name it once"
            )
        others = [config.samples[b] for b in before if sample.cut is None or config.samples[b].cut is None]
        if others:
            raise FileError(
                f"{location.path} belongs to samples {others[0].name!r} and {sample.name!r}; give each of them a cut "
                "or a tree of its own, or list the file once"
            )
        before.append(i)

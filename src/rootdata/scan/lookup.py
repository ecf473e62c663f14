"""The specs of a data set: given, kept from an earlier run, or made by a first pass now."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rootdata import cache_folder
from rootdata.causes import reason_of
from rootdata.errors import SpecsError
from rootdata.events import needs
from rootdata.io.files import states_of
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.io.friends.match import path_of
from rootdata.location import Friend, Location, State, is_remote, name_of
from rootdata.options.data import DataConfig
from rootdata.options.parsed import Options
from rootdata.options.parts import Split
from rootdata.options.read import ReadConfig
from rootdata.scan.executors import Executor
from rootdata.scan.first_pass import scan_folds
from rootdata.scan.progress_bar import bar
from rootdata.scan.renaming import renamed
from rootdata.scan.scanned import Scanned, check_elements
from rootdata.scan.sources import find_files
from rootdata.scan.specs import FileSpecs, SkippedFile, Specs, fingerprint, key_of

if TYPE_CHECKING:
    from rootdata.io.store import Store

SHOWN = 3  # bad files that a warning names


def scan_for(
    options: Options,
    *,
    given: Specs | str | Path | None = None,
    progress: bool = True,
    store: Store | None = None,
    scheduler: str | Executor | None = None,
) -> Scanned:
    """Find the files of a data set, once, and return what is known of it.

    Parameters
    ----------
    options : the data, and how they are read; the order does not matter here
    given, progress, store, scheduler : as :func:`specs_for` takes them

    Raises
    ------
    RootDataError
        As :func:`specs_for`, and for an option of a branch, or an element of one, that there is not.
    """
    needs.check_missing(options.data)
    specs = specs_for(options.data, given=given, progress=progress, read=options.read, store=store, scheduler=scheduler)
    check_elements(options.data, specs)
    return Scanned(config=options.data, specs=specs)


def specs_for(
    config: DataConfig,
    *,
    given: Specs | str | Path | None = None,
    progress: bool = True,
    read: ReadConfig = ReadConfig(),
    store: Store | None = None,
    scheduler: str | Executor | None = None,
) -> Specs:
    """Return the specs of a configuration: given ones, cached ones, or new ones.

    Parameters
    ----------
    config : of the data
    given : specs, or the path of a file of them; refused where they were made for something else
    progress : show a bar while scanning
    read : how files are read, remote ones above all
    store : where decoded blocks are kept, so that training finds them there
    scheduler : address of a ``dask.distributed`` scheduler, or an executor, over whose workers a new pass is spread

    Raises
    ------
    SpecsError
        Where the given specs do not match.
    """
    files = find_files(config, read=read)
    states = states_of([location for _, location in files], read=read)
    if given is not None:
        return _at_home(_given(given, config, files, states), files)
    path = cache_folder.specs_path(fingerprint(key_of(config), files, states))
    specs = _cached(path, read)
    if specs is None:
        first = cache_folder.specs_path(fingerprint(key_of(config.every_fold[0]), files, states))
        with cache_folder.alone(first):  # the ranks of a training, and those of all folds, may ask all at once
            specs = _cached(path, read)
            if specs is None:
                with bar("first pass", show=progress) as reporter:
                    every, index = scan_folds(
                        config, files, states, progress=reporter, read=read, store=store, scheduler=scheduler
                    )
                for one in every:
                    _keep(one, index, cache_folder.specs_path(one.fingerprint), config.split)
                specs = every[config.fold or 0]
    _warn_of_skipped(specs)
    return _at_home(specs, files)


def _given(
    given: Specs | str | Path, config: DataConfig, files: Sequence[tuple[int, Location]], states: Sequence[State]
) -> Specs:
    if isinstance(given, Specs):  # whoever has them was warned
        check_matches(given, config, files, states, where="the specs")
        return given
    specs = Specs.load(given)
    check_matches(specs, config, files, states, where=f"specs {given}")
    _warn_of_skipped(specs)
    return specs


def _cached(path: Path, read: ReadConfig) -> Specs | None:
    try:
        specs = Specs.load(path) if path.exists() else None
    except (SpecsError, OSError):  # written by another version, damaged, or not to be read: made anew
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return None if specs is None or _has_new_friends(specs, read) else specs


def _has_new_friends(specs: Specs, read: ReadConfig) -> bool:
    """Say whether friends that files name are not those of the first pass; of all others the fingerprint tells."""
    files = [file for file in specs.files if any(friend.is_named for friend in file.friends)]
    if any(_is_elsewhere(friend, file.path) for file in files for friend in file.friends):
        return True
    states = states_of([file.location for file in files], read=read)
    return any(now.differs_from(file.state) for now, file in zip(states, files, strict=True))


def _is_elsewhere(friend: Friend, place: str) -> bool:
    """Say whether a friend that a file names would be found at another path now, or nowhere."""
    if friend.written is None:
        return False
    now = path_of(friend.written, place)
    return now != friend.path or not (is_remote(now) or Path(now).exists())


def _keep(specs: Specs, index: BasketIndex, path: Path, split: Split) -> None:
    try:
        _warn_of_renamed(renamed(cache_folder.names_path(), specs.files, split))
        index.save(cache_folder.baskets_path(specs.fingerprint))
        specs.save(path)
    except OSError as error:
        words = f"the specs can't be kept in {path.parent} ({reason_of(error)}); the next run scans again: "
        warnings.warn(f"{words}let ROOTDATA_CACHE name a folder that can be written", stacklevel=3)


def _warn_of_renamed(names: Mapping[str, str]) -> None:
    if names:
        new, old = next(iter(names.items()))
        warnings.warn(
            f"{len(names)} files hold what an earlier first pass read under another name ({new}: {old}): a split by "
            "names deals their events to other parts now, and a network that was trained before has seen some of the "
            "new test part; keep the names, or split by entries or by an expression such as 'event % 5'",
            stacklevel=4,
        )


def _warn_of_skipped(specs: Specs) -> None:
    if not specs.skipped:
        return
    shown = "; ".join(f"{specs.samples[s.sample]}: {s.reason}" for s in specs.skipped[:SHOWN])
    count, of = len(specs.skipped), len(specs.skipped) + len(specs.files)
    more = f"; and {count - SHOWN} more" if count > SHOWN else ""
    warnings.warn(f"{count} of {of} files are skipped (on_bad_file='skip'): {shown}{more}", stacklevel=3)


def _at_home(specs: Specs, files: Sequence[tuple[int, Location]]) -> Specs:
    """Return specs with the paths of this machine."""
    left_out = {s.position: s for s in specs.skipped}
    used = [location for i, (_, location) in enumerate(files) if i not in left_out]
    moved = tuple(
        dataclasses.replace(f, path=where.path, replicas=where.replicas, friends=_friends_at(f.friends, where))
        for f, where in zip(specs.files, used, strict=True)
    )
    skipped = tuple(dataclasses.replace(s, path=files[s.position][1].path) for s in specs.skipped)
    return dataclasses.replace(specs, files=moved, skipped=skipped)


def _friends_at(known: Sequence[Friend], found: Location) -> tuple[Friend, ...]:
    """Give the friends of a file that was found again the paths of this machine."""
    given = [f for f in known if f.written is None]
    paths = [(f, now.path) for f, now in zip(given, found.friends, strict=True)]
    paths += [(f, path_of(f.written, found.path)) for f in known if f.written is not None]
    return tuple(dataclasses.replace(f, path=path) for f, path in paths)


def check_matches(
    specs: Specs,
    config: DataConfig,
    files: Sequence[tuple[int, Location]],
    states: Sequence[State],
    *,
    where: str,
) -> None:
    """Refuse specs that were made for other data or another configuration.

    Parameters
    ----------
    specs : that were given
    config : that they shall serve
    files, states : what is found now
    where : what to call the specs in an error

    Raises
    ------
    SpecsError
        Naming the first difference.
    """
    names = tuple(s.name for s in config.samples)
    if specs.samples != names:
        raise SpecsError(f"{where} were made for samples {list(specs.samples)}, not {list(names)}; scan again")
    if specs.key != key_of(config):
        raise SpecsError(f"{where} were made with other features, cuts, labels, weights or another split; scan again")
    listed = _as_found(specs)
    if len(listed) != len(files):
        raise SpecsError(f"{where} know {len(listed)} files, {len(files)} were found; scan again")
    for known, (sample, location), now in zip(listed, files, states, strict=True):
        size = known.state.size if isinstance(known, FileSpecs) else known.size
        if known.sample != sample or name_of(known.path) != name_of(location.path):
            raise SpecsError(f"{where} were made for {known.path} where {location.path} was found; scan again")
        friends = known.friends if isinstance(known, FileSpecs) else location.friends
        if [name_of(f.path) for f in friends if not f.is_named] != [name_of(f.path) for f in location.friends]:
            raise SpecsError(f"{where} were made for {known.path} with other friends; scan again")
        is_whole = len(friends) == len(location.friends)  # of those that the file names nobody knows the size here
        if is_whole and now.size and size != now.size:
            raise SpecsError(f"{where} know {location.path} with {size} bytes, it has {now.size}; scan again")


def _as_found(specs: Specs) -> list[FileSpecs | SkippedFile]:
    """Put good and bad files into the order in which they were found."""
    listed: list[FileSpecs | SkippedFile] = list(specs.files)
    for bad in sorted(specs.skipped, key=lambda s: s.position):
        listed.insert(bad.position, bad)
    return listed

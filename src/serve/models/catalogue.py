"""What is in the folder of models: each is looked at by one ``stat``, and read again once it has changed.

Readers take no lock: whatever changes becomes visible by one rename. On a network file system it does once the
attribute cache has run out (``acdirmax`` of NFS).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from rootdata.bundle.manifest import Manifest
from rootdata.errors import nearest
from serve import atomic, names
from serve.atomic import Watched
from serve.errors import InvalidModel, NotFound
from serve.models import bundles
from serve.models.cards import Card, conditions
from serve.models.config import CONFIG, Config, read_config
from serve.models.index import Index, Summary

KEPT_MANIFESTS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a look into a model's folder found."""

    versions: tuple[int, ...] = ()
    latest: int | None = None
    about: Summary | None = None
    broken: Mapping[int, str] = dataclasses.field(default_factory=dict)
    config: Config = dataclasses.field(default_factory=Config)
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the index; only of a model without problems."""
        about = None if self.about is None else dataclasses.asdict(self.about)
        return {"versions": self.versions, "latest": self.latest, "about": about, **dataclasses.asdict(self.config)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what :meth:`to_dict` gave."""
        config = Config(aliases=plain["aliases"], tags=tuple(plain["tags"]), policy=plain["policy"])
        about = Summary.of_plain(plain["about"])
        return cls(versions=tuple(plain["versions"]), latest=plain["latest"], about=about, config=config)


class Catalogue:
    """Reads a folder of models, and keeps what it read until the files change.

    Changes by other processes are seen by the next call: each looks at the model's folder, with one ``stat``. On a
    network file system they are seen once its attribute cache has run out (``acdirmax`` of NFS).

    Parameters
    ----------
    root : the folder; it need not be there
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).resolve()
        self._models: dict[str, Watched[Seen]] = {}
        self._index = Index(self._root)
        self._manifests: dict[tuple[str, int], tuple[tuple[int, ...], Manifest]] = {}

    def resolve(self, name: str, reference: str | int | None = None) -> int:
        """Return the version that is meant.

        Parameters
        ----------
        name : of the model
        reference : a version number, an alias, or ``latest``, which is also what nothing means

        Raises
        ------
        NotFound
            Naming the nearest models, or the versions and aliases that there are.
        """
        return _version(self._look(name), name, reference)

    def served(self, name: str, reference: str | int | None = None) -> int:
        """Return the version that is meant, as :meth:`resolve`, if it is in service.

        Raises
        ------
        NotFound
            If there is none, or it is unloaded.
        """
        seen = self._look(name)
        version = _version(seen, name, reference)
        if seen.config.has_unloaded(version):
            raise NotFound(
                f"model {name!r}, version {version}, is not loaded; POST /v2/repository/models/{name}/load, "
                "or publish a new version",
                code="not_loaded",
            )
        return version

    def versions(self, name: str) -> tuple[int, ...]:
        """Return all versions of a model, rising; also those that can't be used."""
        return self._look(name).versions

    def path(self, name: str, version: int) -> Path:
        """Return the folder of a version.

        Raises
        ------
        NotFound
            If there is none.
        """
        return self._root / name / str(self.resolve(name, version))

    def manifest(self, name: str, version: int) -> Manifest:
        """Return the manifest of a version; kept until the files change.

        Raises
        ------
        NotFound
            If there is no such version.
        InvalidModel
            If its files, which somebody put there by hand, can't be used.
        """
        kept = self._manifests.get((name, version))
        if kept is not None:
            with contextlib.suppress(OSError):
                if kept[0] == bundles.stamp(f"{self._root}/{name}/{version}"):
                    return kept[1]
        _, found = self._read_manifest(name, self.resolve(name, version))
        if isinstance(found, str):
            raise InvalidModel(found, field="model")
        return found

    def card(self, name: str) -> Card:
        """Return what is known of a model."""
        seen = self._look(name)
        return Card(
            name=name,
            versions=seen.versions,
            latest=seen.latest,
            aliases=seen.config.aliases,
            tags=tuple(sorted({*seen.config.tags, *(seen.about.tags if seen.about else ())})),
            about=seen.about,
            broken=seen.broken,
            problem=seen.problem,
            unloaded=tuple(v for v in seen.versions if seen.config.has_unloaded(v)),
        )

    def cards(self) -> list[Card]:
        """Return the cards of all models by name; what is broken says why and hides nothing else."""
        found = []
        for name in sorted(self._names()):
            with contextlib.suppress(NotFound):  # gone since the folder was listed
                found.append(self.card(name))
        self._index.save([card.name for card in found])
        return found

    def search(
        self,
        *,
        tag: str | None = None,
        feature: str | None = None,
        author: str | None = None,
        text: str | None = None,
        bounds: Mapping[str, float] | None = None,
    ) -> list[Card]:
        """Find models by what the latest version says; what is not given does not matter.

        Parameters
        ----------
        tag : that the model has, in full
        feature : a branch or feature that it takes
        author, text : parts of the author, and of name, description, author or tags; in any case of letters
        bounds : ``min_<metric>`` or ``max_<metric>`` to a number; a model without the metric is not found

        Raises
        ------
        BadRequest
            For a bound of another name, or one that is no number.
        """
        wanted = conditions(tag=tag, feature=feature, author=author, text=text, bounds=bounds)
        return [card for card in self.cards() if all(is_met(card) for is_met in wanted)]

    def _look(self, name: str) -> Seen:
        """Return what is known of a model.

        Raises
        ------
        NotFound
            If there is none, naming the nearest.
        """
        watched = self._models.get(name)
        if watched is None:
            watched = Watched(self._root / names.model(name), partial(self._read_model, name))
        try:
            seen = watched.get()
        except (FileNotFoundError, NotADirectoryError):
            seen = Seen()
        if not seen.versions:
            self._models.pop(name, None)
            known = nearest(name, itertools.islice(self._names(), 100))
            raise NotFound(f"model {name!r} not found; {known}", code="unknown_model", field="model")
        self._models[name] = watched
        return seen

    def _read_model(self, name: str) -> tuple[Seen, bool]:
        """Look into a folder; one with a broken version on top is looked at again, as a copy may be under way."""
        home = self._root / name
        if home.is_symlink():
            return Seen(), True
        stamp = stamp_around(home)
        is_settled = time.time_ns() - stamp[0] > atomic.SETTLED_NS  # before anything is read
        if (kept := self._kept(name, stamp)) is not None:
            return kept, True
        versions = sorted(version_folders(home))
        broken: dict[int, str] = {}
        latest, about = None, None
        for version in reversed(versions):
            inner, found = self._read_manifest(name, version)
            if isinstance(found, Manifest):
                latest, about = version, Summary.of(found)
                stamp += inner
                break
            broken[version] = found
        gone = {v for v in broken if not (home / str(v)).exists()}  # deleted while we looked
        try:
            config, problem = read_config(home / CONFIG), None
        except (OSError, ValueError, RecursionError) as error:
            config, problem = Config(), f"{name}/{CONFIG} can't be read ({error}); repair or remove it"
        seen = Seen(
            versions=tuple(v for v in versions if v not in gone),
            latest=latest,
            about=about,
            broken={v: why for v, why in broken.items() if v not in gone},
            config=config,
            problem=problem,
        )
        if about is not None and not broken and problem is None and is_settled:
            self._index.put(name, stamp, seen.to_dict())
        return seen, not broken

    def _kept(self, name: str, stamp: tuple[int, ...]) -> Seen | None:
        """Return what the index knows of a model, if its files are those that were seen then."""
        known = self._index.get(name)
        if known is None:
            return None
        try:
            inner = bundles.stamp(f"{self._root}/{name}/{int(known[1]['latest'])}")
            return Seen.of_plain(known[1]) if list(known[0]) == [*stamp, *inner] else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _read_manifest(self, name: str, version: int) -> tuple[tuple[int, ...], Manifest | str]:
        folder = f"{self._root}/{name}/{version}"
        try:
            stamp = bundles.stamp(folder)
        except OSError as error:
            file = Path(str(error.filename)).name
            return (), f"model {name!r}, version {version}: {file} is missing; publish a whole bundle"
        kept = self._manifests.get((name, version))
        if kept is not None and kept[0] == stamp:
            return kept
        found = bundles.manifest_or_reason(Path(folder))
        if isinstance(found, str):  # kept by nobody, it may pass: a copy goes on, a deletion is undone
            return stamp, f"model {name!r}, version {version}: {found}"
        if len(self._manifests) >= KEPT_MANIFESTS:
            self._manifests.clear()
        self._manifests[name, version] = (stamp, found)
        return stamp, found

    def _names(self) -> Iterator[str]:
        """Return the names of all folders that may be models."""
        try:
            with os.scandir(self._root) as entries:
                yield from (e.name for e in entries if names.is_word(e.name) and e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return


def _version(seen: Seen, name: str, reference: str | int | None) -> int:
    if reference is None or reference == names.LATEST:
        if seen.latest is None:
            raise InvalidModel(f"model {name!r}: {_why(seen.broken)}", field="model")
        return seen.latest
    if isinstance(reference, int) or names.is_version(reference):
        version = int(reference)
        if version not in seen.versions:
            shown = ", ".join(map(str, seen.versions[-12:]))
            raise NotFound(f"model {name!r} has no version {version}; it has {shown}", code="unknown_version")
        return version
    if seen.problem is not None:
        raise InvalidModel(f"model {name!r}: alias {reference[: names.MAX_LENGTH]!r}: {seen.problem}", field="model")
    version = seen.config.aliases.get(reference, 0)
    if version not in seen.versions:
        known = nearest(reference[: names.MAX_LENGTH], seen.config.aliases)
        why = f"points at version {version}, which is gone" if version else f"is not known; {known}"
        raise NotFound(f"model {name!r}: alias {reference[: names.MAX_LENGTH]!r} {why}", code="unknown_alias")
    return version


def version_folders(home: Path) -> list[int]:
    """Return the numbers of the versions in a model's folder, in no order."""
    with os.scandir(home) as entries:
        return [int(e.name) for e in entries if names.is_version(e.name) and e.is_dir(follow_symlinks=False)]


def stamp_around(home: Path) -> tuple[int, ...]:
    """Say which state a model's folder and its configuration are in."""
    own = os.lstat(home)
    try:
        config = os.lstat(home / CONFIG)
    except FileNotFoundError:
        return (own.st_mtime_ns, own.st_ino, own.st_nlink)
    return (own.st_mtime_ns, own.st_ino, own.st_nlink, config.st_ino, config.st_mtime_ns, config.st_size)


def _why(broken: Mapping[int, str]) -> str:
    return "no version can be used: " + "; ".join(itertools.islice(broken.values(), 3))

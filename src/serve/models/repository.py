"""The model repository: a folder of bundles that many processes read and write at the same time.

::

    <root>/<name>/<version>/   model.onnx, manifest.json, preprocess.json; never changed, the number is never used again
    <root>/<name>/config.json  aliases, tags, policy; replaced as a whole
    <root>/.staging/           what is being written; renamed to its place once it is whole and on disk
    <root>/.trash/             what was deleted, ``name@version@time``
    <root>/.numbers/<name>     the highest version number that was deleted
    <root>/.index              what was seen of the models, for the next start (see :mod:`serve.models.index`)
    <root>/.lock               held by whoever changes something (see :mod:`serve.atomic`)

Every change becomes visible by one rename, so a reader, or a crash, meets the old state or the new one. Readers take
no lock. Where locks do not work, publishing is still safe: a rename never replaces a version that exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import logging
import math
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

from rootdata import disk
from rootdata.bundle.manifest import BUNDLE_FILES, MANIFEST, MODEL, OPTIONAL_FILES, Manifest, load_manifest, open_bundle
from rootdata.causes import reason_of
from rootdata.errors import BundleError, nearest
from serve import atomic, names
from serve.atomic import Watched
from serve.errors import BadRequest, Conflict, InvalidModel, NotFound, ServeError
from serve.faults import changes
from serve.models.index import Index, Summary

_log = logging.getLogger("serve")

CONFIG = "config.json"
UNLOADED = "unloaded"  # in the policy
OWNER = ".owner"  # of a staging area: locked while whoever made it lives
KEPT_MANIFESTS = 1000
_UNCHANGED = "the models can't be changed"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What may change about a model.

    Parameters
    ----------
    aliases : name to version
    policy : ``unloaded`` is the highest version that is out of service; the rest is kept as it is
    """

    aliases: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    policy: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def has_unloaded(self, version: int) -> bool:
        """Tell whether a version was taken out of service."""
        last = self.policy.get(UNLOADED, 0)
        return isinstance(last, int) and version <= last


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What is known of a model.

    Parameters
    ----------
    versions : all that are there, rising
    latest : the highest one that can be used; ``None`` if none can
    tags : the model's own and those in the manifest of the latest version
    about : what the manifest of the latest version says
    broken : versions above the latest that can't be used, and why
    problem : why ``config.json`` can't be read
    unloaded : versions that are out of service
    """

    name: str
    versions: tuple[int, ...]
    latest: int | None
    aliases: Mapping[str, int]
    tags: tuple[str, ...]
    about: Summary | None
    broken: Mapping[int, str]
    problem: str | None = None
    unloaded: tuple[int, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        """Names of branches and features that the latest version takes."""
        return frozenset(self.about.features) if self.about else frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Return a summary as plain data for JSON."""
        made = self.about
        about = {} if made is None else {
            "author": made.author, "description": made.description, "created": made.created,
            "columns": list(made.columns), "metrics": dict(made.metrics), "features": list(made.features),
        }  # fmt: skip
        known = {
            "name": self.name, "latest": self.latest, "versions": list(self.versions), "aliases": dict(self.aliases),
            "tags": list(self.tags), **about, "broken": {str(v): why for v, why in self.broken.items()},
            "unloaded": list(self.unloaded),
        }  # fmt: skip
        return known if self.problem is None else {**known, "problem": self.problem}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
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


class Repository:
    """Models in a folder.

    Changes by other processes are seen by the next call: each looks at the model's folder, with one ``stat``. On a
    network file system they are seen once its attribute cache has run out (``acdirmax`` of NFS).

    Parameters
    ----------
    root : the folder; it is made by the first change
    max_trash_bytes, max_trash_days : what of the trash stays when something is put there; None for all of it
    """

    def __init__(
        self, root: str | Path, *, max_trash_bytes: int | None = None, max_trash_days: float | None = None
    ) -> None:
        self._root = Path(root).resolve()
        self._max_trash_bytes, self._max_trash_days = max_trash_bytes, max_trash_days
        self._models: dict[str, Watched[_Seen]] = {}
        self._index = Index(self._root)
        self._manifests: dict[tuple[str, int], tuple[tuple[int, ...], Manifest]] = {}

    # What is there

    def resolve(self, name: str, reference: str | int | None = None) -> int:
        """Return the version that is meant.

        Parameters
        ----------
        reference : a version number, an alias, or ``latest``, which is also what nothing means

        Raises
        ------
        NotFound
            Naming the nearest models, or the versions and aliases that there are.
        """
        return self._version(self._look(name), name, reference)

    def served(self, name: str, reference: str | int | None = None) -> int:
        """Return the version that is meant, as :meth:`resolve`, if it is in service.

        Raises
        ------
        NotFound
            If there is none, or it is unloaded.
        """
        seen = self._look(name)
        version = self._version(seen, name, reference)
        if seen.config.has_unloaded(version):
            raise NotFound(
                f"model {name!r}, version {version}, is not loaded; POST /v2/repository/models/{name}/load, "
                "or publish a new version",
                code="not_loaded",
            )
        return version

    def _version(self, seen: _Seen, name: str, reference: str | int | None) -> int:
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
        version = seen.config.aliases.get(reference, 0)
        if version not in seen.versions:
            known = nearest(reference[: names.MAX_LENGTH], seen.config.aliases)
            why = f"points at version {version}, which is gone" if version else f"is not known; {known}"
            raise NotFound(f"model {name!r}: alias {reference[: names.MAX_LENGTH]!r} {why}", code="unknown_alias")
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
                if kept[0] == _stamp(f"{self._root}/{name}/{version}"):
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
        feature : a branch or feature that it takes
        author, text : parts of the author, and of name, description, author or tags; in any case of letters
        bounds : ``min_<metric>`` or ``max_<metric>`` to a number; a model without the metric is not found

        Raises
        ------
        BadRequest
            For a bound of another name, or one that is no number.
        """
        limits = [_limit(name, value) for name, value in (bounds or {}).items()]
        return [
            card
            for card in self.cards()
            if (tag is None or tag in card.tags)
            and (feature is None or feature in card.features)
            and (author is None or (card.about is not None and _is_in(author, card.about.author)))
            and (text is None or _is_in(text, _prose(card)))
            and all(is_met(card) for is_met in limits)
        ]

    # What changes

    def publish(self, folder: str | Path, name: str, *, tags: Iterable[str] = ()) -> int:
        """Copy a bundle into the repository as the next version of a model.

        The files are copied, never linked, and are on disk before the version appears. The tags are added to the
        model's just before that: a crash in between leaves them on the versions that there are.

        Returns
        -------
        The number of the version

        Raises
        ------
        InvalidModel
            If the folder is no bundle, or the graph is not the one of the manifest. The graph itself is not looked at:
            see :mod:`serve.upload.check`.
        """
        name, new = names.model(name), [names.tag(t) for t in tags]
        with changes(_UNCHANGED), self.staging() as area:
            staged = area / "bundle"
            _copy_bundle(Path(folder), staged)
            _check_whole(staged)
            with self._locked():
                home = self._root / name
                home.mkdir(exist_ok=True)
                if new:
                    self._add_tags(name, new)
                version = self._claim(staged, name)
                disk.sync(home)
            disk.sync(self._root)
        return version

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias point at a version, which must be there.

        Raises
        ------
        NotFound
            If there is no such version.
        InvalidModel
            If it can't be used.
        """
        alias, version = names.alias(alias), names.version(version)
        with self._changing(name) as config:
            self.manifest(name, version)
            self._write_config(name, dataclasses.replace(config, aliases={**config.aliases, alias: version}))

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias.

        Raises
        ------
        NotFound
            If there is none.
        """
        with self._changing(name) as config:
            if alias not in config.aliases:
                known = nearest(alias[: names.MAX_LENGTH], config.aliases)
                raise NotFound(f"model {name!r} has no alias {alias[:100]!r}; {known}", code="unknown_alias")
            kept = {a: v for a, v in config.aliases.items() if a != alias}
            self._write_config(name, dataclasses.replace(config, aliases=kept))

    def add_tags(self, name: str, tags: Iterable[str]) -> None:
        """Add tags to a model."""
        new = [names.tag(t) for t in tags]
        with self._changing(name):
            self._add_tags(name, new)

    def remove_tag(self, name: str, tag: str) -> None:
        """Remove a tag from a model.

        Raises
        ------
        NotFound
            If the model does not have it.
        Conflict
            If it is written in the manifest of the latest version, which never changes.
        """
        with self._changing(name) as config:
            if tag not in config.tags:
                if tag in self.card(name).tags:
                    raise Conflict(f"tag {tag!r} is in the manifest of the latest version; publish one without it")
                known = nearest(tag[: names.MAX_LENGTH], config.tags)
                raise NotFound(f"model {name!r} has no tag {tag[:100]!r}; {known}", code="unknown_tag")
            self._write_config(name, dataclasses.replace(config, tags=tuple(t for t in config.tags if t != tag)))

    def load(self, name: str) -> None:
        """Take all versions of a model into service."""
        with self._changing(name) as config:
            self._write_config(name, dataclasses.replace(config, policy={**config.policy, UNLOADED: 0}))

    def unload(self, name: str) -> None:
        """Take all versions that there are out of service; one that is published later is in service."""
        with self._changing(name) as config:
            policy = {**config.policy, UNLOADED: max(self._look(name).versions)}
            self._write_config(name, dataclasses.replace(config, policy=policy))

    def delete(self, name: str, version: int | None = None) -> None:
        """Move a version, or a whole model, to the trash; its numbers are not used again.

        Of a trash that is limited what is too much, or too old, goes for good.

        Raises
        ------
        NotFound
            If there is no such model or version.
        Conflict
            If an alias points at the version.
        """
        with self._locked():
            seen = self._look(name)
            if version is not None:
                version = self.resolve(name, version)
                for alias, target in seen.config.aliases.items():
                    if target == version:
                        raise Conflict(f"alias {alias!r} points at version {version} of {name!r}; move it first")
            self._retire(name, max(seen.versions))
            place = self._root / name if version is None else self._root / name / str(version)
            self._move_to_trash(place, f"{name}@{version or 'all'}")
        self.limit_trash()

    def restore(self, name: str, version: int | None = None) -> None:
        """Take the version, or the whole model, that was deleted last out of the trash.

        Raises
        ------
        NotFound
            If it is not in the trash.
        Conflict
            If there is a model of that name again.
        """
        with self._locked():
            found = sorted((self._root / ".trash").glob(f"{names.model(name)}@{version or 'all'}@*"))
            if not found:
                raise NotFound(f"{name!r}, version {version or 'all'}, is not in the trash", code="not_in_trash")
            home = self._root / name
            if version is not None:
                home.mkdir(exist_ok=True)
                home /= str(names.version(version))
            try:
                found[-1].rename(home)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                raise Conflict(f"{name!r} exists again; delete that one first") from error
            disk.sync(home.parent)

    def limit_trash(self) -> None:
        """Remove for good what is beyond the limits of the trash; where that can't be done now, the log says so."""
        if self._max_trash_bytes is None and self._max_trash_days is None:
            return
        days = math.inf if self._max_trash_days is None else self._max_trash_days
        try:
            self.purge(days=days, max_bytes=self._max_trash_bytes)
        except (OSError, ServeError) as error:
            _log.error("the trash can't be kept within its limits: %s", reason_of(error))

    def purge(self, *, days: float = 0.0, max_bytes: int | None = None) -> int:
        """Remove for good what has been in the trash for so many days; return how many folders that were.

        Parameters
        ----------
        max_bytes : that may stay; of more, what was deleted first goes, however short ago
        """
        with self.staging() as area, self._locked():  # what is half removed can't be restored
            left = sorted((self._root / ".trash").iterdir(), key=_time_of)
            sizes = [0 if max_bytes is None else _size_of(path) for path in left]
            kept, old = sum(sizes), []
            for path, size in zip(left, sizes, strict=True):
                is_old = time.time() - _time_of(path) > days * 86_400
                if is_old or (max_bytes is not None and kept > max_bytes):
                    old.append(path)
                    kept -= size
            for path in old:
                path.rename(area / path.name)
        return len(old)

    # What is being written

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder on the repository's file system, which goes away at the end."""
        area = self._root / ".staging" / uuid.uuid4().hex
        with self._locked():  # so that `recover` never sees one without its owner
            area.mkdir()
            owner = os.open(area / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            atomic.try_lock(owner)
        try:
            yield area
        finally:
            shutil.rmtree(area, ignore_errors=True)
            os.close(owner)

    def recover(self, *, seconds: float = 86_400.0) -> int:
        """Remove what crashed writers left behind, and return how many things that were.

        Parameters
        ----------
        seconds : what is younger stays. The lock of a living writer protects its files at any age; this is for file
            systems on which locks are not seen by other machines
        """
        with self._locked():
            left = [p for p in (self._root / ".staging").iterdir() if time.time() - p.lstat().st_mtime >= seconds]
            dead = [p for p in left if not _is_owned(p)]
            for path in dead:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        return len(dead)

    # Inside

    def _look(self, name: str) -> _Seen:
        watched = self._models.get(name)
        if watched is None:
            watched = Watched(self._root / names.model(name), partial(self._read_model, name))
        try:
            seen = watched.get()
        except (FileNotFoundError, NotADirectoryError):
            seen = _Seen()
        if not seen.versions:
            self._models.pop(name, None)
            known = nearest(name, itertools.islice(self._names(), 100))
            raise NotFound(f"model {name!r} not found; {known}", code="unknown_model", field="model")
        self._models[name] = watched
        return seen

    def _read_model(self, name: str) -> tuple[_Seen, bool]:
        """Look into a folder; one with a broken version on top is looked at again, as a copy may be under way."""
        home = self._root / name
        if home.is_symlink():
            return _Seen(), True
        stamp = _stamp_around(home)
        if (kept := self._kept(name, stamp)) is not None:
            return kept, True
        versions = sorted(_version_folders(home))
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
            config, problem = _read_config(home / CONFIG), None
        except (OSError, ValueError, RecursionError) as error:
            config, problem = Config(), f"{name}/{CONFIG} can't be read ({error}); repair or remove it"
        seen = _Seen(
            versions=tuple(v for v in versions if v not in gone),
            latest=latest,
            about=about,
            broken={v: why for v, why in broken.items() if v not in gone},
            config=config,
            problem=problem,
        )
        if about is not None and not broken and problem is None and _is_settled(stamp):
            self._index.put(name, stamp, seen.to_dict())
        return seen, not broken

    def _kept(self, name: str, stamp: tuple[int, ...]) -> _Seen | None:
        """Return what the index knows of a model, if its files are those that were seen then."""
        known = self._index.get(name)
        if known is None:
            return None
        try:
            inner = _stamp(f"{self._root}/{name}/{int(known[1]['latest'])}")
            return _Seen.of_plain(known[1]) if list(known[0]) == [*stamp, *inner] else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _read_manifest(self, name: str, version: int) -> tuple[tuple[int, ...], Manifest | str]:
        folder = f"{self._root}/{name}/{version}"
        try:
            stamp = _stamp(folder)
        except OSError as error:
            file = Path(str(error.filename)).name
            return (), f"model {name!r}, version {version}: {file} is missing; publish a whole bundle"
        kept = self._manifests.get((name, version))
        if kept is not None and kept[0] == stamp:
            return kept
        found = _manifest_or_reason(name, version, Path(folder))
        if isinstance(found, Manifest):  # a reason may pass: a copy goes on, a deletion is undone
            if len(self._manifests) >= KEPT_MANIFESTS:
                self._manifests.clear()
            self._manifests[name, version] = (stamp, found)
        return stamp, found

    def _names(self) -> Iterator[str]:
        try:
            with os.scandir(self._root) as entries:
                yield from (e.name for e in entries if names.is_word(e.name) and e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with changes(_UNCHANGED):
            for folder in (".staging", ".trash", ".numbers"):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            with atomic.locked(self._root / ".lock"):
                yield

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Config]:
        """Hold the lock and give the configuration of a model that is there."""
        with self._locked():
            self._look(name)
            yield self._config(name)

    def _config(self, name: str) -> Config:
        try:
            return _read_config(self._root / name / CONFIG)
        except (ValueError, RecursionError) as error:
            raise Conflict(f"{name}/{CONFIG} can't be read ({error}); repair or remove it") from error

    def _add_tags(self, name: str, new: Iterable[str]) -> None:
        config = self._config(name)
        self._write_config(name, dataclasses.replace(config, tags=tuple(sorted({*config.tags, *new}))))

    def _write_config(self, name: str, config: Config) -> None:
        text = json.dumps(dataclasses.asdict(config), indent=1) + "\n"
        disk.write_atomic(self._root / name / CONFIG, text.encode(), through=self._root / ".staging")

    def _claim(self, staged: Path, name: str) -> int:
        """Rename a whole version to the first number that is free."""
        home = self._root / name
        first = max([self._retired(name), *_version_folders(home)]) + 1
        for version in itertools.count(first):
            try:
                staged.rename(home / str(version))
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return version
        raise AssertionError

    def _retired(self, name: str) -> int:
        try:
            return int((self._root / ".numbers" / name).read_text())
        except FileNotFoundError:
            return 0

    def _retire(self, name: str, version: int) -> None:
        highest = max(version, self._retired(name))
        disk.write_atomic(self._root / ".numbers" / name, f"{highest}\n".encode(), through=self._root / ".staging")

    def _move_to_trash(self, place: Path, what: str) -> None:
        place.rename(self._root / ".trash" / f"{what}@{time.time():.6f}@{uuid.uuid4().hex[:8]}")
        disk.sync(place.parent)
        disk.sync(self._root / ".trash")


def _version_folders(home: Path) -> list[int]:
    with os.scandir(home) as entries:
        return [int(e.name) for e in entries if names.is_version(e.name) and e.is_dir(follow_symlinks=False)]


def _stamp_around(home: Path) -> tuple[int, ...]:
    """Say which state a model's folder and its configuration are in."""
    own = os.lstat(home)
    try:
        config = os.lstat(home / CONFIG)
    except FileNotFoundError:
        return (own.st_mtime_ns, own.st_ino, own.st_nlink)
    return (own.st_mtime_ns, own.st_ino, own.st_nlink, config.st_ino, config.st_mtime_ns, config.st_size)


def _is_settled(stamp: tuple[int, ...]) -> bool:
    return time.time_ns() - stamp[0] > atomic.SETTLED_NS


def _stamp(folder: str) -> tuple[int, ...]:
    """Say which files a manifest was read from."""
    a, b = os.lstat(f"{folder}/{MANIFEST}"), os.lstat(f"{folder}/{MODEL}")
    return (a.st_ino, a.st_mtime_ns, a.st_size, a.st_mode, b.st_ino, b.st_mtime_ns, b.st_size, b.st_mode)


def _manifest_or_reason(name: str, version: int, folder: Path) -> Manifest | str:
    try:
        _check_regular(folder)
        manifest = load_manifest(folder)
        _check_size(folder, manifest)
    except (BundleError, OSError) as error:
        why = str(error).replace(f"{folder}/", "")  # whoever reads this need not know where the repository lies
        return f"model {name!r}, version {version}: {why}"
    return manifest


def _check_regular(folder: Path) -> None:
    for file in (MANIFEST, MODEL):
        if not stat.S_ISREG((folder / file).lstat().st_mode):
            raise BundleError(f"{file} is no regular file; links are not followed, publish a copy")


def _check_size(folder: Path, manifest: Manifest) -> None:
    found = (folder / MODEL).stat().st_size
    if found != manifest.size:
        raise BundleError(f"{MODEL} has {found} bytes, {MANIFEST} says {manifest.size}; copy the whole bundle")


def _read_config(path: Path) -> Config:
    try:
        plain = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Config()
    if not isinstance(plain, dict):
        raise ValueError(f"expected an object, got {type(plain).__name__}")  # noqa: TRY004  # as json's own errors
    aliases, tags, policy = plain.get("aliases", {}), plain.get("tags", []), plain.get("policy", {})
    if not isinstance(aliases, dict) or not all(type(v) is int for v in aliases.values()):
        raise ValueError("aliases: expected an object of version numbers")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags) or not isinstance(policy, dict):
        raise ValueError("expected a list of words in tags, and an object in policy")
    return Config(aliases=aliases, tags=tuple(tags), policy=policy)


def _copy_bundle(source: Path, target: Path) -> None:
    """Copy the files of a bundle, follow no links, and put everything on disk."""
    target.mkdir()
    for name in BUNDLE_FILES:
        try:
            given = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENOENT and name in OPTIONAL_FILES:
                continue
            remedy = "a bundle has model.onnx and manifest.json as plain files"
            raise InvalidModel(f"{name} can't be read ({error.strerror}); {remedy}", field=name) from error
        with os.fdopen(given, "rb") as file, (target / name).open("xb") as copy:
            if not stat.S_ISREG(os.fstat(given).st_mode):
                raise InvalidModel(f"{name} is no regular file; a bundle has plain files only", field=name)
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            os.fchmod(copy.fileno(), 0o444)
            os.fsync(copy.fileno())
    disk.sync(target)


def _check_whole(folder: Path) -> None:
    """Check that the graph is the one of the manifest, byte for byte."""
    try:
        _check_size(folder, open_bundle(folder))
    except BundleError as error:
        raise InvalidModel(str(error).replace(f"{folder}/", "")) from error


def _is_owned(path: Path) -> bool:
    """Tell whether the process that made a staging area lives."""
    try:
        handle = os.open(path / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not atomic.try_lock(handle)
    finally:
        os.close(handle)


def _time_of(trashed: Path) -> float:
    """Read from its name when something was deleted."""
    try:
        return float(trashed.name.split("@")[2])
    except (IndexError, ValueError):
        return trashed.lstat().st_mtime


def _size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _why(broken: Mapping[int, str]) -> str:
    return "no version can be used: " + "; ".join(itertools.islice(broken.values(), 3))


def _is_in(part: str, whole: str) -> bool:
    return part.casefold() in whole.casefold()


def _prose(card: Card) -> str:
    made = card.about
    about = (made.description, made.author) if made else ()
    return "\n".join((card.name, *card.tags, *about))


def _limit(name: str, value: float) -> Callable[[Card], bool]:
    """Turn ``min_auc`` and a number into a condition."""
    kind, _, metric = name.partition("_")
    if kind not in {"min", "max"} or not metric:
        raise BadRequest(f"{name[:100]!r} is no condition; write min_<metric> or max_<metric>", field=name[:100])
    if not math.isfinite(value):
        raise BadRequest(f"{name[:100]}: got {value}; expected a finite number", field=name[:100])

    def is_met(card: Card) -> bool:
        found = None if card.about is None else card.about.metrics.get(metric)
        return found is not None and (found >= value if kind == "min" else found <= value)

    return is_met

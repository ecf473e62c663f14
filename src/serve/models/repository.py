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
from collections.abc import Iterable, Iterator
from pathlib import Path

from rootdata import disk
from rootdata.errors import nearest
from serve import names
from serve.errors import Conflict, NotFound
from serve.models import bundles
from serve.models.catalogue import Catalogue, version_folders
from serve.models.config import CONFIG, UNLOADED, Config, read_config
from serve.models.trash import Trash
from serve.models.workspace import Workspace

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class Repository(Catalogue):
    """Models in a folder: what is there, and all that may change about it.

    Parameters
    ----------
    root : the folder; it is made by the first change
    max_trash_bytes, max_trash_days : what of the trash stays when something is put there; None for all of it
    """

    def __init__(
        self, root: str | Path, *, max_trash_bytes: int | None = None, max_trash_days: float | None = None
    ) -> None:
        super().__init__(root)
        self._workspace = Workspace(self._root)
        self._trash = Trash(self._workspace, max_bytes=max_trash_bytes, max_days=max_trash_days)

    # What changes

    def publish(self, folder: str | Path, name: str, *, tags: Iterable[str] = ()) -> int:
        """Copy a bundle into the repository as the next version of a model.

        The files are copied, never linked, and are on disk before the version appears. The tags are added to the
        model's just before that: a crash in between leaves them on the versions that there are.

        Parameters
        ----------
        folder : of the bundle
        name : of the model, which need not be there yet
        tags : added to those of the model

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
        with self._workspace.changing(), self.staging() as area:
            staged = area / "bundle"
            bundles.copy(Path(folder), staged)
            with self._workspace.locked():
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

        Parameters
        ----------
        name : of the model
        alias : moved where it points at another version
        version : that is there, and can be used

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
        with self._workspace.locked():
            seen = self._look(name)
            if version is not None:
                version = self.resolve(name, version)
                for alias, target in seen.config.aliases.items():
                    if target == version:
                        raise Conflict(f"alias {alias!r} points at version {version} of {name!r}; move it first")
            self._workspace.retire(name, max(seen.versions))
            place = self._root / name if version is None else self._root / name / str(version)
            self._trash.put(place, f"{name}@{version or 'all'}")
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
        with self._workspace.locked():
            found = self._trash.last(f"{names.model(name)}@{version or 'all'}")
            if found is None:
                raise NotFound(f"{name!r}, version {version or 'all'}, is not in the trash", code="not_in_trash")
            home = self._root / name
            if version is not None:
                home.mkdir(exist_ok=True)
                home /= str(names.version(version))
            try:
                found.rename(home)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                raise Conflict(f"{name!r} exists again; delete that one first") from error
            disk.sync(home.parent)

    def limit_trash(self) -> None:
        """Remove for good what is beyond the limits of the trash; where that can't be done now, the log says so."""
        self._trash.limit()

    def purge(self, *, days: float = 0.0, max_bytes: int | None = None) -> int:
        """Remove for good what has been in the trash for so many days; return how many folders that were.

        Parameters
        ----------
        days : that may pass; what was deleted longer ago goes
        max_bytes : that may stay; of more, what was deleted first goes, however short ago
        """
        return self._trash.purge(days=days, max_bytes=max_bytes)

    # What is being written

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """Give an empty folder on the repository's file system, which goes away at the end."""
        return self._workspace.staging()

    def recover(self, *, seconds: float = 86_400.0) -> int:
        """Remove what crashed writers left behind, and return how many things that were.

        Parameters
        ----------
        seconds : what is younger stays. The lock of a living writer protects its files at any age; this is for file
            systems on which locks are not seen by other machines
        """
        return self._workspace.recover(seconds=seconds)

    # Inside

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Config]:
        """Hold the lock and give the configuration of a model that is there."""
        with self._workspace.locked():
            self._look(name)
            yield self._config(name)

    def _config(self, name: str) -> Config:
        try:
            return read_config(self._root / name / CONFIG)
        except (ValueError, RecursionError) as error:
            raise Conflict(f"{name}/{CONFIG} can't be read ({error}); repair or remove it") from error

    def _add_tags(self, name: str, new: Iterable[str]) -> None:
        config = self._config(name)
        self._write_config(name, dataclasses.replace(config, tags=tuple(sorted({*config.tags, *new}))))

    def _write_config(self, name: str, config: Config) -> None:
        self._workspace.write(self._root / name / CONFIG, config.to_json())

    def _claim(self, staged: Path, name: str) -> int:
        """Rename a whole version to the first number that is free."""
        home = self._root / name
        first = max([self._workspace.retired(name), *version_folders(home)]) + 1
        for version in itertools.count(first):
            try:
                staged.rename(home / str(version))
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return version
        raise AssertionError

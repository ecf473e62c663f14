"""What the first pass learnt, as versioned JSON, and the fingerprint that says for which data and configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from rootdata import cache_folder
from rootdata.errors import DataError, SpecsError, version_remedy
from rootdata.events.statistics import ColumnStats
from rootdata.events.weighting import Weighting
from rootdata.io.block_size import BLOCK_BYTES, BLOCK_ENTRIES
from rootdata.location import Friend, KnownFile, Location, State, without_query
from rootdata.options.columns import Scaling
from rootdata.options.data import DataConfig
from rootdata.options.parsed import described
from rootdata.options.parts import PARTS
from rootdata.scaling.curves import name_of
from rootdata.scaling.fit import kind_of
from rootdata.scaling.kinds import ScalingKind

VERSION = 3
_LATER = {
    "targets",
    "drawn",
    "weighting",
}  # which specs of before there were such things lack, and those without any of them
_APART = {
    "checksum",
    "files",
    "skipped",
    "columns",
    "targets",
    "multiplicity",
    "drawn",
    "weighting",
}  # what is no plain list
_HEAD = '{"checksum": "'  # of a file of specs


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FileSpecs:
    """Identity of a file and its blocks.

    Parameters
    ----------
    sample : position of its sample in the configuration
    state : of the file as it was scanned
    before : entries that fall to each part, before cuts
    blocks : (start, stop, train, val, test) of every block: its entries, and its selected events in each part
    digests : of what was read of every block, see :func:`rootdata.jagged.digest`: what is delivered must have the same
    measured : of every block, whether all that training reads was read; else the branches of cuts and the like alone
    replicas : other places at which copies lie
    friends : trees that are read beside it, those that the file names among them
    generated : sum of the generator weights that it stands for, and that of the events in it, where both are known
    """

    path: str
    tree: str
    sample: int
    uuid: str
    state: State
    entries: int
    before: tuple[int, ...]
    blocks: tuple[tuple[int, ...], ...]
    digests: tuple[str, ...]
    measured: tuple[bool, ...]
    replicas: tuple[str, ...] = ()
    friends: tuple[Friend, ...] = ()
    generated: tuple[float, float | None] | None = None

    @property
    def location(self) -> Location:
        """Where it lies."""
        return Location(self.path, self.tree, self.replicas, self.friends)

    @property
    def known(self) -> KnownFile:
        """What tells it from any other file."""
        return KnownFile(location=self.location, uuid=self.uuid, entries=self.entries, state=self.state)

    @property
    def content(self) -> str:
        """Digest of what was read of all its blocks: the same wherever the file lies and whatever it is called."""
        return _hash([self.uuid, self.tree, self.entries, self.digests])

    def selected(self, part: int) -> int:
        """Return the selected events in a part."""
        return sum(b[2 + part] for b in self.blocks)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFile:
    """A file that is left out because something is wrong with it.

    Parameters
    ----------
    sample : position of its sample in the configuration
    position : among all files that were found, good and bad
    size : bytes
    """

    path: str
    sample: int
    reason: str
    position: int
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Specs:
    """What one pass over the files learnt.

    Parameters
    ----------
    key : hash of the options that the numbers depend on
    fingerprint : hash of ``key`` and of the identities of all files
    samples : their names
    files : the good ones; what is said of the data is said of them alone
    flat : flat features, fixed-size branches expanded
    columns : statistics of every feature, of training events
    multiplicity : number of training events with 0, 1, 2, ... objects, for every collection
    labels : for every sample, the events of each class in each part
    weights : for every sample, of each class in each part, the sum of the weights and the sum of their sizes, as they
        are delivered; behind the last class those of events without a label
    estimated : whether statistics come from a fraction of the blocks
    skipped : the bad ones, where they are left out instead of refused
    drawn : of every collection that is drawn, the training objects, those that fall into no cell, and those into a cell
        that one before them fills
    targets : statistics of every target, of training events
    weighting : what weights are multiplied by that follows from all events; ``None`` where nothing does
    """

    key: str
    fingerprint: str
    samples: tuple[str, ...]
    files: tuple[FileSpecs, ...]
    flat: tuple[str, ...]
    columns: Mapping[str, ColumnStats]
    multiplicity: Mapping[str, tuple[int, ...]]
    labels: tuple[tuple[tuple[int, ...], ...], ...]
    weights: tuple[tuple[tuple[tuple[float, float], ...], ...], ...]
    estimated: bool = False
    skipped: tuple[SkippedFile, ...] = ()
    drawn: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)
    targets: Mapping[str, ColumnStats] = dataclasses.field(default_factory=dict)
    weighting: Weighting | None = None
    version: int = VERSION

    def num_events(self, part: str) -> int:
        """Return the selected events of a part."""
        return sum(self.events_of(part).values())

    def events_of(self, part: str) -> dict[str, int]:
        """Return the selected events of each sample in a part."""
        events = dict.fromkeys(self.samples, 0)
        for file in self.files:
            events[self.samples[file.sample]] += file.selected(PARTS.index(part))
        return events

    def of_classes(self, part: str) -> tuple[list[int], list[tuple[float, float]]]:
        """Return the selected events of each class in a part, and the sums of their weights and of their sizes."""
        number, classes = PARTS.index(part), range(len(self.labels[0][0]))
        events = [sum(sample[number][k] for sample in self.labels) for k in classes]
        sums = [[math.fsum(sample[number][k][i] for sample in self.weights) for i in range(2)] for k in classes]
        return events, [(total, size) for total, size in sums]

    def mean_weight(self, part: str, shares: Mapping[str, float] | None = None) -> float:
        """Return the mean size of the weights in a part; 0 where it has no event.

        Parameters
        ----------
        part : ``train``, ``val`` or ``test``
        shares : how many events of each sample are drawn, where samples are over- or undersampled
        """
        events = self.events_of(part)
        shares = events if shares is None else shares
        sizes = [sum(size for _, size in sample[PARTS.index(part)]) for sample in self.weights]
        means = {s: size / events[s] if events[s] else 0.0 for s, size in zip(self.samples, sizes, strict=True)}
        return math.fsum(shares[s] * means[s] for s in means) / (sum(shares[s] for s in means) or 1)

    def save(self, path: str | Path) -> None:
        """Write the specs as JSON, atomically."""
        text = json.dumps(self.to_dict())
        # "checksum" comes first, so that all of the file but this one entry is what was hashed.
        cache_folder.write_atomic(Path(path), f'{_HEAD}{_hash_text(text)}", {text[1:]}\n')

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        SpecsError
            For a file that is absent, no specs, or of another version.
        """
        try:
            text = Path(path).read_text()
            plain = json.loads(text)
        except (OSError, ValueError) as error:
            raise SpecsError(f"specs {path} can't be read ({error}); scan again, or leave `specs` out") from error
        if not isinstance(plain, dict) or plain.get("version") != VERSION:
            got = plain.get("version") if isinstance(plain, dict) else None
            remedy = version_remedy(got, VERSION, anew="scan again")
            raise SpecsError(f"specs {path} are of version {got!r:.80}, this is version {VERSION}; {remedy}")
        if not _is_whole(text, plain):
            raise SpecsError(f"specs {path} are damaged (the checksum differs); scan again")
        try:
            return cls.from_dict(plain)
        except (KeyError, TypeError, ValueError) as error:
            raise SpecsError(f"specs {path} are damaged ({error!r}); scan again") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain |= {k: [_plain(f) for f in plain[k]] for k in ("files", "skipped")}
        plain["columns"] = {name: stats.to_dict() for name, stats in self.columns.items()}
        plain["targets"] = {name: stats.to_dict() for name, stats in self.targets.items()}
        plain["weighting"] = None if self.weighting is None else self.weighting.to_dict()
        plain |= {k: {name: list(counts) for name, counts in plain[k].items()} for k in ("multiplicity", "drawn")}
        return {name: value for name, value in plain.items() if value or name not in _LATER}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild what :meth:`to_dict` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            For anything else, a field that is absent or unknown among it.
        """
        wrong = {f.name for f in dataclasses.fields(cls)} ^ (plain.keys() - {"checksum"} | _LATER)
        if wrong:
            raise ValueError(f"absent or unknown: {', '.join(sorted(wrong))}")
        rest = {k: v for k, v in plain.items() if k not in _APART}
        rest |= {k: as_tuples(rest[k]) for k in ("samples", "flat", "labels", "weights")}
        return cls(
            files=tuple(_file(f) for f in plain["files"]),
            skipped=tuple(SkippedFile(**f) for f in plain["skipped"]),
            columns={name: ColumnStats.from_dict(c) for name, c in plain["columns"].items()},
            targets={name: ColumnStats.from_dict(c) for name, c in plain.get("targets", {}).items()},
            multiplicity={k: tuple(v) for k, v in plain["multiplicity"].items()},
            drawn={k: (v[0], v[1], v[2]) for k, v in plain.get("drawn", {}).items()},
            weighting=Weighting.from_dict(plain["weighting"]) if plain.get("weighting") else None,
            **rest,
        )


def _plain(known: FileSpecs | SkippedFile) -> dict[str, Any]:
    plain = {f.name: getattr(known, f.name) for f in dataclasses.fields(known)}  # not a copy, as of `asdict`
    if isinstance(known, FileSpecs):
        plain |= {
            "state": [known.state.size, known.state.version],
            "friends": list(map(dataclasses.astuple, known.friends)),
        }
        if known.generated is None:
            del plain["generated"]
    return plain


def _file(plain: Mapping[str, Any]) -> FileSpecs:
    lists = {k: tuple(plain[k]) for k in ("before", "replicas", "digests", "measured")}
    return FileSpecs(
        **{
            **plain,
            **lists,
            "blocks": tuple(map(tuple, plain["blocks"])),
            "state": State(*plain["state"]),
            "friends": tuple(Friend(*friend) for friend in plain.get("friends", ())),
            "generated": tuple(plain["generated"]) if plain.get("generated") else None,
        }
    )


def as_tuples(value: Any) -> Any:
    """Turn lists of lists into tuples of tuples."""
    return tuple(as_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


def key_of(config: DataConfig) -> str:
    """Hash the options that the specs depend on."""
    wanted = {c: _needs(config, c) for c in (*config.features, *sorted(config.scale))}
    drawn = {name: dataclasses.asdict(image) for name, image in config.images.items()}
    return _hash([described(config, "specs", "files"), wanted, *([drawn] if drawn else [])])


def _needs(config: DataConfig, column: str) -> list[Any]:
    """Name what the scaling of a column asks the first pass for."""
    kind = kind_of(config.scaling_of(column))
    curve = None if kind is None else name_of(kind.curve) or None
    return [_needs_quantiles(config, kind, column), curve]


def _needs_quantiles(config: DataConfig, kind: ScalingKind | None, column: str) -> bool:
    is_drawn = any(parameter.name == column for parameter in config.parameters)
    return config.quantiles or is_drawn or (kind is not None and kind.needs_quantiles)


def collects(config: DataConfig, column: str) -> dict[str, Any]:
    """Say which of the costlier statistics the scaling of a column needs, as :meth:`ColumnStats.of` takes it."""
    kind = kind_of(config.scaling_of(column))
    curve = None if kind is None or kind.curve is None else kind.curve.apply
    return {"curve": curve, "quantiles": _needs_quantiles(config, kind, column)}


def collected(scaling: Scaling) -> dict[str, Any]:
    """Say which of them the scaling of a target needs."""
    kind = kind_of(scaling)
    if kind is None:
        return {}
    return {"curve": None if kind.curve is None else kind.curve.apply, "quantiles": kind.needs_quantiles}


def fingerprint(key: str, files: Sequence[tuple[int, Location]], states: Sequence[State]) -> str:
    """Hash a configuration's key with the files' paths and states, without opening them.

    Parameters
    ----------
    key : hash of what the configuration says of the specs, see :func:`key_of`
    files : (position of the sample, location), in the order of the configuration
    states : of these files; where a server tells a version, the query of a URL does not count
    """
    found = [
        (sample, *_places(w, is_certain=bool(state.version)), state.size, state.version)
        for (sample, w), state in zip(files, states, strict=True)
    ]
    return _hash([VERSION, BLOCK_BYTES, BLOCK_ENTRIES, key, found])


def _places(location: Location, *, is_certain: bool) -> list[str | None]:
    """List paths and trees of a file and its friends; where versions tell contents, without the queries of URLs."""
    found: list[str | None] = []
    for path, *names in ((location.path, location.tree), *((f.path, f.tree, f.alias) for f in location.friends)):
        found += [without_query(str(path)) if is_certain else path, *names]
    return found


def _is_whole(text: str, plain: Mapping[str, Any]) -> bool:
    """Say whether specs are as they were written, in whatever form; in the form of :meth:`Specs.save` it is cheap."""
    checksum = plain.get("checksum")
    head = f'{_HEAD}{checksum}", '
    if text.startswith(head) and _hash_text("{" + text[len(head) :].rstrip()) == checksum:
        return True
    return checksum == _hash_text(json.dumps({k: v for k, v in plain.items() if k != "checksum"}))


def _hash(plain: Any) -> str:
    return _hash_text(json.dumps(plain, sort_keys=True, default=str))


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_complete(specs: Specs, config: DataConfig) -> None:
    """Refuse specs from which no training can start.

    Raises
    ------
    DataError
        For a sample that a cut emptied, a part of the split with nothing in it, or a fold without events of a class.
    """
    for i, sample in enumerate(config.samples):
        files = [f for f in specs.files if f.sample == i]
        if not any(f.selected(p) for f in files for p in range(len(PARTS))):
            cuts = " and ".join(repr(c) for c in (config.cut, sample.cut) if c) or "no cut"
            entries = sum(f.entries for f in files)
            raise DataError(
                f"sample {sample.name!r}: none of its {entries} entries in {len(files)} files is selected ({cuts}, "
                f"split by {config.split.by!r}); loosen the cut or remove the sample"
            )
    _check_fold(specs, config)
    for part in PARTS:
        asked = getattr(config.split, part)
        wanted = asked is None or (bool(asked) if not isinstance(asked, float) else asked > 0)
        if wanted and not specs.num_events(part):
            raise DataError(f"split: no selected event falls to {part!r} ({asked!r}); change the split or the cuts")

    _check_drawn(specs, config)


def _check_fold(specs: Specs, config: DataConfig) -> None:
    """Refuse a fold without events, or without those of a class that others have."""
    if config.folds is None:
        return
    of_parts = {part: specs.of_classes(part)[0] for part in reversed(PARTS)}
    for part, events in of_parts.items():
        if not specs.num_events(part):
            raise DataError(config.folds.lack(config.fold or 0, part, "selected events"))
        for number, name in enumerate(config.classes):
            if not events[number] and any(other[number] for other in of_parts.values()):
                raise DataError(config.folds.lack(config.fold or 0, part, f"events of {name!r}"))


def _check_drawn(specs: Specs, config: DataConfig) -> None:
    """Refuse images in which nothing is."""
    for name, (objects, outside, _) in specs.drawn.items():
        if not objects or outside < objects:
            continue
        image = config.images[name]
        grid = config.images[image.onto or name]
        axes = [(str(own.column), of.range) for own, of in ((image.x, grid.x), (image.y, grid.y))]
        found = [(column, specs.columns[column], limits) for column, limits in axes]
        shown = ", ".join(
            f"{column} goes from {s.low:g} to {s.high:g}"
            + (f", the grid from {limits[0]:g} to {limits[1]:g}" if limits else "")
            for column, s, limits in found
        )
        raise DataError(
            f"jagged.{name}.image: all {objects} objects of the training events are outside the grid, or have no "
            f"coordinates ({shown}); give other ranges, or other columns"
        )


def add_histograms(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """Add two histograms of different lengths."""
    total = np.zeros(max(len(first), len(second)), np.int64)
    total[: len(first)] += np.asarray(first, np.int64)
    total[: len(second)] += np.asarray(second, np.int64)
    return tuple(int(n) for n in total)

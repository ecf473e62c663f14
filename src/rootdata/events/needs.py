"""Which branches the options of a data set need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rootdata.errors import BranchError, ConfigError
from rootdata.events import split
from rootdata.expressions.grammar import parse
from rootdata.io.branches import Branch
from rootdata.options.data import DataConfig
from rootdata.options.samples import Sample
from rootdata.options.values import reject_unknown


def needed_branches(config: DataConfig, sample: Sample) -> tuple[str, ...]:
    """Return the branches that a sample's blocks must read, derived columns resolved, in a stable order."""
    texts = [config.cut, config.label, config.weight, sample.cut, sample.weight, *config.variations.values()]
    texts += config.reweight.variables if config.reweight else ()
    texts += [*(target.value for target in config.targets), *(observer.value for observer in config.observers)]
    texts += [config.parameter_of(sample, parameter) for parameter in config.parameters]
    given = {parameter.name for parameter in config.parameters}
    features = [name for name in feature_branches(config) if name not in given]
    names = [*features, *(n for t in texts if isinstance(t, str) for n in sorted(parse(t).names))]
    return _resolved([*names, *sorted(split.branches_of(config.split))], config)


def feature_branches(config: DataConfig) -> tuple[str, ...]:
    """Return the branches that the features of an event are made of, in a stable order."""
    texts = [c.cut for c in config.jagged if c.cut] + [c.sort.removeprefix("-") for c in config.jagged if c.sort]
    return _resolved([*config.features, *(n for t in texts for n in sorted(parse(t).names))], config)


def cut_branches(config: DataConfig) -> tuple[str, ...]:
    """Return the branches that cuts on events need, of whatever sample, in a stable order."""
    return _resolved((n for cut in config.cuts for n in sorted(parse(cut).names)), config)


def observer_branches(config: DataConfig) -> tuple[str, ...]:
    """Return the branches that observers need, in a stable order."""
    return _resolved((n for o in config.observers for n in sorted(parse(o.value).names)), config)


def split_branches(config: DataConfig) -> tuple[str, ...]:
    """Return the branches that the split needs, in a stable order."""
    return _resolved(sorted(split.branches_of(config.split)), config)


def branches_of(text: str, config: DataConfig) -> tuple[str, ...]:
    """Return the branches that an expression needs, derived columns resolved, in a stable order."""
    return _resolved(sorted(parse(text).names), config)


def _resolved(names: Iterable[str], config: DataConfig) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        _resolve(name, config, found, seen=())
    return tuple(found)


def _resolve(name: str, config: DataConfig, found: dict[str, None], seen: tuple[str, ...]) -> None:
    if name in seen:
        cycle = " -> ".join((*seen[seen.index(name) :], name))
        raise ConfigError(f"derived columns depend on each other: {cycle}; break the cycle")
    if name not in config.derived:
        found[name] = None
        return
    for needed in sorted(parse(config.derived[name]).names):
        if needed == name:
            found[name] = None  # `MET: MET / 1000` means the branch of that name
        else:
            _resolve(needed, config, found, (*seen, name))


def check_missing(config: DataConfig) -> None:
    """Refuse sentinels of branches that nothing reads.

    Raises
    ------
    ConfigError
        With the nearest branches; for a derived column, in which sentinels are numbers like others.
    """
    if not isinstance(config.missing, Mapping):
        return
    known = dict.fromkeys(name for sample in config.samples for name in needed_branches(config, sample))
    computed = next((name for name in config.missing if name in config.derived and name not in known), None)
    if computed is not None:
        raise ConfigError(
            f"missing.{computed}: {computed!r} is computed, and numbers stand for no value in branches alone; name the "
            "branches that it is computed of"
        )
    reject_unknown(config.missing, [*known, "default"], where="missing")


def flat_features(config: DataConfig, branches: Mapping[str, Branch], *, where: str = "") -> tuple[str, ...]:
    """Name the flat features, with ``cov[0]``, ``cov[1]``, ... for a fixed-size branch ``cov``.

    Parameters
    ----------
    config : names the flat features, and which columns are derived
    branches : name to what a branch holds; derived columns need not be there
    where : file and tree, for an error

    Raises
    ------
    BranchError
        For a branch that is jagged or unusable.
    """
    names: list[str] = []
    for name in config.flat:
        branch = branches.get(name) if name not in config.derived else None
        if branch is not None and branch.kind == "jagged":
            raise BranchError(
                f"flat: {name!r} is jagged, a list an event; put it into a collection under `jagged`, "
                f"or derive one number from it, such as max({name}) or {name}[0]{where and f' ({where})'}"
            )
        names += [f"{name}[{i}]" for i in range(branch.width)] if branch and branch.kind == "fixed" else [name]
    return tuple(names)

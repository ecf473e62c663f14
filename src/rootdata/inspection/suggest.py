"""A data configuration to start from, out of what was measured in files.

What would leak the answer (truth, identifiers, weights) is left out of the features, and so is what can't be one; the
configuration names all of it, with the reason, so that a person can decide otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rootdata.errors import ConfigError, DataError, nearest
from rootdata.inspection.files import InspectedSource, Inspection
from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import finding, role_of
from rootdata.options.data import TAKEN

MANY = 100  # possible features beyond which only the common ones are taken
MOST_FLAT, MOST_COLLECTIONS, MOST_BRANCHES = 16, 6, 8  # that are taken then
WIDEST = 16  # numbers of a fixed-size branch
WIDTH = 116  # of a line

# The common ones, most wanted first; what matches none is not taken where there are many.
_FLAT = (
    r"(Puppi|PF)?MET_(pt|phi|significance|sumEt)", r"MET_p[xy]", r"(HT|ht)", r"(mbb|mjj|mll)", r"PV_npvs(Good)?",
    r"(n|N)(Jet|FatJet|Muon|Electron|Tau|Photon)s?", r"(rho|(fixedGrid|Rho_fixedGrid)RhoFastjetAll)",
)  # fmt: skip
_KINEMATIC = (
    r"pt", r"eta", r"phi", r"mass", r"p[xyz]", r"(e|energy)", r"m", r"msoftdrop", r"btag(UParTAK4B|PNetB|DeepFlavB)",
    r"(particleNet_XbbVsQCD|btagDDBvLV?\w*)", r"tau[1-3]", r"charge", r"(mini)?pfreliso\w*all", r"btag(DeepB|CSV\w*)?",
    r"(qgl|btag\w*QG)", r"(iso|reliso|pfreliso\w*)", r"(sip3d|dxy|dz)", r"mva\w*", r"\w*id",
)  # fmt: skip
_COMMON_COLLECTIONS = ("jet", "fatjet", "muon", "electron", "tau", "photon", "boostedtau", "subjet")
_WEIGHTS = ("genweight", "weight", "eventweight", "event_weight")

_WHY = {
    "truth": "truth, which only a simulation knows: it would give the answer away",
    "label": "labels",
    "identifier": "identifiers: they tell where an event comes from, not what it is",
    "weight": "weights: of events, or of variations of the simulation",
    "trigger": "trigger bits and flags",
    "index": "places in other collections: they mean something only together with these",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Suggestion:
    """A data configuration.

    Parameters
    ----------
    text : YAML
    notes : what was decided, for whoever asked for it
    is_complete : whether it can be trained with as it is; if not, the last note says what is missing
    """

    text: str
    notes: tuple[str, ...]
    is_complete: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What goes in and what stays out.

    Parameters
    ----------
    flat : one number an event
    collections : name to branches
    left_out : reason to branches
    """

    flat: tuple[str, ...]
    collections: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Labels:
    """How events get their class.

    Parameters
    ----------
    numbers : sample to class; empty where an expression tells
    expression : of one event; ``???`` where a person has to say
    """

    numbers: Mapping[str, int]
    expression: str | None
    note: str


def suggest(found: Inspection, *, signal: Sequence[str] = ()) -> Suggestion:
    """Write a data configuration.

    Parameters
    ----------
    found : what was found in the files
    signal : names of the samples that are class 1

    Raises
    ------
    ConfigError
        For a signal that is no sample, or one that leaves no background.
    DataError
        Where no branch is left that could be a feature.
    """
    labels = choose_labels(found, signal)
    features = choose_features(found)
    taken = [*features.flat, *(b for names in features.collections.values() for b in names)]
    if not taken:
        reasons = "; ".join(f"{', '.join(names[:3])}: {why}" for why, names in features.left_out.items())
        raise DataError(f"no branch is left that could be a feature ({reasons or 'there are none'}); write by hand")
    jagged = sum(len(names) for names in features.collections.values())
    left_out = sum(len(names) for names in features.left_out.values()) + len(found.flags)
    counts = f"{len(features.flat)} flat and {jagged} jagged features in {len(features.collections)} collections"
    parts = (
        _head(), _samples(found.sources, labels), _label_lines(labels), _flat_lines(features.flat),
        _jagged_lines(features.collections), _missing_lines(found, taken), _weight_lines(found), _split_lines(),
        _left_out_lines(features.left_out, found.flags),
    )  # fmt: skip
    return Suggestion(
        text="\n".join(line for part in parts for line in part) + "\n",
        notes=(f"{counts}; {left_out} branches are left out, with the reasons at the end of the file", labels.note),
        is_complete=labels.expression != "???",
    )


# What is signal


def choose_labels(found: Inspection, signal: Sequence[str]) -> _Labels:
    """Decide how events get their class: by sample, or by a branch where there is one sample alone."""
    names = [s.name for s in found.sources]
    wanted = [_find_sample(name, found.sources) for name in signal]
    if wanted and len(set(wanted)) == len(names):
        raise ConfigError(f"--signal: {', '.join(wanted)}: no sample is left as background; inspect its files, too")
    if len(names) > 1:
        chosen = wanted or names[:1]
        rest = ", ".join(n for n in names if n not in chosen)
        note = f"signal (label 1): {', '.join(chosen)}; background (label 0): {rest}"
        if not wanted:
            note += f"; {chosen[0]!r} was taken as it came first: --signal NAME says otherwise, or edit the labels"
        return _Labels(numbers={n: int(n in chosen) for n in names}, expression=None, note=note)
    branch = next(iter(_label_branches(found)), None)
    if branch is not None:
        return _Labels(numbers={}, expression=f"{branch} == 1", note=f"the label is taken from the branch {branch!r}")
    return _Labels(
        numbers={},
        expression="???",
        note="nothing tells signal from background: fill in `label` in the file, as 'is_signal == 1', or inspect the "
        "files of both together",
    )


def _find_sample(name: str, sources: Sequence[InspectedSource]) -> str:
    for source in sources:
        if name in {source.name, source.pattern, Path(source.pattern).name, Path(source.pattern).stem}:
            return source.name
    raise ConfigError(f"--signal: {name!r} is not a sample; {nearest(name, [s.name for s in sources])}")


def _label_branches(found: Inspection) -> list[str]:
    return [
        name
        for name, column in found.columns.items()
        if role_of(column, ()) == "label" and column.is_binary and column.objects and name not in found.absent
    ]


# What is a feature


def choose_features(found: Inspection) -> Features:
    """Decide which branches to train on: all that can be, or the common ones where there are very many."""
    left_out: dict[str, list[str]] = {}
    usable: dict[str, BranchFacts] = {}
    for name, column in found.columns.items():
        why = reason(name, found)
        if why:
            left_out.setdefault(why, []).append(name)
        else:
            usable[name] = column
    flat = [n for n, column in usable.items() if column.branch.kind != "jagged"]
    groups = {g: [n for n in names if n in usable] for g, names in found.collections.items()}
    groups = {g: names for g, names in groups.items() if names}
    if len(usable) > MANY:
        flat, groups, rest = _common(flat, groups, found)
        left_out |= rest
    return Features(
        flat=tuple(flat),
        collections={_key(g): tuple(names) for g, names in groups.items()},
        left_out={why: tuple(names) for why, names in left_out.items()},
    )


def reason(name: str, found: Inspection) -> str:
    """Say why a branch is not taken as a feature; nothing if it is."""
    column = found.columns[name]
    if not column.is_usable:
        return f"unusable: {column.branch.note}"
    if name in found.absent:
        return found.absent[name]
    if "${" in name:
        return "the name would be taken for a reference to another option"
    role = role_of(column, found.counters)
    if role in _WHY:
        return _WHY[role]
    if _names_its_sample(name, found):
        return "another constant in each sample: it names the sample"
    if found.counters.get(name) and _is_truth(found, found.counters[name]):
        return _WHY["truth"]
    if column.branch.kind == "fixed" and column.branch.width > WIDEST:
        return f"arrays of more than {WIDEST} numbers an event"
    return _brief(finding(column))


def _brief(words: str) -> str:
    """Leave out the numbers of a finding, so that branches with the same finding come together."""
    if words.startswith("constant"):
        return "constant in the entries that were read"
    return "nearly constant in the entries that were read" if " but for " in words else words


def _names_its_sample(name: str, found: Inspection) -> bool:
    stats = [s.columns[name].stats for s in found.sources if name in s.columns]
    values = {s.low for s in stats}
    return len(found.sources) > 1 and len(values) > 1 and all(s.low == s.high for s in stats)


def _is_truth(found: Inspection, group: str) -> bool:
    return all(role_of(found.columns[name], ()) == "truth" for name in found.collections[group])


def _common(
    flat: Sequence[str], groups: Mapping[str, Sequence[str]], found: Inspection
) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """Take the common features, and say which were not taken."""
    taken_flat = _best(flat, flat, _FLAT, MOST_FLAT)
    chosen = _common_groups(groups, found)
    taken = {g: _best(groups[g], [_last_words(n, g) for n in groups[g]], _KINEMATIC, MOST_BRANCHES) for g in chosen}
    taken = {g: names for g, names in taken.items() if names}
    rest = {"flat, not among the common ones": [n for n in flat if n not in taken_flat]}
    for group, names in groups.items():
        why = f"{group}, not among the common ones" if group in taken else "further collections"
        rest.setdefault(why, []).extend(n for n in names if n not in taken.get(group, ()))
    return taken_flat, taken, {why: names for why, names in rest.items() if names}


def _common_groups(groups: Mapping[str, Sequence[str]], found: Inspection) -> list[str]:
    """Order collections: the common ones, then those with most objects."""

    def rank(group: str) -> tuple[int, int]:
        word = group.lower().removesuffix("s")
        place = _COMMON_COLLECTIONS.index(word) if word in _COMMON_COLLECTIONS else len(_COMMON_COLLECTIONS)
        return place, -found.columns[groups[group][0]].objects

    common = [g for g in groups if g.lower().removesuffix("s") in _COMMON_COLLECTIONS]
    return sorted(common or groups, key=rank)[:MOST_COLLECTIONS]


def _best(names: Sequence[str], words: Sequence[str], patterns: Sequence[str], most: int) -> list[str]:
    """Keep the names whose words match the first patterns, in their order in the file."""
    ranks = [next((i for i, p in enumerate(patterns) if re.fullmatch(p, w, re.IGNORECASE)), None) for w in words]
    ranked = sorted((rank, i) for i, rank in enumerate(ranks) if rank is not None)[:most]
    return [names[i] for _, i in ranked]


def _last_words(name: str, group: str) -> str:
    return name[len(group) :].lstrip("_.") if name.startswith(group) else name


def _key(group: str) -> str:
    """Make a key of a batch of the name of a collection."""
    word = re.sub(r"\W", "_", group)
    taken = word in TAKEN or word.endswith("mask") or not word.isidentifier()
    return f"objects_{word}" if taken else word


# The text


def _head() -> list[str]:
    return [
        "# Written by `python -m rootdata inspect --write`: a start, to be edited.",
        "# What is not set here has its default from configs/data/base.yaml, which explains every option.",
    ]


def _samples(sources: Sequence[InspectedSource], labels: _Labels) -> Iterator[str]:
    local = [_absolute(s.pattern) for s in sources if "://" not in s.pattern]
    folder = os.path.commonpath([os.path.dirname(re.split(r"[*?\[]", p)[0]) for p in local]) if local else "/"  # noqa: PTH120
    if folder != "/":
        yield f"folder: {_scalar(folder)} # data.folder=... finds the same files elsewhere"
    yield ""
    yield "samples: # a process each; `files` may be a path, a glob, a folder or a list, `cut` and `weight` may follow"
    for source in sources:
        yield f"  {_scalar(source.name)}:"
        yield from _files(source, folder)
        if source.name in labels.numbers:
            yield f"    label: {labels.numbers[source.name]}"


def _files(source: InspectedSource, folder: str) -> Iterator[str]:
    trees = list(dict.fromkeys(location.tree or "" for location in source.locations))
    if len(trees) > 1:
        named = [f"{_below(location.path, folder)}:{location.tree}" for location in source.locations]
        yield from _list("files", named, indent=4)
    else:
        yield f"    files: {_scalar(_below(source.pattern, folder))}"
        yield f"    tree: {_scalar(trees[0])}"


def _absolute(pattern: str) -> str:
    return os.path.abspath(os.path.expandvars(os.path.expanduser(pattern)))  # noqa: PTH100, PTH111 - globs are text


def _below(pattern: str, folder: str) -> str:
    if "://" in pattern:
        return pattern
    path = _absolute(pattern)
    return path if folder == "/" else "${data.folder}" + path[len(folder) :]


def _label_lines(labels: _Labels) -> Iterator[str]:
    if labels.expression is None:
        return
    yield ""
    if labels.expression == "???":
        yield "# Needed: an expression of branches that is 1 for signal and 0 for background, such as is_signal == 1,"
        yield "# or instead a `label` for each sample above, once there are several."
        yield "label: ???"
    else:
        yield f"label: {_scalar(labels.expression)} # 1 for signal, 0 for background"


def _flat_lines(flat: Sequence[str]) -> Iterator[str]:
    if flat:
        yield ""
        yield "# One number an event. `derived: {ht: sum(Jet_pt)}` makes new ones of branches."
        yield from _list("flat", flat)


def _jagged_lines(collections: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if not collections:
        return
    yield ""
    yield "# Lists, with the same number of objects in all branches of a collection."
    yield "jagged:"
    for i, (name, branches) in enumerate(collections.items()):
        yield f"  {_scalar(name)}:"
        yield from _list("branches", branches, indent=4)
        yield "    length: auto" + (" # keeps 99.9 % of all objects; or a number such as 10" if not i else "")
        if not i:
            key = next((b for b in branches if re.search(r"(pt|energy|_e)$", b, re.IGNORECASE)), branches[0])
            yield f"    # sort: -{key} # order of the objects, here from the largest"
            yield f"    # cut: {key} > 30 # keeps these objects"


def _missing_lines(found: Inspection, taken: Collection[str]) -> Iterator[str]:
    owners: dict[float, list[str]] = {}
    for name in taken:
        for value in found.columns[name].sentinels:
            owners.setdefault(value, []).append(name)
    if owners:
        yield ""
        yield "# Numbers that stand for no value; as NaN, they become `pad` and are masked."
        for value, names in sorted(owners.items()):
            yield from _comment(f"{value!r}: {', '.join(names)}")
        yield f"missing: [{', '.join(map(_number, sorted(owners)))}]"


def _weight_lines(found: Inspection) -> Iterator[str]:
    weights = [
        name
        for name, column in found.columns.items()
        if role_of(column, ()) == "weight" and column.branch.kind == "flat" and column.objects
        and name not in found.absent and name not in found.counters
    ]  # fmt: skip
    if weights:
        best = min(weights, key=lambda n: _WEIGHTS.index(n.lower()) if n.lower() in _WEIGHTS else len(_WEIGHTS))
        yield ""
        yield f"# weight: {best}"


def _split_lines() -> list[str]:
    return [
        "",
        "# Shares of a hash of file and entry. As analyses do it: {by: event % 5, train: null, val: [3], test: [4]}",
        "split: {by: null, train: 0.64, val: 0.16, test: 0.2}",
    ]


def _left_out_lines(left_out: Mapping[str, Sequence[str]], flags: Sequence[str]) -> Iterator[str]:
    if left_out or flags:
        yield ""
        yield "# Left out. To train on one nevertheless, move its name into `flat` or a collection."
    for why, names in left_out.items():
        yield from _comment(f"{why}: {', '.join(names)}")
    if flags:
        others = f" and {len(flags) - 1} more" if len(flags) > 1 else ""
        yield from _comment(f"trigger bits and flags that were not looked at: {flags[0]}{others}")


def _list(key: str, items: Sequence[str], *, indent: int = 0) -> list[str]:
    """Write a list in brackets, wrapped."""
    first = " " * indent + f"{key}: ["
    lines = _wrap((_scalar(item) for item in items), first=first, later=" " * (indent + 2))
    return [*lines[:-1], lines[-1] + "]"]


def _wrap(words: Iterable[str], *, first: str, later: str) -> list[str]:
    lines = [first]
    for i, word in enumerate(words):
        piece = word if not i else f", {word}"
        if len(lines[-1]) + len(piece) > WIDTH:
            lines[-1] += "," * (i > 0)
            lines.append(later + word)
        else:
            lines[-1] += piece
    return lines


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# - ", subsequent_indent="#     ", break_long_words=False, break_on_hyphens=False
    )


def _scalar(text: str) -> str:
    """Write a string so that YAML reads it as that string."""
    plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", text) and text.lower() not in _WORDS
    is_expression = re.fullmatch(r"\w+ == \d+", text)
    is_place = re.fullmatch(r"\$\{data\.folder\}[\w./*-]*", text)
    return text if plain or is_expression or is_place else json.dumps(text, ensure_ascii=False)


_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def _number(value: float) -> str:
    """Write a number so that YAML reads the same one: its floats need a point, also before an exponent."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"

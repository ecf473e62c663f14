"""A data configuration to start from, out of what was measured in files.

What :mod:`rootdata.inspection.choice` decided is written as YAML. It names all that is left out, with the reason, so
that a person can decide otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from rootdata.errors import DataError
from rootdata.inspection.choice import Choice, Labels, some
from rootdata.inspection.files import InspectedSource, Inspection
from rootdata.options.columns import TAKEN

WIDTH = 116  # of a line


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


def suggest(found: Inspection, chosen: Choice) -> Suggestion:
    """Write a data configuration.

    Parameters
    ----------
    found : what was found in the files
    chosen : what was decided of it

    Raises
    ------
    DataError
        Where no branch is left that could be a feature.
    """
    labels, features, taken = chosen.labels, chosen.features, chosen.features.taken
    if not taken:
        reasons = "; ".join(f"{', '.join(names[:3])}: {why}" for why, names in features.left_out.items())
        raise DataError(f"no branch is left that could be a feature ({reasons or 'there are none'}); write by hand")
    jagged = len(taken) - len(features.flat)
    left_out = sum(len(names) for names in features.left_out.values()) + len(found.flags)
    counts = f"{len(features.flat)} flat and {jagged} jagged features in {len(features.collections)} collections"
    parts = (
        _head(), _samples(found.sources, labels), _label_lines(labels), _flat_lines(features.flat),
        _jagged_lines(features.collections, chosen.is_in_mev), _missing_lines(found, taken), _weight_lines(chosen),
        _split_lines(), _left_out_lines(features.left_out, found.flags),
    )  # fmt: skip
    summary = f"{counts}; {left_out} branches are left out, with the reasons at the end of the file"
    return Suggestion(
        text="\n".join(line for part in parts for line in part) + "\n",
        notes=(summary, *chosen.notes, labels.note),
        is_complete=labels.expression != "???",
    )


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


def _samples(sources: Sequence[InspectedSource], labels: Labels) -> Iterator[str]:
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


def _label_lines(labels: Labels) -> Iterator[str]:
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


def _jagged_lines(collections: Mapping[str, Sequence[str]], is_in_mev: bool) -> Iterator[str]:
    if not collections:
        return
    yield ""
    yield "# Lists, with the same number of objects in all branches of a collection."
    yield "jagged:"
    for i, (name, branches) in enumerate(collections.items()):
        yield f"  {_scalar(_key(name))}:"
        yield from _list("branches", branches, indent=4)
        yield "    length: auto" + (" # keeps 99.9 % of all objects; or a number such as 10" if not i else "")
        if not i:
            key = next((b for b in branches if re.search(r"(pt|energy|_e)$", b, re.IGNORECASE)), branches[0])
            yield f"    # sort: -{key} # order of the objects, here from the largest"
            number = "30000 # in MeV, as it seems; " if is_in_mev else "30 # "
            yield f"    # cut: {key} > {number}keeps these objects"


def _missing_lines(found: Inspection, taken: Collection[str]) -> Iterator[str]:
    owners: dict[float, list[str]] = {}
    perhaps: dict[float, list[str]] = {}
    for name in taken:
        column = found.columns[name]
        for value, number in column.sentinels.items():
            owners.setdefault(value, []).append(f"{name} ({number:,} of {column.objects:,})")
        for value, number in column.apart.items():
            perhaps.setdefault(value, []).append(f"{name} ({number:,} of {column.objects:,})")
    if owners:
        yield ""
        yield "# Numbers that stand for no value; as NaN, they become `pad` and are masked."
        for value, names in sorted(owners.items()):
            yield from _comment(f"{value!r}: {', '.join(names)}")
        yield f"missing: [{', '.join(map(_number, sorted(owners)))}]"
    if perhaps:
        yield ""
        yield "# These lie apart from all other values and may stand for none. Listed in `missing`, a number counts as"
        yield "# missing in all branches."
        for value, names in sorted(perhaps.items()):
            others = _with_value(found, taken, value)
            warning = f"; but a value of {some(others)}" if others else ""
            yield from _comment(f"{value:g}: {', '.join(names)}{warning}")
        safe = [value for value in perhaps if not _with_value(found, taken, value)]
        if safe:
            yield f"# missing: [{', '.join(map(_number, sorted({*owners, *safe})))}]"


def _with_value(found: Inspection, taken: Collection[str], value: float) -> list[str]:
    """Name the features of which a number may be a value like others."""
    columns = [found.columns[name] for name in taken]
    return [
        c.branch.name
        for c in columns
        if value not in c.apart and c.stats.count and c.stats.low <= value <= c.stats.high
    ]


def _weight_lines(chosen: Choice) -> Iterator[str]:
    if chosen.weight is not None:
        yield ""
        yield f"# weight: {_scalar(chosen.weight.name)} # {str(chosen.weight).partition(': ')[2]}"
    elif chosen.weight_note:
        yield ""
        yield from _comment(chosen.weight_note)


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

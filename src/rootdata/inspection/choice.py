"""What to train on, out of what was measured in files: the label, the features, the weight; and why not the rest."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rootdata.errors import ConfigError, nearest
from rootdata.inspection.evidence import names_its_sample, tells_apart, tells_label
from rootdata.inspection.files import Inspection, NamedFiles
from rootdata.inspection.measure import BranchFacts
from rootdata.inspection.roles import finding, is_truth, role_of
from rootdata.inspection.words import phrase_of

MANY = 100  # possible features beyond which only the common ones are taken
MOST_FLAT, MOST_COLLECTIONS, MOST_BRANCHES = 16, 6, 8  # that are taken then
WIDEST = 16  # numbers of a fixed-size branch
# Means of energies and momenta above which they are in MeV: of the middle and of the largest branch.
MIDDLE_IN_MEV, LARGEST_IN_MEV = 700.0, 5_000.0

# The common ones, as phrases (see `words`), most wanted first; what matches none is not taken where there are many.
_FLAT = (
    r"(puppi |pf )?met( (et|pt|phi|significance|sum ?et))?|missing et (met|phi)", r"met p ?[xy]", r"(scalar )?ht( ht)?",
    r"(mbb|mjj|mll|m (bb|jj|ll))", r"(pv npvs( good)?|n ?vtx|n ?p ?vs)",
    r"n ?(jet|fat jet|muon|electron|tau|photon|lep|lepton)s?|(jet|lep|photon|tau) n",
    r"(rho|.*rho fastjet all|rho rho)",
)  # fmt: skip
_KINEMATIC = (
    r"pt|met|ht", r"eta", r"phi", r"(mass|m|mm)", r"m?p ?[xyz]|(mom|momentum) [xyz]", r"(e|energy|et)", r"p",
    r"m ?soft ?drop|sd ?mass",
    r"btag (u par tak 4 b|p net b|deep flav b)|b ?tag|\w*dl 1\w*( pb)?|gn 2( ?x? ?v \d+)? (pb|phbb)|mv 2 c 10",
    r"(particle net xbb vs qcd|btag ddb.*|global par t \d xbb.*)", r"tau \d( wta)?", r"charge|(d 0|z 0)",
    r"(mini )?pf ?rel ?iso \d*( all)?|.*pf rel iso \d+ all|(pt|et|topoet|ptvar) ?cone ?\d+|isolation var",
    r"(ip|fd|endvertex |track )chi 2( ownpv| ndof)?|dira ownpv|tau",
    r"pid [kpemu]+|(mc \d+ tune v \d )?prob n ?n\w*", r"btag (deep b|csv.*)", r"(qgl|btag .*qg|width|em ?frac|jvt)",
    r"(iso|rel iso|pf rel iso .*)", r"(sip 3 d|dxy|dz)", r"mva( \w+)*",
)  # fmt: skip
# Of ntuples of candidates, where a branch is one number of one particle: how it decays comes before its mass, which is
# what is fitted afterwards.
_CANDIDATE = (
    r"pt", r"(min )?ip ?chi 2( ownpv)?", r"fd ?chi 2( ownpv)?", r"dira( ownpv)?", r"(endvertex|vtx) chi 2",
    r"pid [kpemu]+|(mc \d+ tune v \d )?prob n ?n\w*|(pion|kaon|proton|muon|electron) id", r"eta",
    r"track chi 2( ndof)?", *_KINEMATIC,
)  # fmt: skip
# Words of names of reconstructed objects, most wanted first.
_OBJECTS = (
    ("jet", "jets", "ak", "akt"), ("fatjet", "fat", "large", "rjet"), ("muon", "muons", "mu"),
    ("electron", "electrons", "el", "ele", "lep", "lepton", "leptons"), ("tau", "taus"), ("photon", "photons", "gamma"),
    ("missing", "met", "scalar"), ("boosted",), ("subjet", "sub"), ("reconstructed", "pfos", "candidates"),
    ("track", "tracks"),
)  # fmt: skip
_UNCOMMON = frozenset(
    {"corr", "soft", "low", "calo", "track", "trk", "raw", "assoc", "si", "forward", "btagging", "loose"}
)
_ENERGY = r"pt|et|e|energy|m|mass|p|p ?[xyz]|mm|sumet|sum ?et|ht"
_NOMINAL = (
    r"gen ?weight", r"(mc ?|event ?|evt ?|gen event |mc event )?weight( (nominal|nom|mc|central))?",
    r"generator weight",
    r"event header weight", r"(nominal|central) weight", r"kaggle weight", r"(gen|evt|event) ?(wt|wgt)", r"wgt|w|wt",
)  # fmt: skip

_PLAIN_LABEL = r"is ?sig(nal)?|signal|(true |truth )?label|class|target|y"
_LISTS = r"(event info aux dyn )?(mc |gen )?event weights|(mc|gen) ?weights"

WHY = {
    "truth": "truth, which only a simulation knows: it would give the answer away",
    "label": "labels",
    "identifier": "identifiers: they tell where an event comes from, not what it is",
    "weight": "weights: of events, or of variations of the simulation",
    "trigger": "trigger bits and flags",
    "index": "places in other collections: they mean something only together with these",
    "flag": "working points and bits of identification: cuts on values that can be taken themselves",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """How events get their class.

    Parameters
    ----------
    numbers : sample to class; empty where an expression tells
    branch : that holds 1 for signal, where one does
    expression : of one event; ``???`` where a person has to say
    """

    numbers: Mapping[str, int]
    branch: str | None = None
    expression: str | None
    note: str


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

    @property
    def taken(self) -> tuple[str, ...]:
        """All branches that go in."""
        return (*self.flat, *(name for names in self.collections.values() for name in names))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """The nominal weight of events.

    Parameters
    ----------
    total : sum over the entries read
    entries : of which it is
    negative : share of the entries whose weight is below 0
    """

    name: str
    total: float
    entries: int
    negative: float

    @property
    def branch(self) -> str:
        """The branch that holds it, as the first of a list where that is what it is."""
        return self.name.removesuffix("[0]")

    def __str__(self) -> str:
        share = f"{self.negative:.1%} of them negative" if self.negative else "none negative"
        return f"{self.name}: Σw = {self.total:.6g} of {self.entries:,} entries, {share}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """All that was decided.

    Parameters
    ----------
    weight : none where no branch is the nominal one for certain
    weight_note : the weight in words, or what there is where none is the nominal one
    units_note : that energies are in MeV, where their sizes tell
    """

    labels: Labels
    features: Features
    weight: Weight | None
    weight_note: str
    units_note: str

    @property
    def is_in_mev(self) -> bool:
        """Whether energies seem to be in MeV."""
        return bool(self.units_note)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the features and the weight."""
        return tuple(note for note in (self.units_note, self.weight_note) if note)


def choose(found: Inspection, *, signal: Sequence[str] = ()) -> Choice:
    """Decide on the label, the features and the weight.

    Parameters
    ----------
    found : what was found in the files
    signal : names of the samples that are class 1

    Raises
    ------
    ConfigError
        For a signal that is no sample, or one that leaves no background.
    """
    labels = choose_labels(found, signal)
    features = choose_features(found, labels)
    weight = choose_weight(found)
    return Choice(
        labels=labels, features=features, weight=weight, weight_note=weight_note(found, weight),
        units_note=units_note(found, features.taken),
    )  # fmt: skip


# What is signal


def signals_of(signal: Sequence[str], samples: Sequence[NamedFiles]) -> list[str]:
    """Find the samples that are class 1, by their names or files.

    Raises
    ------
    ConfigError
        For a name that is none of a sample, and where no sample is left as background.
    """
    names = [s.name for s in samples]
    wanted = [_find_sample(name, samples) for name in signal]
    if wanted and len(set(wanted)) == len(names):
        raise ConfigError(f"--signal: {', '.join(wanted)}: no sample is left as background; inspect its files, too")
    return wanted


def choose_labels(found: Inspection, signal: Sequence[str] = ()) -> Labels:
    """Decide how events get their class: by sample, or by a branch where there is one sample alone."""
    names = [s.name for s in found.sources]
    wanted = signals_of(signal, [NamedFiles(s.name, s.pattern, s.pattern) for s in found.sources])
    if len(names) > 1:
        chosen = wanted or names[:1]
        rest = ", ".join(n for n in names if n not in chosen)
        note = f"signal (label 1): {', '.join(chosen)}; background (label 0): {rest}"
        if not wanted:
            note += f"; {chosen[0]!r} was taken as it came first: --signal NAME says otherwise, or edit the labels"
        return Labels(numbers={n: int(n in chosen) for n in names}, expression=None, note=note)
    branches = _label_branches(found)
    plain = [name for name in branches if re.fullmatch(_PLAIN_LABEL, phrase_of(name))] or branches[: len(branches) == 1]
    if plain:
        note = f"the label is taken from the branch {plain[0]!r}"
        return Labels(numbers={}, branch=plain[0], expression=f"{plain[0]} == 1", note=note)
    several = f" (perhaps one of {', '.join(branches)})" if branches else ""
    return Labels(
        numbers={},
        expression="???",
        note=f"nothing tells signal from background{several}: fill in `label` in the file, as 'is_signal == 1', or "
        "inspect the files of both together",
    )


def _find_sample(name: str, samples: Sequence[NamedFiles]) -> str:
    for source in samples:
        path = Path(source.pattern)
        if name in {source.name, source.pattern, path.name, path.stem}:
            return source.name
    raise ConfigError(f"--signal: {name!r} is not a sample; {nearest(name, [s.name for s in samples])}")


def _label_branches(found: Inspection) -> list[str]:
    return [
        name
        for name, column in found.columns.items()
        if role_of(column, ()) == "label" and column.is_binary and column.objects and name not in found.absent
    ]


# What is a feature


def choose_features(found: Inspection, labels: Labels | None = None) -> Features:
    """Decide which branches to train on: all that can be, or the common ones where there are very many."""
    labels, weight = labels or choose_labels(found), choose_weight(found)
    left_out: dict[str, list[str]] = {}
    usable: dict[str, BranchFacts] = {}
    for name, column in found.columns.items():
        why = reason(name, found, labels=labels, weight=weight, collection=found.owners.get(name, ""))
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
        collections={g: tuple(names) for g, names in groups.items()},
        left_out={why: tuple(names) for why, names in left_out.items()},
    )


def reason(name: str, found: Inspection, *, labels: Labels, weight: Weight | None = None, collection: str = "") -> str:
    """Say why a branch is not taken as a feature; nothing if it is.

    Parameters
    ----------
    name : of the branch
    found : what was found in the files
    labels : how events get their class: what tells it by itself is not taken
    weight : the nominal one, with which that is judged
    collection : name of the one that the branch belongs to
    """
    column = found.columns[name]
    if not column.is_usable:
        return f"unusable: {column.branch.note}"
    if name in found.absent:
        return found.absent[name]
    if "${" in name:
        return "the name would be taken for a reference to another option"
    role = role_of(column, found.counters, collection=collection)
    if role in WHY:
        return WHY[role]
    own = {s.name: s.columns[name] for s in found.sources if name in s.columns}
    if len(own) == len(found.sources) and names_its_sample(own):
        return "another constant in each sample: it names the sample"
    if found.counters.get(name) and _is_truth(found, found.counters[name]):
        return WHY["truth"]
    if _is_variation(name, found):
        return "variations of others within a systematic uncertainty"
    if column.branch.kind == "fixed" and column.branch.width > WIDEST:
        return f"arrays of more than {WIDEST} numbers an event"
    return _brief(finding(column)) or _gives_away(column, found, labels, weight)


def _gives_away(column: BranchFacts, found: Inspection, labels: Labels, weight: Weight | None) -> str:
    name, of_weight = column.branch.name, weight.branch if weight is not None else ""
    if labels.numbers:
        return tells_apart(
            [s.columns.get(name) for s in found.sources],
            [labels.numbers[s.name] for s in found.sources],
            weights=[s.columns.get(of_weight) for s in found.sources],
        )
    if not labels.branch:
        return ""
    return tells_label(column, found.columns[labels.branch], weight=found.columns.get(of_weight))


def _brief(words: str) -> str:
    """Leave out the numbers of a finding, so that branches with the same finding come together."""
    if words.startswith("constant"):
        return "constant in the entries that were read"
    return "nearly constant in the entries that were read" if " but for " in words else words


def _is_variation(name: str, found: Inspection) -> bool:
    """Say whether there is the same name with the other direction: `PuppiMET_ptJESUp` and `PuppiMET_ptJESDown`.

    A word must end there: `NumUpstreamTracks` is no variation of `NumDownstreamTracks`.
    """
    pairs = (("Up", "Down"), ("up", "down"), ("UP", "DOWN"), ("Up", "Dn"))
    found_in = [(a, b) for pair in pairs for a, b in (pair, pair[::-1]) if a in name]
    others = (re.sub(rf"{a}(?![a-z])", b, name) for a, b in found_in)
    return any(other != name and other in found.columns for other in others)


def _is_truth(found: Inspection, group: str) -> bool:
    members = found.collections[group]
    return is_truth(group) or all(role_of(found.columns[name], (), collection=group) == "truth" for name in members)


def _common(
    flat: Sequence[str], groups: Mapping[str, Sequence[str]], found: Inspection
) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """Take the common features, and say which were not taken."""
    objects = {name: phrase for name in flat if (phrase := _last_words(name))}
    events = _best(flat, [phrase_of(n) for n in flat], _FLAT, MOST_FLAT)
    taken_flat = events or _best(list(objects), list(objects.values()), _CANDIDATE, MOST_FLAT) or list(flat[:MOST_FLAT])
    best = {g: _best(names, [_in_group(n, g) for n in names], _KINEMATIC, MOST_BRANCHES) for g, names in groups.items()}
    filled = {g: names for g, names in best.items() if names} or {g: list(n[:MOST_BRANCHES]) for g, n in groups.items()}
    chosen = _common_groups(filled, found)
    taken = {g: filled[g] for g in chosen}
    rest = {"flat, not among the common ones": [n for n in flat if n not in taken_flat]}
    for group, names in groups.items():
        why = f"{group}, not among the common ones" if group in taken else "further collections"
        rest.setdefault(why, []).extend(n for n in names if n not in taken.get(group, ()))
    return taken_flat, taken, {why: names for why, names in rest.items() if names}


def _common_groups(groups: Mapping[str, Sequence[str]], found: Inspection) -> list[str]:
    """Order collections: those of common objects, then those with most objects."""

    def rank(group: str) -> tuple[int, int, int]:
        objects = found.columns[groups[group][0]].objects
        return _object_rank(group), -len(groups[group]), -objects

    common = [g for g in groups if _object_rank(g) < len(_OBJECTS)]
    return sorted(common or groups, key=rank)[:MOST_COLLECTIONS]


@functools.lru_cache(maxsize=1_000)
def _object_rank(group: str) -> int:
    """Return the place of a collection among the common objects; their number for one that is none of them."""
    words = set(phrase_of(group).split())
    if not words or words & _UNCOMMON:
        return len(_OBJECTS)
    # A tau jet is a tau, and a large-R jet is no jet like others: the rarer word tells.
    return max((i for i, known in enumerate(_OBJECTS) if words & set(known)), default=len(_OBJECTS))


def _best(names: Sequence[str], words: Sequence[str], patterns: Sequence[str], most: int) -> list[str]:
    """Keep the names whose words match the first patterns, in their order in the file."""
    ranks = [_rank_of(each, patterns) for each in words]
    ranked = sorted((rank, i) for i, rank in enumerate(ranks) if rank is not None)[:most]
    return [names[i] for _, i in ranked]


def _in_group(name: str, group: str) -> str:
    """Return what is said of the objects: "pt" of ``Jet_pt``, and of ``Jets.fCoordinates.fPt`` of a ROOT vector.

    Examples
    --------
    >>> _in_group("Jets.fCoordinates.fPt", "Jets"), _in_group("muonp4.fP.fX", "muonp4")
    ('pt', 'p x')
    """
    return re.sub(r"\bf (coordinates f )?", "", phrase_of(name.removeprefix(group)))


def _last_words(name: str) -> str:
    """Return what is said of an object, as "pt" of ``B0_PT`` and "ipchi 2 ownpv" of ``Kplus_IPCHI2_OWNPV``."""
    return phrase_of(name.partition("_")[2])


# Weights and units


def choose_weight(found: Inspection) -> Weight | None:
    """Find the nominal weight of events by its name; a variation, a scale factor or a part of it is none.

    Where there is a list of weights, as in ATLAS files, the first one is it.
    """
    ranked = [
        (rank, name) for name in weight_branches(found) if (rank := _rank_of(phrase_of(name), _NOMINAL)) is not None
    ]
    if ranked:
        column = found.columns[min(ranked, key=lambda pair: pair[0])[1]]
        count = column.stats.count
        total, share = float(column.stats.moments.mean) * count, column.negative / max(1, count)
        return Weight(name=column.branch.name, total=total, entries=column.objects, negative=share)
    for name, column in found.columns.items():
        first = column.kept[np.isfinite(column.kept)]
        if column.branch.kind == "jagged" and re.fullmatch(_LISTS, phrase_of(name)) and len(first):
            share = float(np.mean(first < 0))
            return Weight(name=f"{name}[0]", total=float(first.sum()), entries=len(first), negative=share)
    return None


def _rank_of(words: str, patterns: Sequence[str]) -> int | None:
    return next((i for i, pattern in enumerate(patterns) if re.fullmatch(pattern, words)), None)


def weight_branches(found: Inspection) -> list[str]:
    """Name the branches that hold a weight of each event."""
    return [
        name
        for name, column in found.columns.items()
        if role_of(column, ()) == "weight" and column.branch.kind == "flat" and column.objects
        and name not in found.absent and name not in found.counters
    ]  # fmt: skip


def weight_note(found: Inspection, weight: Weight | None) -> str:
    """Say which weight is the nominal one, or what there is where none is."""
    if weight is not None:
        return f"the nominal weight is {weight}"
    others = weight_branches(found)
    return f"no weight is the nominal one for certain; there are {some(others)}" if others else ""


def units_note(found: Inspection, names: Sequence[str]) -> str:
    """Say that energies are in MeV where their sizes tell; nothing where they are in GeV."""
    means = sorted(
        abs(float(found.columns[n].stats.moments.mean))
        for n in names
        if found.columns[n].stats.count and re.fullmatch(rf"(.* )?({_ENERGY})", phrase_of(n)) and _is_energy(n)
    )
    middle, largest = (means[len(means) // 2], means[-1]) if means else (0.0, 0.0)
    if middle < MIDDLE_IN_MEV or largest < LARGEST_IN_MEV:
        return ""
    return f"energies, momenta and masses seem to be in MeV (their means go up to {largest:,.0f})"


def _is_energy(name: str) -> bool:
    return not re.search(r"\b(chi|prob|btag|frac)\b", phrase_of(name))


def some(names: Sequence[str], most: int = 4) -> str:
    """Name the first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

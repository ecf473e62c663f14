"""What a branch is for, by its name and a little by its values; what keeps it from being a feature."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

import numpy as np

from rootdata.inspection.measure import FEW, BranchFacts
from rootdata.inspection.words import Kind, is_named, phrase_of

SPREAD = 1e-3  # of a value: less is rounding, as in the mass of a muon
NEARLY_ONE = 1 - 1e-3

Role = Literal["feature", "counter", "label", "identifier", "index", "weight", "truth", "trigger", "flag"]

# Of which there are hundreds in a file; they are not looked at unless asked for.
FLAGS = re.compile(r"(HLT|L1|DST|AlCa|Flag)_|HLTrigger|L1simulation|L1Reco|MC_\w+_v\d+$")
_KINDS: tuple[Kind, ...] = ("weight", "identifier", "truth", "trigger", "index")
# Working points, and bits of identification.
_POINT = re.compile(
    r"\b(wp ?\w*|v*(loose|medium|tight)|very (loose|tight)|\w*(loose|tight)|bitmaps?|bitmask|bits|flags?|cut based|"
    r"cutbased|pass(ed|es)?|veto|clean|is (pf ?cand|p fcand|global|standalone|tracker|good|bad|tau flags)|"
    r"high purity|in time muon|id (anti|deep|decay)\b.*|quality|author|all authors|jet clean)\b"
)
_PLACE = (
    "cell|layer|plane|sector|module|station|wire|strip|pixel|tower|ring|disk|side|chamber|crystal|dom|pmt|string|wheel"
)
_ID = re.compile(rf"\b(?!(?:pdg|lep|type|{_PLACE}) )\w+ (id|wp)( \d+)?$|\b(jet|pu|loose|tight|medium|soft)id$")


def role_of(column: BranchFacts, counters: Collection[str], *, collection: str = "") -> Role:
    """Tell from its name, and a little from its values, what a branch is for.

    Parameters
    ----------
    column : name, kind and measured values of the branch
    counters : names of the branches that hold numbers of objects
    collection : name of the one that the branch belongs to

    Examples
    --------
    >>> from rootdata.io.branches import Branch
    >>> role_of(BranchFacts(branch=Branch("Jet_hadronFlavour", "jagged", "int32")), ())
    'truth'
    """
    name = column.branch.name
    is_flat = column.branch.kind == "flat"
    if is_flat and (is_named("label", name) or (name.lower() == "y" and column.is_binary)):
        return "label"
    if is_flat and column.counts_up and column.objects:
        return "identifier"
    if collection != name and is_truth(collection):
        return "truth"
    found: Role | None = next((kind for kind in _KINDS if is_named(kind, name)), None)
    if found is None and FLAGS.match(name):
        return "trigger"
    if found is None and name in counters:
        return "counter"
    return found or ("flag" if _is_flag(column) else "feature")


def is_truth(collection: str) -> bool:
    """Say whether a collection, by its name, is one that only a simulation has.

    Examples
    --------
    >>> is_truth("TruthElectronsAuxDyn"), is_truth("Particle"), is_truth("ReconstructedParticles")
    (True, True, False)
    """
    return is_named("truth", collection)


def _is_flag(column: BranchFacts) -> bool:
    """Say whether it is a bit that a cut on other values sets: a working point, or a quality."""
    is_whole = column.branch.dtype.startswith(("bool", "int", "uint"))
    phrase = phrase_of(column.branch.name)
    is_count = re.match(r"(n|num|number)\b", phrase) is not None
    return is_whole and not is_count and (_POINT.search(phrase) is not None or _ID.search(phrase) is not None)


def finding(column: BranchFacts) -> str:
    """Say what keeps a branch from being a feature; nothing if it can be one."""
    branch, stats = column.branch, column.stats
    if branch.note:
        return branch.note
    if not column.objects:
        return "always empty" if column.entries else "no entries"
    if not stats.count:
        return "no value in it but NaN, infinities and sentinels"
    if stats.high - stats.low <= SPREAD * max(abs(stats.low), abs(stats.high)) and not _is_close_to_one(column):
        return f"constant, {_number(stats.low)}"
    if column.varied < FEW:
        if column.objects <= 2 * FEW:
            noun = "objects" if branch.kind == "jagged" else "entries"
            return f"only {column.objects} {noun}"
        return f"{_number(column.middle)} but for {column.varied} values"
    return ""


def _is_close_to_one(column: BranchFacts) -> bool:
    """Say whether it is a cosine or a probability near 1: by how much it misses 1 is what it tells."""
    return NEARLY_ONE < column.stats.high <= 1 and len(np.unique(column.kept)) > FEW


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else f"{value:g}"

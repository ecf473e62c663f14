"""What a branch is for, by its name and a little by its values; what keeps it from being a feature."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

from rootdata.inspection.measure import FEW, BranchFacts

SPREAD = 1e-3  # of a value: less is rounding, as in the mass of a muon

Role = Literal["feature", "counter", "label", "identifier", "index", "weight", "truth", "trigger"]

# By their names in the formats of CMS (NanoAOD) and ATLAS, and of the examples that come with ROOT.
FLAGS = re.compile(r"(HLT|L1|DST|AlCa|Flag)_|HLTrigger|L1simulation|L1Reco|MC_\w+_v\d+$")
_TRIGGER = re.compile(r"n?trig|pass_?(trig|hlt)", re.IGNORECASE)
_WEIGHT = re.compile(r"weight|(^|_)wgt|^(xsec|cross_?section)", re.IGNORECASE)
_TRUTH = re.compile(
    r"(^|_)n?(gen|Gen|SubGen|LHE|HTXS|truth|Truth|mc)(?=[A-Z_0-9]|$)|^MC(?=[a-z_])|^(Generator|Pileup)_|fiducialGen"
    r"|([hH]adron|[pP]arton|mc)Flavou?r|n[BC]Hadrons"
)
_INDEX = re.compile(r"Idx(G|s|\d)?$")
_IDENTIFIER = re.compile(
    r"(run|event|evt|lumi|luminosity_?block|lumi_?block|ls|bx|bunch_?crossing|orbit)(_?(number|num|id|nr))?"
    r"|(mc_?)?channel_?number|dsid|entry|index", re.IGNORECASE
)  # fmt: skip
_LABEL = re.compile(r"is_?sig(nal)?|signal|(true_?|truth_?)?label|class(_?id)?|target", re.IGNORECASE)


def role_of(column: BranchFacts, counters: Collection[str]) -> Role:
    """Tell from its name, and a little from its values, what a branch is for.

    Parameters
    ----------
    column : name, kind and measured values of the branch
    counters : names of the branches that hold numbers of objects

    Examples
    --------
    >>> from rootdata.io.branches import Branch
    >>> role_of(BranchFacts(branch=Branch("Jet_hadronFlavour", "jagged", "int32")), ())
    'truth'
    """
    name = column.branch.name
    is_flat = column.branch.kind == "flat"
    if is_flat and (_LABEL.fullmatch(name) or (name.lower() == "y" and column.is_binary)):
        return "label"
    if is_flat and (_IDENTIFIER.fullmatch(name) or (column.counts_up and column.objects)):
        return "identifier"
    matches: tuple[tuple[Role, re.Match[str] | None], ...] = (
        ("weight", _WEIGHT.search(name)),
        ("truth", _TRUTH.search(name)),
        ("trigger", FLAGS.match(name) or _TRIGGER.match(name)),
        ("index", _INDEX.search(name)),
    )
    return next((role for role, match in matches if match), "counter" if name in counters else "feature")


def finding(column: BranchFacts) -> str:
    """Say what keeps a branch from being a feature; nothing if it can be one."""
    branch, stats = column.branch, column.stats
    if branch.note:
        return branch.note
    if not column.objects:
        return "always empty" if column.entries else "no entries"
    if not stats.count:
        return "no value in it but NaN, infinities and sentinels"
    if stats.high - stats.low <= SPREAD * max(abs(stats.low), abs(stats.high)):
        return f"constant, {_number(stats.low)}"
    if column.varied < FEW:
        return f"{_number(column.middle)} but for {column.varied} values"
    return ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else f"{value:g}"

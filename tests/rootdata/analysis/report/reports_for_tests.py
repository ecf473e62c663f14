"""What tests of networks may leave, of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from rootdata.analysis.report.tested import ScoredRun, checksum, columns_of, names_for


def make_tested(
    seed: int = 0,
    *,
    n: int = 600,
    classes: int = 2,
    weights: str = "one",
    shift: float = 1.5,
    has_scores: bool = True,
    targets: int = 0,
    observers: bool = True,
    variations: bool = True,
    has_training: bool = True,
    name: str = "run",
) -> ScoredRun:
    """Make the scores of a network that was never trained, but could have been.

    Parameters
    ----------
    weights : ``one``, ``positive`` or ``signed``
    shift : between the classes, before the logistic function
    """
    rng = np.random.default_rng(seed)
    parts = []
    for size in (n, 2 * n if has_training else 0):
        sample = rng.integers(0, 3, size)
        label = sample if classes == 3 else (sample == 2).astype(int)
        logits = rng.normal(0, 1, (size, classes)) + shift * (np.arange(classes) == label[:, None])
        score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        choices = {"one": np.ones(size), "positive": rng.exponential(size=size)}
        weight = choices.get(weights, rng.choice([1.0, 1.0, 1.0, -1.0], size))
        index = np.stack([sample, np.zeros(size, int), np.arange(size)], axis=1)
        columns: dict[str, Any] = {"label": label, "weight": weight.astype("f4"), "index": index}
        if has_scores:
            columns["score"] = (score if classes == 3 else score[:, 1]).astype("f4")
        if targets:
            columns["targets"] = rng.normal(100, 10, (size, targets)).astype("f4")
            columns["predictions"] = columns["targets"] + rng.normal(0, 5, (size, targets)).astype("f4")
        if observers:
            columns["observers/mass"] = np.where(rng.random(size) < 0.05, np.nan, rng.normal(125, 10, size)).astype(
                "f4"
            )
            columns["observers/run"] = rng.integers(1, 4, size)
        if variations:
            columns |= {f"variations/{word}": (weight * f).astype("f4") for word, f in (("up", 1.1), ("down", 0.9))}
        parts.append(columns_of([columns]) if size else {})
    test, train = parts
    names = names_for(
        test, classes=["background", "signal"] if classes == 2 else [], samples=["QCD", "ttbar", "ttH"], targets=["m"]
    )
    about = {**names, "events": checksum(test), "monitor": "val/auc", "mode": "max", "best": 0.9, "scale": {"ttH": 5.0}}
    kept = {key: column for key, column in train.items() if key in {"score", "label", "weight", "sample"}}
    test.pop("index")
    return ScoredRun(about=about, test=test, train=kept, name=name)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {"weights": "positive"},
    "signed weights": {"weights": "signed"},
    "three classes": {"classes": 3, "weights": "positive"},
    "a regression": {"has_scores": False, "targets": 1},
    "both": {"targets": 2},
    "no extras": {"observers": False, "variations": False, "has_training": False},
    "few events": {"n": 12},
    "nothing learnt": {"shift": 0.0},
}

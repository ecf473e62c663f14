"""The events of a test that were scored: how good the scores are, of each sample, and which class is taken for which.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rootdata.errors import DataError
from rootdata.options.data import VARIED
from rootdata.training import metrics
from rootdata.training.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredEvents:
    """The scored test events, in memory.

    Attributes
    ----------
    score : (n,) of label 1, or (n, classes)
    label, weight, sample : (n,); ``sample`` is the position in ``sample_names``
    classes, sample_names : names for labels and samples
    variations : name of a variation to the weights under it, (n,)
    """

    score: NDArray[np.float64]
    label: NDArray[np.int64]
    weight: NDArray[np.float64]
    sample: NDArray[np.int64]
    classes: tuple[str, ...]
    sample_names: tuple[str, ...]
    variations: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def per_class(self) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.int64]]]:
        """Yield each class that can be signal with its score and its label against the rest, both (n,)."""
        if self.score.ndim == 1:
            yield self.classes[1], self.score, self.label
            return
        for number, name in enumerate(self.classes):
            yield name, self.score[:, number], (self.label == number).astype(np.int64)

    def groups(self) -> Iterator[tuple[str, int, NDArray[np.bool_]]]:
        """Yield name, label and rows, (n,) bool, of each sample; of each of its labels where it has several."""
        for number, name in enumerate(self.sample_names):
            rows = self.sample == number
            labels = np.unique(self.label[rows])
            for label in labels:
                shown = name if len(labels) == 1 else f"{name} ({self.classes[label]})"
                yield shown, int(label), rows & (self.label == label)


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """The weights of events by their label and by the class that is likeliest.

    Attributes
    ----------
    weights : (classes, classes); a row for each label, a column for each class that was guessed
    classes : their names
    """

    weights: Floats
    classes: tuple[str, ...]

    @property
    def shares(self) -> Floats:
        """Share of each label's weight, (classes, classes): rows add up to 1; NaN for a label without weight."""
        totals = self.weights.sum(axis=1, keepdims=True)
        shares: Floats = np.divide(self.weights, totals, out=np.full_like(self.weights, np.nan), where=totals != 0)
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        shares = [[None if np.isnan(share) else float(share) for share in row] for row in self.shares]
        return {"classes": list(self.classes), "weights": self.weights.tolist(), "shares": shares}


def collect(
    batches: Sequence[Mapping[str, NDArray[Any]]], *, classes: Sequence[str], sample_names: Sequence[str]
) -> ScoredEvents:
    """Join batches; labels and samples without a name are called by their number.

    Parameters
    ----------
    batches : at least one; ``score`` (n,) or (n, classes), ``label`` (n,), and where there are any ``weight`` (n,) and
        ``index`` (n, 3)
    classes : names by class number, as many as are known
    sample_names : names by sample number, as many as are known

    Raises
    ------
    DataError
        For scores that are not finite.
    """
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    score, label = joined["score"].astype(np.float64), joined["label"].astype(np.int64)
    n_bad = int(len(score) - np.isfinite(score.reshape(len(score), -1)).all(axis=1).sum())
    if n_bad:
        raise DataError(
            f"test scores: got {n_bad} of {len(score)} that are not finite; training has probably diverged; "
            "try a smaller model.lr or another data.scale"
        )
    n_classes = score.shape[1] if score.ndim == 2 else 2
    sample = joined["index"][:, 0].astype(np.int64) if "index" in joined else np.zeros(len(score), np.int64)
    n_samples = int(sample.max(initial=0)) + 1
    return ScoredEvents(
        score=score,
        label=label,
        weight=joined["weight"].astype(np.float64) if "weight" in joined else np.ones(len(score)),
        sample=sample,
        classes=named(classes, n_classes, kind="class"),
        sample_names=named(sample_names, n_samples, kind="sample"),
        variations={
            key.removeprefix(VARIED): values.astype(np.float64)
            for key, values in joined.items()
            if key.startswith(VARIED)
        },
    )


def named(names: Sequence[str], n_needed: int, *, kind: str) -> tuple[str, ...]:
    """Complete a list of names: ``kind 3`` for the fourth.

    Parameters
    ----------
    names : those that are known, in order
    n_needed : length of the result, where there are not more names than that
    kind : word for one of them
    """
    return *map(str, names), *(f"{kind} {number}" for number in range(len(names), n_needed))


def summarise(scores: ScoredEvents) -> dict[str, Any]:
    """Compute what ``metrics.json`` holds; a figure that can't be computed is None."""
    areas = areas_of(scores)
    varied = {name: areas_of(replace(scores, weight=weight)) for name, weight in scores.variations.items()}
    return {
        "auc": mean_of(areas),
        "accuracy": or_none(metrics.accuracy(scores.score, scores.label, weight=scores.weight)),
        "loss": or_none(metrics.cross_entropy(scores.score, scores.label, weight=scores.weight)),
        "events": len(scores.score),
        "weighted": bool((scores.weight != 1).any()),
        "auc_per_class": areas,
        **({"variations": {name: {"auc": mean_of(found)} for name, found in varied.items()}} if varied else {}),
        "samples": {name: summarise_group(scores, label, rows) for name, label, rows in scores.groups()},
    }


def areas_of(scores: ScoredEvents) -> dict[str, float | None]:
    """Compute the AUC of each class that can be signal."""
    return {name: or_none(metrics.auc(score, label, weight=scores.weight)) for name, score, label in scores.per_class()}


def mean_of(areas: Mapping[str, float | None]) -> float | None:
    """Average what could be computed."""
    known = [area for area in areas.values() if area is not None]
    return float(np.mean(known)) if known else None


def summarise_group(scores: ScoredEvents, label: int, rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Count the events of one sample and average their scores, that of each class where there are several.

    Parameters
    ----------
    scores : of all test events
    label : class number that all events of the group have
    rows : (n,) True for the events of the group
    """
    weight, score = scores.weight[rows], scores.score[rows]
    columns = [metrics.mean(column, weight=weight) for column in score.reshape(len(score), -1).T]
    means: Any = columns[0] if score.ndim == 1 else dict(zip(scores.classes, map(or_none, columns), strict=True))
    return {
        "class": scores.classes[label],
        "events": len(score),
        "sum_of_weights": float(weight.sum()),
        "mean_score": means if isinstance(means, dict) else or_none(means),
    }


def or_none(value: float) -> float | None:
    """Replace NaN, which JSON does not know."""
    return value if np.isfinite(value) else None


def histogram(score: NDArray[np.float64], *, weight: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Fill weights into equal bins of [0, 1]: (bins,).

    Parameters
    ----------
    score : (n,) in [0, 1]; others are left out
    weight : (n,)
    bins : number of bins
    """
    return np.histogram(score, bins=bins, range=(0, 1), weights=weight)[0].astype(np.float64)


def curves_of(scores: ScoredEvents, *, bins: int) -> dict[str, Any]:
    """Return what ``roc.json`` and ``scores.json`` hold.

    Parameters
    ----------
    scores : of all test events
    bins : of the distributions of the scores, over [0, 1]
    """
    curves, histograms = {}, {}
    for name, score, label in scores.per_class():
        curve = metrics.thin(metrics.roc(score, label, weight=scores.weight))
        if not np.isnan(metrics.area(curve)):
            columns = {"signal_efficiency": curve.signal, "background_efficiency": curve.background}
            curves[name] = {key: values.tolist() for key, values in (columns | {"threshold": curve.threshold}).items()}
        histograms[name] = {
            group: histogram(score[rows], weight=scores.weight[rows], bins=bins).tolist()
            for group, _, rows in scores.groups()
        }
    edges = np.linspace(0, 1, bins + 1).tolist()
    return {"roc": {"classes": curves}, "scores": {"edges": edges, "classes": histograms}}


def count(score: NDArray[Any], label: NDArray[Any], *, weight: NDArray[Any], classes: Sequence[str]) -> Confusion:
    """Add up the weights of events.

    Parameters
    ----------
    score : (n, classes)
    label : (n,) class numbers
    weight : (n,)
    classes : names

    Examples
    --------
    >>> count(np.eye(3), np.array([0, 1, 1]), weight=np.ones(3), classes="abc").weights.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    n = score.shape[1]
    cells = label.astype(np.int64) * n + score.argmax(axis=1)
    found = np.bincount(cells, weight.astype(np.float64), minlength=n * n).astype(np.float64)
    return Confusion(weights=found.reshape(n, n), classes=tuple(map(str, classes)))


def draw(table: Confusion) -> Figure:
    """Draw the shares, a row for each label, with their numbers."""
    figure, (axes,) = new_figure()
    shares, n = table.shares, len(table.classes)
    axes.imshow(np.nan_to_num(shares), vmin=0, vmax=1, cmap="Blues")
    for row in range(n):
        for column in range(n):
            share = shares[row, column]
            written, colour = (
                ("-", "black") if np.isnan(share) else (f"{share:.3f}", "white" if share > 0.5 else "black")
            )
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=11)
    axes.minorticks_off()
    axes.set_xticks(range(n), table.classes)
    axes.set_yticks(range(n), table.classes)
    axes.set_xlabel("Likeliest class", fontsize=13, loc="right")
    axes.set_ylabel("Class", fontsize=13, loc="top")
    return figure


def contents_of(data: Any) -> list[list[Any]]:
    """Return what tells the files of a data module from others, wherever they lie: identity, tree, entries, bytes."""
    files = data.specs.files if hasattr(data, "specs") else ()
    return [[file.uuid, file.tree, file.entries, file.state.size] for file in files]

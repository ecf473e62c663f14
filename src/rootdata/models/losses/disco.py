"""Distance correlation (DisCo): a term of the loss that keeps a score from following a column, such as a mass.

Kasieczka and Shih, "DisCo Fever: Robust Networks Through Distance Correlation", arXiv:2001.05310; the correlation is
that of Szekely, Rizzo and Bakirov, Annals of Statistics 35 (2007) 2769.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rootdata.errors import ConfigError, DataError, nearest
from rootdata.options import typed, values
from rootdata.options.data import OBSERVED
from rootdata.options.typed import option

if TYPE_CHECKING:
    from rootdata.options.data import DataConfig

MOST = 2048  # events of a batch that are compared with each other: matrices of 16 MB, about ten of them at a time
LEAST = 1e-10  # distance variance, of values within a range of 1, below which they are taken for constant
BACKGROUND, ALL = "background", "all"


def _columns(value: Any, where: str) -> tuple[str, ...]:
    columns = values.names(value, where)
    if not columns:
        raise ConfigError(
            f"{where} is empty: name an observer of the data, such as mbb, or leave model.decorrelate out"
        )
    return columns


def _strength(value: Any, where: str) -> float:
    strength = values.number(value, where)
    if strength < 0:
        raise ConfigError(f"{where}: got {strength:g}, which would reward a correlation; give 0 (report alone) or more")
    return strength


def _classes(value: Any, where: str) -> tuple[str, ...]:
    names = tuple(map(str, values.listed(value, where)))
    if not names or (ALL in names and len(names) > 1):
        raise ConfigError(f"{where}: got {list(names)}; allowed: {BACKGROUND}, {ALL}, or names of classes")
    return names


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Decorrelation:
    """What the score must not depend on.

    Parameters
    ----------
    columns : observers of the data
    strength : what the sum of the distance correlations is multiplied by in the loss; with 0 it is only reported
    classes : the events that it is computed of: ``background`` (class 0), ``all``, or names of classes
    """

    columns: tuple[str, ...] = option(_columns)
    strength: float = option(_strength, 10.0)
    classes: tuple[str, ...] = option(_classes, (BACKGROUND,))

    def labels(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the classes whose events count.

        Parameters
        ----------
        classes : names by number

        Raises
        ------
        ConfigError
            For a class that is not there, and for ``background`` among more than two classes without that name.
        """
        if self.classes == (ALL,):
            return tuple(range(len(classes)))
        if self.classes == (BACKGROUND,) and BACKGROUND not in classes and len(classes) == 2:
            return (0,)
        for name in self.classes:
            if name not in classes:
                raise ConfigError(f"model.decorrelate.classes: got {name!r}; {nearest(name, [*classes, ALL])}")
        return tuple(list(classes).index(name) for name in self.classes)


def parse_decorrelation(plain: Mapping[str, Any] | None) -> Decorrelation | None:
    """Check ``model.decorrelate``, as Python or a YAML file gives it; ``None`` where there is none.

    Raises
    ------
    ConfigError
    """
    if plain is None:
        return None
    where = "model.decorrelate"
    table = values.mapping(plain, where, "{'columns': ['mbb'], 'strength': 10}")
    return typed.parse(Decorrelation, table, where=where, prefix=f"{where}.")


def distance_correlation(scores: Tensor, column: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the squared distance correlation of scores and a column, between 0 (independent) and 1.

    With the weights ``w`` scaled to a sum of 1, distances ``a_ij = |s_i - s_j|`` and ``b_ij = |c_i - c_j|``, and
    ``A_ij = a_ij - sum_k w_k a_ik - sum_k w_k a_kj + sum_kl w_k w_l a_kl`` (``B`` likewise)::

        dCov^2(s, c) = sum_ij w_i w_j A_ij B_ij
        R = dCov^2(s, c) / sqrt(dCov^2(s, s) dCov^2(c, c))

    Negative weights are taken as they are; what they bring out of 0 to 1 is cut off. R is 0 where scores or column are
    constant, or weights have no positive sum. It is computed in float32, and takes memory by the square of the events.

    Parameters
    ----------
    scores : (n,), or (n, classes), whose distance is Euclid's
    column : (n,) of any number type
    weight : (n,); 1 for each event where none is given
    """
    scores = scores.float().unsqueeze(1) if scores.ndim == 1 else scores.float()
    nothing = scores.sum() * 0.0  # with a gradient
    if len(scores) < 2:
        return nothing
    w = torch.ones_like(scores[:, 0]) if weight is None else weight.float()
    total, size = w.sum(), w.abs().sum()
    if not total > 1e-6 * size:
        return nothing
    w = w / total
    with torch.autocast(scores.device.type, enabled=False):
        a, b = (_centred(_distances(_within_one(v)), w) for v in (scores, column.reshape(-1, 1)))
        pairs = torch.outer(w, w)
        weighted = pairs * a
        covariance, of_scores, of_column = (weighted * b).sum(), (weighted * a).sum(), (pairs * b * b).sum()
    if not (of_scores > LEAST and of_column > LEAST):
        return nothing
    return (covariance / (of_scores * of_column).sqrt()).clamp(0.0, 1.0)


def _within_one(rows: Tensor) -> Tensor:
    """Move and shrink values into a range of 1, which no correlation notices, before float32 rounds them: (n, k)."""
    rows = rows / 2 if rows.is_floating_point() else rows.to(torch.int64)  # half of it, as the width may be infinite
    moved = rows - rows.detach().amin(dim=0)
    width = moved.detach().amax()
    return (moved / torch.where(width > 0, width, torch.ones_like(width))).float()


def _distances(rows: Tensor) -> Tensor:
    if rows.shape[1] == 1:
        return (rows - rows.T).abs()
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _centred(distances: Tensor, weight: Tensor) -> Tensor:
    means = distances @ weight
    return distances - means.unsqueeze(0) - means.unsqueeze(1) + means @ weight


def few(n: int, most: int = MOST) -> Tensor | None:
    """Choose which of ``n`` events are compared, evenly spaced; ``None`` for all of them.

    Examples
    --------
    >>> few(5, 3).tolist(), few(3, 3)
    ([0, 1, 3], None)
    """
    return None if n <= most else torch.arange(most) * n // most


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """The processes that share a batch, and average their gradients.

    Parameters
    ----------
    number : of this one
    count : of all
    gather : stacks what each of them gives, tensors of one shape, (ranks, ...), without a gradient
    """

    number: int
    count: int
    gather: Callable[[Tensor], Any]  # as that of LightningModule, whose type says less

    def joined(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Put rows of all ranks behind each other, in the order of the ranks; those of this one keep their gradient.

        Parameters
        ----------
        rows : tensors of as many rows each; that number may differ from rank to rank, and be 0
        """
        counts: list[int] = self.gather(torch.tensor(len(rows[0]), device=rows[0].device)).tolist()
        return [self._joined(own, counts) for own in rows] if any(counts) else list(rows)

    def _joined(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        filled = torch.cat([own.detach(), own.new_zeros(max(counts) - len(own), *own.shape[1:])])
        parts = [of_rank[:n] for of_rank, n in zip(self.gather(filled), counts, strict=True)]
        parts[self.number] = own
        return torch.cat(parts)

    def averaged(self, value: Tensor) -> Tensor:
        """Let a value that all ranks have, with the gradient of their own rows, have that of all rows on average."""
        return value.detach() + self.count * (value - value.detach())


class Decorrelator:
    """Computes the distance correlations of a network's scores, once it knows the classes of the data.

    Parameters
    ----------
    options : what was asked for
    classes : how many
    """

    def __init__(self, options: Decorrelation, classes: int) -> None:
        self.options = options
        known: dict[tuple[str, ...], tuple[int, ...]] = {(ALL,): tuple(range(classes)), (BACKGROUND,): (0,)}
        self._known = known.get(options.classes)
        self._missing: dict[str, tuple[float, ...]] = {}  # of each column

    @property
    def labels(self) -> tuple[int, ...]:
        """Numbers of the classes whose events count.

        Raises
        ------
        ConfigError
            For classes that are called by names, as long as no data module has said their numbers.
        """
        if self._known is None:
            raise ConfigError(
                f"model.decorrelate.classes: got {list(self.options.classes)}, names that a RootDataModule knows: give "
                f"that to the trainer, or choose {BACKGROUND} or {ALL}"
            )
        return self._known

    def bind(self, config: DataConfig) -> None:
        """Learn the numbers of the classes, and which numbers stand for no value."""
        self._known = self.options.labels(config.classes)
        self._missing = {observer.name: config.missing_of(observer.value) for observer in config.observers}

    def of(self, scores: Tensor, batch: Mapping[str, Tensor], *, ranks: Ranks | None = None) -> tuple[Tensor, int]:
        """Add up the distance correlations of the scores and each column, over the chosen events of a batch.

        Parameters
        ----------
        scores : (B,), or (B, classes)
        batch : holds ``label``, and the columns as observers; events without a value are left out for that column
        ranks : those that have the other parts of this batch; None where it is whole

        Returns
        -------
        the sum, with its gradient, and how many events it is of

        Raises
        ------
        ConfigError
            For a batch that does not hold a column.
        """
        chosen = torch.nonzero(_is_one_of(batch["label"], self.labels)).squeeze(1)
        weight = batch.get("weight")
        rows = [scores[chosen], torch.ones_like(chosen, dtype=torch.float32) if weight is None else weight[chosen]]
        rows += [self._column(name, batch)[chosen] for name in self.options.columns]
        scores, weight, *columns = rows if ranks is None else ranks.joined(rows)
        found, n = [], 0
        for name, column in zip(self.options.columns, columns, strict=True):
            known = torch.nonzero(self._is_known(name, column)).squeeze(1)
            some = few(len(known))
            known = known if some is None else known[some.to(known.device)]
            n = max(n, len(known))
            found.append(distance_correlation(scores[known], column[known], weight[known]))
        total = torch.stack(found).sum()
        return total if ranks is None else ranks.averaged(total), n

    def _column(self, name: str, batch: Mapping[str, Tensor]) -> Tensor:
        column = batch.get(f"{OBSERVED}{name}")
        if column is None:
            raise ConfigError(
                f"model.decorrelate.columns: the batches hold no observer {name!r}; give the data "
                f"observers=[{name!r}] and observe_training=true"
            )
        return column

    def _is_known(self, name: str, column: Tensor) -> Tensor:
        known = torch.isfinite(column)
        for number in self._missing.get(name, ()):
            known &= column != number
        return known

    def check(self, data: Any) -> None:
        """Look, before a fit, whether the data deliver the columns, and whether these are anything to decorrelate from.

        Raises
        ------
        ConfigError
            For a column that is no observer, that training batches do not hold, or that is the label or a target.
        DataError
            For one that is the same in all training events that count.
        """
        config: DataConfig = data.data
        observed = {observer.name: observer.value for observer in config.observers}
        for name in self.options.columns:
            where = f"model.decorrelate.columns: {name!r}"
            if name not in observed:
                hint = nearest(name, observed) if observed else "the data have none"
                raise ConfigError(f"{where} is no observer of the data; {hint}; add it: data.observers=[{name}]")
            text = _resolved(observed[name], config)
            if config.label is not None and text == _resolved(config.label, config):
                raise ConfigError(f"{where} is the label, which the score is to follow; name another column")
            target = next((t.name for t in config.targets if _resolved(t.value, config) == text), None)
            if target is not None:
                raise ConfigError(
                    f"{where} is the target {target!r}, which the network is to predict; name another column"
                )
        if not config.observe_training:
            raise ConfigError(
                "observe_training: got false; a network that is decorrelated needs its columns in training batches; "
                "set data.observe_training=true"
            )
        self._check_varied(data)

    def _check_varied(self, data: Any) -> None:
        """Read training events until every column has had two values within a class."""
        from rootdata.loading.part import Part  # here, so that a network alone loads nothing that reads
        from rootdata.loading.readers import Stop

        first: dict[tuple[str, int], Tensor] = {}
        left = dict.fromkeys(self.options.columns)
        part = Part(data.scanned, data.options, "train", ordered=True)
        with contextlib.closing(part.slabs(0, start=0, stop=Stop())) as slabs:
            for slab in slabs:
                label = torch.from_numpy(slab["label"])
                for name, number in itertools.product(tuple(left), self.labels):
                    column = torch.from_numpy(slab[f"{OBSERVED}{name}"])
                    known = column[(label == number) & self._is_known(name, column)]
                    if len(known) and (known != first.setdefault((name, number), known[0].clone())).any():
                        left.pop(name, None)
                if not left:
                    return
        name = next(iter(left))
        found = sorted({value.item() for (column, _), value in first.items() if column == name})
        what = "has no value" if not found else f"is constant ({found[0]:g})"
        if len(found) > 1:
            what = "follows from the label alone"
        raise DataError(
            f"model.decorrelate.columns: {name!r} {what} in the training events of {', '.join(self.options.classes)}; "
            "there is nothing to decorrelate from: name another column, or other classes as model.decorrelate.classes"
        )


def _is_one_of(label: Tensor, labels: Sequence[int]) -> Tensor:
    return torch.isin(label, torch.tensor(list(labels), device=label.device))


def _resolved(text: str, config: DataConfig) -> str:
    """Follow names of derived columns to what they are, without spaces."""
    seen: set[str] = set()
    while text in config.derived and text not in seen:
        seen.add(text)
        text = config.derived[text]
    return "".join(text.split())

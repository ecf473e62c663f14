"""What a network predicts: classes, numbers, or both, each by columns of its output of their own.

A head is so many of the last layer's columns, with a loss and a weight. All of them share the layers before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from rootdata.errors import ConfigError, nearest
from rootdata.options import typed, values
from rootdata.options.typed import option
from rootdata.scaling.curves import SIGNED_LOG

if TYPE_CHECKING:
    from rootdata.scaling.transform import Transform

KINDS = ("classification", "regression")
LOSSES: dict[str, Callable[..., Tensor]] = {
    "huber": functional.huber_loss,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
}
LARGEST_LOG = 80.0  # of what a logarithm is undone: e**80 is still a float32


def _kind(value: Any, where: str) -> str:
    return values.choice(value, KINDS, where)


def _weight(value: Any, where: str) -> float:
    weight = values.number(value, where)
    if weight <= 0:
        raise ConfigError(
            f"{where}: got {weight:g}, with which the head has no loss; give a number above 0, or no head"
        )
    return weight


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Some columns of a network's output.

    Parameters
    ----------
    kind : ``classification``, of which there is one at most, or ``regression``
    target : names of the targets of a regression; by default the head's own
    loss : ``huber``, ``mse`` or ``mae`` of a regression, of scaled values; a classification has the cross entropy
    weight : of its loss in the sum of all
    """

    name: str
    kind: str = option(_kind)
    target: tuple[str, ...] = option(values.names, ())
    loss: str | None = option(values.text, None, is_optional=True)
    weight: float = option(_weight, 1.0)

    @property
    def is_regression(self) -> bool:
        """Whether it predicts numbers."""
        return self.kind == "regression"


CLASSIFICATION = Head(name="class", kind="classification", loss="cross_entropy")


def parse_heads(plain: Mapping[str, Any] | None) -> tuple[Head, ...]:
    """Check heads; without any there is a classification alone.

    Raises
    ------
    ConfigError
        For an unknown option or value, a regression without a loss, two classifications, or no head at all.
    """
    if plain is None:
        return (CLASSIFICATION,)
    where = "model.heads"
    table = values.mapping(plain, where, "{'mass': {'kind': 'regression', 'loss': 'huber'}}")
    heads = tuple(_parsed(str(name), one, f"{where}.{name}") for name, one in table.items())
    if not heads:
        raise ConfigError(f"{where}: got an empty mapping; leave it out for a classification alone, or name a head")
    classifying = [head.name for head in heads if not head.is_regression]
    if len(classifying) > 1:
        raise ConfigError(f"{where}: got {classifying}, all of kind 'classification'; events have one label: keep one")
    targets = [target for head in heads for target in head.target]
    twice = sorted({target for target in targets if targets.count(target) > 1})
    if twice:
        raise ConfigError(f"{where}: target {twice[0]!r} is predicted by two heads; keep one")
    return heads


def _parsed(name: str, plain: Any, where: str) -> Head:
    head = typed.parse(
        Head, values.mapping(plain, where, "{'kind': 'regression'}"), where=where, prefix=f"{where}.", name=name
    )
    if not head.is_regression:
        if head.target or head.loss not in {None, "cross_entropy"}:
            got = f"target {list(head.target)}" if head.target else f"loss {head.loss!r}"
            raise ConfigError(f"{where}: got {got}; a classification takes the label and the cross entropy; remove it")
        return dataclasses.replace(head, loss="cross_entropy")
    if head.loss is None:
        raise ConfigError(f"{where} has no loss; allowed: {', '.join(map(repr, LOSSES))}; write {where}.loss=huber")
    values.choice(head.loss, tuple(LOSSES), f"{where}.loss")
    return dataclasses.replace(head, target=head.target or (name,))


def plain_options(options: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Copy options into plain dicts and lists, which a checkpoint that is loaded with ``weights_only`` may hold."""
    return None if options is None else _plain(options)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def check_targets(heads: Sequence[Head], known: Sequence[str]) -> None:
    """Refuse heads without their targets, and targets that no head predicts.

    Parameters
    ----------
    heads : of a network
    known : names of the targets of the data

    Raises
    ------
    ConfigError
    """
    wanted = [(head, target) for head in heads for target in head.target]
    for head, target in wanted:
        if target not in known:
            hint = nearest(target, known) if known else "the data have none"
            raise ConfigError(
                f"model.heads.{head.name} predicts target {target!r}; {hint}; give it as data.targets.{target}=..., an "
                "expression"
            )
    unused = [name for name in known if name not in {target for _, target in wanted}]
    if unused:
        raise ConfigError(
            f"targets: {unused[0]!r} is used by no head of the network; give it one, "
            f"model.heads.{unused[0]}={{kind: regression, loss: huber}}, or leave the target out"
        )


class Regression(nn.Module):
    """What the regressions of a network predict: where the truth of each lies in a batch, and how it is scaled.

    It has no weights; what it knows goes into checkpoints.

    Parameters
    ----------
    heads : of kind ``regression``
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        super().__init__()
        self.targets = tuple(target for head in heads for target in head.target)
        self._places = list(range(len(self.targets)))
        self._scales = [(0.0, 1.0, False)] * len(self.targets)

    def bind(self, targets: Mapping[str, Transform]) -> None:
        """Learn the order and the scaling of the targets of a data set."""
        order = list(targets)
        self._places = [order.index(name) for name in self.targets]
        found = [targets[name] for name in self.targets]
        self._scales = [(float(t.shift), float(t.factor), t.curve == SIGNED_LOG) for t in found]

    def get_extra_state(self) -> dict[str, Any]:
        """Return what was learnt, for a checkpoint."""
        return {"places": list(self._places), "scales": [list(scale) for scale in self._scales]}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self._places = [int(place) for place in state["places"]]
        self._scales = [(float(shift), float(factor), bool(is_log)) for shift, factor, is_log in state["scales"]]

    @property
    def widths(self) -> list[float]:
        """How much of each target one unit of its scaled values is; 0 where that depends on the value."""
        return [0.0 if is_log else abs(1.0 / factor) for _, factor, is_log in self._scales]

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scaled truth, (B, targets) in the order of the heads.

        Raises
        ------
        ConfigError
            For a batch without targets, or with too few.
        """
        found = batch.get("targets")
        if found is None or found.ndim != 2 or found.shape[1] <= max(self._places):
            got = "none" if found is None else f"shape {tuple(found.shape)}"
            raise ConfigError(f"batch['targets']: got {got}; the network predicts {', '.join(self.targets)}: (B, k)")
        return found[:, self._places]

    def forward(self, scaled: Tensor) -> Tensor:
        """Give physical values, float32, of scaled ones, (B, targets); the twin of ``Transform.invert``."""
        scaled = scaled.float()
        shift, factor, is_log = zip(*self._scales, strict=True)
        width = torch.tensor([1.0 / f for f in factor], dtype=torch.float32, device=scaled.device)
        found = scaled * width + torch.tensor(shift, dtype=torch.float32, device=scaled.device)
        if not any(is_log):
            return found
        size = torch.exp(found.abs().clamp(max=LARGEST_LOG)) - 1.0
        undone = torch.where(found < 0.0, -size, size)
        return torch.where(torch.tensor(is_log, device=scaled.device), undone, found)


def regression_loss(
    head: Head, scaled: Tensor, truth: Tensor, *, weight: Tensor | None = None, mean_weight: float = 1.0
) -> Tensor:
    """Average the loss of a regression over a batch with the events' weights, and over its targets.

    Parameters
    ----------
    head : says which loss
    scaled, truth : (B, targets)
    weight : (B,)
    mean_weight : mean size of the weights of all training events
    """
    losses = LOSSES[str(head.loss)](scaled, truth, reduction="none").mean(dim=1)
    return losses.mean() if weight is None else (losses * weight).mean() / mean_weight


class ResidualSums(Metric):
    """Weighted figures of what was predicted minus what is true, over all batches and ranks, of each target.

    Parameters
    ----------
    targets : how many
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, targets: int) -> None:
        super().__init__()
        # weights, residuals, their squares, their sizes
        self.add_state("sums", torch.zeros((4, targets), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Parameters
        ----------
        predicted, truth : (B, targets)
        weight : (B,); 1 for each event where none is given
        """
        residual = predicted.detach().double() - truth.double()
        weights = torch.ones(len(residual), dtype=torch.float64, device=residual.device) if weight is None else weight
        weights = weights.detach().double().unsqueeze(1).expand_as(residual)
        parts = (torch.ones_like(residual), residual, residual.square(), residual.abs())
        self.sums += torch.stack([(weights * part).sum(dim=0) for part in parts])

    def compute(self) -> dict[str, Tensor]:
        """Give root mean square, mean size, mean and spread of the residuals, (targets,) each."""
        total, first, second, size = self.sums
        bias, square = first / total, second / total
        found = {"rmse": square.clamp(min=0).sqrt(), "mae": size / total, "bias": bias}
        return found | {"resolution": (square - bias.square()).clamp(min=0).sqrt()}

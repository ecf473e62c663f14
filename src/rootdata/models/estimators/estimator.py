"""The shell that lets a Lightning trainer train and test a model of another library, as it does a network."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rootdata.bundle.graph.joined import Joined
from rootdata.errors import BundleError, ConfigError, DataError
from rootdata.loading.dataset import Batch, RootDataset
from rootdata.models.classifier import Classifier, plain_shapes
from rootdata.models.estimators.libraries import CONVERTERS, distribution_of

Arrays = Mapping[str, npt.NDArray[Any]]
Logits = npt.NDArray[np.floating[Any]]

MADE_UP = 400  # events
SMALLEST = 1e-7  # probability that has a logarithm


class Estimator(Classifier):
    """A classifier that is no network; a subclass says how it learns, predicts, is kept, and becomes a graph.

    It is trained in one process, for the layout ``vector``. A checkpoint holds it as bytes that are no code.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : how many
    """

    library = ""

    def __init__(self, shapes: Mapping[str, Sequence[int]], *, classes: int) -> None:
        super().__init__(classes=classes)
        self.automatic_optimization = False
        self.n_inputs = n_inputs(type(self).__name__, plain_shapes(shapes))
        # what a trainer's optimizer steps: how many rounds there were
        self.rounds = nn.Parameter(torch.zeros((), dtype=torch.int64), requires_grad=False)

    # What a subclass says

    def learn(self, batch: Any) -> None:
        """Do one round."""
        raise NotImplementedError

    def try_on(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> None:
        """Do one round with a few events."""
        raise NotImplementedError

    def raw(self, x: npt.NDArray[np.float32]) -> Logits | None:
        """Give the logits of events, (n,) or (n, classes); None before the first round."""
        raise NotImplementedError

    def native(self, x: npt.NDArray[np.float32]) -> Logits:
        """Give probabilities as the library computes them: of all classes, (n, classes), or of label 1, (n,)."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Write what was learnt; nothing before the first round."""
        raise NotImplementedError

    def of_bytes(self, kept: bytes) -> None:
        """Take over what was written."""
        raise NotImplementedError

    def graph(self) -> Any:
        """Write what was learnt as an ONNX graph from ``x`` to the probabilities of all classes."""
        raise NotImplementedError

    # What a trainer calls

    @property
    def takes_nan(self) -> bool:
        """Whether NaN is no value for it."""
        return True

    @property
    def logged(self) -> dict[str, str]:
        """Names of what is logged, and the part that it is computed of."""
        return {name: part for name, part in super().logged.items() if part == "val"}

    def setup(self, stage: str) -> None:
        """Look at the data module and the trainer.

        Raises
        ------
        ConfigError, DataError
            For several processes; for classes that can't be told, as networks do.
        """
        if stage == "fit" and hasattr(self.trainer.strategy, "parallel_devices"):  # also of one process
            strategy = f"{type(self.trainer.strategy).__name__}, {self.trainer.world_size} processes"
            raise ConfigError(
                f"trainer.strategy: got {strategy}; {type(self).__name__} is trained in one, with as many threads as "
                "it is given; set trainer=cpu"
            )
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "targets", None):
            raise ConfigError(
                f"targets: got {', '.join(data.targets)}; {type(self).__name__} learns classes, no numbers; leave the "
                "targets out, or take a network with a head for them: model=dnn"
            )
        super().setup(stage)
        # a checkpoint inside an epoch holds what was learnt until there, as it should
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override] # noqa: ARG002
        """Do one round."""
        optimizer: Any = self.optimizers()
        optimizer.step()  # the trainer counts it; until the round is over there is no state to go on from
        self.learn(batch)
        self.rounds.add_(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Give the trainer what counts the rounds."""
        return torch.optim.SGD([self.rounds], lr=1.0)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Give the logits of a batch: (B,), or (B, classes) of more than two."""
        x = batch["x"]
        found = self.raw(x.detach().float().cpu().numpy())
        if found is None:  # a look before the training
            found = np.zeros(len(x) if self.classes == 2 else (len(x), self.classes))
        return torch.from_numpy(np.asarray(found, np.float32)).to(x.device)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return what was learnt, for a checkpoint."""
        return {"model": torch.from_numpy(np.frombuffer(self.to_bytes(), np.uint8).copy())}

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint holds."""
        if kept := state["model"].cpu().numpy().tobytes():
            self.of_bytes(kept)

    # What a bundle asks for

    def rehearsed_model(self) -> Joined:
        """Let a copy learn from a few made-up events, so that the way into a graph is tried."""
        tried = copy.copy(self)
        x = np.random.default_rng(0).normal(size=(MADE_UP, self.n_inputs)).astype(np.float32)
        tried.try_on(x, np.arange(MADE_UP) % self.classes)
        return Joined(predict=tried.native_of, graph=tried.graph(), gives=-1)

    def joined_model(self) -> Joined:
        """Return the graph, and what it is compared with.

        Raises
        ------
        BundleError
            Before the first round.
        """
        if not int(self.rounds):
            raise self.untrained()
        return Joined(predict=self.native_of, graph=self.graph(), gives=-1)

    def native_of(self, batch: Arrays) -> Logits:
        """Give the probabilities of a batch as the library computes them."""
        return self.native(batch["x"])

    @property
    def software(self) -> tuple[str, ...]:
        """Names of the distributions that it is made with."""
        return (distribution_of(self.library), *CONVERTERS)

    def untrained(self) -> BundleError:
        """Return what is wrong with a model that has learnt nothing."""
        return BundleError(f"{type(self).__name__} has not been trained; train it, or load a checkpoint")


def n_inputs(name: str, shapes: Mapping[str, Sequence[int]]) -> int:
    """Count the inputs.

    Raises
    ------
    ConfigError
        For another layout.
    """
    if len(shapes.get("x", ())) != 1:
        got = ", ".join(map(repr, shapes)) or "nothing"
        raise ConfigError(
            f"{name} needs a batch with one row 'x' per event: got {got}; allowed: layout 'vector'; set "
            "data.layout=vector, or take a network: model=deepsets, model=cnn"
        )
    return int(shapes["x"][0])


def arrays_of(events: RootDataset, *, mean_weight: float) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield ``x``, ``label`` and ``weight`` of the training events, the same ones in the same order each time.

    Parameters
    ----------
    events : of the training part
    mean_weight : by which weights are divided, so that options of regularisation mean the same for any
    """
    for batch in events.batches(0):
        yield as_arrays(batch, mean_weight=mean_weight)


def as_arrays(batch: Batch, *, mean_weight: float) -> dict[str, npt.NDArray[Any]]:
    """Turn a batch into arrays.

    Parameters
    ----------
    batch : of a data set
    mean_weight : by which weights are divided
    """
    found = {name: batch[name].detach().cpu().numpy() for name in ("x", "label", "weight")}
    return {**found, "weight": found["weight"] / np.float32(mean_weight)}


def refuse_negative(name: str, data: Any, *, remedy: str) -> None:
    """Refuse training events with weights below 0 for what can't learn from them.

    Parameters
    ----------
    name : of the model
    data : a data module
    remedy : what else could be done

    Raises
    ------
    DataError
    """
    if not hasattr(data, "specs"):
        return
    _, weights = data.specs.of_classes("train")
    for title, (total, size) in zip(data.classes, weights, strict=True):
        if total < size * (1 - 1e-9):
            raise DataError(f"class {title!r} has training events of negative weight, and {name} takes none; {remedy}")


def logits_of(probabilities: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Turn probabilities of all classes, (n, classes), into logits: (n,) of two.

    Examples
    --------
    >>> logits_of(np.array([[0.5, 0.5], [0.0, 1.0]])).round(1).tolist()
    [0.0, 16.1]
    """
    logs = np.log(np.clip(np.asarray(probabilities, np.float64), SMALLEST, None))
    return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

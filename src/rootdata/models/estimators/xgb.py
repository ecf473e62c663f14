"""Trees boosted by XGBoost, out of the stream of events."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import BundleError
from rootdata.frameworks.batches import Rows
from rootdata.models.estimators.boosted import Boosted
from rootdata.models.estimators.estimator import Logits, refuse_negative
from rootdata.models.estimators.libraries import converter, written

if TYPE_CHECKING:
    import xgboost


INSTEAD_OF_INFINITY = np.nextafter(np.finfo(np.float32).max, np.float32(0))  # the largest would be one of some events
EDGES_OF = 100_000  # events; XGBoost's summary of all of them would take twice the memory of the rest
DRAWN = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")  # shares, below 1 by chance


class XGBoost(Boosted):
    """Trees boosted by XGBoost.

    The events are read four times as training begins and kept as bins: on disk with ``external_memory``, beside the
    outputs, and in memory without. On disk, the edges of the bins are quantiles of at most some 100,000 events that are
    drawn from all. A training that goes on from a checkpoint does so behind its trees; where a round
    draws by chance (``subsample`` and the like) they are grown again. Either way it ends as an unbroken one.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : how many
    trees : rounds between two looks at the validation part, which are an epoch
    depth : of each tree
    lr : how much of each tree counts
    external_memory : whether the bins are kept on disk
    threads : by default as many as torch has
    seed : of what is drawn by chance
    params : further ones of the library, by its names
    """

    library = "xgboost"

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        trees: int = 10,
        depth: int = 6,
        lr: float = 0.1,
        external_memory: bool = True,
        threads: int | None = None,
        seed: int = 0,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._booster: xgboost.Booster | None = None
        self._is_external = external_memory
        goal = {"objective": "binary:logistic"} if classes == 2 else {"objective": "multi:softprob"}
        own = {"tree_method": "hist", "max_depth": depth, "learning_rate": lr, "seed": seed, **goal}
        super().__init__(shapes, classes=classes, trees=trees, params=own | dict(params or {}), threads=threads)

    @property
    def _options(self) -> dict[str, Any]:
        more = {} if self.classes == 2 else {"num_class": self.classes}
        return {"nthread": self.threads, **more, **self.params}

    def on_fit_start(self) -> None:
        """Refuse weights that XGBoost does not take."""
        data: Any = getattr(self.trainer, "datamodule", None)
        refuse_negative("XGBoost", data, remedy="model=lightgbm does, or take weight=abs(...)")

    def binned(self) -> Any:
        """Read the training events as bins."""
        import xgboost

        from rootdata.frameworks.xgboost import XGBoostBatches

        options = {"max_bin": self.params.get("max_bin"), "nthread": self.threads}
        if not self._is_external:
            return xgboost.QuantileDMatrix(XGBoostBatches(self.read), **options)
        edges = self._edges(options) if self.num_events > EDGES_OF else None
        return xgboost.ExtMemQuantileDMatrix(XGBoostBatches(self.read, folder=self.place()), ref=edges, **options)

    def _edges(self, options: Mapping[str, Any]) -> Any:
        """Make bins of about ``EDGES_OF`` training events, each as likely as any other, and the same ones each time.

        One more event has the highest value of each column: values above the last edge would be in its bin when the
        trees grow, and on the other side of it when they are asked.
        """
        import xgboost

        from rootdata.frameworks.xgboost import XGBoostBatches

        random, share = np.random.default_rng(0), EDGES_OF / self.num_events
        drawn: list[Rows] = []
        highest = np.full(self.n_inputs, np.nan, np.float32)
        for rows in self.read():
            highest = np.fmax(highest, np.fmax.reduce(rows[0], axis=0))
            is_drawn = random.random(len(rows[0])) < share
            drawn.append((rows[0][is_drawn], rows[1][is_drawn], rows[2][is_drawn]))
        drawn.append((highest[None], np.zeros(1), np.ones(1)))
        return xgboost.QuantileDMatrix(XGBoostBatches(lambda: iter(drawn)), **options)

    def begin(self, events: Any, rounds: int) -> None:
        """Begin with no tree, or go on behind those of a checkpoint."""
        import xgboost

        kept = bytearray(self.to_bytes()) if rounds and not self._draws else None
        self._booster = xgboost.Booster(self._options, [events], model_file=kept)
        for number in range(self._booster.num_boosted_rounds(), rounds):
            self._booster.update(events, number)

    @property
    def _draws(self) -> bool:
        """Whether a round depends on numbers that are drawn by chance, of which the state is not kept."""
        return self.params.get("booster") == "dart" or any(float(self.params.get(name, 1)) < 1 for name in DRAWN)

    def grow(self, number: int) -> None:
        """Do a round."""
        self.fitted.update(self._train, number)

    def tried(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> Any:
        """Return trees of one round with a few events."""
        import xgboost

        return xgboost.train(self._options, xgboost.QuantileDMatrix(x, label, max_bin=self.params.get("max_bin")), 1)

    def try_on(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> None:
        """Do one round with a few events."""
        self._booster = self.tried(x, label)

    @property
    def fitted(self) -> xgboost.Booster:
        """The trees."""
        if self._booster is None:
            raise self.untrained()
        return self._booster

    def raw(self, x: npt.NDArray[np.float32]) -> Logits | None:
        """Give the logits of events."""
        return None if self._booster is None else self._booster.inplace_predict(x, predict_type="margin")

    def native(self, x: npt.NDArray[np.float32]) -> Logits:
        """Give the probabilities of all classes, or of that with label 1."""
        found: Logits = self.fitted.inplace_predict(x)
        return found

    def to_bytes(self) -> bytes:
        """Write the trees as JSON."""
        return b"" if self._booster is None else bytes(self._booster.save_raw("json"))

    def of_bytes(self, kept: bytes) -> None:
        """Take over trees."""
        import xgboost

        self._booster = xgboost.Booster(self._options, model_file=bytearray(kept))

    def graph(self) -> Any:
        """Write the trees as an ONNX graph; thresholds that are infinite, which onnxmltools can't read, by a detour.

        Raises
        ------
        BundleError
            For ``booster=dart``, for several trees of each class in a round, and what else onnxmltools does not know.
        """
        if self.params.get("booster") == "dart":
            raise BundleError("XGBoost with booster=dart is not written as an ONNX graph")
        if self.classes > 2 and int(self.params.get("num_parallel_tree", 1)) > 1:
            raise BundleError(
                "XGBoost with num_parallel_tree is not written as an ONNX graph for more than two classes"
            )
        onnxmltools = converter("onnxmltools")
        import xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        finite = self.to_bytes().replace(b"Infinity", repr(float(INSTEAD_OF_INFINITY)).encode())
        booster = xgboost.Booster(self._options, model_file=bytearray(finite))
        kinds = [("x", FloatTensorType([None, self.n_inputs]))]
        write = functools.partial(onnxmltools.convert_xgboost, booster, initial_types=kinds)
        made = written("XGBoost", "onnxmltools", write)
        for attribute in (a for node in made.graph.node for a in node.attribute if a.name == "nodes_values"):
            values = np.array(attribute.floats, np.float32)
            is_infinite = np.abs(values) == INSTEAD_OF_INFINITY
            attribute.floats[:] = np.where(is_infinite, np.copysign(np.inf, values), values).tolist()
        return made

"""Trees boosted by LightGBM, out of the stream of events."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rootdata.errors import BundleError
from rootdata.models.estimators.boosted import Boosted
from rootdata.models.estimators.estimator import Logits
from rootdata.models.estimators.libraries import converter, written

if TYPE_CHECKING:
    import lightgbm


class LightGBM(Boosted):
    """Trees boosted by LightGBM.

    The events are read three times as training begins and kept as bins in memory, a byte for each value. A training
    that goes on from a checkpoint grows the trees before it again, and so ends as an unbroken one.

    Parameters
    ----------
    shapes : per-event shape of every input tensor of a batch, as ``RootDataModule.shapes``
    classes : how many
    trees : rounds between two looks at the validation part, which are an epoch
    leaves : of each tree
    lr : how much of each tree counts
    threads : by default as many as torch has
    seed : of what is drawn by chance
    params : further ones of the library, by its names
    """

    library = "lightgbm"

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        *,
        classes: int = 2,
        trees: int = 10,
        leaves: int = 31,
        lr: float = 0.1,
        threads: int | None = None,
        seed: int = 0,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._booster: lightgbm.Booster | None = None
        goal = {"objective": "binary"} if classes == 2 else {"objective": "multiclass"}
        own = {"num_leaves": leaves, "learning_rate": lr, "seed": seed, "deterministic": True, "force_col_wise": True}
        super().__init__(
            shapes, classes=classes, trees=trees, params={**goal, **own, **(params or {})}, threads=threads
        )

    @property
    def _options(self) -> dict[str, Any]:
        more = {} if self.classes == 2 else {"num_class": self.classes}
        return {"num_threads": self.threads, "verbosity": -1, **more, **self.params}

    def binned(self) -> Any:
        """Read the training events as bins."""
        import lightgbm

        from rootdata.frameworks.lightgbm import LightGBMRows, labels_of

        label, weight = labels_of(self.read, self.num_events)
        rows = LightGBMRows(self.read, self.num_events)
        return lightgbm.Dataset(rows, label=label, weight=weight, params=self._options).construct()

    def begin(self, events: Any, rounds: int) -> None:
        """Begin with no tree, and grow those of a checkpoint again: what LightGBM goes on from is not kept."""
        import lightgbm

        self._booster = lightgbm.Booster(self._options, events)
        for _ in range(rounds):
            self._booster.update()

    def grow(self, number: int) -> None:  # noqa: ARG002
        """Do a round."""
        self.fitted.update()

    def tried(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> Any:
        """Return trees of one round with a few events."""
        import lightgbm

        options = {"min_data_in_leaf": 1, "min_data_in_bin": 1, **self._options, "verbosity": 0}
        return lightgbm.train(options, lightgbm.Dataset(x, label), 1)

    def try_on(self, x: npt.NDArray[np.float32], label: npt.NDArray[np.int64]) -> None:
        """Do one round with a few events."""
        self._booster = self.tried(x, label)

    @property
    def fitted(self) -> lightgbm.Booster:
        """The trees."""
        if self._booster is None:
            raise self.untrained()
        return self._booster

    def raw(self, x: npt.NDArray[np.float32]) -> Logits | None:
        """Give the logits of events."""
        return None if self._booster is None else self._predicted(x, raw_score=True)

    def native(self, x: npt.NDArray[np.float32]) -> Logits:
        """Give the probabilities of all classes, or of that with label 1."""
        return self._predicted(x)

    def _predicted(self, x: npt.NDArray[np.float32], *, raw_score: bool = False) -> Logits:
        found = self.fitted.predict(x, raw_score=raw_score, num_threads=self.threads)
        return np.asarray(found)

    def to_bytes(self) -> bytes:
        """Write the trees as text."""
        return b"" if self._booster is None else floored(self._booster.model_to_string()).encode()

    def of_bytes(self, kept: bytes) -> None:
        """Take over trees."""
        import lightgbm

        self._booster = lightgbm.Booster(model_str=kept.decode())

    def graph(self) -> Any:
        """Write the trees as an ONNX graph.

        Raises
        ------
        BundleError
            For what onnxmltools does not know, or takes for something else.
        """
        onnxmltools = converter("onnxmltools")
        import lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        text = self.fitted.model_to_string()
        for name, pattern in UNKNOWN.items():
            if re.search(pattern, text, flags=re.MULTILINE):
                raise BundleError(f"LightGBM with {name} is not written as an ONNX graph")
        booster = lightgbm.Booster(model_str=floored(text))
        kinds = [("x", FloatTensorType([None, self.n_inputs]))]
        write = functools.partial(onnxmltools.convert_lightgbm, booster, initial_types=kinds, zipmap=False)
        return written("LightGBM", "onnxmltools", write)


UNKNOWN = {  # to onnxmltools, and what shows it in the text of a model
    "boosting=rf": r"^average_output$",
    "categorical_feature": r"^(num_cat=[1-9]\d*|\[categorical_feature: .+\])$",  # whose values it truncates to integers
    "linear_tree": r"^is_linear=1$",
    "zero_as_missing": r"^decision_type=(.* )?[46]( |$)",  # a value that is missing where it is 0, to the right or left
}
NEAREST_TO_0 = np.float32(-1e-35)  # of negative numbers: LightGBM takes this one, and what is nearer, for 0


def below(exact: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round down to float32."""
    single = exact.astype(np.float32)
    return np.nextafter(single, np.float32(-np.inf), where=single > exact, out=single.copy()).astype(np.float64)


def floored(text: str) -> str:
    """Round the thresholds of a model down to float32.

    An event goes left where ``x <= threshold``, in double precision. Graphs hold thresholds in float32: rounded to the
    nearest, some would pass the value of an event; rounded down, the same events go left, for values in float32. So do
    those that LightGBM takes for 0.

    Parameters
    ----------
    text : as LightGBM writes a model

    Examples
    --------
    >>> floored("threshold=0.1 3")
    'threshold=0.09999999403953552 3.0'
    """

    def lowered(match: re.Match[str]) -> str:
        found = below(np.array(match[2].split(), np.float64))
        found[found == NEAREST_TO_0] = np.nextafter(NEAREST_TO_0, np.float32(-1))
        return match[1] + " ".join(map(repr, found.tolist()))

    # without the sizes of the trees in the text, which change, it is read one tree after the other
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(threshold=)(.+)$", lowered, text, flags=re.MULTILINE)

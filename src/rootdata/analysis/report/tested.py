"""What a test leaves for reports: its scored events, a part of the training's, and what they are, in one file.

A report is made of it, with neither the data nor torch; that of all folds is made of theirs.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rootdata import disk
from rootdata.errors import DataError, FileError
from rootdata.options.data import OBSERVED, TARGETS, VARIED
from rootdata.training import scored
from rootdata.training.responses import Predicted
from rootdata.training.scored import ScoredEvents

FILE = "scored.npz"
SCHEMA = 1
TEST, TRAIN = "test/", "train/"
ABOUT = "about"
_TYPES = {"label": np.int32, "sample": np.int32}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRun:
    """One network's test.

    Attributes
    ----------
    about : ``classes``, ``samples``, ``targets`` by name; ``events``: which they are, as a checksum, or nothing; of the
        choice of the checkpoint ``monitor``, ``mode``, ``best``; ``scale``: by sample, its selected events for each
        tested one
    test, train : columns by name, (n,): ``label``, ``weight``, ``sample``; as far as there are any ``score``,
        ``predictions``, ``targets``, observers, variations of the weight; ``train`` is empty where none was scored
    name : of the run
    apart : of all folds, (n,): which test events are not among those of ``train``; None where none of them is
    """

    about: Mapping[str, Any]
    test: Arrays
    train: Arrays = field(default_factory=dict)
    name: str = ""
    apart: NDArray[np.bool_] | None = None

    @property
    def scores(self) -> ScoredEvents | None:
        """The test events of a classification."""
        return self._scored(self.test)

    @property
    def training(self) -> ScoredEvents | None:
        """The training events that were scored."""
        return self._scored(self.train)

    @property
    def beside_training(self) -> ScoredEvents | None:
        """The test events that the training events are compared with: other ones than these."""
        return self.scores if self.apart is None else self._scored({k: c[self.apart] for k, c in self.test.items()})

    def _scored(self, columns: Arrays) -> ScoredEvents | None:
        if "score" not in columns:
            return None
        return ScoredEvents(
            score=columns["score"].astype(np.float64),
            label=columns["label"].astype(np.int64),
            weight=columns["weight"].astype(np.float64),
            sample=columns["sample"].astype(np.int64),
            classes=tuple(self.about["classes"]),
            sample_names=tuple(self.about["samples"]),
        )

    @property
    def predicted(self) -> Predicted | None:
        """The test events of regressions."""
        if not {"predictions", TARGETS} <= set(self.test):
            return None
        predicted, true = (self.test[key].astype(np.float64) for key in ("predictions", TARGETS))
        weight = self.test["weight"].astype(np.float64)
        return Predicted(predicted=predicted, true=true, weight=weight, names=tuple(self.about["targets"]))

    @property
    def is_weighted(self) -> bool:
        """Whether the weights of the test events differ from 1."""
        return bool((self.test["weight"] != 1).any())

    @property
    def scale(self) -> NDArray[np.float64]:
        """Of each test event, by what its weight is multiplied to stand for all events of its sample, (n,)."""
        factors = np.array([self.about.get("scale", {}).get(name, 1.0) for name in self.about["samples"]] or [1.0])
        found: NDArray[np.float64] = factors[self.test["sample"]]
        return found

    def beginning_with(self, prefix: str) -> dict[str, NDArray[np.float64]]:
        """Return columns of numbers of the test events by their names behind a prefix."""
        found = {key.removeprefix(prefix): column for key, column in self.test.items() if key.startswith(prefix)}
        return {name: column.astype(np.float64) for name, column in found.items() if column.dtype.kind in "fiub"}

    @property
    def observers(self) -> dict[str, NDArray[np.float64]]:
        """What was observed of the test events, by name."""
        return self.beginning_with(OBSERVED)

    @property
    def variations(self) -> dict[str, NDArray[np.float64]]:
        """The weights of the test events under each variation, by name."""
        return self.beginning_with(VARIED)

    def save(self, path: Path) -> None:
        """Write one file."""
        arrays = {f"{TEST}{key}": column for key, column in self.test.items()}
        arrays |= {f"{TRAIN}{key}": column for key, column in self.train.items()}
        about = np.frombuffer(json.dumps({"schema": SCHEMA, **self.about}).encode(), np.uint8)
        with disk.writing(path) as file:
            np.savez(file, **{ABOUT: about}, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, run: Path) -> Self:
        """Read what the test of a run left, or the tests of all folds.

        Raises
        ------
        FileError
            For a folder that is no run, and for a run that was never tested.
        ConfigError
            For folds of which some were not tested.
        DataError
            For a file that this version can't read.
        """
        path = run / FILE
        if not run.is_dir():
            raise FileError(f"{run} is no folder (seen from {Path.cwd()}); a report takes the folder of a training")
        if not path.is_file():
            if (found := cls._of_folds(run)) is not None:
                return found
            raise FileError(_why_not(run))
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            about = json.loads(arrays.pop(ABOUT).tobytes())
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{path} can't be read ({error}); test the network again") from error
        if about.get("schema") != SCHEMA:
            raise DataError(f"{path}: got schema {about.get('schema')}; expected {SCHEMA}; test the network again")
        test, train = (
            {key.removeprefix(part): column for key, column in arrays.items() if key.startswith(part)}
            for part in (TEST, TRAIN)
        )
        return cls(about=about, test=test, train=train, name=name_of(run))

    @classmethod
    def _of_folds(cls, run: Path) -> Self | None:
        """Join what the tests of all folds in a folder left; None where there are none."""
        from rootdata.analysis import folds  # with torch

        if next(run.glob(f"*/{folds.FOLD_SCORES}"), None) is None:
            return None
        parts = folds.scored_folds(run)
        test = columns_of([{key: column for key, column in folds.joined(parts).items() if key != "fold"}])
        names = {name: parts[0].about[name] for name in ("classes", "samples", "targets")}
        about = {
            **names_for(test, **names),
            "events": checksum(test, contents=parts[0].about.get("contents", ())),
            "folds": len(parts),
        }
        index = test.pop("index", None)
        trained = [cls.load(fold.folder).train for fold in parts if (fold.folder / FILE).is_file()]
        if index is None or len(trained) < len(parts) or not all("index" in train for train in trained):
            return cls(about=about, test=test, name=name_of(run))
        train = columns_of(trained)
        rows, apart = once(index, train.pop("index"))
        train = {key: column[rows] for key, column in train.items()}
        return cls(about=about, test=test, train=train, name=name_of(run), apart=apart)


def _why_not(run: Path) -> str:
    if not (run / "config.yaml").is_file():
        return (
            f"{run} is no folder of a training (it holds neither {FILE} nor config.yaml); name one that train.py wrote"
        )
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"))
    which = checkpoints[0] if checkpoints else "FILE"
    return (
        f"{run} was not tested, or without a report: it holds no {FILE}; test it with the words of its training and "
        f"train=false ckpt_path={which}"
    )


def name_of(run: Path) -> str:
    """Name a run: by its folder, and the one above where it is named by the time."""
    place = run.resolve()
    return f"{place.parent.name}/{place.name}" if place.name[:1].isdecimal() else place.name


def columns_of(batches: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Join batches into columns, in the order of ``index`` where there is one: the same for any number of ranks.

    Returns
    -------
    what :class:`ScoredRun` holds of a part, and ``index`` (n, 3) where the batches have it
    """
    keys = [key for key in batches[0] if all(key in batch for batch in batches)]
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in keys}
    n = len(joined["label"]) if "label" in joined else len(next(iter(joined.values())))
    joined.setdefault("label", np.full(n, -1))
    joined.setdefault("weight", np.ones(n, np.float32))
    joined["sample"] = joined["index"][:, 0] if "index" in joined else np.zeros(n, np.int64)
    if "index" in joined:
        order = np.lexsort(joined["index"].T[::-1])
        joined = {key: column[order] for key, column in joined.items()}
    return {key: column.astype(_TYPES.get(key, column.dtype)) for key, column in joined.items()}


def once(test: NDArray[Any], train: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Deal the events of all folds to two sides that share none, as tests of two distributions want it.

    All events are tested, and each is trained on by several networks. Half of those trained on are taken for training,
    by the score of any one of their networks, all others for test.

    Parameters
    ----------
    test, train : places of the events, (n, 3) and (m, 3)

    Returns
    -------
    rows of ``train`` that are taken, and which of ``test`` are, (n,)
    """
    places = np.concatenate([test, train])
    keys = np.ravel_multi_index(tuple(places.T), tuple(places.max(axis=0) + 1))
    rng = np.random.default_rng(0)
    mixed = rng.permutation(len(train))
    events, first = np.unique(keys[len(test) :][mixed], return_index=True)
    is_taken = rng.random(len(events)) < 0.5
    return mixed[first[is_taken]], ~np.isin(keys[: len(test)], events[is_taken])


def checksum(columns: Arrays, *, contents: Sequence[Any] = ()) -> str:
    """Return what tells whether two tests had the same events: their files, places, labels and weights.

    Parameters
    ----------
    columns : of the test; without ``index`` it can't be told, and the result is empty
    contents : of the files that ``index`` counts, as :func:`rootdata.training.scored.contents_of` gives them
    """
    if "index" not in columns:
        return ""
    found = hashlib.blake2b(json.dumps(contents).encode(), digest_size=16)
    for key in ("index", "label", "weight"):
        if key in columns:
            found.update(np.ascontiguousarray(columns[key]).tobytes())
    return found.hexdigest()


def names_for(
    columns: Arrays, *, classes: Sequence[str], samples: Sequence[str], targets: Sequence[str]
) -> dict[str, Any]:
    """Name classes, samples and targets; those without a name are called by their number.

    Parameters
    ----------
    columns : of the test
    classes, samples, targets : names, as many as are known
    """
    score, predictions = columns.get("score"), columns.get("predictions")
    n_classes = score.shape[1] if score is not None and score.ndim == 2 else 2
    n_samples = int(columns["sample"].max(initial=0)) + 1
    n_targets = 0 if predictions is None else predictions.shape[1]
    return {
        "classes": list(scored.named(classes, n_classes, kind="class")),
        "samples": list(scored.named(samples, n_samples, kind="sample")),
        "targets": list(scored.named(targets, n_targets, kind="target")),
    }

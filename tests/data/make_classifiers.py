"""Write the graphs in ``classifiers``, as people export what they have trained, and what ``predict_proba`` said.

``pip install scikit-learn xgboost lightgbm skl2onnx onnxmltools``, then run it here. Made with scikit-learn 1.9,
XGBoost 3.2, LightGBM 4.7, skl2onnx 1.20 and onnxmltools 1.16, with the options that they have by default.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MLFloatTensorType
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as lightgbm_node
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_node
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shapes_of_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

FOLDER = Path(__file__).parent / "classifiers"
NUM_EVENTS, NUM_FEATURES = 300, 4
WORDS = np.array(["ttH", "ttbar", "QCD"])
WITH_WORDS = ("logistic", "tree", "forest", "lightgbm")  # also with labels that are words

Convert = Callable[[Any, np.ndarray], onnx.ModelProto]


def events(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    x = rng.normal(size=(NUM_EVENTS, NUM_FEATURES)).astype(np.float32)
    return x, np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [-0.5, 0.8] if num_classes == 3 else [0.0])


def by_skl2onnx(model: Any, x: np.ndarray) -> onnx.ModelProto:
    return to_onnx(model, x[:1])


def by_skl2onnx_for_others(model: Any, x: np.ndarray) -> onnx.ModelProto:
    return to_onnx(model, x[:1], target_opset={"": 21, "ai.onnx.ml": 3})  # as its error says


def by_onnxmltools(convert: Any) -> Convert:
    def convert_it(model: Any, x: np.ndarray) -> onnx.ModelProto:
        return convert(model, initial_types=[("x", MLFloatTensorType([None, NUM_FEATURES]))])

    return convert_it


def register() -> None:
    """Teach skl2onnx what LightGBM and XGBoost make."""
    for kind, alias, node in ((LGBMClassifier, "LightGbmLGBMClassifier", lightgbm_node),
                              (XGBClassifier, "XGBoostXGBClassifier", xgboost_node)):  # fmt: skip
        options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
        update_registered_converter(kind, alias, shapes_of_classifier, node, options=options)


def models() -> dict[str, tuple[Any, Convert]]:
    small = {"n_estimators": 5, "max_depth": 3}
    boosted = {"lightgbm": LGBMClassifier(**small, verbose=-1), "xgboost": XGBClassifier(**small)}
    own = {
        "logistic": LogisticRegression(),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "tree": DecisionTreeClassifier(max_depth=3),
        "forest": RandomForestClassifier(**small, random_state=0),
        "gradient": GradientBoostingClassifier(**small),
        "adaboost": AdaBoostClassifier(n_estimators=5),
        "network": MLPClassifier((4,), max_iter=50, random_state=0),
        "svc": SVC(probability=True, random_state=0, C=0.1),
        "bayes": GaussianNB(),
        "neighbours": KNeighborsClassifier(3),
        "calibrated": CalibratedClassifierCV(GaussianNB(), cv=2),
    }
    return {
        **{name: (model, by_skl2onnx) for name, model in own.items()},
        **{f"{name}_skl2onnx": (model, by_skl2onnx_for_others) for name, model in boosted.items()},
        "lightgbm": (boosted["lightgbm"], by_onnxmltools(convert_lightgbm)),
        "xgboost": (boosted["xgboost"], by_onnxmltools(convert_xgboost)),
    }


def made() -> Iterator[tuple[str, onnx.ModelProto, dict[str, object]]]:
    """Train and export; give names, graphs, and what scikit-learn's interface says of eight events."""
    register()
    for num_classes in (2, 3):
        x, y = events(num_classes)
        for name, (model, convert) in models().items():
            for suffix, labels in (("", y), ("_words", WORDS[y])):
                if suffix and name not in WITH_WORDS:
                    continue
                model.fit(x, labels)
                told = {"classes": model.classes_.tolist(), "probabilities": model.predict_proba(x[:8]).tolist()}
                yield f"{name}_{num_classes}{suffix}", convert(model, x), {"events": x[:8].tolist(), **told}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    expected = {}
    for case, graph, told in made():
        onnx.save_model(graph, FOLDER / f"{case}.onnx")
        expected[case] = told
    (FOLDER / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()

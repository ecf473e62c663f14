"""Whatever a bundle takes and gives: classes and targets under their names, branches of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import uproot
from bundles_for_tests import SIZES, branches_of, scores_of_table

from rootdata.analysis.friends.columns import score_names, weight_name
from rootdata.analysis.friends.predict import predict
from rootdata.bundle.manifest import open_bundle


def test_names_of_classes_and_targets():
    names = score_names(("t t", "ttH.bb", "mass"), ("mass",))
    assert names == ("score_t_t", "score_ttH_bb", "mass")
    assert [weight_name(name) for name in ("nominal", "pu.up")] == ["weight", "weight_pu_up"]


@pytest.mark.long
def test_scores_are_those_of_the_graph_on_events_of_every_kind(dense, samples, tmp_path):
    predict(dense.folder, str(samples / "*.root"), out=tmp_path)
    wanted = [branch.name for branch in open_bundle(dense.folder).branches]
    for sample, size in enumerate(SIZES):
        index = np.array([[sample, sample, entry] for entry in range(size)])
        expected = scores_of_table(dense.folder, branches_of(dense.data, index, wanted))
        found = uproot.open(tmp_path / f"{sample}_Friend.root")["Friends"].arrays(library="np")
        scores = [values for column, values in found.items() if column.startswith("score_")]
        assert len(scores) == expected.shape[1]
        for column, values in enumerate(scores):
            assert values == pytest.approx(expected[:, column], abs=1e-6)

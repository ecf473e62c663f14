"""The transformer: the same for tokens and jagged batches, with features of pairs, in torch and in its graph."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from bundles_for_tests import branches_of, make_data, scores_of_table, write_samples

from rootdata.bundle.export import export
from rootdata.models import Transformer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]

PAIRWISE = {"jets": ["Jet_pt", "Jet_eta", "share"]}


@pytest.fixture(scope="module")
def samples(tmp_path_factory, write_tree):
    return write_samples(tmp_path_factory.mktemp("samples"), write_tree)


def made(samples, layout, pairwise=PAIRWISE, **changes):
    data = make_data(samples, layout=layout, quantiles=True, **changes)
    torch.manual_seed(3)
    return Transformer(data.shapes, pairwise=pairwise, bins=4, latent=8, attention_heads=2, hidden=[8]), data


def fit(network, data, folder, **options):
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(network, datamodule=data)
    return trainer


@pytest.mark.parametrize("layout", ["tokens", "jagged"])
@pytest.mark.parametrize("pairwise", [PAIRWISE, None])
def test_it_scores_in_a_graph_as_in_torch(layout, pairwise, samples, tmp_path):
    network, data = made(samples, layout, pairwise)
    fit(network, data, tmp_path, max_epochs=1)
    manifest = export(network, data, tmp_path / "bundle")
    batches = list(data.test_dataloader())
    with torch.no_grad():
        expected = torch.cat([network.eval().scores(batch) for batch in batches]).numpy()
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    table = branches_of(data, index, [branch.name for branch in manifest.branches])
    found = scores_of_table(tmp_path / "bundle", table)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)
    assert found.std() > 0.001

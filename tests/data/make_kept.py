"""Write the files in ``kept``, as a version of rootdata leaves them: specs, a checkpoint, a bundle, and every cache.

``PYTHONPATH=src:tests:tests/rootdata python tests/data/make_kept.py`` makes all of them anew. They are
made anew where the number of a format is raised, and then ``docs/compatibility.md`` says what becomes of the old ones.
"""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import uproot
from files_for_tests import make_events, write

from kept_for_tests import KEPT, KEY, STOP_AFTER, Noting, options, trainer
from rootdata.bundle.export import export
from rootdata.cache.blocks import open_store
from rootdata.io.formats.basket_index import BasketIndex
from rootdata.io.trees import open_tree
from rootdata.loading.datamodule import RootDataModule
from rootdata.location import Location
from rootdata.models import DNN
from rootdata.options.read import CacheConfig
from rootdata.scan.renaming import renamed
from rootdata.scan.specs import Specs
from rootdata.tth.write import Note, new_set
from serve.models.repository import Repository

BRANCHES = ("met", "event", "Jet_pt", "Jet_eta")
MODELS = 16  # so many that the index of a repository is written


def make_bundle(data: RootDataModule) -> None:
    torch.manual_seed(1)
    export(DNN(data.shapes, hidden=[4]), data, KEPT / "bundle", num_events=20, description="kept")


def make_caches(specs: Specs) -> None:
    tree = open_tree(Location("events.root"))
    store = open_store(CacheConfig(dir=str(KEPT / "blocks"), max_bytes=10**9))
    assert store is not None
    store.put(KEY, tree.read(BRANCHES, 0, 20))
    (KEPT / "blocks" / ".lock").unlink()
    index = BasketIndex()
    index.keep(("events.root", "Events"), lambda: tree.baskets(BRANCHES))
    index.save(KEPT / "baskets.bin")
    tree.close()
    config = RootDataModule(**options(Path())).data
    renamed(KEPT / "names.jsonl", specs.files, config.split)


def make_index(root: Path) -> None:
    """Keep the entry of one model of a repository; its stamps are put in by whoever copies it."""
    for i in range(MODELS):
        shutil.copytree(KEPT / "bundle", root / f"m{i}" / "1")
        then = time.time_ns() - 10**12
        os.utime(root / f"m{i}", ns=(then, then))  # what has just changed is not kept
    Repository(root).cards()
    plain = json.loads((root / ".index").read_text())
    _, seen = plain["models"]["m0"]
    seen["about"]["description"] = "from the index"
    (KEPT / "index.json").write_text(json.dumps({**plain, "models": {"m": [[], seen]}}))


class Saving(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == STOP_AFTER:
            trainer.save_checkpoint(KEPT / "within.ckpt")


def make_checkpoint(data: RootDataModule) -> list[list[int]]:
    """Keep a checkpoint from the middle of an epoch, and return the batches of two whole ones."""
    torch.manual_seed(1)
    network = Noting()
    trainer(max_epochs=2, callbacks=[Saving()]).fit(network, datamodule=data)
    return network.batches


def main() -> None:
    for path in KEPT.iterdir():
        if path.name != "options.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.chdir(KEPT)  # so that no place of this machine is written
    write(Path("events.root"), make_events(300, seed=5), compression=uproot.ZLIB(9))
    data = RootDataModule(**options(Path()), index=True)
    data.specs.save("specs.json")
    make_bundle(data)
    make_caches(data.specs)
    batches = make_checkpoint(data)
    with new_set(KEPT / "tth", Note(generator="fast", set="selected", n_events=10, seed=1), files=[]):
        pass
    Path("batches.json").write_text(json.dumps(batches) + "\n")


with tempfile.TemporaryDirectory() as folder:
    os.environ["ROOTDATA_CACHE"] = folder
    main()
    make_index(Path(folder) / "models")

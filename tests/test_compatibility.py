"""Files of this version, of others and of none: each is read, made anew, or refused by a sentence that can be followed.

Those of this version lie in ``tests/data/kept``; ``tests/data/make_kept.py`` made them. Others are altered copies.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import pytorch_lightning as pl
import torch

from kept_for_tests import KEPT, KEY, STATE, STOP_AFTER, Noting, options, trainer
from rootdata import cache_folder, columnar
from rootdata.bundle import manifest as manifests
from rootdata.bundle.assemble import Assembler, table_of
from rootdata.bundle.manifest import MANIFEST, MODEL, open_bundle
from rootdata.cache import blocks
from rootdata.cache.blocks import open_store
from rootdata.errors import BundleError, ColumnsError, DataError, ResumeError, SpecsError
from rootdata.io.files import state_of
from rootdata.io.formats import basket_index
from rootdata.io.formats.basket_index import DIGEST_BYTES, BasketIndex
from rootdata.io.store import through
from rootdata.io.trees import open_tree
from rootdata.jagged import Jagged
from rootdata.loading import position
from rootdata.loading.datamodule import RootDataModule
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location
from rootdata.options.read import CacheConfig
from rootdata.scan import specs as specs_of_now
from rootdata.scan.renaming import renamed
from rootdata.scan.specs import Specs
from rootdata.table import Table
from rootdata.tth import write as tth
from serve.models import bundles, catalogue
from serve.models import index as indices
from serve.models.repository import Repository

ROOT = Path(__file__).parents[1]
BRANCHES = ("met", "event", "Jet_pt", "Jet_eta")
ALTERED = ("older", "newer", "missing", "unknown")
Plain = dict[str, Any]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A copy of all files, to be altered."""
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def altered(plain: Plain, how: str, number: str) -> Plain:
    """Alter what stands in a file as another version might have written it."""
    if how in {"older", "newer"}:
        return plain | {number: plain[number] + (1 if how == "newer" else -1)}
    if how == "unknown":
        return plain | {"temperature": 3}
    return without(plain, next(name for name in plain if name not in {number, "checksum"}))


def without(plain: Plain, name: str) -> Plain:
    return {n: value for n, value in plain.items() if n != name}


def batches() -> list[list[int]]:
    """Return the events of the batches of two epochs, as they were when the files were made."""
    found: list[list[int]] = json.loads((KEPT / "batches.json").read_text())
    return found


def listed(columns: Any) -> dict[str, Any]:
    return {n: (c.to_awkward() if isinstance(c, Jagged) else c).tolist() for n, c in columns.items()}


# The table


NUMBERS = {
    "specs that are given": specs_of_now.VERSION,
    "specs in the cache folder": specs_of_now.VERSION,
    "place in the data": position.VERSION,
    "bundle": manifests.SCHEMA,
    "blocks": blocks.FORMAT.decode(),
    "places of baskets": basket_index.VERSION,
    "names of files": "none",
    "what a server has seen": indices._SCHEMA,
    "generated": tth.VERSION,
    "columns sent": columnar.MAGIC.decode().strip(),
}


def test_the_page_names_every_format_and_its_number() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(NUMBERS)
    for (what, number, *_), (name, now) in zip(rows, NUMBERS.items(), strict=True):
        assert what.strip().startswith(name)
        assert number.strip() == str(now)


def test_the_files_are_of_this_version() -> None:
    assert json.loads((KEPT / "specs.json").read_text())["version"] == specs_of_now.VERSION
    assert json.loads((KEPT / "bundle" / MANIFEST).read_text())["schema"] == manifests.SCHEMA
    assert torch.load(KEPT / "within.ckpt", weights_only=True)["RootDataModule"]["version"] == position.VERSION
    assert next((KEPT / "blocks").rglob("*.block")).read_bytes().startswith(blocks.FORMAT)
    assert json.loads((KEPT / "index.json").read_text())["schema"] == indices._SCHEMA
    assert json.loads((KEPT / "tth" / tth.NOTE).read_text())["version"] == tth.VERSION


# Specs


def resigned(path: Path, plain: Plain) -> Path:
    """Write altered specs, with the checksum that is right for them."""
    text = json.dumps({name: value for name, value in plain.items() if name != "checksum"})
    path.write_text(json.dumps(json.loads(text) | {"checksum": hashlib.sha256(text.encode()).hexdigest()[:32]}))
    return path


def test_specs_of_this_version_give_the_batches_that_they_gave() -> None:
    events = RootDataset(options(KEPT), index=True, specs=KEPT / "specs.json")
    assert [batch["index"][:, 2].tolist() for _ in range(2) for batch in events] == batches()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("older", "are of version 2, this is version 3; scan again"),
        ("newer", "are of version 4, this is version 3; update rootdata, or scan again"),
        ("missing", r"are damaged \(.*\); scan again"),
        ("unknown", r"are damaged \(.*temperature.*\); scan again"),
    ],
)
def test_given_specs_of_another_version_are_refused(kept: Path, how: str, words: str) -> None:
    plain = json.loads((kept / "specs.json").read_text())
    path = resigned(kept / "specs.json", altered(plain, how, "version"))
    with pytest.raises(SpecsError, match=rf"^specs .*specs\.json {words}$"):
        RootDataset(options(kept), specs=path)


def test_specs_without_any_of_their_fields_are_refused(kept: Path) -> None:
    whole = json.loads((kept / "specs.json").read_text())
    of_files = [("files", name) for name in whole["files"][0]]
    for names in [(name,) for name in whole if name != "checksum"] + of_files:
        plain = copy.deepcopy(whole)
        holder = plain if len(names) == 1 else plain["files"][0]
        del holder[names[-1]]
        with pytest.raises(SpecsError, match="scan again"):
            Specs.load(resigned(kept / "specs.json", plain))
    assert Specs.load(resigned(kept / "specs.json", whole)).num_events("train") == sum(map(len, batches()[:8]))


@pytest.mark.parametrize("how", ALTERED)
def test_specs_of_another_version_in_the_cache_are_made_anew(kept: Path, how: str) -> None:
    first = RootDataModule(**options(kept)).specs
    path = cache_folder.specs_path(first.fingerprint)
    whole = path.read_bytes()
    resigned(path, altered(json.loads(whole), how, "version"))
    assert RootDataModule(**options(kept)).specs == first
    assert path.read_bytes() == whole


# Checkpoints


def place() -> Plain:
    """Return the place in the data of the checkpoint."""
    found: Plain = torch.load(KEPT / "within.ckpt", weights_only=True)["RootDataModule"]
    return found


def data(**changes: Any) -> RootDataModule:
    return RootDataModule(**options(KEPT, **changes), specs=KEPT / "specs.json", index=True)


# Which is that of constraints.txt; its oldest allowed version warns, and goes on all the same.
OF_A_NEWER_LIGHTNING = pytest.mark.filterwarnings("ignore:The loaded checkpoint was produced with Lightning")


def fit(checkpoint: Path) -> list[list[int]]:
    network = Noting()
    trainer(max_epochs=2).fit(network, data(), ckpt_path=checkpoint)
    return network.batches


@OF_A_NEWER_LIGHTNING
def test_a_training_goes_on_from_a_checkpoint_of_this_version_as_it_would_have_then() -> None:
    assert {name: place()[name] for name in STATE} == STATE
    assert fit(KEPT / "within.ckpt") == batches()[STOP_AFTER:]
    events = RootDataset(options(KEPT), index=True, specs=KEPT / "specs.json")
    events.load_state_dict(place())
    assert [batch["index"][:, 2].tolist() for batch in events] == batches()[STOP_AFTER:8]


def test_options_of_this_version_are_all_in_its_checkpoint() -> None:
    assert place()["identity"].keys() == data().identity.keys()


ANEW = "take the weights alone and start anew$"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (lambda: altered(place(), "older", "version"), f"is of version 1, this is version 2; {ANEW}"),
        (
            lambda: altered(place(), "newer", "version"),
            f"is of version 3, this is version 2; update rootdata, or {ANEW}",
        ),
        (lambda: place() | {"version": "2"}, f"is of version '2', this is version 2; {ANEW}"),
        (lambda: without(place(), "version"), f"is of version None, this is version 2; {ANEW}"),
        (lambda: without(place(), "epoch"), rf"is damaged \(epoch None, .*\); {ANEW}"),
        (lambda: without(place(), "batch"), rf"is damaged \(.*, batch None .*\); {ANEW}"),
        (lambda: without(place(), "identity"), rf"is damaged \(.* of None\); {ANEW}"),
        (lambda: place() | {"epoch": -1}, rf"is damaged \(epoch -1, .*\); {ANEW}"),
        (lambda: place() | {"batch": "5"}, rf"is damaged \(.*, batch '5' .*\); {ANEW}"),
    ],
)  # fmt: skip
def test_a_place_of_another_version_is_refused(state: Callable[[], Plain], words: str) -> None:
    for taker in (data(), RootDataset(options(KEPT), specs=KEPT / "specs.json")):
        with pytest.raises(ResumeError, match=f"^the checkpoint's place in the data {words}"):
            taker.load_state_dict(state())


@OF_A_NEWER_LIGHTNING
def test_the_weights_of_a_checkpoint_of_a_newer_version_can_be_taken(kept: Path) -> None:
    content = torch.load(kept / "within.ckpt")
    content["RootDataModule"]["version"] += 1
    torch.save(content, kept / "within.ckpt")
    with pytest.raises(ResumeError, match="update rootdata"):
        fit(kept / "within.ckpt")
    network, other = (
        Noting(),
        pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=1),
    )
    other.validate(network, data(), ckpt_path=kept / "within.ckpt", verbose=False)
    assert network.layer.weight.tolist() == content["state_dict"]["layer.weight"].tolist()


def test_what_a_data_module_of_ones_own_adds_to_its_place_is_passed_over() -> None:
    events = RootDataset(options(KEPT), index=True, specs=KEPT / "specs.json")
    events.load_state_dict(place() | {"mine": 3})
    assert next(iter(events))["index"][:, 2].tolist() == batches()[STOP_AFTER]


# Bundles


def agrees(folder: Path) -> bool:
    """Say whether a bundle gives the scores that are in its manifest, of the events that are there."""
    manifest = open_bundle(folder)
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    parity = manifest.parity
    assert parity is not None
    (scores,) = session.run(None, Assembler(manifest)(table_of(manifest, parity.columns)))
    return bool(np.allclose(scores, parity.scores, atol=1e-6))


def rewritten(folder: Path, plain: Plain) -> Path:
    (folder / MANIFEST).write_text(json.dumps(plain))
    return folder


def test_a_bundle_of_this_version_gives_the_scores_that_it_gave() -> None:
    assert agrees(KEPT / "bundle")


def test_a_bundle_of_the_first_schema_is_read_and_gives_the_scores_that_it_gave(kept: Path) -> None:
    plain = json.loads((kept / "bundle" / MANIFEST).read_text())
    came_later = ("selection", "computed", "scaling", "rules")
    older = {name: value for name, value in plain.items() if name not in came_later} | {"schema": 1}
    assert agrees(rewritten(kept / "bundle", older))
    manifest = open_bundle(kept / "bundle")
    assert [getattr(manifest, name) for name in came_later] == [None] * 4


ANOTHER = r"^.*manifest\.json: manifest: schema is {}; this version reads schemas 1 and 2; {}$"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 0}, ANOTHER.format(0, "export the model again")),
        ({"schema": 3}, ANOTHER.format(3, "update rootdata, or export the model again")),
        ({"schema": "2"}, ANOTHER.format("'2'", "export the model again")),
        ({"temperature": 1}, r"manifest\.json: manifest: unknown field 'temperature'; nearest: 'features'$"),
    ],
)
def test_a_bundle_of_another_version_is_refused(kept: Path, change: Plain, words: str) -> None:
    plain = json.loads((kept / "bundle" / MANIFEST).read_text())
    with pytest.raises(BundleError, match=words):
        open_bundle(rewritten(kept / "bundle", plain | change))


@pytest.mark.parametrize("name", ["sha256", "size", "inputs", "outputs"])
def test_a_bundle_without_what_it_can_not_be_used_without_is_refused(kept: Path, name: str) -> None:
    plain = json.loads((kept / "bundle" / MANIFEST).read_text())
    del plain[name]
    with pytest.raises(BundleError, match=f"manifest: '{name}' is missing; export the model again"):
        open_bundle(rewritten(kept / "bundle", plain))


# Caches


def block(header: Plain, content: bytes, *, kind: bytes = blocks.FORMAT) -> bytes:
    """Make the file of a block, with a checksum that is right."""
    text = json.dumps(header).encode()
    start = struct.pack("<I", len(text)) + text
    start = start.ljust(columnar.padded(20 + len(start), 64) - 20, b"\0")
    rest = struct.pack("<Q", 20 + len(start) + len(content)) + start + content
    return kind + struct.pack("<I", zlib.crc32(rest)) + rest


def test_a_block_of_this_version_is_taken(kept: Path) -> None:
    store = open_store(CacheConfig(dir=str(kept / "blocks"), max_bytes=10**9))
    assert store is not None
    found = store.get(KEY)
    assert found is not None
    with closing(open_tree(Location(str(KEPT / "events.root")))) as tree:
        assert listed(found) == listed(tree.read(BRANCHES, 0, 20))


@pytest.mark.parametrize("how", [*ALTERED, "nonsense"])
def test_a_block_of_another_version_is_made_anew(kept: Path, how: str) -> None:
    (path,) = (kept / "blocks").rglob("*.block")
    whole = path.read_bytes()
    (length,) = struct.unpack_from("<I", whole, 20)
    header, content = json.loads(whole[24 : 24 + length]), whole[columnar.padded(24 + length, 64) :]
    assert block(header, content) == whole
    others: dict[str, Callable[[], bytes]] = {
        "older": lambda: block(header, content, kind=b"RDBLOCK1"),
        "newer": lambda: block(header, content, kind=b"RDBLOCK3"),
        "missing": lambda: block(without(header, "lists"), content),
        "unknown": lambda: block(header | {"valid": {}}, content),
        "nonsense": lambda: block(header | {"columns": [["met", "<f4", [10**9], None]]}, content),
    }
    path.write_bytes(others[how]())
    store = open_store(CacheConfig(dir=str(kept / "blocks"), max_bytes=10**9))
    assert store is not None
    assert store.get(KEY) is None
    with closing(open_tree(Location(str(KEPT / "events.root")))) as tree:
        read = through(store, KEY, lambda: tree.read(BRANCHES, 0, 20))
        assert listed(read) == listed(tree.read(BRANCHES, 0, 20))
    assert path.read_bytes() == whole


def signed(content: bytes, number: int = basket_index.VERSION) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=b"baskets, %d" % number).digest() + content


def test_places_of_baskets_of_this_version_are_taken() -> None:
    index, path = BasketIndex.load(KEPT / "baskets.bin"), str(KEPT / "events.root")
    ((where, baskets),) = index._known.items()
    assert where == ("events.root", "Events")
    index.add((path, "Events"), dataclasses.replace(baskets, state=state_of(Location(path))))
    found = index.read((path, "Events"), BRANCHES, 10, 90)
    assert found is not None
    with closing(open_tree(Location(path))) as tree:
        assert listed(found) == listed(tree.read(BRANCHES, 10, 90))


@pytest.mark.parametrize("how", ALTERED)
def test_places_of_baskets_of_another_version_are_forgotten(kept: Path, how: str) -> None:
    content = (kept / "baskets.bin").read_bytes()[DIGEST_BYTES:]
    with np.load(io.BytesIO(content)) as found:
        parts = dict(found)
    number = basket_index.VERSION + {"older": -1, "newer": 1}.get(how, 0)
    if how == "missing":
        del parts["kind"]
    if how == "unknown":
        parts["valid"] = np.zeros(3)
    other = io.BytesIO()
    np.savez(other, **parts)
    (kept / "baskets.bin").write_bytes(signed(other.getvalue(), number))
    assert BasketIndex.load(kept / "baskets.bin")._known == {}


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"\x93NUMPY", bytes(64)])
def test_what_is_no_archive_of_places_is_forgotten(kept: Path, content: bytes) -> None:
    (kept / "baskets.bin").write_bytes(signed(content))
    assert BasketIndex.load(kept / "baskets.bin")._known == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (None, {"other.root": "events.root"}),
        ("[1, 2]\n", {}),
        ('{"uuid": 3}\n', {}),
        ("not JSON\n", {}),
    ],
)
def test_names_of_files_are_known_and_other_lines_passed_over(kept: Path, line: str | None, expected: Plain) -> None:
    if line is not None:
        (kept / "names.jsonl").write_text(line)
    specs = Specs.load(KEPT / "specs.json")
    moved = [dataclasses.replace(file, path="other.root") for file in specs.files]
    assert renamed(kept / "names.jsonl", moved, data().data.split) == expected


def models(kept: Path, change: Callable[[Plain], Plain]) -> list[str]:
    """Return what a repository says of a model, whose files say one thing and its index another."""
    root, then = kept / "models", time.time_ns() - 10**12
    shutil.copytree(kept / "bundle", root / "m" / "1")
    os.utime(root / "m", ns=(then, then))
    plain = json.loads((kept / "index.json").read_text())
    plain["models"]["m"][0] = [*catalogue.stamp_around(root / "m"), *bundles.stamp(str(root / "m" / "1"))]
    (root / ".index").write_text(json.dumps(change(plain)))
    return [card.about.description for card in Repository(root).cards() if card.about is not None]


def with_seen(plain: Plain, change: Callable[[Plain], Plain]) -> Plain:
    stamp, seen = plain["models"]["m"]
    return plain | {"models": {"m": [stamp, seen | {"about": change(seen["about"])}]}}


def test_an_index_of_models_of_this_version_is_taken(kept: Path) -> None:
    assert models(kept, lambda plain: plain) == ["from the index"]


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: altered(plain, "older", "schema"),
        lambda plain: altered(plain, "newer", "schema"),
        lambda plain: altered(plain, "missing", "schema"),
        lambda plain: with_seen(plain, lambda about: altered(about, "missing", "")),
        lambda plain: with_seen(plain, lambda about: altered(about, "unknown", "")),
    ],
)
def test_an_index_of_models_of_another_version_is_passed_over(kept: Path, change: Callable[[Plain], Plain]) -> None:
    assert models(kept, change) == ["kept"]


# Samples, and what is sent


def test_generated_samples_of_this_version_are_taken() -> None:
    assert tth.holds(KEPT / "tth", tth.Note(generator="fast", set="selected", n_events=10, seed=1))


@pytest.mark.parametrize("how", ["older", "newer", "missing"])
def test_generated_samples_of_another_version_are_refused(kept: Path, how: str) -> None:
    path = kept / "tth" / tth.NOTE
    path.write_text(json.dumps(altered(json.loads(path.read_text()), how, "version")))
    words = {
        "older": "version=0; asked: version=1",
        "newer": "version=2; asked: version=1",
        "missing": "generator=None",
    }
    with pytest.raises(
        DataError, match=rf"holds another set: {words[how]}.*; choose another folder or delete this one"
    ):
        tth.holds(kept / "tth", tth.Note(generator="fast", set="selected", n_events=10, seed=1))


@pytest.mark.parametrize("number", [b"0", b"2"])
def test_columns_of_another_version_are_refused(number: bytes) -> None:
    body = columnar.encode(Table(num_events=2, columns={"HT": np.zeros(2)}))
    assert columnar.decode(body).num_events == 2
    words = re.escape(
        f"body: got b'RDCOLS{number.decode()}\\n' at the start; expected b'RDCOLS1\\n'; update the older one"
    )
    with pytest.raises(ColumnsError, match=words):
        columnar.decode(body.replace(b"RDCOLS1", b"RDCOLS" + number))

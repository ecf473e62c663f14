"""ROOT files: what is read of them, and what is wrong with them, never with the server's own paths."""

from __future__ import annotations

import dataclasses
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from codec_strategies import SETTINGS, awkward_lists, check_equal, fixed, flat, jagged, manifest_of

from rootdata.bundle.manifest import Selection
from rootdata.jagged import Jagged
from rootdata.table import Table, concatenate
from serve.codec import rootfile
from serve.codec.schema import Schemas
from serve.errors import BadRequest, InvalidEvents, ServeError, TooLarge

MODEL = manifest_of(
    flat("MET"), flat("nPV", "int32"), fixed("cov", 3), jagged("Jet_pt", "jets"), jagged("Jet_eta", "jets")
)


def columns_of(num_events: int = 20) -> dict[str, Any]:
    counts = np.arange(num_events) % 4
    lists = ak.unflatten(np.arange(counts.sum(), dtype="f4"), counts)
    return {
        "MET": np.arange(num_events, dtype="f4"),
        "nPV": np.arange(num_events, dtype="i4"),
        "cov": np.arange(3.0 * num_events, dtype="f8").reshape(-1, 3),
        "Jet_pt": lists,
        "Jet_eta": lists * np.float32(0.1),
    }


@pytest.fixture
def write(tmp_path: Path, write_tree: Callable[..., Path]) -> Callable[..., Path]:
    def write(name: str = "events.root", *, how: dict[str, Any] | None = None, **changes: Any) -> Path:
        columns = {**columns_of(), **changes}
        return write_tree(tmp_path / name, {n: c for n, c in columns.items() if c is not None}, **(how or {}))

    return write


def test_columns_of_one_branch_are_read_by_their_names() -> None:
    model = manifest_of(flat("jet.pt"), fixed("m[1]", 3), jagged("Jet_tau[4]", "jets"), jagged("Jet_tau[0]", "jets"))
    path = Path(__file__).parents[2] / "data" / "divided.root"
    table = concatenate(list(rootfile.tables(path, Schemas(model), tree="t", settings=SETTINGS)))
    jets = table.columns["Jet_tau[4]"]
    assert isinstance(jets, Jagged)
    assert jets.content.tolist() == [100 * i + 10 * k + 4 for i in range(60) for k in range(i % 4)]
    assert table.columns["jet.pt"].tolist() == list(range(60))  # type: ignore[union-attr]


def test_of_several_trees_that_is_read_which_the_model_was_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "several.root"
    with uproot.recreate(path) as file:
        for i, name in enumerate(("Runs", "Events", "other/Events")):
            file.mktree(name, {"MET": "f4"}).extend({"MET": np.full(3 + i, i, "f4")})

    def read(*trees: str, tree: str | None = None) -> list[float]:
        model = dataclasses.replace(manifest_of(flat("MET")), selection=Selection(trees=trees))
        found = concatenate(list(rootfile.tables(path, Schemas(model), tree=tree, settings=SETTINGS)))
        return list(found.columns["MET"])  # type: ignore[arg-type]

    assert read("Events") == [1.0] * 4
    assert read("gone", "other/Events") == [2.0] * 5
    assert read("Events", tree="Runs") == [0.0] * 3
    for trees in ((), ("gone",)):
        with pytest.raises(InvalidEvents, match="holds 3 trees"):
            read(*trees)
    with pytest.raises(InvalidEvents, match="'gone' not found"):
        read("Events", tree="gone")


def test_no_file_is_opened_that_a_file_which_was_sent_names() -> None:
    path = Path(__file__).parents[2] / "data" / "friends.root"
    with pytest.raises(InvalidEvents, match="'z' is missing"):
        list(rootfile.tables(path, Schemas(manifest_of(flat("z"))), tree="Events", settings=SETTINGS))


def test_the_number_of_an_event_is_that_in_the_file(write: Callable[..., Path], small_blocks: int) -> None:
    model = manifest_of(flat("entry", "int64"), flat("MET"))
    pieces = list(rootfile.tables(write(how={"step": 7}), Schemas(model), tree=None, settings=SETTINGS))
    assert len(pieces) > 1
    assert concatenate(pieces).columns["entry"].tolist() == list(range(20))  # type: ignore[union-attr]


def tables(path: Path, tree: str | None = None, **changes: Any) -> Iterator[Table]:
    return rootfile.tables(path, Schemas(MODEL), tree=tree, settings=SETTINGS)


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_blocks_join_to_the_file(write: Callable[..., Path], small_blocks: int, kind: str) -> None:
    cov = {"cov": ak.from_regular(ak.Array(columns_of()["cov"]))} if kind == "rntuple" else {}
    manifest = MODEL if kind == "ttree" else manifest_of(*(b for b in MODEL.branches if b.name != "cov"))
    path = write(other=np.zeros(20), **cov, how={"step": 7, "kind": kind})
    pieces = list(rootfile.tables(path, Schemas(manifest), tree=None, settings=SETTINGS))
    assert [p.num_events for p in pieces] == [7, 7, 6]
    table = concatenate(pieces)
    expected = {n: c for n, c in columns_of().items() if n in table.columns}
    jets = {n: Jagged.from_awkward(expected.pop(n)) for n in ("Jet_pt", "Jet_eta")}
    flats = {n: c.astype("f4") if n == "cov" else c for n, c in expected.items()}
    check_equal(table, Table(num_events=20, columns=flats | jets))


def test_large_blocks_are_handed_on_in_pieces(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    whole = list(tables(path))
    monkeypatch.setattr(rootfile, "BLOCK_ENTRIES", 6)
    pieces = list(tables(path))
    assert ([p.num_events for p in whole], [p.num_events for p in pieces]) == ([20], [6, 6, 6, 2])
    check_equal(concatenate(pieces), whole[0])


def test_the_tree_is_chosen(write: Callable[..., Path], write_tree: Callable[..., Path]) -> None:
    path = write(how={"tree": "one"})
    write_tree(path, columns_of(5), tree="two", update=True)
    assert sum(t.num_events for t in tables(path, "two")) == 5
    with pytest.raises(InvalidEvents, match="the file holds 2 trees: 'one', 'two'; name one with the option `tree`"):
        list(tables(path))
    with pytest.raises(InvalidEvents, match="tree 'twoo' not found in the file; nearest: 'two'") as error:
        list(tables(path, "twoo"))
    assert error.value.field == "tree"


def test_a_file_without_trees(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "none.root") as file:
        file["h"] = np.histogram([1.0])
    with pytest.raises(InvalidEvents, match="the file holds 0 trees"):
        list(tables(tmp_path / "none.root"))


NOT_ROOT = {"empty": b"", "text": b"hello", "json": b'{"events": []}', "root": b"root", "zeros": bytes(1000)}


@pytest.mark.parametrize("content", NOT_ROOT)
def test_a_file_that_is_not_root(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret_name.root"
    path.write_bytes(NOT_ROOT[content])
    with pytest.raises(BadRequest, match="the file") as error:
        list(tables(path))
    assert str(tmp_path) not in str(error.value)
    assert "secret_name" not in str(error.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file(write: Callable[..., Path], part: float) -> None:
    path = write()
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(BadRequest, match=r"truncated|damaged") as error:
        list(tables(path))
    assert str(path.parent) not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"MET": None, "MET_pt": np.zeros(20)}, "MET", "branch 'MET' is missing; nearest: 'MET_pt'"),
        ({"MET": columns_of()["Jet_pt"]}, "MET", "'MET': got a list an event; expected one number an event"),
        ({"MET": columns_of()["cov"]}, "MET", "'MET': got 3 numbers an event; expected one number"),
        ({"Jet_pt": np.zeros(20)}, "Jet_pt", "'Jet_pt': got one number an event; expected a list an event"),
        ({"cov": np.zeros((20, 2))}, "cov", "'cov': got 2 numbers an event; expected 3 numbers an event"),
        ({"MET": ak.Array(["a"] * 20)}, "MET", "'MET' can't be used: it holds|'MET'"),
    ],
)
def test_a_file_with_other_branches(write: Callable[..., Path], changes: Any, field: str, message: str) -> None:
    with pytest.raises(InvalidEvents, match=message) as error:
        list(tables(write(**changes)))
    assert error.value.field == field


def test_values_that_do_not_fit_name_the_event_of_the_file(write: Callable[..., Path], small_blocks: int) -> None:
    odd = np.arange(20, dtype="f8")
    odd[13] = 0.5
    with pytest.raises(InvalidEvents, match=r"'nPV' of event 13: got 0.5; expected an integer") as error:
        list(tables(write(nPV=odd, how={"step": 5})))
    assert (error.value.field, error.value.event) == ("nPV", 13)


def test_unequal_counts(write: Callable[..., Path], small_blocks: int) -> None:
    counts = np.arange(20) % 4
    counts[[13, 14]] = counts[[14, 13]]
    lists = ak.unflatten(np.zeros(counts.sum(), "f4"), counts)
    with pytest.raises(InvalidEvents, match="'Jet_eta' of event 13: got 2 objects; 'Jet_pt' has 1"):
        list(tables(write(Jet_eta=lists, how={"step": 5})))


def test_too_many_objects(write: Callable[..., Path]) -> None:
    many = awkward_lists(*[[1.0]] * 4, [1.0] * 51, *[[1.0]] * 15)
    with pytest.raises(TooLarge, match="'jets' of event 4: got 51 objects"):
        list(tables(write(Jet_pt=many, Jet_eta=many)))


def test_a_block_that_is_too_large(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfile, "MAX_BLOCK_BYTES", 100)
    with pytest.raises(TooLarge, match="entries 0 to 20 of tree 'Events' can only be read at once"):
        list(tables(write()))


@pytest.mark.parametrize("kind", ["ttree", "rntuple"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, write_tree: Callable[..., Path], kind: str) -> None:
    columns = {n: c for n, c in columns_of(200).items() if n != "cov"}
    manifest = manifest_of(*(b for b in MODEL.branches if b.name != "cov"))
    content = write_tree(tmp_path / "good.root", columns, kind=kind, step=50).read_bytes()
    rng, path, refused = np.random.default_rng(1), tmp_path / "bad.root", 0
    for _ in range(150):
        bad = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        try:
            for table in rootfile.tables(path, Schemas(manifest), tree=None, settings=SETTINGS):
                assert table.num_events <= 200
        except ServeError:
            refused += 1
    assert 0 < refused < 150


def scores_of(num_events: int, num_columns: int = 2) -> Any:
    return np.random.default_rng(0).random((num_events, num_columns), np.float32)


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 0, 2], [1000] * 20])
def test_scores_come_back_from_their_file(tmp_path: Path, sizes: list[int]) -> None:
    scores, start = scores_of(sum(sizes)), 0
    with rootfile.RootScoreWriter(tmp_path / "scores.root", ("ttH", "ttbar")) as file:
        for size in sizes:
            file.write(scores[start : start + size])
            start += size
    with uproot.open(tmp_path / "scores.root") as file:
        found = file["scores"].arrays(library="np")
    assert list(found) == ["score_ttH", "score_ttbar"]
    np.testing.assert_array_equal(np.stack(list(found.values()), axis=1), scores)
    assert {v.dtype.name for v in found.values()} == {"float32"}


def test_files_are_written_and_read_in_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for pieces in (5, 50):
        tracemalloc.start()
        with rootfile.RootScoreWriter(tmp_path / "scores.root", ("signal",)) as file:
            for _ in range(pieces):
                file.write(scores_of(20_000, 1))
        model = manifest_of(flat("score_signal"))
        read = sum(
            t.num_events
            for t in rootfile.tables(tmp_path / "scores.root", Schemas(model), tree=None, settings=SETTINGS)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert read == pieces * 20_000
    assert peaks[1] < 2 * peaks[0] + 1_000_000


def test_paths_do_not_leak(write: Callable[..., Path]) -> None:
    path = write(MET=None)
    with pytest.raises(ServeError) as error:
        list(tables(path))
    assert not re.search(re.escape(str(path.parent)), str(error.value))


AWKWARD = Path(__file__).parents[2] / "data" / "awkward.root"


def test_what_a_model_needs_is_read_beside_branches_and_trees_that_cant_be_used() -> None:
    manifest = manifest_of(flat("x"), flat("d"), fixed("fix", 3), jagged("v", "v"))
    (table,) = rootfile.tables(AWKWARD, Schemas(manifest), tree="Events", settings=SETTINGS)
    assert table.num_events == 30
    np.testing.assert_array_equal(table.columns["x"], np.arange(30))
    (table,) = rootfile.tables(AWKWARD, Schemas(manifest_of(flat("x"))), tree="short", settings=SETTINGS)
    assert table.num_events == 30


@pytest.mark.parametrize(
    ("tree", "branch", "reason"),
    [
        ("Events", jagged("tau", "jets"), "it holds 2 columns, which have names of their own"),
        ("Events", flat("fn"), "uproot can't interpret fn"),
        ("Events", jagged("dn", "jets"), "its numbers are stored in the range"),
        ("Events", flat("m"), "it holds no numbers itself"),
        ("short", flat("late"), "it has 10 entries, its tree 30"),
    ],
)
def test_a_needed_branch_that_cant_be_used_is_named_with_the_reason(tree: str, branch: Any, reason: str) -> None:
    with pytest.raises(InvalidEvents, match=rf"branch '{branch.name}' can't be used: {reason}") as error:
        list(rootfile.tables(AWKWARD, Schemas(manifest_of(flat("x"), branch)), tree=tree, settings=SETTINGS))
    assert error.value.field == branch.name


def test_a_tree_that_names_other_files_is_none() -> None:
    with pytest.raises(InvalidEvents, match=r"tree 'chain' of the file can't be used: it is a TChain") as error:
        list(rootfile.tables(AWKWARD, Schemas(manifest_of(flat("x"))), tree="chain", settings=SETTINGS))
    assert error.value.field == "tree"
    assert str(AWKWARD.parent) not in str(error.value)

"""Both clients against the real server."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from models import make_bundle
from running import columns, end, free_port, start
from servers import SOURCE, Handle, poll

import serve.client
from rootdata.bundle import manifest as bundles
from serve.client import packing
from serve.client.asynchronous import AsyncClient
from serve.client.errors import ServerError, Unreachable
from serve.client.waiting import Client
from serve.upload import archives


def write(path: Path, events: dict[str, Any], *, step: int = 20_000) -> Path:
    """Write events as NanoAOD does: one branch for each property of the jets."""
    jets = events["Jet"]
    flat = {"HT": events["HT"], "MET_pt": events["MET_pt"], "Jet_pt": jets.pt, "Jet_eta": jets.eta}
    with uproot.recreate(path) as file:
        types = {n: c.dtype if isinstance(c, np.ndarray) else ak.type(c).content for n, c in flat.items()}
        file.mktree("Events", types)
        for low in range(0, len(flat["HT"]), step):
            file["Events"].extend({n: c[low : low + step] for n, c in flat.items()})
    return path


def as_dicts(events: dict[str, Any]) -> list[dict[str, Any]]:
    jets = events["Jet"]
    rows = zip(events["HT"], events["MET_pt"], jets.pt, jets.eta, strict=True)
    return [{"HT": h, "MET_pt": m, "Jet_pt": p, "Jet_eta": e} for h, m, p, e in rows]


def test_every_way_to_give_events_gives_the_same_scores(client: Client, tmp_path: Path) -> None:
    events = columns(300)
    path = write(tmp_path / "events.root", events)
    expected = client.predict("ttH", events)
    assert (expected.model, expected.version, expected.columns) == ("ttH", 1, ("signal",))
    assert expected.scores.shape == (300, 1)
    assert expected.scores.dtype == np.float32
    assert np.ptp(expected["signal"]) > 0.1
    record = ak.zip(events, depth_limit=1)
    for given in (as_dicts(events), record, path, str(path)):
        np.testing.assert_allclose(client.predict("ttH", given).scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(client.predict("ttH", events, explain=True).scores, expected.scores, atol=1e-6)


def test_the_scores_are_those_of_the_graph(client: Client, bundle: Path) -> None:
    parity = bundles.open_bundle(bundle).parity
    assert parity is not None
    scores = client.predict("ttH", dict(parity.columns))
    np.testing.assert_allclose(scores.scores, parity.scores, atol=1e-6)


@pytest.mark.parametrize("kind", ["columns", "dicts"])
def test_cutting_changes_nothing(kind: str, server: Handle, client: Client) -> None:
    events: Any = columns(50)
    if kind == "dicts":
        events = as_dicts(events)
    whole = client.predict("ttH", events, explain=True)
    with Client(server.url, events_per_request=7) as cutting:
        parts = cutting.predict("ttH", events, explain=True)
        plain = cutting.predict("ttH", events)
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    np.testing.assert_allclose(plain.scores, whole.scores, atol=1e-6)
    assert parts.explain == whole.explain
    assert len(whole.explain or ()) == 50


def test_no_events_have_no_scores(client: Client) -> None:
    for events in ([], columns(0)):
        scores = client.predict("ttH", events)
        assert (len(scores), scores.columns) == (0, ("signal",))


def test_explain_tells_what_is_unlike_training(client: Client) -> None:
    event = {"HT": 9e3, "MET_pt": 1.0, "Jet_pt": [1.0] * 12, "Jet_eta": [0.0] * 12}
    [told] = client.predict("ttH", [event], explain=True).explain or ()
    assert told["outside"]["HT"]["value"] == 9e3
    assert told["truncated"] == {"jets": {"objects": 12, "kept": 10}}


@pytest.mark.parametrize(
    ("events", "status", "words", "field", "event"),
    [
        ([{"HT": 1.0}], 422, "'MET_pt' is missing in event 0", "MET_pt", 0),
        (
            {"HT": [1.0], "MET_pt": [1.0], "Jet_pt": [[1.0]], "Jet_et": [[1.0]]},
            422,
            "nearest: 'Jet_eta'",
            "Jet_et",
            None,
        ),
        ({"HT": [1.0], "MET_pt": [1.0], "Jet_pt": [[1.0]], "Jet_eta": [[]]}, 422, "'Jet_eta' of event 0", "Jet_eta", 0),
        (
            {"HT": [[1.0]], "MET_pt": [1.0], "Jet_pt": [[1.0]], "Jet_eta": [[1.0]]},
            422,
            "one number an event",
            "HT",
            None,
        ),
    ],
)
def test_wrong_events_are_told_with_their_place(
    events: Any, status: int, words: str, field: str, event: int | None, client: Client
) -> None:
    with pytest.raises(ServerError, match=words) as caught:
        client.predict("ttH", events)
    assert (caught.value.status, caught.value.field, caught.value.event) == (status, field, event)
    assert "/models/ttH/predict" in str(caught.value)


def test_missing_values_reach_the_model_as_such(client: Client, tmp_path: Path) -> None:
    # This test model is undefined for them, so that the server can say in which event they are.
    events = columns(30)
    events["HT"][17] = np.nan
    dicts = as_dicts(events)
    dicts[17]["HT"] = None
    for given in (events, dicts, write(tmp_path / "events.root", events)):
        with pytest.raises(ServerError, match="event 17") as caught:
            client.predict("ttH", given)
        assert caught.value.event == 17


def test_an_unknown_model_names_the_nearest(client: Client) -> None:
    with pytest.raises(ServerError, match="'tth' not found; nearest: 'ttH'") as caught:
        client.predict("tth", [])
    assert (caught.value.status, caught.value.code) == (404, "unknown_model")
    for options in ({"version": 99}, {"alias": "production"}):
        with pytest.raises(ServerError) as caught:
            client.predict("ttH", [], **options)
        assert caught.value.status == 404


def test_a_model_from_upload_to_trash(client: Client, bundle: Path, tmp_path: Path) -> None:
    version = client.upload("life", bundle, tags=["b-jets"])
    client.set_alias("life", "production", version)
    client.add_tag("life", "run3")
    card = client.card("life")
    assert (card["latest"], card["aliases"], card["tags"]) == (version, {"production": version}, ["b-jets", "run3"])
    assert client.card("life", version)["manifest"]["author"] == "Marie"
    assert client.predict("life", columns(3), alias="production").version == version
    names = [[m["name"] for m in found] for found in (client.models(), client.search(tag="run3"))]
    assert names == [["life", "ttH"], ["life"]]
    assert [m["name"] for m in client.search(feature="Jet_pt", min_auc=0.89, bounds={"max_auc": 0.91})] == [
        "life",
        "ttH",
    ]
    assert client.search(min_auc=0.91) == []
    folder = client.download("life", into=tmp_path / "copy")
    assert bundles.open_bundle(folder).columns == ("signal",)
    client.remove_tag("life", "run3")
    with pytest.raises(ServerError, match="alias"):
        client.delete("life", version)
    client.delete_alias("life", "production")
    client.delete("life")
    client.restore("life")
    assert client.card("life")["tags"] == ["b-jets"]
    client.delete("life")
    assert [m["name"] for m in client.models()] == ["ttH"]


def test_a_graph_alone_is_published_with_the_names_of_its_features(client: Client, tmp_path: Path) -> None:
    graph = make_bundle(tmp_path / "b") / bundles.MODEL
    client.upload("alone", graph, features=["HT", "MET_pt"], columns=["signal"], batching="none")
    scores = client.predict("alone", {"HT": [431.0], "MET_pt": [20.0]})
    assert scores.columns == ("signal",)
    assert client.card("alone", version=1)["manifest"]["batching"] == "none"
    client.delete("alone")


def test_a_bad_upload_says_why(client: Client, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / bundles.MODEL).write_bytes(b"no graph")
    with pytest.raises(ServerError) as caught:
        client.upload("bad", folder)
    assert (caught.value.status, caught.value.code) == (422, "invalid_model")


def test_the_client_packs_what_the_check_and_the_repository_take() -> None:
    assert set(bundles.BUNDLE_FILES) < set(packing.FILES)
    assert set(packing.FILES) == set(archives.BUNDLE) - {archives.PARAMS}  # which is TFaaS's own


def test_weights_are_not_compressed_on_the_way(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    with packing.packed(folder) as archive, tarfile.open(archive, "r:") as tar:  # a plain one
        assert {"model.onnx", "manifest.json"} <= set(tar.getnames())


def test_a_file_is_scored_into_a_file(client: Client, tmp_path: Path) -> None:
    events = columns(500)
    path = write(tmp_path / "events.root", events)
    expected = client.predict("ttH", events)["signal"]
    assert client.predict_file("ttH", path, tmp_path / "scores.root", version=1) == tmp_path / "scores.root"
    with uproot.open(tmp_path / "scores.root") as file:
        np.testing.assert_allclose(file["scores"]["score_signal"].array(library="np"), expected, atol=1e-6)
    client.predict_file("ttH", path, tmp_path / "scores.arrow", tree="Events")
    import pyarrow as pa

    with pa.ipc.open_stream(tmp_path / "scores.arrow") as stream:
        np.testing.assert_allclose(stream.read_all()["signal"].to_numpy(), expected, atol=1e-6)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(ServerError, match=r"tree 'Event' not found.*nearest: 'Events'"):
        client.predict_file("ttH", path, tmp_path / "other.root", tree="Event")
    assert not (tmp_path / "other.root").exists()


MEMORY = """
import resource, sys
from serve.client.waiting import Client
with Client(sys.argv[1]) as client:
    client.is_ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    client.predict_file("ttH", sys.argv[2], sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_large_files_pass_through_in_constant_memory(server: Handle, tmp_path: Path) -> None:
    path = write(tmp_path / "events.root", columns(250_000), step=50_000)
    assert path.stat().st_size > 8e6
    words = [sys.executable, "-c", MEMORY, server.url, str(path), str(tmp_path / "scores.root")]
    grown = int(
        subprocess.run(words, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True).stdout
    )
    with uproot.open(tmp_path / "scores.root") as file:
        assert file["scores"].num_entries == 250_000
    assert grown < 4_000  # KB, half of what is sent


def test_the_async_client_does_the_same(server: Handle, client: Client, tmp_path: Path) -> None:
    events = columns(100)
    expected = client.predict("ttH", events).scores

    async def ask() -> Any:
        async with AsyncClient(server.url) as asked:
            await asked.wait_until_ready(10)
            many = await asyncio.gather(*(asked.predict("ttH", events) for _ in range(20)))
            path = write(tmp_path / "events.root", events)
            await asked.predict_file("ttH", path, tmp_path / "scores.root")
            many.append(await asked.predict("ttH", path))
            version = await asked.upload("async", make_bundle(tmp_path / "b"), batching="none")
            await asked.set_alias("async", "a", version)
            await asked.delete_alias("async", "a")
            await asked.add_tag("async", "t")
            await asked.remove_tag("async", "t")
            await asked.download("async", into=tmp_path / "copy")
            found = [await asked.models(), await asked.search(text="async"), await asked.card("async")]
            await asked.delete("async")
            await asked.restore("async")
            await asked.delete("async")
            return many, found

    many, (models, searched, card) = asyncio.run(ask())
    for scores in many:
        np.testing.assert_allclose(scores.scores, expected, atol=1e-6)
    assert [m["name"] for m in models] == ["async", "ttH"]
    assert searched == [card]
    with uproot.open(tmp_path / "scores.root") as file:
        np.testing.assert_allclose(file["scores"]["score_signal"].array(library="np"), expected[:, 0], atol=1e-6)


@pytest.mark.long
def test_the_trash_is_emptied(server: Handle, client: Client, bundle: Path) -> None:
    from serve.client.__main__ import main

    def throw_away() -> None:
        client.upload("rubbish", bundle)
        client.delete("rubbish")

    throw_away()
    assert client.purge(days=1) == 0
    assert client.purge() >= 1
    throw_away()

    async def purge() -> int:
        async with AsyncClient(server.url) as other:
            return await other.purge(max_bytes=0)

    assert asyncio.run(purge()) == 1
    throw_away()
    assert main(["--url", server.url, "purge"]) == 0
    with pytest.raises(ServerError, match="not in the trash"):
        client.restore("rubbish")


def test_both_clients_have_the_same_surface() -> None:
    def surface(kind: type) -> dict[str, str]:
        members = inspect.getmembers(kind, inspect.isfunction)
        return {n: str(inspect.signature(f)) for n, f in members if not n.startswith("_") or n == "__init__"}

    assert surface(Client) == surface(AsyncClient)
    assert all(inspect.iscoroutinefunction(getattr(AsyncClient, n)) for n in surface(Client) if n != "__init__")


@pytest.mark.long
def test_keys_open_what_their_scope_allows(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, bundle: Path
) -> None:
    from serve.keys import Keys

    keys = Keys(tmp_path / "keys")
    key = keys.create("marie", scope="predict")
    words = [tmp_path / "models", "--publish", f"ttH={bundle}", "--keys", str(tmp_path / "keys")]
    handle = start(tmp_path_factory.mktemp("s"), *words)
    try:
        with Client(handle.url, key=key) as client:
            client.wait_until_ready(60)
            assert len(client.predict("ttH", columns(2))) == 2
            with pytest.raises(ServerError, match="ask for a key with that scope") as caught:
                client.delete("ttH")
            assert caught.value.status == 403
        for wrong in (None, "rk_wrong"):
            with Client(handle.url, key=wrong) as client, pytest.raises(ServerError, match="ROOTDATA_KEY") as caught:
                client.predict("ttH", columns(2))
            assert caught.value.status == 401
    finally:
        end(handle)


@pytest.mark.long
def test_a_restart_is_ridden_out(tmp_path: Path, bundle: Path) -> None:
    port, events = free_port(), columns(20)
    handle = start(tmp_path / "a", tmp_path / "models", "--publish", f"ttH={bundle}", port=port)
    stop, scores, errors = threading.Event(), [], []

    def ask() -> None:
        with Client(handle.url, timeout=60, retries=100) as client:
            while not stop.is_set():
                try:
                    scores.append(client.predict("ttH", events).scores)
                except Exception as error:  # noqa: BLE001 - none is expected; the test shows it
                    errors.append(error)
                    return

    with Client(handle.url) as client:
        client.wait_until_ready(60)
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            poll(lambda: len(scores) > 20 or errors, seconds=60)
            handle.stop()
            assert not client.is_ready()
            again = start(tmp_path / "b", tmp_path / "models", port=port)
            try:
                before = len(scores)
                poll(lambda: len(scores) > before + 20 or errors, seconds=60)
                stop.set()
                thread.join(60)
            finally:
                end(again)
        finally:
            stop.set()
            thread.join(60)
            end(handle)
    assert errors == []
    for got in scores[1:]:
        np.testing.assert_array_equal(got, scores[0])


def test_waiting_for_nobody_ends() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client:
        assert not client.is_ready()
        with pytest.raises(Unreachable, match=f"{url}: not ready within 0.3 s"):
            client.wait_until_ready(0.3)


def test_scores_know_their_columns(client: Client) -> None:
    scores = client.predict("ttH", columns(3))
    assert scores["signal"].shape == (3,)
    with pytest.raises(KeyError, match="'signl' not found; nearest: 'signal'"):
        scores["signl"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.version = 2  # type: ignore[misc]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_client_needs_httpx_and_numpy_alone() -> None:
    third = loaded_by("from serve.client import Client, AsyncClient, Scores, ServerError")
    known = loaded_by("import httpx, numpy") | {"rootdata", "serve"} | set(sys.stdlib_module_names)
    assert {m for m in third - known if not m.startswith("_")} == set()
    assert loaded_by("import serve.client, serve.client.errors") & {"numpy", "httpx"} == set()


def test_the_facade_offers_what_it_says() -> None:
    names = ["AsyncClient", "Client", "ClientError", "InvalidInput", "Scores", "ServerError", "Unreachable"]
    assert serve.client.__all__ == dir(serve.client) == names
    assert [getattr(serve.client, n).__name__ for n in names] == names
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        serve.client.nothing  # noqa: B018

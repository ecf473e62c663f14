"""What whoever runs the server has to mend is told as what it is, by the command line and over HTTP alike."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import httpx
import models
import numpy as np
import onnx
import pytest
import uproot
from servers import poll

from rights_for_tests import NOBODY, be_nobody, heed_rights, run, skip_where_rights_mean_nothing
from rootdata.errors import MachineError
from serve.errors import OutOfOrder, Overloaded
from serve.faults import fault_of, public
from serve.models.engine import failed
from serve.models.repository import Repository
from serve.upload import check as uploads

BODY = {"events": [{"HT": 400.0, "MET_pt": 30.0}]}


def test_faults_of_the_server_have_their_status():
    assert isinstance(fault_of(PermissionError(13, "Permission denied", "/srv/models/x")), OutOfOrder)
    assert isinstance(fault_of(ImportError("No module named 'onnxruntime'")), OutOfOrder)
    full = fault_of(OSError(28, "No space left on device"))
    assert isinstance(full, Overloaded)
    assert full.code == "no_room"
    assert fault_of(MemoryError()).code == "no_resources"
    for bug in (TypeError("no"), ZeroDivisionError(), KeyError("x")):
        assert fault_of(bug) is None
        assert json.loads(failed(bug).body)["error"]["code"] == "internal"


def test_a_lack_of_the_machine_is_not_what_was_sent():
    error = MachineError("entries 0 to 5 can't be read")
    error.__cause__ = MemoryError()
    reply = failed(error)
    assert reply.status == 503
    assert "not enough memory" in reply.body.decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Permission denied: /srv/models/ttH/1/model.onnx", "Permission denied: model.onnx"),
        (f"Permission denied: /srv/.staging/.config.json.{'0a' * 16}", "Permission denied: config.json"),
        (f"Permission denied: /srv/.staging/{'0a' * 16}", "Permission denied"),
        ("a/b is no folder", "a/b is no folder"),
    ],
)
def test_folders_of_the_server_are_left_out(text, shown):
    assert public(text) == shown


def put_graph(version, content):
    """Replace the graph of a published version, and what its manifest says of it."""
    for name in ("model.onnx", "manifest.json"):
        (version / name).chmod(0o644)
    (version / "model.onnx").write_bytes(content)
    manifest = json.loads((version / "manifest.json").read_text())
    manifest |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (version / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def repository(tmp_path):
    """A folder of models, most of which somebody has spoilt."""
    skip_where_rights_mean_nothing(tmp_path)
    folder, bundle = tmp_path / "repo", models.make_bundle(tmp_path / "bundle")
    for name in ("good", "short", "zeros", "secret", "silent", "operator", "closed"):
        Repository(folder).publish(bundle, name)
    graph = folder / "good" / "1" / "model.onnx"
    (folder / "short" / "1" / "model.onnx").chmod(0o644)
    (folder / "short" / "1" / "model.onnx").write_bytes(graph.read_bytes()[:50])
    put_graph(folder / "zeros" / "1", bytes(len(graph.read_bytes())))
    model = onnx.load(graph)
    model.graph.node[0].op_type = "NoSuchOperator"
    put_graph(folder / "operator" / "1", model.SerializeToString())
    (folder / "secret" / "1" / "model.onnx").chmod(0)
    (folder / "silent" / "1" / "manifest.json").chmod(0)
    (folder / "closed").chmod(0)
    yield folder
    for path in (folder, *folder.glob("*/")):
        path.chmod(0o755)


def start(start_server, repository, *words, **environment):
    return start_server(
        ["-m", "serve", str(repository), "--port", "0", *words], environment=environment, first=heed_rights
    )


def said(answer):
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


def check(answer, status, *words):
    assert answer.status_code == status, answer.text[:500]
    assert all(word in said(answer) for word in words), answer.text
    assert "internal error" not in answer.text


def test_models_and_folders_that_can_not_be_read_are_told(start_server, repository):
    handle = start(start_server, repository)
    with httpx.Client(base_url=handle.url, timeout=60) as client:

        def predict(name):
            return client.post(f"/models/{name}/predict", json=BODY)

        assert predict("good").status_code == 200
        check(predict("short"), 422, "model.onnx has 50 bytes")
        check(predict("zeros"), 422, "can't be loaded by onnxruntime", "Protobuf", "publish it anew")
        check(predict("operator"), 422, "can't be loaded by onnxruntime", "NoSuchOperator", "update the runtime")
        check(predict("secret"), 503, "Permission denied: model.onnx", "whoever runs it has to mend that")
        check(predict("silent"), 422, "manifest.json", "Permission denied")
        check(predict("closed"), 503, "Permission denied: config.json")
        check(client.get("/models"), 503, "Permission denied: config.json")
        check(client.get("/models/secret/versions/1/model.onnx"), 503, "Permission denied")
        assert predict("good").status_code == 200
        repository.chmod(0)
        check(predict("good"), 503, "Permission denied")
        check(client.post("/v2/repository/index"), 503, "Permission denied")
        repository.chmod(0o755)
        assert predict("good").status_code == 200
    log = handle.log.read_text()
    assert "Traceback" not in log
    assert f"Permission denied: {repository}/closed" in log  # whoever runs the server is told where


def all_changes(client, bundle):
    """Return all that changes a repository, by name."""
    form = {"name": (None, "formed"), "model": ("m.onnx", (bundle / "model.onnx").read_bytes())}
    return {
        "publish": lambda: client.post("/models/good/versions", content=packed(bundle)),
        "publish new": lambda: client.put("/models/new/versions", content=packed(bundle)),
        "form": lambda: client.post("/upload", files=form),
        "alias": lambda: client.put("/models/good/aliases/best", json={"version": 1}),
        "no alias": lambda: client.delete("/models/good/aliases/kept"),
        "tag": lambda: client.put("/models/good/tags/new"),
        "no tag": lambda: client.delete("/models/good/tags/kept"),
        "delete": lambda: client.delete("/models/short"),
        "delete version": lambda: client.delete("/models/short/versions/1"),
        "old delete": lambda: client.delete("/delete/short"),
        "restore": lambda: client.post("/models/gone/restore"),
        "purge": lambda: client.delete("/trash"),
        "unload": lambda: client.post("/v2/repository/models/good/unload"),
        "load": lambda: client.post("/v2/repository/models/good/load"),
    }


def with_something_to_change(repository):
    made = Repository(repository)
    made.set_alias("good", "kept", 1)
    made.add_tags("good", ["kept"])
    made.publish(repository.with_name("bundle"), "gone")
    made.delete("gone")


@pytest.mark.long
def test_another_user_than_its_owner_serves_a_folder_that_it_may_only_read(start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("r")
    own = folder / "own"
    own.mkdir()
    Repository(folder / "repo").publish(models.make_bundle(folder / "bundle"), "flat")
    if os.geteuid() == 0:
        os.chown(own, NOBODY, NOBODY)
    for path in (folder / "repo", *(folder / "repo").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    server = start_server(
        ["-m", "serve", str(folder / "repo"), "--port", "0"],
        environment={"TMPDIR": str(own), "HOME": "/nowhere"},
        first=be_nobody,
    )
    user = Path(f"/proc/{server.pid}").stat().st_uid
    assert user == (os.geteuid() or NOBODY)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.post("/models/flat/predict", json=BODY).status_code == 200
        assert [card["name"] for card in client.get("/models").json()] == ["flat"]
        assert client.get("/").status_code == 200
        graph = (folder / "bundle" / "model.onnx").read_bytes()
        for answer in (
            client.post("/models/flat/versions", content=graph),
            client.put("/models/flat/aliases/best", json={"version": 1}),
            client.delete("/models/flat"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only"), answer.text
            assert str(folder) not in answer.text
        assert client.get("/health/ready").status_code == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_repository_that_may_not_be_changed_says_403(start_server, repository, tmp_path):
    with_something_to_change(repository)
    handle = start(start_server, repository)
    with httpx.Client(base_url=handle.url, timeout=60) as client:
        changes = all_changes(client, tmp_path / "bundle")
        for name in (".staging", ".lock"):
            path = repository / name
            mode = path.stat().st_mode
            path.chmod(0o500 if path.is_dir() else 0)
            for what, change in changes.items():
                if name == ".staging" and what in {"restore", "purge"}:
                    continue  # may be done without
                check(change(), 403, "the models can't be changed (Permission denied", "may let it write there")
            path.chmod(mode)
        assert client.post("/models/good/predict", json=BODY).status_code == 200
        assert changes["tag"]().status_code == 200
    log = handle.log.read_text()
    assert "Traceback" not in log
    assert f"Permission denied: {repository}/.lock" in log  # whoever runs the server is told where


@pytest.mark.long
@pytest.mark.parametrize("is_full", [True, False])
def test_a_disk_that_is_full_or_read_only(start_server, small_disk, repository, tmp_path, is_full):
    folder = small_disk / "repo"
    with_something_to_change(repository)
    shutil.copytree(repository, folder, ignore=lambda _, names: {"closed", "secret", "silent"} & set(names))
    handle = start_server(["-m", "serve", str(folder), "--port", "0"])
    with httpx.Client(base_url=handle.url, timeout=60) as client:
        assert client.post("/models/good/predict", json=BODY).status_code == 200
        if is_full:
            fill(small_disk, leave=0)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        for name, change in all_changes(client, tmp_path / "bundle").items():
            answer = change()
            if is_full and name in {"restore", "purge"} and answer.is_success:
                continue  # which take no room
            words = "No space left on device" if is_full else "the models can't be changed (Read-only file system"
            check(answer, 507 if is_full else 403, words)
            assert "retry-after" not in answer.headers
        assert client.get("/models").status_code == 200
        assert client.post("/models/good/predict", json=BODY).status_code == 200
    assert "Traceback" not in handle.log.read_text()


@pytest.mark.long
def test_something_else_in_the_way_says_409(start_server, repository, tmp_path):
    handle = start(start_server, repository)
    (repository / "new").write_text("a file of somebody")
    (repository / "good" / "config.json").mkdir()
    with httpx.Client(base_url=handle.url, timeout=60) as client:
        check(client.put("/models/new/versions", content=packed(tmp_path / "bundle")), 409, "File exists: new")
        check(client.put("/models/good/tags/new"), 409, "config.json")
        check(client.put("/models/good/aliases/best", json={"version": 1}), 409, "config.json")
    assert "Traceback" not in handle.log.read_text()


def packed(bundle):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in ("model.onnx", "manifest.json"):
            archive.add(bundle / name, name)
    return content.getvalue()


@pytest.fixture
def small_disk():
    """A file system of 8 MB."""
    folder = Path(tempfile.mkdtemp(prefix="d-"))  # not below pytest's folder: the names of sockets would be too long
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("NO MOUNT: the tests may not mount a small file system; nothing of full disks was tested")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def fill(folder, *, leave):
    (folder / "filling").unlink(missing_ok=True)
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filling").write_bytes(bytes(max(0, free - leave)))


def test_a_disk_that_is_full_when_an_upload_is_checked(small_disk):
    folder = small_disk / "upload"
    folder.mkdir()
    onnx.save_model(models.flat_graph(), folder / "model.onnx")
    fill(small_disk, leave=0)  # there is no room for the manifest
    with pytest.raises(Overloaded, match=r"No space left on device: manifest\.json") as told:
        uploads.check(folder)
    assert told.value.code == "no_room"  # whence 507


@pytest.mark.long
def test_full_disks_are_told_and_predictions_go_on(start_server, repository, small_disk, tmp_path):
    events = {name: np.full(200_000, 30, "f4") for name in ("HT", "MET_pt")}
    with uproot.recreate(tmp_path / "e.root", compression=uproot.ZLIB(1)) as file:
        file.mktree("Events", dict.fromkeys(events, "f4"))
        file["Events"].extend(events)
    content = (tmp_path / "e.root").read_bytes()
    headers = {"Content-Type": "application/x-root", "Accept": "application/x-root"}
    handle = start(start_server, repository, TMPDIR=str(small_disk))
    with httpx.Client(base_url=handle.url, timeout=90) as client:

        def score():
            return client.post("/models/good/predict", content=content, headers=headers)

        assert score().status_code == 200
        poll(lambda: not list(small_disk.glob("serve-*/body-*")))  # the answer goes a moment after it was sent
        fill(small_disk, leave=len(content) + 100_000)  # room for the events, and not for their scores
        check(score(), 503, "No space left on device")
        fill(small_disk, leave=len(content) * 2 // 3)  # not even for the events
        check(score(), 503, "No space left on device")
        assert client.post("/models/good/predict", json=BODY).status_code == 200
    assert "Traceback" not in handle.log.read_text()


@pytest.mark.long
def test_a_check_that_can_say_nothing_because_the_disk_is_full_blames_the_disk(small_disk, tmp_path, monkeypatch):
    bundle = models.make_bundle(tmp_path / "bundle")
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    fill(small_disk, leave=0)
    with pytest.raises(OSError, match="No space left on device"):
        uploads.check(bundle)


@pytest.mark.long
def test_a_runtime_that_can_not_be_imported_is_told(start_server, repository, tmp_path):
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "onnxruntime.py").write_text("raise ImportError('libonnxruntime.so.1: cannot open it')\n")
    paths = os.pathsep.join([str(tmp_path / "absent"), str(Path(__file__).parents[2] / "src")])
    handle = start(start_server, repository, PYTHONPATH=paths)
    with httpx.Client(base_url=handle.url, timeout=60) as client:
        check(client.post("/models/good/predict", json=BODY), 503, "libonnxruntime.so.1")
        answer = client.post("/models/new/versions", content=packed(tmp_path / "bundle"))
        check(answer, 503, "the check could not be run", "libonnxruntime.so.1")


# The command line


@pytest.fixture
def scene(tmp_path):
    """A folder with what the command line can't use."""
    skip_where_rights_mean_nothing(tmp_path)
    models.make_bundle(tmp_path / "bundle")
    (tmp_path / "read-only").mkdir(mode=0o555)
    (tmp_path / "file").touch()
    (tmp_path / "keys").touch(mode=0)
    (tmp_path / "garbage").write_text("no key\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("read-only/models", "--port", "0"), ("Permission denied: read-only/models",)),
        (("file", "--port", "0"), ("File exists: file", "check the name")),
        (("file/models", "--port", "0"), ("Not a directory: file/models", "check the path")),
        (("repo", "--port", "0", "--keys", "keys"), ("Permission denied: keys",)),
        (("repo", "--port", "0", "--keys", "garbage"), ("garbage, line 1: this is no API key",)),
        (("keys", "list", "keys"), ("Permission denied: keys",)),
        (("keys", "add", "read-only/keys", "me"), ("Permission denied",)),
        (("publish", "read-only", "m", "bundle"), ("Permission denied",)),
    ],
    ids=lambda x: " ".join(x),
)
def test_the_command_line_tells_in_one_sentence_what_is_in_its_way(scene, words, told):
    script = "import sys; from serve.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = run(["-c", script, *words], cwd=scene)
    assert done.returncode == 2, done.stderr
    assert all(word in done.stderr for word in told), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1

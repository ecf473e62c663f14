import glob
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from files_for_tests import listed, make_events, write
from hypothesis import given
from hypothesis import strategies as st
from servers_for_tests import HTTPServer, Proxy, S3Server, XRootDServer, eventually, free_port, xrootd

from lanes_for_tests import thinned
from rootdata.errors import BranchError, FileError
from rootdata.io import files, remote
from rootdata.io.files import find, state_of, states_of
from rootdata.io.remote import Pieces, in_requests, joined
from rootdata.io.tree_pool import TreePool
from rootdata.io.trees import open_tree
from rootdata.loading.dataset import RootDataset
from rootdata.location import Location, State
from rootdata.options.read import ReadConfig

KINDS = ("TTree", "RNTuple")
NAMES = ["met", "event", "Jet_pt"]
EVENTS, STEP = 3000, 300
BLOCKS = [(low, low + STEP) for low in range(0, EVENTS, STEP)]
ranges = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50)).map(lambda p: (p[0], p[0] + p[1])), max_size=20)


@given(ranges, st.integers(0, 40))
def test_joined_ranges_hold_all_and_lie_apart(asked, gap):
    wide = joined(asked, gap=gap)
    assert all(any(low <= a and b <= high for low, high in wide) for a, b in asked)
    assert all(b[0] - a[1] > gap for a, b in itertools.pairwise(wide))
    assert {x for r in wide for x in r} <= {x for r in asked for x in r}


@given(ranges, st.integers(1, 200))
def test_requests_hold_every_range_once_in_order_and_are_bounded(asked, limit):
    groups = list(in_requests(asked, limit=limit))
    assert [r for g in groups for r in g] == asked
    assert all(len(g) == 1 or sum(b - a for a, b in g) <= limit for g in groups)


@given(ranges, st.integers(0, 540), st.integers(0, 60))
def test_pieces_give_what_lies_in_one_of_them(asked, start, length):
    whole = bytes(i % 251 for i in range(600))
    wide = joined(asked, gap=0)
    found = Pieces([(a, whole[a:b]) for a, b in wide]).get(start, start + length)
    if any(a <= start and start + length <= b for a, b in wide) and length:
        assert found is not None
    if found is not None:
        assert bytes(found) == whole[start : start + length]


def test_patterns_are_told_from_queries():
    assert remote.has_glob("root://h//a/*.root")
    assert remote.has_glob("https://h/a[0-3].root")
    assert not remote.has_glob("https://h/a.root?token=5")
    assert not remote.has_glob("root://[::1]:1094//a.root")


def test_an_unknown_protocol_and_an_absent_client_are_named(monkeypatch):
    with pytest.raises(FileError, match=r"carrier://a/f\.root: carrier:// can't be read .*known: root://"):
        open_tree(Location("carrier://a/f.root"))
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)  # where it is loaded already
    with pytest.raises(FileError, match=r"s3://b/f\.root: reading s3:// needs s3fs.*pip install 'rootdata\[remote\]'"):
        open_tree(Location("s3://b/f.root"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``sub/TTree.root`` and ``sub/RNTuple.root`` of the same events, in ten clusters."""
    made = tmp_path_factory.mktemp("served")
    for kind in KINDS:
        write(made / "sub" / f"{kind}.root", make_events(EVENTS), kind=kind, steps=range(STEP, EVENTS, STEP))
    return made


@pytest.fixture(scope="module")
def server(folder):
    with XRootDServer(folder) as running:
        yield running


@pytest.fixture(scope="module")
def web(folder):
    with HTTPServer(folder) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(folder):
    s3fs = pytest.importorskip("s3fs", reason="NO S3: nothing of s3:// was tested; pip install 'rootdata[remote,test]'")
    with S3Server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        disk = s3fs.S3FileSystem()
        disk.mkdir("events")
        for kind in KINDS:
            disk.put(str(folder / "sub" / f"{kind}.root"), f"events/sub/{kind}.root")
        yield running


SERVERS = [pytest.param("server", marks=xrootd), "web", "bucket"]


@pytest.fixture(params=SERVERS)
def base(request):
    """The address of the folder on each of the servers."""
    return request.getfixturevalue(request.param).url


def lists(columns):
    return {name: listed(values) for name, values in columns.items()}


def local(folder, kind, start=0, stop=EVENTS):
    return lists(open_tree(Location(str(folder / "sub" / f"{kind}.root"))).read(NAMES, start, stop))


def read(opener, location, block):
    return lists(opener.use(location, lambda tree: tree.read(NAMES, *block)))


def through(proxy, server, kind="TTree"):
    return Location(f"{server.url.replace(str(server.port), str(proxy.port))}/sub/{kind}.root")


@pytest.mark.parametrize("kind", KINDS)
def test_remote_events_equal_local_ones(base, folder, kind):
    where = Location(f"{base}/sub/{kind}.root")
    with TreePool() as opener:
        for block in [(0, EVENTS), (0, STEP), (450, 1234), (EVENTS - 1, EVENTS)]:
            assert read(opener, where, block) == local(folder, kind, *block)
        size, tree_edges = opener.use(where, lambda tree: (tree.state.size, tree.edges(NAMES)))
    assert size == (folder / "sub" / f"{kind}.root").stat().st_size
    assert tree_edges == list(range(0, EVENTS + 1, STEP))


def test_a_pattern_is_listed_where_the_server_can(base):
    found = find([f"{base}/sub/*.root:Events"])
    assert found == [Location(f"{base}/sub/{kind}.root", "Events") for kind in ("RNTuple", "TTree")]
    with pytest.raises(FileError, match=r"files: no file matches .*/sub/nothing\*\.root"):
        find([f"{base}/sub/nothing*.root"])


@pytest.mark.parametrize("pattern", ["*/*.root", "**/TTree.root", "s*/TTree.root", "**/*", "sub/[T]*", "**/sub/*.root"])
def test_patterns_mean_on_a_server_what_they_mean_on_a_disk(base, folder, pattern):
    here = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - a Path has no recursion of this kind
    expected = sorted(path for path in here if (folder / path).is_file())
    assert [where.path for where in find([f"{base}/{pattern}"])] == [f"{base}/{path}" for path in expected]


@xrootd
@pytest.mark.parametrize("pattern", ["*/f.root", "**/f.root"])
def test_a_folder_that_can_not_be_listed_is_no_empty_one(tmp_path, pattern):
    for name in ("open", "closed"):
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "f.root").touch()
    with XRootDServer(tmp_path / "files") as running:
        (tmp_path / "files" / "closed").chmod(0)
        try:
            with pytest.raises(FileError, match=r"/data/.*(closed|permission)"):
                find([f"{running.url}/{pattern}"], read=ReadConfig(patience=0))
        finally:
            (tmp_path / "files" / "closed").chmod(0o755)
        assert len(find([f"{running.url}/{pattern}"])) == 2


def test_a_state_changes_with_the_file(base, folder):
    where = Location(f"{base}/sub/TTree.root")
    size = (folder / "sub" / "TTree.root").stat().st_size
    assert state_of(where) == state_of(where)
    assert state_of(where).size == size
    assert state_of(where).version
    other = Location(f"{base}/sub/RNTuple.root")
    assert states_of([where, other, where]) == [state_of(where), state_of(other), state_of(where)]
    assert state_of(Location(where.path, replicas=(where.path,))) == State(size)  # copies have times of their own


def test_a_file_that_is_absent_is_said_at_once(base):
    began = time.monotonic()
    with TreePool() as opener, pytest.raises(FileError, match=r"/sub/no\.root does not exist; check the path$"):
        opener.use(Location(f"{base}/sub/no.root"), lambda tree: tree.num_entries)
    assert state_of(Location(f"{base}/sub/no.root")) == State()
    assert time.monotonic() - began < 10


def test_a_truncated_file_is_said_at_once(folder, web):
    content = (folder / "sub" / "TTree.root").read_bytes()
    (folder / "short.root").write_bytes(content[: len(content) // 2])
    (folder / "empty.root").write_bytes(b"")
    (folder / "text.root").write_bytes(b"no such thing\n" * 100)
    with TreePool() as opener:
        for name, message in {
            "short": r"the file is truncated: it has [\d,]+ of [\d,]+ bytes; replace",
            "empty": r"the file is empty; replace or remove",
            "text": r"this is not a ROOT file; replace or remove",
        }.items():
            with pytest.raises(FileError, match=rf"{name}\.root: {message}"):
                opener.use(Location(f"{web.url}/{name}.root"), lambda tree: tree.num_entries)
        # A whole copy is read instead.
        where = Location(f"{web.url}/short.root", replicas=(f"{web.url}/sub/TTree.root",))
        assert opener.use(where, lambda tree: tree.num_entries) == EVENTS


def test_a_server_without_parts_of_files_is_named(folder):
    message = r"sends the whole file .*\(HTTP Range\); copy the file, or write simplecache::http"
    with HTTPServer(folder, has_parts=False) as plain, TreePool() as opener:
        url = f"{plain.url}/sub/TTree.root"
        with pytest.raises(FileError, match=message):
            read(opener, Location(url), (0, EVENTS))
        assert read(opener, Location(f"simplecache::{url}"), (0, EVENTS)) == local(folder, "TTree")


@xrootd
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_costs_one_request(server, kind):
    tree = open_tree(Location(f"{server.url}/sub/{kind}.root"))
    tree.edges(NAMES)
    for name in NAMES:
        tree.describe(name)
    source = tree._file.file.source
    before = source.num_requests
    assert before <= 3
    for n, block in enumerate(BLOCKS, 1):
        tree.read(NAMES, *block)
        assert source.num_requests - before == n
    tree.close()


@xrootd
@pytest.mark.parametrize("kind", KINDS)
def test_events_come_through_a_long_line(server, folder, kind):
    with Proxy(server.port, delay=0.01) as proxy, TreePool() as opener:
        where = through(proxy, server, kind)
        read(opener, where, BLOCKS[0])
        began = time.monotonic()
        assert [read(opener, where, b) for b in BLOCKS] == [local(folder, kind, *b) for b in BLOCKS]
        assert time.monotonic() - began >= 0.02 * len(BLOCKS)  # the line is as long as it says
        assert time.monotonic() - began < 0.3 * len(BLOCKS)


@pytest.mark.long
@xrootd
@pytest.mark.parametrize("kind", KINDS)
def test_events_come_though_the_server_is_started_anew(folder, kind):
    with XRootDServer(folder) as own, TreePool() as opener:
        where = Location(f"{own.url}/sub/{kind}.root")
        assert read(opener, where, BLOCKS[0]) == local(folder, kind, *BLOCKS[0])
        own.stop()
        threading.Timer(1.0, own.start).start()
        began = time.monotonic()
        assert [read(opener, where, b) for b in BLOCKS] == [local(folder, kind, *b) for b in BLOCKS]
        assert 1 < time.monotonic() - began < 45


@pytest.mark.parametrize("name", SERVERS[:2])
def test_events_come_though_connections_are_cut(request, folder, name):
    line = request.getfixturevalue(name)
    with Proxy(line.port) as proxy, TreePool() as opener:
        where = through(proxy, line)
        read(opener, where, BLOCKS[0])
        for block in BLOCKS[:3]:
            proxy.cut_after = proxy.sent + 2000
            assert read(opener, where, block) == local(folder, "TTree", *block)
        assert proxy.cuts >= 2


@pytest.mark.long
@xrootd
def test_another_copy_is_read_where_one_server_is_dead(server, folder):
    dead = f"root://127.0.0.1:{free_port()}//data/sub/TTree.root"
    where = Location(dead, replicas=(f"{server.url}/sub/TTree.root",))
    with TreePool() as opener:
        assert read(opener, where, BLOCKS[0]) == local(folder, "TTree", *BLOCKS[0])
        began = time.monotonic()  # from now on that copy is the first that is tried
        assert [read(opener, where, b) for b in BLOCKS] == [local(folder, "TTree", *b) for b in BLOCKS]
        assert time.monotonic() - began < 5
        tree = opener.use(where, lambda tree: tree)
        assert (tree.location.path, tree.location.replicas) == (where.path, where.replicas)  # the name it goes by
        assert tree.place == where.replicas[0]


@pytest.mark.long
@pytest.mark.parametrize("name", SERVERS[:2])
def test_another_copy_is_read_where_one_server_is_silent(request, folder, name):
    line = request.getfixturevalue(name)
    with Proxy(line.port) as proxy, TreePool(ReadConfig(deadline=1.5)) as opener:
        where = Location(through(proxy, line).path, replicas=(str(folder / "sub" / "TTree.root"),))
        assert opener.use(where, lambda tree: tree.place) == where.path
        proxy.is_silent = True
        began = time.monotonic()
        assert read(opener, where, (100, 2000)) == local(folder, "TTree", 100, 2000)
        assert 1.5 <= time.monotonic() - began < 6


def test_what_is_no_copy_is_refused(folder, web):
    write(folder / "other.root", make_events(EVENTS, seed=1))
    where = Location(f"{web.url}/gone.root", replicas=(f"{web.url}/sub/TTree.root", f"{web.url}/other.root"))
    with TreePool() as opener:
        assert opener.use(where, lambda tree: tree.num_entries) == EVENTS
        opener._worked.clear()
        (folder / "gone.root").write_bytes((folder / "other.root").read_bytes())
        with pytest.raises(FileError, match=r"gone\.root is not a copy of .*TTree\.root: their UUIDs are .* and "):
            opener.use(where, lambda tree: tree.num_entries)
    (folder / "gone.root").unlink()


def test_patience_ends_with_one_error_that_tells_all():
    places = [f"http://127.0.0.1:{free_port()}/f.root" for _ in range(2)]
    message = rf"{places[0]} can't be reached .*{places[1]} can't be reached .*tried \d+ times in \d s at .*`patience`"
    began = time.monotonic()
    with TreePool(ReadConfig(patience=1)) as opener, pytest.raises(FileError, match=message):
        opener.use(Location(places[0], replicas=(places[1],)), lambda tree: tree.num_entries)
    assert time.monotonic() - began < 5


def test_what_the_action_raises_is_not_tried_again(web):
    asked = []

    def refuse(tree):
        asked.append(tree.place)
        raise FileError("the file has changed")

    where = Location(f"{web.url}/sub/TTree.root", replicas=(f"{web.url}/sub/RNTuple.root",))
    with TreePool() as opener:
        with pytest.raises(FileError, match=r"^the file has changed$"):
            opener.use(where, refuse)
        with pytest.raises(BranchError, match=r"branch 'mett' not found; nearest: 'met'"):
            opener.use(where, lambda tree: tree.read(["mett"], 0, 10))
    assert asked == [where.path]


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_closing_ends_an_attempt_at_once(web, kind):
    with Proxy(web.port) as proxy:
        proxy.is_silent = kind == "silent"
        where = through(proxy, web) if kind == "silent" else Location(f"http://127.0.0.1:{free_port()}/f.root")
        opener, errors = TreePool(), []

        def use():
            try:
                opener.use(where, lambda tree: tree.num_entries)
            except FileError as error:
                errors.append(str(error))

        thread = threading.Thread(target=use)
        thread.start()
        time.sleep(0.3)  # in the midst of it
        assert thread.is_alive()
        opener.close()
        thread.join(1)
        assert not thread.is_alive()
        assert "reading was ended" in errors[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_replaced_is_noticed(folder, web, kind):
    path = write(folder / "changing.root", make_events(EVENTS), kind=kind, steps=range(STEP, EVENTS, STEP))
    where = Location(f"{web.url}/changing.root")
    with TreePool() as opener:
        read(opener, where, BLOCKS[0])
        write(path, make_events(EVENTS, seed=1), kind=kind, steps=range(STEP, EVENTS, STEP))
        with pytest.raises(FileError, match=r"changing\.root was replaced by another file while it was read"):
            read(opener, where, BLOCKS[5])


ENDING = """
import sys
from rootdata.location import Location
from rootdata.io.tree_pool import TreePool
opener = TreePool()
def look(url):
    return opener.use(Location(url), lambda tree: len(tree.read(["met"], 0, tree.num_entries)["met"]))
print(look(sys.argv[1]), flush=True)
if len(sys.argv) > 2:
    sys.stdin.readline()
    look(sys.argv[1])
"""


def child(*arguments, first=""):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", first + ENDING, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])},
    )


@pytest.mark.long
@pytest.mark.parametrize("name", SERVERS[:1])
def test_the_interpreter_ends_quietly(request, name):
    # The XRootD client looks at every object at exit: at one of torch's too, which then warns.
    with child(f"{request.getfixturevalue(name).url}/sub/TTree.root", first="import torch\n") as process:
        assert process.stdout.readline() == f"{EVENTS}\n"
        began = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert time.monotonic() - began < 15


@pytest.mark.long
@xrootd
def test_control_c_is_answered_while_a_dead_server_is_tried(folder):
    with XRootDServer(folder) as own, child(f"{own.url}/sub/TTree.root", "again") as process:
        assert process.stdout.readline() == f"{EVENTS}\n"
        own.stop()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(1.5)  # in the midst of it
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert "KeyboardInterrupt" in errors
        assert time.monotonic() - began < 5


@pytest.mark.long
@xrootd
def test_forked_processes_read_what_their_parent_has_read(server, folder):
    code = f"""
import os
from rootdata.location import Location
from rootdata.io.tree_pool import TreePool
from rootdata.options.read import ReadConfig
where = Location({server.url + "/sub/TTree.root"!r})
def look():
    with TreePool(ReadConfig(patience=60, deadline=20)) as opener:
        return float(opener.use(where, lambda tree: tree.read(["met"], 0, {EVENTS})["met"].sum()))
status = 0
for _ in range(5):
    first = look()
    pid = os.fork()
    if not pid:
        os._exit(0 if look() == first else 1)
    status |= os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, first)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[2])},
    )  # fmt: skip
    status, total = done.stdout.split()
    assert status == "0", done.stderr
    assert float(total) == pytest.approx(np.sum(local(folder, "TTree")["met"]), rel=1e-5)


def batches(dataset):
    return [{k: v.tolist() for k, v in batch.items() if k in {"index", "x", "label"}} for batch in dataset]


def options(base, kind):
    return {
        "samples": {"all": {"files": f"{base}/sub/{kind}.root", "label": 0}},
        "classes": ["all", "none"],
        "flat": ["met", "event"],
        "split": {"train": 1.0},
        "batch_size": 256,
    }


@xrootd
@pytest.mark.parametrize("kind", thinned(KINDS))
def test_an_epoch_over_the_network_is_the_local_one(folder, kind, monkeypatch):
    monkeypatch.setattr(remote, "LOOK_SECONDS", 1.0)
    here = batches(RootDataset(options(folder, kind), index=True))
    assert sum(len(b["label"]) for b in here) == EVENTS
    with XRootDServer(folder) as own:
        dataset = RootDataset(options(own.url, kind), index=True, patience=60)
        own.stop()
        threading.Timer(0.5, own.start).start()
        assert batches(dataset) == here
        own.stop()
        with pytest.raises(FileError, match=r"tried \d+ times"):
            list(RootDataset(options(own.url, kind), specs=dataset.specs, patience=0.5))


@xrootd
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_from_the_cache_asks_the_server_for_nothing(server, folder, tmp_path, kind):
    here = batches(RootDataset(options(folder, kind), index=True))
    with Proxy(server.port, delay=0.01) as proxy:
        far = options(f"root://127.0.0.1:{proxy.port}//data", kind)
        dataset = RootDataset(far, index=True, cache={"dir": str(tmp_path / "blocks")})
        sent = proxy.sent  # the first pass has read every block
        assert batches(dataset) == here
        again = RootDataset(far, index=True, specs=dataset.specs, cache={"dir": str(tmp_path / "blocks")})
        assert batches(again) == here
        assert proxy.sent - sent < 5000  # sizes and times of files


def test_the_users_own_settings_win(monkeypatch, web):
    monkeypatch.setenv("XRD_REQUESTTIMEOUT", "77")
    monkeypatch.delenv("XRD_STREAMTIMEOUT", raising=False)
    remote.filesystem(f"{web.url}/a.root")
    assert os.environ["XRD_REQUESTTIMEOUT"] == "77"
    assert os.environ["XRD_STREAMTIMEOUT"] == remote.CLIENT_SETTINGS["XRD_STREAMTIMEOUT"]


def test_a_proxy_delays_cuts_and_falls_silent(web):
    # What the tests above lean on.
    import urllib.request

    with Proxy(web.port, delay=0.1) as proxy:
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/sub/", timeout=10) as answer:
            assert answer.status == 200
        assert time.monotonic() - began >= 0.2
        proxy.cut_after = proxy.sent + 10
        with pytest.raises(OSError):  # noqa: PT011 - of whichever kind
            urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/sub/", timeout=10)
        proxy.is_silent = True
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/sub/", timeout=0.5)
    eventually(lambda: proxy._loop.is_closed(), what="the end of the proxy")

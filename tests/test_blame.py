"""The right one is blamed: real situations, by command line and data set, where rights of files are heeded."""

import gzip
import json
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uproot
import yaml

from rights_for_tests import SOURCES, run, skip_where_rights_mean_nothing

ROOT = Path(__file__).parents[1]
JOBS = Path(__file__).with_name("blame_for_tests.py")
DAMAGED = ("damaged", "truncated")
NOT_THE_FILE = (*DAMAGED, "replace")
NOT_ALLOWED = "Permission denied"
EVENTS = 300


@dataclass(frozen=True)
class Situation:
    """Something that is in the way.

    Parameters
    ----------
    place : what is asked for
    words : what must be said
    prepare : makes it, given the folder and the bytes of a good file
    not_words : what must not be said
    """

    name: str
    place: str
    words: tuple[str, ...]
    prepare: Callable[[Path, bytes], object]
    not_words: tuple[str, ...] = DAMAGED


def put(name, content=None, *, mode=0o644):
    def prepare(folder, good):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(good if content is None else content(good) if callable(content) else content)
        path.chmod(mode)

    return prepare


def locked(name, mode):
    def prepare(folder, good):
        put(f"{name}/a.root")(folder, good)
        (folder / name).chmod(mode)

    return prepare


def bind(name):
    def prepare(folder, good):
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)  # from within the folder: the path of a socket must be short

    return prepare


def link(name, target):
    return lambda folder, good: (folder / name).symlink_to(target)


def nothing(folder, good):
    """Prepare nothing."""


def without_rights(name, place, prepare):
    return Situation(name, place, (place, NOT_ALLOWED), prepare, NOT_THE_FILE)


def no_root(name, place, said, content):
    return Situation(name, place, (place, said), put(place, content))


LONG = f"{'x' * 300}.root"
SITUATIONS = [
    without_rights("not allowed", "secret.root", put("secret.root", mode=0)),
    without_rights("folder not to be passed", "shut/a.root", locked("shut", 0)),
    without_rights("folder not to be listed", "blind", locked("blind", 0o311)),
    without_rights("glob in such a folder", "dim/*.root", locked("dim", 0o311)),
    without_rights("glob below such a folder", "dark*/a.root", locked("dark", 0)),
    without_rights("list not allowed", "mine.txt", put("mine.txt", b"a", mode=0)),
    Situation("absent", "none.root", ("'none.root' does not exist", "check the path"), nothing, NOT_THE_FILE),
    Situation("link to nothing", "link.root", ("is a link to 'no.root', which does",), link("link.root", "no.root")),
    Situation(
        "links in a circle", "round.root", ("symbolic links", "check the name"), link("round.root", "round.root")
    ),
    Situation("name too long", LONG, ("File name too long", "check the name"), nothing),
    Situation("socket", "sock.root", ("sock.root", "it is a socket"), bind("sock.root")),
    Situation("device", "zeros.root", ("zeros.root", "it is a device"), link("zeros.root", "/dev/zero")),
    no_root("empty", "empty.root", "the file is empty", b""),
    no_root("web page", "login.root", "not a ROOT file but a web page", b"<!DOCTYPE html><html>Log in</html>"),
    no_root("gzip", "packed.root", "but a gzip archive (unpack it with gunzip)", gzip.compress),
    no_root("text", "text.root", "this is not a ROOT file", b"no such thing\n" * 99),
    Situation(
        "half", "half.root", ("half.root", "truncated"), put("half.root", lambda g: g[: len(g) // 2]), ("denied",)
    ),
]

# Names that people give, and that say nothing about what is in a file.
NAMES = [
    b"caf\xe9.root", "nai\u0308ve.root".encode(), b"new\nline.root", b"ha#sh.root", b"per%41cent.root", b"sp ace.root",
    b"col:on.root", b"what?.root", b"br[a]ck.root", b"st*r.root", b"$HOME.root", b"~me.root", b"[red]x.root",
    b"a.root:Events.root", b"tab\t.root", "\U0001f600.root".encode(),
]  # fmt: skip

BLOCKED = ("read-only", "file", "broken link", "no device")
VARIABLES = ("ROOTDATA_CACHE", "XDG_CACHE_HOME")


def blocked(folder, kind):
    """Make a folder that can't be used, in some way."""
    path = folder / f"cache {kind}"
    if kind == "read-only":
        path.mkdir(mode=0o555, exist_ok=True)
    elif kind == "file":
        path.touch()
    elif kind == "broken link" and not path.is_symlink():
        path.symlink_to("nowhere")
    return Path(os.devnull) if kind == "no device" else path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.root"
    rng = np.random.default_rng(1)
    with uproot.recreate(path, compression=uproot.ZLIB(4)) as file:
        file.mktree("Events", {"met": "float32"})
        file["Events"].extend({"met": rng.exponential(50, EVENTS).astype("f4")})
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory, good):
    """A folder of all situations and names."""
    folder = tmp_path_factory.mktemp("b")
    skip_where_rights_mean_nothing(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for situation in SITUATIONS:
            situation.prepare(folder, good)
    for name in [*map(os.fsdecode, NAMES), "fine.root", "open/b.root"]:
        put(name)(folder, good)
    os.mkfifo(folder / "pipe.root")
    yield folder
    for shut in folder.glob("*/"):
        shut.chmod(0o755)


def outcomes(jobs, *, cwd, **how):
    """Return what a child process made of some jobs."""
    done = run([JOBS, json.dumps(jobs)], cwd=cwd, **how)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def found(place, tmp_path_factory):
    """What became of everything, in one process: (how, place), or (kind, variable), to the outcome."""
    usual = {"ROOTDATA_CACHE": str(tmp_path_factory.mktemp("cache"))}
    places = [s.place for s in SITUATIONS] + list(map(os.fsdecode, NAMES))
    jobs = {(how, p): [how, p, usual] for p in places for how in ("inspect", "dataset")}
    jobs |= {("dataset", p): ["dataset", p, usual] for p in ("pipe.root", "*/b.root")}
    for kind in BLOCKED:
        for variable in VARIABLES:
            own = {"ROOTDATA_CACHE": None, "XDG_CACHE_HOME": None, variable: str(blocked(place, kind))}
            jobs[kind, variable] = ["dataset", "fine.root", own]
    return dict(zip(jobs, outcomes(list(jobs.values()), cwd=place), strict=True))


@pytest.mark.parametrize("how", ["inspect", "dataset"])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda s: s.name)
def test_each_situation_is_told_as_what_it_is(found, situation, how):
    got = found[how, situation.place]
    assert got["end"] == "told", got
    assert all(word in got["words"] for word in situation.words), got["words"]
    assert not [word for word in situation.not_words if word in got["words"]], got["words"]


def test_a_pipe_is_refused_before_anybody_waits_for_it(found):
    got = found["dataset", "pipe.root"]
    assert (got["end"], "it is a pipe" in got["words"]) == ("told", True), got


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_says_nothing_about_what_is_in_a_file(found, name):
    inspected, read = (found[how, os.fsdecode(name)] for how in ("inspect", "dataset"))
    assert inspected["end"] == "ok", inspected
    assert (read["end"], read["words"]) == ("ok", str(EVENTS)), read


def test_what_a_closed_folder_hides_is_said_where_others_match(found):
    got = found["dataset", "*/b.root"]
    assert (got["end"], got["words"]) == ("ok", str(EVENTS)), got
    assert (
        "folders can't be looked into, what matches '*/b.root' there is left out (Permission denied" in got["warnings"]
    )


# What can be done without


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("kind", BLOCKED)
def test_without_a_cache_the_work_goes_on_with_a_warning(found, kind, variable):
    got = found[kind, variable]
    assert (got["end"], got["words"]) == ("ok", str(EVENTS)), got
    assert "the specs can't be kept in" in got["warnings"]
    assert "let ROOTDATA_CACHE name a folder that can be written" in got["warnings"]
    assert not [word for word in DAMAGED if word in got["warnings"]]


def install(folder):
    """Copy the package, so that nothing can be written beside it."""
    subprocess.run(["cp", "-r", str(SOURCES / "rootdata"), str(folder)], check=True)
    subprocess.run(["find", str(folder), "-name", "__pycache__", "-prune", "-exec", "rm", "-rf", "{}", "+"], check=True)
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("home", ["read-only", pytest.param("file", marks=pytest.mark.matrix)])
def test_a_read_only_installation_works_without_a_home_and_says_what_it_costs(place, good, tmp_path, home):
    put("a.root")(tmp_path, good)
    installed = tmp_path / "installed"
    installed.mkdir()
    install(installed)
    own = {"HOME": str(blocked(tmp_path, home)), "PYTHONDONTWRITEBYTECODE": "1"}
    own |= dict.fromkeys(("ROOTDATA_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"))
    try:
        inspected = run(["-m", "rootdata", "inspect", "a.root"], cwd=tmp_path, environment=own, source=installed)
        (got,) = outcomes([["dataset", "a.root", {}]], cwd=tmp_path, environment=own, source=installed)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(installed)], check=True)
    assert inspected.returncode == 0, inspected.stderr
    assert "compiled code can't be kept (no folder for it can be written)" in inspected.stderr
    assert "NUMBA_CACHE_DIR" in inspected.stderr
    assert not [word for word in DAMAGED if word in inspected.stderr]
    assert (got["end"], got["words"]) == ("ok", str(EVENTS)), got
    assert "the specs can't be kept" in got["warnings"]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("locale", [ASCII, pytest.param({"LC_ALL": "C.UTF-8"}, marks=pytest.mark.long)])
def test_what_a_terminal_can_not_show_is_no_reason_to_fail(place, locale):
    done = run(["-m", "rootdata", "inspect", os.fsdecode(NAMES[0])], cwd=place, environment=locale)
    assert done.returncode == 0, done.stderr[-500:]
    assert str(EVENTS) in done.stdout


# What this machine lacks

WITHOUT = """
import os, sys
os.environ["COLUMNS"] = "240"  # so that no reason is folded
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ImportError(f"No module named {{name!r}}")
sys.meta_path.insert(0, Absent())
from rootdata.__main__ import main
for place in sys.argv[1:]:
    print(place, main(["inspect", place]), file=sys.stderr)
"""


@pytest.mark.long
def test_an_absent_codec_concerns_its_files_alone_and_is_named(tmp_path, write_tree):
    values, names = {"met": np.arange(2000.0) % 7}, []
    for kind in ("ttree", "rntuple"):
        for name, codec in {"xz": uproot.LZMA(4), "zl": uproot.ZLIB(4)}.items():
            names.append(f"{name}-{kind}.root")
            write_tree(tmp_path / names[-1], values, compression=codec, kind=kind)
    done = run(["-c", WITHOUT.format(names=["lzma", "_lzma"]), *names], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in names:  # a branch that can't be read takes nothing else with it
        assert f"{name} 0\n" in done.stderr
    assert done.stdout.count("lzma") == 2, done.stdout
    assert not [word for word in DAMAGED if word in done.stdout + done.stderr]


@pytest.mark.long
@pytest.mark.parametrize("library", ["numba", "uproot", "cramjam", "isal"])
def test_an_absent_library_is_named(tmp_path, good, library):
    put("a.root")(tmp_path, good)
    done = run(["-c", WITHOUT.format(names=[library]), "a.root"], cwd=tmp_path)
    told = done.stdout + done.stderr  # what only reading needs stands beside each branch
    assert f"No module named '{library}'" in told
    assert not [word for word in (*DAMAGED, "Traceback") if word in told]


LACKING = """
import contextlib, resource
from pathlib import Path
import rootdata.io.formats.ttree, rootdata.io.formats.rntuple, rootdata.layouts.kernels
from rootdata.location import Location
from rootdata.io.trees import open_tree

@contextlib.contextmanager
def limited(kind, value):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    except Exception as error:
        resource.setrlimit(kind, before)
        print(type(error).__name__, error)
    finally:
        resource.setrlimit(kind, before)

def read(path):
    tree = open_tree(Location(path))
    tree.read(["met"], 0, tree.num_entries)
    return tree

for path in ("big-ttree.root", "big-rntuple.root"):
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(resource.RLIMIT_AS, taken + 10_000_000):
        read(path)
with limited(resource.RLIMIT_NOFILE, len(list(Path("/proc/self/fd").iterdir())) + 4):
    held = [read(f"{i}.root") for i in range(9)]
"""


@pytest.mark.long
def test_what_the_machine_lacks_is_told_and_no_file_is_blamed(tmp_path, good, write_tree):
    values = {"met": np.random.default_rng(1).normal(size=3_000_000)}
    for kind in ("ttree", "rntuple"):
        write_tree(tmp_path / f"big-{kind}.root", values, step=len(values["met"]), kind=kind)
    for i in range(9):
        put(f"{i}.root")(tmp_path, good)
    done = run(["-c", LACKING], cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 3, done.stdout + done.stderr
    ttree, rntuple, files = done.stdout.splitlines()
    for kind, told in (("ttree", ttree), ("rntuple", rntuple)):
        assert told.startswith(f"MachineError big-{kind}.root: entries 0 to 3000000"), told
        assert "not enough memory" in told
    assert files.startswith("MachineError "), files
    assert "Too many open files" in files
    assert "ulimit -n" in files
    assert not [word for word in DAMAGED if word in done.stdout]


# A training


@pytest.fixture(scope="module")
def own(tmp_path_factory, good):
    """A folder with somebody's files and data config."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("background", "signal"):
        put(f"{name}.root")(folder, good)
    samples = {n: {"files": str(folder / f"{n}.root"), "label": i} for i, n in enumerate(("background", "signal"))}
    (folder / "configs" / "data").mkdir(parents=True)
    (folder / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump({"samples": samples, "flat": ["met"]}))
    return folder


def train(own, folder, *words, **environment):
    quick = ["trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "~callbacks.progress"]
    quick.append("callbacks.score_report.plots=false")
    command = [ROOT / "train.py", "--config-dir", own / "configs", "data=mine", "data.batch_size=50", *quick, *words]
    return run(command, cwd=folder, environment={"ROOTDATA_CACHE": str(folder / "cache"), **environment})


@pytest.mark.long
def test_a_training_tells_what_is_in_its_way(place, own, tmp_path):
    read_only, secret = tmp_path / "read-only", own / "secret.root"
    read_only.mkdir(mode=0o555)
    secret.write_bytes((own / "signal.root").read_bytes())
    secret.chmod(0)
    out = f"hydra.run.dir={tmp_path / 'out'}"
    for words, told in {
        (f"hydra.run.dir={read_only}/out",): ("Permission denied", "read-only"),
        (out, f"data.samples.signal.files={secret}"): ("secret.root can't be opened", "Permission denied"),
        (out, "ckpt_path=none.ckpt"): ("none.ckpt",),
    }.items():
        done = train(own, tmp_path, *words)
        assert done.returncode == 2, done.stderr[-2000:]
        assert all(word in done.stderr for word in told), done.stderr[-500:]
        assert not [word for word in (*DAMAGED, "Traceback", "internal error") if word in done.stderr]


@pytest.mark.long
def test_a_training_goes_on_without_home_and_cache(place, own, tmp_path):
    read_only = tmp_path / "read-only"
    read_only.mkdir(mode=0o555)
    done = train(
        own, tmp_path, f"hydra.run.dir={tmp_path / 'out'}", "export=false",
        HOME=str(read_only), ROOTDATA_CACHE=str(read_only), XDG_CACHE_HOME=str(read_only),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the specs can't be kept" in done.stderr
    assert (tmp_path / "out" / "metrics.json").exists()


# A fault of the program

BUG = """
import sys
import rootdata.io.formats.ttree, rootdata.io.formats.rntuple
from rootdata.__main__ import main
def wrong(*_, **__):
    return None.anything
rootdata.io.formats.ttree.read_block = rootdata.io.formats.rntuple.read = wrong
sys.exit(main(["inspect", sys.argv[1]]))
"""


@pytest.mark.long
def test_a_fault_of_the_program_is_shown_with_its_traceback(tmp_path, good):
    put("a.root")(tmp_path, good)
    done = run(["-c", BUG, "a.root"], cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "AttributeError: 'NoneType' object has no attribute 'anything'" in done.stderr
    assert "a.root: entries 0 to 300" in done.stderr  # where it happened
    assert not [word for word in DAMAGED if word in done.stderr]

"""A file that changes between any two steps gives its new content or a refusal, never a mixture, nor what it held."""

import contextlib
import itertools
import os
import shutil
import time

import numpy as np
import pytest
import uproot
from files_for_tests import write
from servers_for_tests import HTTPServer, XRootDServer, xrootd

from rootdata.errors import RootDataError
from rootdata.loading.dataset import RootDataset
from rootdata.location import State

EVENTS, STEP = 400, 50
OLD = np.arange(EVENTS, dtype=np.float32)
NEW = OLD + 1000
CACHES = ["none", "memory", "disk"]
STEPS = ["scan", "epoch", "run", "resume"]


def bytes_of(values):
    return values.astype(">f4").tobytes()


def new_bytes(path):
    """The bytes of the file with other values: same length, UUID, header and baskets."""
    content = path.read_bytes()
    for low in range(0, EVENTS, STEP):
        old, new = (bytes_of(values[low : low + STEP]) for values in (OLD, NEW))
        assert content.count(old) == 1
        content = content.replace(old, new)
    return content


def rewritten(path):
    """Write other values over the old ones, and set the time of writing back."""
    before, content = path.stat(), new_bytes(path)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path):
    other = path.with_suffix(".new")
    other.write_bytes(new_bytes(path))
    shutil.copystat(path, other)
    other.replace(path)


def updated(path):
    with uproot.update(path) as file:
        file.mktree("Events", {"x": np.float32}).extend({"x": NEW})


def exchanged(path):
    """Put a file of the same name, but of other values and another UUID, in its place."""
    write(path, {"x": NEW}, steps=range(STEP, EVENTS, STEP))


def halved(path):
    """Write the new values over the second half alone."""
    before, content = path.stat(), new_bytes(path)
    with path.open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(content[len(content) // 2 :])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touched(path):
    os.utime(path)


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def gone(path):
    path.rename(path.with_suffix(".away"))


# What was done to a file, and the values that it holds then: none where it can't be read.
CHANGES = {
    rewritten: NEW, replaced: NEW, updated: NEW, exchanged: NEW,
    touched: OLD,
    truncated: None, gone: None, halved: None,
}  # fmt: skip


def settle(path):
    """Let the file be old enough for servers that date changes to the second."""
    past = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(past, past))


def values_of(batches):
    return sorted(float(v) for batch in batches for v in batch["x"][:, 0])


def outcome(events, make):
    """Deliver an epoch; None where it is refused."""
    try:
        return values_of(make() if events is None else events)
    except RootDataError:
        return None


def check(change, step, *, folder, url, options):
    """Change a file at one step, and look at what is delivered then."""
    path = write(folder / "a.root", {"x": OLD}, steps=range(STEP, EVENTS, STEP))
    settle(path)
    plain = {"samples": {"a": {"files": f"{url or folder}/a.root"}}, "flat": ["x"], "scale": "none", "batch_size": 64}
    options = {"patience": 0.1, **options}

    def make():
        return RootDataset({**plain, "split": {"train": 1.0}}, **options)

    first = make()
    state = None
    if step == "resume":
        state = [first.state_dict() for _, _ in zip(range(3), first, strict=False)][-1]
    elif step != "scan":
        assert values_of(first) == OLD.tolist()
    change(path)
    if url and path.exists():  # of a file on a server nothing but this time can be seen
        os.utime(path)
    expected = CHANGES[change]
    if step in {"scan", "epoch"}:
        found = outcome(first, make)
    elif step == "run":
        found = outcome(None, make)
    else:
        again = None
        with contextlib.suppress(RootDataError):
            again = make()
            again.load_state_dict(state)
            assert expected is not None
            rest = values_of(again)
            assert set(rest) < set(expected.tolist())
            return
        found = None
    case = f"{change.__name__} before {step}"
    if change is gone and options["cache"]:  # what is kept outlives the file
        assert found in (None, OLD.tolist()), case
    elif found is not None and change is not halved:
        assert expected is not None, case
        assert found == expected.tolist(), case
    if change is halved:  # nobody has seen this content before: it is new, too
        assert found is None or (found[0] in OLD and found == sorted({*found}) and found[-1] in NEW), case
    if found is None and change not in {truncated, gone, halved}:  # "start again, and it is scanned anew"
        assert outcome(None, make) == expected.tolist(), case


def run_all(tmp_path, cache, changes, steps, server=None):
    for number, (change, step) in enumerate(itertools.product(changes, steps)):
        folder = tmp_path / str(number)
        folder.mkdir()
        kept = {"none": None, "memory": "memory", "disk": {"dir": str(tmp_path / "blocks")}}[cache]
        url = server and f"{server.url}/{number}"
        check(change, step, folder=folder, url=url, options={"cache": kept})


@pytest.mark.parametrize("cache", CACHES)
def test_a_local_file_that_changes_gives_its_new_content_or_a_refusal(tmp_path, cache):
    run_all(tmp_path, cache, CHANGES, STEPS)


@pytest.fixture(params=["http", pytest.param("root", marks=xrootd)])
def server(request, tmp_path):
    with (HTTPServer if request.param == "http" else XRootDServer)(tmp_path) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("cache", ["memory"])
def test_a_file_that_changes_on_a_server_gives_its_new_content_or_a_refusal(tmp_path, cache, server):
    run_all(tmp_path, cache, [replaced, rewritten], STEPS, server)


@pytest.mark.long
@pytest.mark.parametrize("cache", CACHES)
def test_whatever_happens_to_a_file_on_a_server(tmp_path, cache, server):
    run_all(tmp_path, cache, CHANGES, STEPS, server)


def test_two_files_with_one_uuid_and_one_name_are_two(tmp_path):
    """Reproducible ROOT files all have the same UUID."""
    for name, change in (("a", touched), ("b", rewritten)):
        path = tmp_path / name / "x.root"
        if name == "b":
            path.parent.mkdir()
            shutil.copy(tmp_path / "a" / "x.root", path)
        else:
            write(path, {"x": OLD}, steps=range(STEP, EVENTS, STEP))
        change(path)
    files = [str(tmp_path / name / "x.root") for name in "ab"]
    for cache in (None, "memory", {"dir": str(tmp_path / "blocks")}):
        events = RootDataset(
            {"samples": {"all": files}, "flat": ["x"], "scale": "none", "split": {"train": 1.0}}, cache=cache
        )
        for _ in range(2):
            assert values_of(events) == sorted([*OLD.tolist(), *NEW.tolist()])


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        (State(1, "a"), State(1, "a"), False),
        (State(1, "a"), State(2, "a"), True),
        (State(1, "a"), State(1, "b"), True),
        (State(1, "a"), State(1), False),  # what is not known tells nothing
        (State(), State(1, "b"), False),
        (State(1, "a"), State(1, "a", is_settled=False), False),
    ],
)
def test_states_differ_by_what_is_known_of_both(one, other, differ):
    assert one.differs_from(other) is other.differs_from(one) is differ

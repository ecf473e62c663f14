"""Several processes train together: the same global batches, however many they are, and each event once."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ranks_for_tests
from ranks_for_tests import Job, Ranks
from rootdata.io import trees
from rootdata.loading.dataset import RootDataset

ROOT = Path(__file__).parents[1]
FLAT = [f"x{i}" for i in range(4)]
PARTS = ("train", "val", "test")
SAVED_AT = 28  # of 2 * 22 steps: in the second epoch
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture(scope="module")
def ranks():
    """Whoever runs jobs; it has imported everything."""
    server = Ranks()
    yield server
    server.close()


def write_numbers(path, write_tree, *, events, shift=0.0, step=7):
    rng = np.random.default_rng([events, int(shift)])
    columns = {name: rng.normal(shift, 1, events).astype("f4") for name in FLAT}
    return write_tree(path, {**columns, "event": np.arange(events)}, step=step)


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_tree):
    """Two samples, three files, 150 blocks; 860 training events are 21 batches and 20 events."""
    folder = tmp_path_factory.mktemp("data")
    for name, events in (("a0", 500), ("a1", 300), ("b0", 275)):
        write_numbers(folder / f"{name}.root", write_tree, events=events, shift=float(name[0] == "b"))
    return {
        "samples": {
            "a": {"files": str(folder / "a*.root"), "label": 0}, "b": {"files": str(folder / "b0.root"), "label": 1},
        },
        "flat": FLAT, "batch_size": 40, "chunk_size": 160, "index": True,
        "split": {"by": "entries", "train": 0.8, "val": 0.1, "test": 0.1},
    }  # fmt: skip


@pytest.fixture(scope="module")
def one_block(tmp_path_factory, write_tree):
    """Make the options for events of one block, ``train``, ``val`` and ``test`` in number."""
    path = write_numbers(tmp_path_factory.mktemp("one") / "one.root", write_tree, events=200, step=200)

    def options(train, val, test, **others):
        return {
            "samples": {"s": {"files": str(path), "cut": f"event < {train + val + test}"}}, "label": "event % 2",
            "split": {"by": f"(event >= {val}) + (event >= {val + test})", "val": [0], "test": [1]},
            "flat": FLAT, "batch_size": 40, "chunk_size": 160, "index": True, **others,
        }  # fmt: skip

    return options


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a job: what each rank noted, and in which blocks it read."""

    folder: Path
    notes: list

    @property
    def batches(self):
        """The training batches of all ranks together."""
        return [[event for part in parts for event in part] for parts in zip(*self.of("train"), strict=True)]

    def of(self, name):
        return [notes[name] for notes in self.notes]

    def events(self, part):
        """Count the events of a part, over all ranks and epochs."""
        return Counter(tuple(event) for batches in self.of(part) for batch in batches for event in batch)

    def reads(self, part):
        """Return which blocks were read, as often as they were: pairs of rank and block number."""
        lines = [line.split() for line in (self.folder / "reads.txt").read_text().splitlines()]
        return [(int(rank), int(number)) for rank, kind, number in lines if kind == str(part)]

    @property
    def printed(self):
        return [(self.folder / f"rank_{r}.txt").read_text() for r in range(len(self.notes))]


@pytest.fixture(scope="module")
def train(ranks, tmp_path_factory):
    """Run a job that ends well."""

    def run(options, world, **job):
        folder = tmp_path_factory.mktemp("job")
        report = ranks.run(Job(folder=str(folder), data=options, world=world, **job))
        printed = [(folder / f"rank_{r}.txt").read_text()[-3000:] for r in range(world)]
        assert report["statuses"] == [0] * world, "\n".join(printed)
        assert not report["left"]
        return Trained(folder, [json.loads((folder / f"rank_{r}.json").read_text()) for r in range(world)])

    return run


@pytest.fixture(scope="module")
def trained(train, data):
    """The same training by so many ranks with so many reading processes."""
    known = {}

    def get(world):
        if world not in known:
            known[world] = train(data, world, save_at=SAVED_AT)
        return known[world]

    return get


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Make a part of the data without a trainer."""
    order = {name: value for name, value in data.items() if name != "index"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "BLOCK_ENTRIES", 1)
        patch.setenv("ROOTDATA_CACHE", str(tmp_path_factory.mktemp("cache")))
        specs = RootDataset(order).specs
    return lambda part="train", **options: RootDataset({**order, **options}, part, specs=specs, index=True)


@pytest.fixture(scope="module")
def expected(whole):
    """The events of each part."""
    return {part: [tuple(event) for batch in batches_of(whole(part)) for event in batch] for part in PARTS}


def batches_of(dataset):
    return [batch["index"].tolist() for batch in dataset.batches(0)]


def also(*values):
    """Mark a case that the ordinary tests leave out."""
    return pytest.param(*values, marks=pytest.mark.long)


CASES = [2, 4]


@pytest.mark.parametrize("world", CASES)
def test_any_number_of_ranks_trains_on_the_batches_of_one(trained, world):
    one, many = trained(1), trained(world)
    assert many.batches == one.batches
    assert many.of("batches") == [[22, 22, 44]] * world
    assert {tuple(len(batch) for batch in batches) for batches in many.of("train")} == {
        tuple(len(batch) // world for batch in one.batches)
    }
    for weights in many.of("weights"):
        np.testing.assert_allclose(weights, one.notes[0]["weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world", [1, *CASES])
def test_every_event_comes_once(trained, expected, world):
    many = trained(world)
    for part, passes in (("train", 2), ("val", 2), ("test", 1)):
        assert many.events(part) == dict.fromkeys(expected[part], passes)
    assert many.events("predict") == many.events("test")


@pytest.mark.parametrize("world", CASES)
def test_figures_are_those_of_one_process(trained, world):
    one, many = trained(1).notes[0], trained(world)
    for loss in many.of("val_loss"):
        assert loss == pytest.approx(one["val_loss"], rel=1e-5)
    # Lightning's own average counts the events of an average rank in whole numbers: of 108 events two ranks have 54.
    for loss in many.of("val_synced"):
        assert loss == pytest.approx(one["val_loss"], rel=world / 100)
    report = many.notes[0]["report"]
    assert (report["auc"], report["loss"]) == pytest.approx((one["report"]["auc"], one["report"]["loss"]), rel=1e-5)
    assert report["events"] == one["report"]["events"]


def measured_amplification(job, dataset, *, epochs):
    """Return how often an event was read in an epoch: (all reads) / (events)."""
    blocks = [block[2] for file in dataset.specs.files for block in file.blocks]
    return sum(blocks[number] for _, number in job.reads(0)) / epochs / sum(blocks)


@pytest.mark.parametrize("world", CASES)
def test_each_rank_reads_its_share_once(trained, whole, world):
    many, dataset = trained(world), whole()
    found = measured_amplification(many, dataset, epochs=2)
    assert found == pytest.approx(many.notes[0]["amplification"])
    assert 1 <= found <= 1.1
    assert set(Counter(many.reads(0)).values()) == {2}  # no rank reads a block twice in an epoch
    shares = Counter(rank for rank, _ in many.reads(0))
    assert max(shares.values()) <= 1.2 * min(shares.values())
    assert (f"{world} ranks read the training events {found:.2f} times" in many.printed[0]) == (world > 1)


@pytest.mark.long
@pytest.mark.parametrize("world", [also(1), 4])
def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_others(trained, train, data, world):
    two = trained(2)
    resumed = train(data, world, ckpt_path=str(two.folder / "saved.ckpt"))
    assert resumed.batches == two.batches[SAVED_AT:]
    np.testing.assert_allclose(resumed.notes[0]["weights"], two.notes[0]["weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_a_world_that_does_not_divide_the_partitions_reads_more_and_says_so(train, data, whole):
    three, dataset = train({**data, "batch_size": 42}, 3, trainer={"max_epochs": 1}), whole(batch_size=42)
    assert three.batches == batches_of(dataset)
    found = measured_amplification(three, dataset, epochs=1)
    # Rank 0 reads partitions 0 and 1, rank 1 reads 1 and 2, rank 2 reads 2 and 3; no block that gives it no event.
    assert 1.3 < found <= three.notes[0]["amplification"] < 1.6
    said = (
        f"3 ranks read the training events {three.notes[0]['amplification']:.2f} times in all; with partitions=3 each"
    )
    assert said in three.printed[0]


@pytest.mark.long
def test_fewer_blocks_than_ranks_and_batches_smaller_than_them(train, one_block):
    # 83 events are two batches of 40 and a rest of 3, on which 4 ranks can't train; 42 are validated, 2 at the end.
    four = train(one_block(83, 42, 5), 4)
    assert [[len(b) for b in batches] for batches in four.of("train")] == [[10] * 4] * 4
    assert set(four.events("train").values()) <= {1, 2}
    assert four.events("val") == {(0, 0, event): 2 for event in range(42)}
    assert four.events("test") == {(0, 0, event): 1 for event in range(42, 47)}
    assert four.notes[0]["report"]["events"] == 5
    assert four.notes[0]["amplification"] == 4


def test_an_event_for_each_rank_is_needed_or_all_of_them_refuse(ranks, one_block, tmp_path):
    job = Job(folder=str(tmp_path), data=one_block(80, 3, 5), world=4, within=60)
    assert ranks.run(job)["statuses"] == [1] * 4
    for rank in range(4):
        assert "DataError: val: got 3 events for 4 ranks" in (tmp_path / f"rank_{rank}.txt").read_text()


@pytest.mark.long
def test_a_rest_that_is_too_small_for_the_new_ranks_is_left_out(train, one_block):
    # One rank trains on 40 events and on 2; four ranks can't on the 2, and go on with the next epoch.
    one = train(one_block(42, 6, 6), 1, save_at=1)
    four = train(one_block(42, 6, 6), 4, ckpt_path=str(one.folder / "saved.ckpt"))
    assert [len(batch) for batch in one.batches] == [40, 2, 40, 2]
    assert four.batches[0] == one.batches[2]


@pytest.mark.long
@pytest.mark.parametrize("asks_first", [also(False), True])
def test_one_process_of_a_node_makes_the_first_pass(train, write_tree, tmp_path, asks_first):
    for name in "abc":
        write_numbers(tmp_path / f"{name}.root", write_tree, events=120)
    os.truncate(tmp_path / "b.root", 1000)
    options = {
        "samples": {"s": {"files": str(tmp_path / "*.root"), "label": 0}}, "on_bad_file": "skip", "flat": FLAT,
        "batch_size": 20, "split": {"by": "entries", "train": 0.6, "val": 0.2, "test": 0.2}, "index": True,
    }  # fmt: skip
    two = train(options, 2, asks_first=asks_first, trainer={"max_epochs": 1})
    assert len(two.reads("scan")) == 1
    good, bad = ([str(tmp_path / f"{name}.root") for name in names] for names in ("ac", "b"))
    assert two.of("files") == [good] * 2
    assert two.of("skipped") == [bad] * 2


@pytest.mark.long
@pytest.mark.parametrize("how", ["kill", also("raise")])
def test_where_one_rank_ends_the_others_do(ranks, data, tmp_path, how):
    job = Job(folder=str(tmp_path), data=data, world=2, ends=(1, 3, how), within=60)
    report = ranks.run(job)
    assert report["statuses"] == [1, {"kill": -signal.SIGKILL, "raise": 1}[how]]
    assert report["seconds"] < 50
    assert not report["left"]


# Started by torchrun itself


def environment(folder):
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ROOTDATA_CACHE": str(folder / "cache")}


@contextlib.contextmanager
def started(command, folder, **options):
    """Start a command in a session of its own, all of which is ended in the end."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        **{"env": environment(folder), **options},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def of_session(session):
    """Name the processes of a session that go on; torchrun gives each of its own a group."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, fields = stat.read_text().rpartition(")")
            state, _, _, its_session = fields.split()[:4]
            alive += [name] if int(its_session) == session and state != "Z" else []
    return alive


@pytest.mark.long
def test_torchrun_ends_all_when_one_is_killed(data, tmp_path):
    job = Job(folder=str(tmp_path), data=data, world=2, ends=(1, 3, "kill"))
    (tmp_path / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
    words = ["--standalone", "--nproc-per-node=2", ranks_for_tests.__file__, str(tmp_path / "job.json")]
    with started([*TORCHRUN, *words], tmp_path) as torchrun:
        printed, _ = torchrun.communicate(timeout=180)
        assert torchrun.returncode == 1, printed
        assert "Signal 9 (SIGKILL)" in printed
        assert ranks_for_tests.until(lambda: not of_session(torchrun.pid), seconds=10)


@pytest.mark.long
def test_train_py_under_torchrun(data, tmp_path):
    own = {name: data[name] for name in ("samples", "flat", "batch_size", "chunk_size", "split")}
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "mine.yaml").write_text(yaml.safe_dump(own))
    words = [
        str(ROOT / "train.py"), "--config-dir", str(tmp_path / "configs"), "data=mine", "model.hidden=[16]",
        "trainer.max_epochs=2", "trainer.enable_progress_bar=false", "~callbacks.progress", "model.dropout=0",
        "callbacks.score_report.plots=false", "export=false", "trainer.num_sanity_val_steps=0", "paths.latest=null",
    ]  # fmt: skip
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    figures = []
    for name, command in (
        ("one", [sys.executable, *words, "trainer=cpu"]),
        ("two", [*TORCHRUN, "--standalone", "--nproc-per-node=2", *words, *ddp]),
    ):
        with started([*command, f"hydra.run.dir={tmp_path / name}"], tmp_path / name, cwd=tmp_path) as process:
            printed, _ = process.communicate(timeout=240)
        assert process.returncode == 0, printed
        assert printed.count("metrics.json") == 1, printed  # one rank says where everything is
        figures.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    one, two = figures
    assert (two["auc"], two["loss"], two["events"]) == pytest.approx((one["auc"], one["loss"], one["events"]), rel=1e-4)


# Two hosts


class Hosts:
    """Two network namespaces that a cable joins: all that two hosts share is the files."""

    def __init__(self):
        self.names = [f"rootdata{os.getpid()}{end}" for end in "ab"]
        self.addresses = ["10.83.7.1", "10.83.7.2"]
        self.cable = [f"rd{os.getpid()}{end}"[-15:] for end in "ab"]

    def lay(self):
        """Make them.

        Raises
        ------
        OSError, CalledProcessError
            Where that isn't allowed, or there is no ``ip``.
        """
        for name in self.names:
            self.ip("netns", "add", name)
        ends = zip(self.names, self.cable, strict=True)
        (one, here), (other, there) = ends
        self.ip("link", "add", here, "netns", one, "type", "veth", "peer", "name", there, "netns", other)
        for name, cable, address in zip(self.names, self.cable, self.addresses, strict=True):
            self.ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
            for device in ("lo", cable):
                self.ip("-n", name, "link", "set", device, "up")

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    def remove(self):
        """Take them away, with the cable."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def hosts():
    """Two hosts, where this one lets us have them."""
    pair = Hosts()
    try:
        pair.lay()
    except (OSError, subprocess.CalledProcessError) as error:
        pair.remove()
        pytest.skip(f"two hosts need network namespaces: {getattr(error, 'stderr', '') or error}")
    yield pair
    pair.remove()


@pytest.mark.long
def test_two_hosts_train_as_one_does(hosts, trained, data, tmp_path):
    job = Job(folder=str(tmp_path), data=data, world=2)
    (tmp_path / "job.json").write_text(json.dumps(dataclasses.asdict(job)))
    script = [ranks_for_tests.__file__, str(tmp_path / "job.json")]
    words = [
        *TORCHRUN,
        "--nnodes=2",
        "--nproc-per-node=1",
        f"--master-addr={hosts.addresses[0]}",
        "--master-port=29400",
    ]
    with contextlib.ExitStack() as both:
        agents = []
        for node, (name, cable) in enumerate(zip(hosts.names, hosts.cable, strict=True)):
            command = ["ip", "netns", "exec", name, *words, f"--node-rank={node}", *script]
            of_host = {**environment(tmp_path / str(node)), "GLOO_SOCKET_IFNAME": cable}
            agents.append(both.enter_context(started(command, tmp_path, env=of_host)))
        for agent in agents:
            printed, _ = agent.communicate(timeout=240)
            assert agent.returncode == 0, printed
    two = Trained(tmp_path, [json.loads((tmp_path / f"rank_{r}.json").read_text()) for r in range(2)])
    one = trained(1)
    assert two.batches == one.batches
    assert two.events("val") == one.events("val")
    assert two.events("test") == one.events("test")
    assert sorted(rank for rank, _ in two.reads("scan")) == [0, 1]  # each host for itself: their caches are their own
    torch.testing.assert_close(torch.tensor(two.notes[0]["weights"]), torch.tensor(one.notes[0]["weights"]))
    assert two.notes[0]["report"]["auc"] == pytest.approx(one.notes[0]["report"]["auc"])

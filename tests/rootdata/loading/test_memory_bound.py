import pytest
from files_for_tests import make_events, options, write

from rootdata.errors import ConfigError
from rootdata.loading.dataset import RootDataset


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    paths = [write(folder / f"{i}.root", make_events(2000, i), steps=range(100, 2000, 100)) for i in range(6)]
    samples = {"a": {"files": [str(p) for p in paths[:4]], "label": 0}, "b": {"files": [str(p) for p in paths[4:]]}}
    samples["b"]["label"] = 1
    return options("", samples=samples, chunk_size=512, batch_size=64, split={"train": 1.0})


def windows(plain):
    streams = [s for streams in RootDataset(plain)._events._plan.streams for s in streams]
    return max(s.window for s in streams)


def needed(plain):
    with pytest.raises(ConfigError, match=r"max_memory: got 1 bytes, but at least [0-9,]+ are needed") as error:
        RootDataset(plain | {"max_memory": 1})
    return int(str(error.value).split("at least ")[1].split()[0].replace(",", ""))


def test_windows_grow_with_the_bound_up_to_the_usual_ones(many, small_blocks):
    least = needed(many)
    usual = windows(many)
    found = [windows(many | {"max_memory": least + extra}) for extra in (0, 10_000, 40_000, 10**9)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, usual)


def test_every_event_comes_once_whatever_the_bound(many, small_blocks):
    least = needed(many)
    for bound in (least, least + 20_000):
        dataset = RootDataset(many | {"max_memory": bound}, index=True)
        seen = sorted(tuple(row) for batch in dataset for row in batch["index"].tolist())
        assert len(set(seen)) == len(seen) == 12_000


def test_a_bound_and_open_blocks_are_one_too_many(many):
    with pytest.raises(ConfigError, match="max_memory chooses open_blocks: leave one out"):
        RootDataset(many | {"max_memory": 10**9, "open_blocks": 2})

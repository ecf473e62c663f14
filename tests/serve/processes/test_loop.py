"""A worker: what waits for a model, what takes long, and what is taken back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from servers import poll

from serve.messages import LATER, Reply, Request
from serve.processes.frames import Decoder, pack_request, pack_taking_back, unpack_reply
from serve.processes.loop import Worker, listen
from serve.processes.metrics import Metrics
from serve.processes.progress import slots
from serve.settings import Settings


class Made:
    """An engine whose models are loaded when a test says so, and whose long jobs take a step for each byte."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.loaded: set[str] = set()
        self.steps = 0

    def load_beside(self, done: Callable[[], None]) -> None:
        self.done = done

    def load(self, name: str) -> None:
        self.loaded.add(name)
        self.done()

    def answer(self, requests: Sequence[Request], *, mark: Callable[[Sequence[int]], None]) -> list[object]:
        self.asked += [request.body.decode() for request in requests]
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> object:
        if request.road == "end":
            raise SystemExit
        if request.road == "long":
            return self._long(request)
        return Reply(status=200, body=request.body) if request.model in self.loaded else LATER

    def _long(self, request: Request) -> Iterator[Reply | None]:
        for _ in range(1000):
            self.steps += 1
            time.sleep(0.001)
            yield None
        yield Reply(status=200, body=request.body)

    def begin(self, request: Request) -> Iterator[Reply | None]:
        yield LATER if request.model not in self.loaded else Reply(status=200, body=b"file")

    def rest(self) -> None:
        pass


class Line:
    """A connection to a worker, as an API process has one."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(20)
        self._decoder = Decoder()
        self._kept: list[tuple[int, Reply]] = []

    def send(self, number: int, model: str, *, road: str = "x", path: str | None = None, seconds: float = 60) -> None:
        request = Request(road=road, model=model, version=1, body=str(number).encode(), path=path)
        self.socket.sendall(b"".join(pack_request(number, request, deadline=time.monotonic() + seconds)))

    def take_back(self, number: int) -> None:
        self.socket.sendall(pack_taking_back(number))

    def reply(self) -> tuple[int, Reply]:
        while not self._kept:
            self._kept += [unpack_reply(header, body) for header, body in self._decoder.feed(self.socket.recv(1 << 16))]
        return self._kept.pop(0)


@pytest.fixture
def engine() -> Made:
    return Made()


@pytest.fixture
def slot(tmp_path):
    return slots(tmp_path / "progress", workers=1, room=64)[0]


@pytest.fixture
def line(engine, slot, tmp_path) -> Iterator[Line]:
    path = tmp_path / "w"
    with listen(path) as listener:
        metrics = Metrics(tmp_path / "metrics")
        worker = Worker(engine, listener, settings=Settings(models=tmp_path), metrics=metrics, slot=slot)

        def work() -> None:
            with contextlib.suppress(SystemExit):
                worker.run()

        thread = threading.Thread(target=work)
        thread.start()
        made = Line(path)
        yield made
        made.send(0, "any", road="end")
        thread.join(20)
        made.socket.close()
        for key in list(worker._selector.get_map().values()):
            key.fileobj.close()
        worker._button.close()
        worker._selector.close()
        metrics.close()


def test_who_waits_for_a_model_is_passed_by_others_and_answered_in_order(line, engine):
    engine.loaded.add("small")
    for number in (1, 2):
        line.send(number, "large")
    line.send(3, "large", path="file")
    line.send(4, "small")
    assert line.reply()[0] == 4
    assert poll(lambda: engine.asked[:2] == ["1", "2"])
    engine.load("another")  # which nobody waits for
    line.send(5, "small")
    assert line.reply()[0] == 5
    engine.load("large")
    answers = [line.reply() for _ in range(3)]
    assert sorted(number for number, _ in answers) == [1, 2, 3]
    assert [number for number, _ in answers if number != 3] == [1, 2]
    assert {reply.status for _, reply in answers} == {200}


def test_a_worker_shows_that_it_lives_while_requests_wait_for_a_model(line, engine, slot):
    line.send(1, "large")
    assert poll(lambda: engine.asked == ["1"])
    signs = set()
    assert poll(lambda: signs.add(slot.read()[0]) or len(signs) > 5, seconds=5)
    assert max(b - a for a, b in zip(sorted(signs)[:-1], sorted(signs)[1:], strict=True)) < 0.9  # not as one that rests
    assert slot.read()[1] == 0.0


def test_what_is_taken_back_is_asked_no_more(line, engine):
    line.send(1, "large")
    line.send(2, "large", path="file")
    line.send(3, "any", road="long")
    assert poll(lambda: engine.steps > 3 and "1" in engine.asked)
    for number in (1, 2, 3):
        line.take_back(number)
    assert {line.reply()[0] for _ in range(3)} == {1, 2, 3}
    steps = engine.steps
    assert steps < 1000
    engine.load("large")
    line.send(4, "large")
    assert line.reply()[0] == 4
    assert engine.asked == ["1", "3", "4"]
    assert engine.steps <= steps


def test_a_long_body_ends_at_its_deadline_and_holds_up_no_other(line, engine):
    engine.loaded.add("small")
    line.send(1, "any", road="long", seconds=0.3)
    line.send(2, "any", road="long")
    for number in range(3, 13):
        line.send(number, "small")
        assert line.reply()[0] == number
    found = dict(line.reply() for _ in range(2))
    assert (found[1].status, found[2].status) == (504, 200)


def test_what_is_waited_for_by_nobody_is_forgotten(line, engine, tmp_path):
    other = Line(tmp_path / "w")
    other.send(1, "large")
    other.send(2, "any", road="long")
    assert poll(lambda: engine.steps > 3 and "1" in engine.asked)
    other.socket.close()
    engine.loaded.add("small")
    line.send(3, "small")
    assert line.reply()[0] == 3
    engine.load("large")
    line.send(4, "small")
    assert line.reply()[0] == 4
    steps = engine.steps
    line.send(5, "small")
    assert line.reply()[0] == 5
    assert engine.steps == steps
    assert engine.asked == ["1", "2", "3", "4", "5"]

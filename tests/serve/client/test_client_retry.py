from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.client.errors import Unreachable
from serve.client.retry import AGAIN, Answer, Failure, Policy, Send, ServerCall, Wait, ask, is_worth_repeating

REFUSED = Failure(reason="refused", was_sent=False)
BROKEN = Failure(reason="broken", was_sent=True)


def call(*, is_repeatable: bool = True) -> ServerCall:
    return ServerCall(method="POST", path="/x", is_repeatable=is_repeatable)


def answer(status: int, *, retry_after: str | None = None) -> Answer:
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Answer(server="http://a", path="/x", status=status, headers=headers)


outcomes = st.sampled_from(
    [REFUSED, BROKEN, *(answer(s) for s in (200, 404, 500, *AGAIN)), answer(503, retry_after="2")]
)


class World:
    """A clock that only waiting and sending move, and what servers will say."""

    def __init__(self, says: Iterable[Answer | Failure], *, seconds: float = 0.1) -> None:
        self.says, self.seconds, self.now = iter(says), seconds, 100.0
        self.sent: list[Send] = []
        self.waits: list[float] = []

    def run(self, asked: ServerCall, *, urls: Sequence[str] = ("http://a",), policy: Policy, seed: int = 0) -> Answer:
        draw = np.random.default_rng(seed).random
        steps = ask(asked, urls=urls, policy=policy, clock=lambda: self.now, draw=draw)
        outcome: Answer | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                return done.value
            if isinstance(step, Wait):
                self.waits.append(step.seconds)
                self.now += step.seconds
                outcome = None
            else:
                self.sent.append(step)
                self.now += min(self.seconds, max(0.0, step.deadline - self.now))
                outcome = next(self.says, answer(200))


@given(
    st.lists(outcomes, max_size=30), st.booleans(), st.integers(1, 3), st.integers(0, 5), st.floats(0.01, 20),
    st.floats(0.0, 5), st.integers(0, 99),
)  # fmt: skip
def test_patience_is_bounded(
    says: list[Answer | Failure], safe: bool, servers: int, retries: int, timeout: float, seconds: float, seed: int
) -> None:
    world, urls = World(says, seconds=seconds), [f"http://{i}" for i in range(servers)]
    with contextlib.suppress(Unreachable):
        got = world.run(call(is_repeatable=safe), urls=urls, policy=Policy(retries=retries, timeout=timeout), seed=seed)
        assert got in [*says, answer(200)]
    assert 1 <= len(world.sent) <= (retries + 1) * servers
    assert world.now <= 100 + timeout + 1e-6
    assert all(step.deadline <= 100 + timeout + 1e-6 for step in world.sent)


@given(st.lists(outcomes, max_size=20), st.integers(1, 3))
def test_what_may_have_been_done_is_not_repeated(says: list[Answer | Failure], servers: int) -> None:
    world = World(says)
    with contextlib.suppress(Unreachable):
        world.run(call(is_repeatable=False), urls=[f"http://{i}" for i in range(servers)], policy=Policy())
    before = [*says, *[answer(200)] * 99][: len(world.sent) - 1]
    assert all(outcome == REFUSED for outcome in before)


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 1e9))
def test_pauses_grow_to_a_limit_and_never_undercut_the_server(turn: int, drawn: float, after: float | None) -> None:
    policy = Policy()
    pause = policy.pause(turn, after=after, draw=lambda: drawn)
    floor = min(after or 0.0, policy.longest_after)
    assert floor <= pause <= floor + min(policy.longest, policy.first * 2.0**turn)


def test_pauses_of_many_clients_are_spread() -> None:
    policy, rng = Policy(), np.random.default_rng(0)
    pauses = [policy.pause(3, after=1.0, draw=rng.random) for _ in range(1000)]
    assert np.histogram(pauses, 4, (1.0, 1.8))[0].min() > 180


def test_retry_after_is_waited_for() -> None:
    world = World([answer(503, retry_after="7"), answer(200)])
    assert world.run(call(), policy=Policy()).status == 200
    assert 7 <= world.waits[0] < 7.2


def test_a_wait_that_is_too_long_is_not_begun() -> None:
    world = World([answer(503, retry_after="20")] * 9)
    assert world.run(call(), policy=Policy(timeout=10)).status == 503
    assert world.waits == []


def test_a_date_to_retry_after_is_no_number() -> None:
    assert answer(503, retry_after="Fri, 01 Jan 2027 00:00:00 GMT").retry_after is None
    assert answer(503, retry_after="-1").retry_after is None
    assert answer(503, retry_after="3").retry_after == 3.0


def test_other_servers_are_asked_before_waiting() -> None:
    world, urls = World([REFUSED, answer(503), answer(200)]), ["http://a", "http://b", "http://c"]
    assert world.run(call(), urls=urls, policy=Policy()).status == 200
    assert [step.url for step in world.sent] == urls
    assert world.waits == []


def test_a_server_that_hangs_leaves_time_for_the_next() -> None:
    world = World([Failure(reason="late", was_sent=True), answer(200)], seconds=1e9)
    assert world.run(call(), urls=["http://a", "http://b"], policy=Policy(timeout=10)).status == 200
    assert [step.deadline for step in world.sent] == [105.0, 110.0]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 422, 500])
def test_answers_that_stay_the_same_are_not_asked_for_again(status: int) -> None:
    assert not is_worth_repeating(call(), answer(status))


def test_files_get_more_time() -> None:
    policy = Policy(timeout=1, file_timeout=50)
    for moved in ({"body": Path("a")}, {"into": Path("a")}):
        world = World([answer(200)])
        world.run(ServerCall(method="POST", path="/x", **moved), policy=policy)
        assert world.sent[0].deadline == 150
    world = World([answer(200)])
    world.run(call(), policy=policy)
    assert world.sent[0].deadline == 101


def test_the_error_says_whom_how_often_and_why() -> None:
    with pytest.raises(
        Unreachable, match=r"http://a and http://b: no answer \(refused; asked 4 times in .* s\); check"
    ):
        World([REFUSED] * 9).run(call(), urls=["http://a", "http://b"], policy=Policy(retries=1))
    with pytest.raises(Unreachable, match=r"POST /x may have been done: look before you repeat it"):
        World([BROKEN]).run(call(is_repeatable=False), policy=Policy())

"""When to ask again, whom, and after how long; pure: whoever runs it sends, waits and has the clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from serve.client.errors import Unreachable

AGAIN = (429, 502, 503, 504)  # answers that may be others a moment later


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerCall:
    """What is asked of a server.

    Parameters
    ----------
    path : below the address of the server, quoted
    body : what is sent, or the file with it
    into : file for the answer; None keeps it in memory
    is_repeatable : doing it twice is doing it once, so it may be asked again though it may have been done
    """

    method: str
    path: str
    params: Mapping[str, str | list[str]] = dataclasses.field(default_factory=dict)
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | Path | None = None
    into: Path | None = None
    is_repeatable: bool = False

    @property
    def moves_file(self) -> bool:
        """Whether it may take long, by its size alone."""
        return isinstance(self.body, Path) or self.into is not None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a server said.

    Parameters
    ----------
    server, path : that were asked
    headers : by name in lower case
    body : empty where it went into a file
    """

    server: str
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def url(self) -> str:
        """Whole address."""
        return self.server + self.path

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait; a date instead is ignored."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdecimal() else None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why there was no answer.

    Parameters
    ----------
    was_sent : the request may have arrived
    is_final : the same server would say the same again, as with a certificate that is not trusted
    """

    reason: str
    was_sent: bool
    is_final: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """A step: send the call to this server, and give up at the deadline, on the clock."""

    url: str
    call: ServerCall
    deadline: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A step: wait."""

    seconds: float


Attempts = Generator[Send | Wait, Answer | Failure | None, Answer]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """How patient to be; times in seconds.

    Parameters
    ----------
    retries : how many times to ask all servers again
    first, longest : of the waits before them, which double and are drawn from [0, wait)
    longest_after : of the wait that a server may ask for
    timeout : of a request, retries and waits included
    file_timeout : the same for one that moves a file
    """

    retries: int = 4
    first: float = 0.1
    longest: float = 5.0
    longest_after: float = 30.0
    timeout: float = 30.0
    file_timeout: float = 600.0

    def pause(self, turn: int, *, after: float | None, draw: Callable[[], float]) -> float:
        """Return how long to wait before turn ``turn + 1``.

        Parameters
        ----------
        turn : how often all servers have been asked before, from 0
        after : seconds that the server asked for; clients come back spread over the time after it
        draw : gives a number from [0, 1)
        """
        wait = draw() * min(self.longest, self.first * 2.0**turn)
        return wait + min(after or 0.0, self.longest_after)


def is_worth_repeating(call: ServerCall, outcome: Answer | Failure) -> bool:
    """Tell whether asking again is safe and may help."""
    if isinstance(outcome, Failure):
        return call.is_repeatable or not outcome.was_sent
    return call.is_repeatable and outcome.status in AGAIN


def ask(
    call: ServerCall, *, urls: Sequence[str], policy: Policy, clock: Callable[[], float], draw: Callable[[], float]
) -> Attempts:
    """Ask servers, one after the other and again, until one answers.

    Parameters
    ----------
    call : what is asked
    urls : the first is asked first; the others when it fails
    policy : how often, and for how long
    clock : tells seconds, as ``time.monotonic``
    draw : gives numbers from [0, 1), for the waits

    Yields
    ------
    what to do next; expects the outcome of what was sent

    Returns
    -------
    The answer, or the last one where all servers ask for patience

    Raises
    ------
    Unreachable
        Where none answers in time, or a request may have been done and must not be repeated.
    """
    started = clock()
    deadline = started + (policy.file_timeout if call.moves_file else policy.timeout)
    times, outcome = 0, None
    for turn in range(policy.retries + 1):
        after: list[float | None] = []
        is_final = True
        for left, url in zip(range(len(urls), 0, -1), urls, strict=True):
            share = (deadline - clock()) / left  # a server that hangs leaves time for those after it
            outcome = yield Send(url=url, call=call, deadline=clock() + share)
            times += 1
            if outcome is None or not is_worth_repeating(call, outcome):
                return _settled(call, outcome, url)
            is_final &= isinstance(outcome, Failure) and outcome.is_final
            after.append(outcome.retry_after if isinstance(outcome, Answer) else None)
            if clock() >= deadline:
                break
        pause = policy.pause(turn, after=after[0], draw=draw)
        if is_final or turn == policy.retries or clock() + pause >= deadline:
            break
        yield Wait(seconds=pause)
    if isinstance(outcome, Answer):
        return outcome
    reason = outcome.reason if outcome else "nothing was sent"
    raise Unreachable(
        f"{' and '.join(urls)}: no answer ({reason}; asked {times} times in {clock() - started:.1f} s); "
        "check the address, that the server runs (python -m serve), and the timeout"
    )


def _settled(call: ServerCall, outcome: Answer | Failure | None, url: str) -> Answer:
    if isinstance(outcome, Answer):
        return outcome
    reason = outcome.reason if outcome else "the request was not sent"
    raise Unreachable(
        f"{url}: the connection broke after the request was sent ({reason}); {call.method} {call.path} may have been "
        "done: look before you repeat it"
    )

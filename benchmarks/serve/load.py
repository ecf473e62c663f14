"""A load generator over plain sockets, cheap enough to stand beside the server on the same machine.

Requests are written beforehand; of an answer only the status and the length are read. *Closed*: every client sends
its next request when it has its answer, which finds the peak. *Open*: requests are due at random times of a given mean
rate, whether or not earlier ones are answered, and a latency counts from when its request was due: a server that
stalls is charged for everything that queues up behind it.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import re
import select
import socket
import time
from collections.abc import Sequence

from benchmarks.serve import trees

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PATIENCE = 60.0  # seconds without any answer
SAMPLES = 50


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to send.

    Parameters
    ----------
    server : the process whose tree is charged
    requests : whole HTTP requests, sent in turn
    rate : requests per second; ``None`` for a closed loop
    """

    port: int
    server: int
    requests: Sequence[bytes]
    clients: int
    seconds: float
    rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What came of it.

    Parameters
    ----------
    answered : requests, all of them with status 200
    seconds : from the first request to the last answer
    cpu : seconds that the server's tree spent in that time, before and after which nothing is under way
    own_cpu : seconds that the generator spent
    latencies : seconds, sorted
    samples : number of the request and its answer
    """

    answered: int
    seconds: float
    cpu: float
    own_cpu: float
    latencies: Sequence[float]
    samples: Sequence[tuple[int, bytes]]

    def quantile(self, share: float) -> float:
        """Return the latency that this share of the requests stays below."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Client:
    """A keep-alive connection with at most one request under way."""

    __slots__ = ("answer", "due", "is_idle", "needed", "number", "rest", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.rest, self.answer = memoryview(b""), bytearray()
        self.due, self.needed, self.number = 0.0, 0, 0
        self.is_idle = True

    def start(self, request: bytes, *, number: int, due: float) -> bool:
        """Begin a request; say whether all of it is sent."""
        self.rest, self.answer, self.needed = memoryview(request), bytearray(), 0
        self.number, self.due, self.is_idle = number, due, False
        return self.send()

    def send(self) -> bool:
        """Send as much as the socket takes; say whether that was all."""
        try:
            self.rest = self.rest[self.socket.send(self.rest) :]
        except BlockingIOError:
            return False
        return not self.rest

    def receive(self) -> bool:
        """Read what is there; say whether the answer is complete."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError(f"the server closed a connection after {bytes(self.answer[:500])!r}")
        self.answer += part
        if not self.needed and (end := self.answer.find(b"\r\n\r\n")) > 0:
            length = LENGTH.search(self.answer, 0, end)
            if not length or self.answer[9:12] != b"200":
                raise ConnectionError(f"the server answered {bytes(self.answer[:500])!r}")
            self.needed = end + 4 + int(length[1])
        self.is_idle = 0 < self.needed <= len(self.answer)
        return self.is_idle

    def body(self) -> bytes:
        """Return the body of a complete answer."""
        return bytes(self.answer[self.answer.find(b"\r\n\r\n") + 4 :])


class Generator:
    """The connections of one job, and what they have seen."""

    def __init__(self, job: Job) -> None:
        self.job, self.epoll = job, select.epoll()
        self.clients: dict[int, Client] = {}
        self.free: collections.deque[Client] = collections.deque()
        for _ in range(job.clients):
            self.connect()
        self.sent = 0
        self.latencies: list[float] = []
        self.samples: list[tuple[int, bytes]] = []

    def connect(self) -> None:
        """Add a client."""
        client = Client(self.job.port)
        self.clients[client.socket.fileno()] = client
        self.epoll.register(client.socket.fileno(), select.EPOLLIN)
        self.free.append(client)

    def replace(self, client: Client) -> None:
        """Exchange a client that the server had kept idle for long enough."""
        self.free.remove(client)
        del self.clients[client.socket.fileno()]
        client.socket.close()
        self.connect()

    def close(self) -> None:
        """Close the connections."""
        self.epoll.close()
        for client in self.clients.values():
            client.socket.close()

    def start(self, due: float) -> None:
        """Send the next request by the client that has been free for the longest time."""
        client = self.free.popleft()
        number = self.sent % len(self.job.requests)
        self.sent += 1
        if not client.start(self.job.requests[number], number=number, due=due):
            self.epoll.modify(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def wait(self, timeout: float) -> None:
        """Wait for something to happen, and note the answers that are complete."""
        # An epoll waits in whole milliseconds; select waits for the epoll in microseconds.
        select.select([self.epoll], [], [], max(0.0, timeout))
        for number, event in self.epoll.poll(0):
            client = self.clients[number]
            if client.is_idle:
                self.replace(client)
                continue
            if event & select.EPOLLOUT and client.send():
                self.epoll.modify(number, select.EPOLLIN)
            if event & ~select.EPOLLOUT and client.receive():
                self._note(client)

    def wait_patiently(self) -> None:
        """Wait for an answer, but not for ever."""
        before, until = len(self.latencies), time.perf_counter() + PATIENCE
        while len(self.latencies) == before:
            self.wait(until - time.perf_counter())
            if time.perf_counter() > until:
                raise TimeoutError(f"no answer for {PATIENCE:.0f} s; {self.under_way()} requests are under way")

    def _note(self, client: Client) -> None:
        self.free.append(client)
        count = len(self.latencies)
        self.latencies.append(time.perf_counter() - client.due)
        # The first ones, and then ever fewer, so that the whole run is looked at.
        if len(self.samples) < SAMPLES or count & (count - 1) == 0:
            self.samples.append((client.number, client.body()))

    def under_way(self) -> int:
        """Count requests without an answer."""
        return self.sent - len(self.latencies)


def run(job: Job) -> Load:
    """Send the load; all that is sent is answered before this returns."""
    generator = Generator(job)
    try:
        cpu, own, began = trees.cpu_of(job.server), time.process_time(), time.perf_counter()
        if job.rate is None:
            _closed(generator, until=began + job.seconds)
        else:
            _open(generator, job.rate, began=began)
        seconds, own = time.perf_counter() - began, time.process_time() - own
        cpu = trees.cpu_of(job.server) - cpu
    finally:
        generator.close()
    return Load(
        answered=len(generator.latencies),
        seconds=seconds,
        cpu=cpu,
        own_cpu=own,
        latencies=sorted(generator.latencies),
        samples=generator.samples,
    )


def _closed(generator: Generator, *, until: float) -> None:
    for _ in generator.clients:  # once, however short the time
        generator.start(time.perf_counter())
    while generator.under_way():
        generator.wait_patiently()
        while generator.free and (now := time.perf_counter()) < until:
            generator.start(now)


def _open(generator: Generator, rate: float, *, began: float) -> None:
    draw = random.Random(0)
    due, end = began + draw.expovariate(rate), began + generator.job.seconds
    while due < end or generator.under_way():
        while generator.free and due < end and due <= time.perf_counter():
            generator.start(due)
            due += draw.expovariate(rate)
        if generator.free and due < end:
            generator.wait(due - time.perf_counter())
        elif generator.under_way():
            generator.wait_patiently()

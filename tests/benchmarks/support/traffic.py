"""Send requests in a closed loop or at Poisson times, and note the outcome of each."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from tests.benchmarks.support.load import percentile
from tests.benchmarks.support.request_file import Asked


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for one request."""

    first: float | None
    """When the first piece of text had come, by `time.monotonic`; None where answers come whole."""
    text: str
    """Without the white space around it."""
    tokens: int
    """Generated, end-of-sequence included."""
    token_ids: tuple[int, ...] | None = None
    """Where the stack tells them and was asked to."""
    prompt_ids: tuple[int, ...] | None = None
    """Likewise; the image expanded."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds, where the stack tells them."""


Ask = Callable[[Asked], Awaitable[Answer]]
"""Raises RuntimeError or OSError when there is no answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One request as its client saw it; seconds on the clock of the load that it belongs to."""

    number: int
    begun: float
    """When it was sent; in an open loop, when it was due."""
    first: float | None
    ended: float
    failure: str | None = None
    text: str = ""
    tokens: int = 0
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """One load on one stack."""

    kind: str
    """`closed`, `open` or `batch`."""
    level: float
    """Clients, requests a second, or requests in a batch."""
    warm: bool
    """Whether the same requests had been answered before."""
    replies: tuple[Reply, ...]
    cpu_seconds: float
    """Of everything that answers; of the client too, where it lives in the same process."""
    client_share: float | None = None
    """Of one core, by the client alone; None where it cannot be told apart. Near one, the client was the bottleneck."""
    late: float = 0.0
    """Seconds that an open loop's requests were sent after they were due, 99th percentile."""

    @property
    def label(self) -> str:
        load = {"closed": "c={:g}", "open": "{:.3g} req/s", "batch": "batch {:g}"}[self.kind].format(self.level)
        return f"{load}, warm" if self.warm else load

    def figures(self) -> dict[str, float]:
        """Seconds; NaN for what nobody measured."""
        answered = [reply for reply in self.replies if reply.failure is None]
        span = max(reply.ended for reply in self.replies) - min(reply.begun for reply in self.replies)
        first = [reply.first - reply.begun for reply in answered if reply.first is not None]
        whole = [reply.ended - reply.begun for reply in answered]
        stages = {name for reply in answered for name in reply.stages}
        return {
            "throughput": len(answered) / span,
            "tokens_per_second": sum(reply.tokens for reply in answered) / span,
            "ttft_p50": percentile(first, 0.5),
            "ttft_p99": percentile(first, 0.99),
            "e2e_p50": percentile(whole, 0.5),
            "e2e_p99": percentile(whole, 0.99),
            "cpu_per_request": self.cpu_seconds / len(self.replies),
        } | {f"stage_{name}": percentile([reply.stages.get(name, 0.0) for reply in answered], 0.5) for name in stages}

    def failures(self) -> dict[str, int]:
        return dict(Counter(reply.failure for reply in self.replies if reply.failure is not None))

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"label": self.label, "figures": self.figures()}


def poisson_times(rate: float, count: int, *, seed: int) -> list[float]:
    """`count` moments of a Poisson process of `rate` a second, from its beginning on; the same for the same seed."""
    chance, moment, times = random.Random(seed), 0.0, []
    for _ in range(count):
        moment += chance.expovariate(rate)
        times.append(moment)
    return times


async def closed_loop(ask: Ask, requests: Sequence[Asked], *, clients: int) -> list[Reply]:
    """`clients` that share the requests, each taking the next one when its last was answered."""
    origin, waiting, replies = time.monotonic(), iter(requests), []

    async def one() -> None:
        for asked in waiting:
            replies.append(await _reply(ask, asked, begun=time.monotonic(), origin=origin))

    await asyncio.gather(*(one() for _ in range(clients)))
    return replies


async def open_loop(ask: Ask, requests: Sequence[Asked], *, rate: float, seed: int) -> tuple[list[Reply], float]:
    """Requests at Poisson times that wait for nobody, and how late they were sent (99th percentile)."""
    origin = time.monotonic()
    tasks, lateness = [], []
    for asked, moment in zip(requests, poisson_times(rate, len(requests), seed=seed), strict=True):
        due = origin + moment
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        lateness.append(time.monotonic() - due)
        tasks.append(asyncio.create_task(_reply(ask, asked, begun=due, origin=origin)))
    return list(await asyncio.gather(*tasks)), percentile(lateness, 0.99)


async def _reply(ask: Ask, asked: Asked, *, begun: float, origin: float) -> Reply:
    try:
        answer = await ask(asked)
    except (OSError, RuntimeError, EOFError) as error:
        ended = time.monotonic() - origin
        what = str(error) or type(error).__name__
        return Reply(number=asked.number, begun=begun - origin, first=None, ended=ended, failure=what)
    return Reply(
        number=asked.number,
        begun=begun - origin,
        first=None if answer.first is None else answer.first - origin,
        ended=time.monotonic() - origin,
        text=answer.text,
        tokens=answer.tokens,
        stages=answer.stages,
    )


def cpu_seconds(root: psutil.Process) -> float:
    """User and system time of a process, of all it has started, and of those of them that have ended."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            # Its time is its parent's now.
            continue
        total += spent.user + spent.system + spent.children_user + spent.children_system
    return total

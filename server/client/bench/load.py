"""Requests as many clients would send them, and one record of each.

Each is sent once, as a stream: what is refused counts as refused, and the first piece of an answer has a time.
`numbers` are those of the requests and go on from one load to the next, so that none begins with another's pictures.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.async_client import AsyncClient
from medmoe.client.bench.questions import Questions
from medmoe.client.errors import ClientError, ServiceError

ANSWERED = "answered"
_AFTER_REFUSAL = 0.05
"""Seconds: a closed loop that is refused must not spin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One request; times on the clock of `time.monotonic`."""

    what: str
    """ANSWERED, or the code of a refusal, or the kind of a failure without one."""
    begun: float
    """When it was due, where that was decided before."""
    first: float | None
    """First piece of the answer."""
    ended: float
    tokens: int


async def once(client: AsyncClient, asked: Questions, number: int, *, due: float | None = None) -> Outcome:
    """Ask, read to the end, and say what became of it."""
    begun = time.monotonic() if due is None else due
    first: float | None = None
    tokens = 0
    what = ANSWERED
    picture = asked.pictures[number % len(asked.pictures)]
    try:
        async with aclosing(client.stream(picture, asked.text, max_tokens=asked.max_tokens)) as events:
            async for event in events:
                first = first or time.monotonic()
                if isinstance(event, VqaAnswer):
                    tokens = event.usage.completion_tokens
    except ServiceError as error:
        what = f"{error.status or 'stream'} {error.code}"
    except ClientError as error:
        what = type(error).__name__
    return Outcome(what=what, begun=begun, first=first, ended=time.monotonic(), tokens=tokens)


async def closed_loop(
    client: AsyncClient, asked: Questions, *, clients: int, seconds: float, numbers: Iterator[int]
) -> list[Outcome]:
    """So many clients, each asking its next question when the last one is answered, for `seconds`; each asks once."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds

    async def one() -> None:
        while True:
            outcome = await once(client, asked, next(numbers))
            outcomes.append(outcome)
            if time.monotonic() >= end:
                return
            if outcome.what != ANSWERED:
                await asyncio.sleep(_AFTER_REFUSAL)

    await asyncio.gather(*(one() for _ in range(clients)))
    return outcomes


async def open_loop(
    client: AsyncClient, asked: Questions, *, rate: float, seconds: float, seed: int, numbers: Iterator[int]
) -> list[Outcome]:
    """Questions that come on their own, `rate` a second on average (Poisson), whether others are answered or not."""
    arrivals = random.Random(seed)
    begun = time.monotonic()
    due = begun + arrivals.expovariate(rate)
    coming: list[asyncio.Task[Outcome]] = []
    async with asyncio.TaskGroup() as group:
        while due < begun + seconds:
            await asyncio.sleep(due - time.monotonic())
            coming.append(group.create_task(once(client, asked, next(numbers), due=due)))
            due += arrivals.expovariate(rate)
    return [task.result() for task in coming]

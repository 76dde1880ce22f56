"""Generate load: closed and open loops of streamed requests, with one record for each request.

Every request is sent once, so refusals are counted. `numbers` continue from one level to the next, so that a level does
not begin with images that the service has just cached.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from medmoe.client.answers.vqa import VqaAnswer
from medmoe.client.async_client import AsyncClient
from medmoe.client.errors import ClientError, ServiceError
from medmoe.client.images.image import Image

ANSWERED = "answered"
_AFTER_REFUSAL = 0.05
"""Pause of a closed loop after a refusal, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """Define the requests: request n asks about image n, starting over after the last image."""

    images: tuple[Image, ...]
    question: str
    max_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Record one request; times are those of `time.monotonic`, in seconds."""

    status: str
    """ANSWERED, the status and code of a refusal, or the class of another error."""
    begun: float
    """Start of the request; in an open loop the time when it was due."""
    first: float | None
    """Arrival of the first piece of the answer."""
    ended: float
    tokens: int


async def once(client: AsyncClient, workload: Workload, number: int, *, due: float | None = None) -> Outcome:
    """Send one request, read its answer to the end, and record the outcome."""
    begun = time.monotonic() if due is None else due
    first: float | None = None
    tokens = 0
    status = ANSWERED
    image = workload.images[number % len(workload.images)]
    try:
        async with aclosing(client.stream(image, workload.question, max_tokens=workload.max_tokens)) as events:
            async for event in events:
                first = first or time.monotonic()
                if isinstance(event, VqaAnswer):
                    tokens = event.usage.completion_tokens
    except ServiceError as error:
        status = f"{error.status or 'stream'} {error.code}"
    except ClientError as error:
        status = type(error).__name__
    return Outcome(status=status, begun=begun, first=first, ended=time.monotonic(), tokens=tokens)


async def closed_loop(
    client: AsyncClient, workload: Workload, *, clients: int, seconds: float, numbers: Iterator[int]
) -> list[Outcome]:
    """Run `clients` that each ask again once they are answered, for `seconds`; each asks at least once."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds

    async def one() -> None:
        while True:
            outcome = await once(client, workload, next(numbers))
            outcomes.append(outcome)
            if time.monotonic() >= end:
                return
            if outcome.status != ANSWERED:
                await asyncio.sleep(_AFTER_REFUSAL)

    await asyncio.gather(*(one() for _ in range(clients)))
    return outcomes


async def open_loop(
    client: AsyncClient, workload: Workload, *, rate: float, seconds: float, seed: int, numbers: Iterator[int]
) -> list[Outcome]:
    """Send Poisson arrivals of `rate` requests a second on average, independent of the answers."""
    arrivals = random.Random(seed)
    begun = time.monotonic()
    due = begun + arrivals.expovariate(rate)
    coming: list[asyncio.Task[Outcome]] = []
    async with asyncio.TaskGroup() as group:
        while due < begun + seconds:
            await asyncio.sleep(due - time.monotonic())
            coming.append(group.create_task(once(client, workload, next(numbers), due=due)))
            due += arrivals.expovariate(rate)
    return [task.result() for task in coming]

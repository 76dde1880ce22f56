"""Limit how many requests run and how many wait; raise the error behind 429."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medmoe.server.admission.background_turns import BackgroundTurns
from medmoe.server.admission.deadline import Deadline
from medmoe.server.errors import Draining, Overloaded, Unauthenticated
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.tasks import happens_within

_MEMORY = 0.1
"""Weight of the newest request in the running mean of how long a slot is held."""
_LONGEST_RETRY = 120


class Admission:
    """A semaphore with a bounded queue in front of it.

    `slot` changes both counts in a `finally`, so that they return to zero whatever happens to a request.
    """

    def __init__(self, *, max_concurrent: int, max_queued: int, background: BackgroundTurns | None = None) -> None:
        """Pass the turns of background requests where there are any: lines of batches, which take no slot."""
        self._background = background or BackgroundTurns()
        self._slots = asyncio.Semaphore(max_concurrent)
        self._max_concurrent = max_concurrent
        self._places = max_concurrent + max_queued
        self._running = 0
        self._waiting = 0
        self._mean_hold = 1.0
        self._requests: dict[Deadline, RequestRecord] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Return the number of requests that run or wait."""
        return self._running + self._waiting

    @property
    def places(self) -> int:
        """Return the largest number of requests that run or wait; the next is refused."""
        return self._places

    @property
    def is_full(self) -> bool:
        """Return whether the next request is refused."""
        return self.in_flight >= self._places

    def refuse_when_full(self) -> None:
        """Raise Overloaded when `is_full`."""
        if self.is_full:
            rounds = (self._waiting + 1) / self._max_concurrent
            raise Overloaded(retry_after=min(_LONGEST_RETRY, max(1, math.ceil(rounds * self._mean_hold))))

    @asynccontextmanager
    async def slot(self, *, deadline: Deadline, record: RequestRecord) -> AsyncIterator[None]:
        """Hold one slot; waiting for it is the stage `queue`. Raises Overloaded, DeadlineExceeded, and
        Unauthenticated for a key that was revoked meanwhile.
        """
        is_background = record.batch is not None
        if not is_background:
            self.refuse_when_full()
        if record.grant is not None:
            record.grant.require_valid()
        self._requests[deadline] = record
        try:
            if is_background:
                yield
                return
            with self._background.foreground():
                begun = await self._take(deadline, record)
                try:
                    yield
                finally:
                    self._give_back(begun)
        finally:
            self._requests.pop(deadline, None)

    def cut_short(self) -> None:
        """End every running and waiting request with Draining."""
        for deadline in tuple(self._requests):
            deadline.cut_short(lambda: Draining("the service stopped before the answer was finished"))

    def end_revoked(self) -> None:
        """End every running and waiting request whose API key has been revoked, with Unauthenticated."""
        for deadline, record in tuple(self._requests.items()):
            if record.grant is not None and record.grant.revoked:
                deadline.cut_short(lambda: Unauthenticated("the API key was revoked"))

    async def _take(self, deadline: Deadline, record: RequestRecord) -> float:
        """Wait for a slot; return the loop's time at which it was taken."""
        self._waiting += 1
        self._idle.clear()
        try:
            with record.stage("queue"):
                async with deadline.guard():
                    await self._slots.acquire()
            self._running += 1
        finally:
            self._waiting -= 1
            self._settle()
        return asyncio.get_running_loop().time()

    def _give_back(self, begun: float) -> None:
        self._running -= 1
        self._slots.release()
        self._mean_hold += _MEMORY * (asyncio.get_running_loop().time() - begun - self._mean_hold)
        self._settle()

    async def wait_idle(self, seconds: float) -> bool:
        """Wait at most `seconds` until no request runs or waits; return whether that happened."""
        return await happens_within(self._idle, seconds)

    def _settle(self) -> None:
        if self.in_flight == 0:
            self._idle.set()

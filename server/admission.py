"""How many requests may be inside, how many may wait, and for how long: 429 and 504 are born here.

Apart from the routes because the two limits protect the process as a whole. The count is derived from two numbers
that only `slot` moves, each in a `finally`, so it comes back to zero whatever happens inside.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medmoe.server.errors import DeadlineExceeded, Overloaded
from medmoe.server.request_record import RequestRecord

_MEMORY = 0.1
"""Weight of the newest request in the running mean of how long a slot is held."""
_LONGEST_RETRY = 120


class Deadline:
    """A point in time that a request must not outlive."""

    def __init__(self, seconds: float) -> None:
        self._when = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def guard(self, *, grace: float = 0.0) -> AsyncIterator[None]:
        """Cancel what is inside when the time (and `grace` seconds more) has come. Raises DeadlineExceeded."""
        timeout = asyncio.timeout_at(self._when + grace)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise DeadlineExceeded("the answer was not finished in time") from error


class Admission:
    """A semaphore with a bounded queue in front of it."""

    def __init__(self, *, max_concurrent: int, max_queued: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._max_concurrent = max_concurrent
        self._places = max_concurrent + max_queued
        self._running = 0
        self._waiting = 0
        self._mean_hold = 1.0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests running or waiting for their turn."""
        return self._running + self._waiting

    def refuse_when_full(self) -> None:
        """Raises Overloaded when a request that came now would find no place."""
        if self.in_flight >= self._places:
            rounds = (self._waiting + 1) / self._max_concurrent
            raise Overloaded(retry_after=min(_LONGEST_RETRY, max(1, math.ceil(rounds * self._mean_hold))))

    @asynccontextmanager
    async def slot(self, *, deadline: Deadline, record: RequestRecord) -> AsyncIterator[None]:
        """Hold one slot; waiting for it is the stage `queue`. Raises Overloaded, DeadlineExceeded."""
        self.refuse_when_full()
        self._waiting += 1
        self._idle.clear()
        try:
            with record.stage("queue"):
                async with deadline.guard():
                    await self._slots.acquire()
        finally:
            self._waiting -= 1
            self._settle()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            self._slots.release()
            self._mean_hold += _MEMORY * (loop.time() - begun - self._mean_hold)
            self._settle()

    async def wait_idle(self, seconds: float) -> bool:
        """Wait until nobody is inside, at most `seconds`; True when that came about."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _settle(self) -> None:
        if self.in_flight == 0:
            self._idle.set()

"""How many requests may be inside, how many may wait, and for how long: 429 and 504 are born here.

Apart from the routes because the two limits protect the process as a whole. The count is derived from two numbers
that only `slot` moves, each in a `finally`, so it comes back to zero whatever happens inside.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medmoe.server.errors import DeadlineExceeded, Draining, Overloaded
from medmoe.server.observability.request_record import RequestRecord

_MEMORY = 0.1
"""Weight of the newest request in the running mean of how long a slot is held."""
_LONGEST_RETRY = 120


class Deadline:
    """A point in time that a request must not outlive; it can be brought forward when the service has to stop."""

    def __init__(self, seconds: float) -> None:
        self._when = asyncio.get_running_loop().time() + seconds
        self._guards: dict[asyncio.Timeout, float] = {}
        self._cut_short = False

    @asynccontextmanager
    async def guard(self, *, grace: float = 0.0) -> AsyncIterator[None]:
        """Cancel what is inside when the time (and `grace` seconds more) has come.

        Raises DeadlineExceeded, or Draining after `cut_short`.
        """
        timeout = asyncio.timeout_at(self._when + grace)
        self._guards[timeout] = grace
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            if self._cut_short:
                raise Draining("the service stopped before the answer was finished") from error
            raise DeadlineExceeded("the answer was not finished in time") from error
        finally:
            del self._guards[timeout]

    def cut_short(self) -> None:
        """The time has come."""
        now = asyncio.get_running_loop().time()
        if self._cut_short or self._when <= now:
            return
        self._when, self._cut_short = now, True
        for timeout, grace in self._guards.items():
            if not timeout.expired():
                timeout.reschedule(now + grace)


class Admission:
    """A semaphore with a bounded queue in front of it."""

    def __init__(self, *, max_concurrent: int, max_queued: int) -> None:
        self._slots = asyncio.Semaphore(max_concurrent)
        self._max_concurrent = max_concurrent
        self._places = max_concurrent + max_queued
        self._running = 0
        self._waiting = 0
        self._mean_hold = 1.0
        self._deadlines: set[Deadline] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests running or waiting for their turn."""
        return self._running + self._waiting

    @property
    def places(self) -> int:
        """Requests that may be inside, running or waiting; the next is refused."""
        return self._places

    @property
    def is_full(self) -> bool:
        """Whether a request that came now would find no place."""
        return self.in_flight >= self._places

    def refuse_when_full(self) -> None:
        """Raises Overloaded when it is."""
        if self.is_full:
            rounds = (self._waiting + 1) / self._max_concurrent
            raise Overloaded(retry_after=min(_LONGEST_RETRY, max(1, math.ceil(rounds * self._mean_hold))))

    @asynccontextmanager
    async def slot(self, *, deadline: Deadline, record: RequestRecord) -> AsyncIterator[None]:
        """Hold one slot; waiting for it is the stage `queue`. Raises Overloaded, DeadlineExceeded."""
        self.refuse_when_full()
        self._deadlines.add(deadline)
        try:
            async with self._waited_for(deadline, record):
                yield
        finally:
            self._deadlines.discard(deadline)

    def cut_short(self) -> None:
        """End every request inside with Draining, at once."""
        for deadline in tuple(self._deadlines):
            deadline.cut_short()

    @asynccontextmanager
    async def _waited_for(self, deadline: Deadline, record: RequestRecord) -> AsyncIterator[None]:
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

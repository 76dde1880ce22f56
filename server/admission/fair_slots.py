"""Limit how many run at once, and take turns among tenants."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """A semaphore whose waiters are served tenant by tenant, and in order of arrival within one tenant."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}
        """By tenant; the tenant whose turn is next comes first."""

    @asynccontextmanager
    async def slot(self, tenant: str | None) -> AsyncIterator[None]:
        """Hold one slot for the block."""
        await self._take(tenant)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, tenant: str | None) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot came while this waiter was cancelled.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a slot to the next waiter that has not been cancelled, or keep it."""
        while self._waiting:
            tenant = next(iter(self._waiting))
            turns = self._waiting.pop(tenant)
            while turns and turns[0].done():
                turns.popleft()
            if not turns:
                continue
            turn = turns.popleft()
            if turns:
                self._waiting[tenant] = turns
            turn.set_result(None)
            return
        self._free += 1

"""Many at once, or one alone, in the order they came."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medmoe.server.errors import EngineDeadError


class ReadWriteLock:
    """A readers-writer lock that is fair, and that can be closed over the heads of those who wait."""

    def __init__(self) -> None:
        self._holders = 0
        self._taken_alone = False
        self._closed = False
        self._queue: deque[object] = deque()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, *, alone: bool) -> AsyncIterator[None]:
        """Be inside with others, or alone. Raises EngineDeadError once the lock is closed."""
        ticket = object()
        self._queue.append(ticket)
        try:
            while self._closed or self._queue[0] is not ticket or self._taken_alone or (alone and self._holders):
                if self._closed:
                    raise EngineDeadError("the engine ended before this request had entered it")
                await self._changed.wait()
            self._holders += 1
            self._taken_alone = alone
        finally:
            self._queue.remove(ticket)
            self._wake()
        try:
            yield
        finally:
            self._holders -= 1
            self._taken_alone = False
            self._wake()

    def close(self) -> None:
        """Let nobody in any more; who is inside may leave when they like."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        # A new event each time: whoever has to wait on must not find the old one set.
        self._changed.set()
        self._changed = asyncio.Event()

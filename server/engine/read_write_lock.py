"""Hold a lock together with others, or alone, in order of arrival."""

import asyncio
from collections import deque

from medmoe.server.errors import EngineDeadError


class ReadWriteLock:
    """A fair readers-writer lock; closing it fails everything that waits."""

    def __init__(self) -> None:
        self._holders = 0
        self._taken_alone = False
        self._closed = False
        self._queue: deque[object] = deque()
        self._changed = asyncio.Event()

    async def acquire(self, *, alone: bool) -> None:
        """Take the lock with others, or `alone`. Raises EngineDeadError once the lock is closed."""
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

    def release(self) -> None:
        """Give the lock back."""
        self._holders -= 1
        self._taken_alone = False
        self._wake()

    def close(self) -> None:
        """Fail all that wait and all that come; holders are not affected."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        # A new event each time: a waiter that has to wait on must not find the old one set.
        self._changed.set()
        self._changed = asyncio.Event()

"""Touch the directory of files and batches in threads of its own: where its disk hangs, nothing else waits."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from medmoe.server.batches.errors import StorageUnavailable
from medmoe.server.tasks import DaemonThreads

log = logging.getLogger("medmoe.batches")

Result = TypeVar("Result")

_COUNT = 8
_PATIENCE = 30.0
"""Seconds for one piece of work, after which the disk counts as hanging."""


class StorageThreads:
    """The threads of one directory, and since when each works. Use it on the event loop's thread."""

    def __init__(self, *, patience: float = _PATIENCE) -> None:
        """Let a request wait at most `patience` seconds."""
        self._patience = patience
        self._threads = DaemonThreads("batches", count=_COUNT)
        self._begun: dict[asyncio.Future[Any], float] = {}
        self._changes: set[asyncio.Task[Any]] = set()

    @property
    def hang(self) -> bool:
        """Return whether a piece of work takes longer than a working disk needs."""
        now = time.monotonic()
        return any(now - begun > self._patience for begun in self._begun.values())

    def require(self) -> None:
        """Raise StorageUnavailable while the threads hang."""
        if self.hang:
            raise StorageUnavailable

    async def do(self, work: Callable[[], Result], *, is_long: bool = False) -> Result:
        """Return the result of `work`, which a cancellation does not end; with `is_long` it never counts as hanging."""
        doing = asyncio.wrap_future(self._threads.submit(work))
        self._begun[doing] = math.inf if is_long else time.monotonic()
        doing.add_done_callback(self._begun.pop)
        doing.add_done_callback(_retrieve)
        # Not cancelled with its waiter: it counts until its thread is free.
        return await asyncio.shield(doing)

    async def in_time(self, change: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of a change that a request makes.

        Raises StorageUnavailable for one that takes too long; it then goes on, as it does when the client leaves.
        """
        changing = asyncio.create_task(change)
        self._changes.add(changing)
        changing.add_done_callback(self._changes.discard)
        changing.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({changing}, timeout=self._patience)
        if not done:
            log.error("the disk of files and batches hangs", extra={"fields": {"seconds": self._patience}})
            raise StorageUnavailable
        return changing.result()

    async def end(self, seconds: float) -> bool:
        """End the threads once what was submitted is done; return whether that happened within `seconds`."""
        self._threads.end()
        left = set(self._begun)
        return not left or not (await asyncio.wait(left, timeout=seconds))[1]


def _retrieve(ended: "asyncio.Future[Any]") -> None:
    """Take the exception, which nobody may be left to hear of."""
    if not ended.cancelled():
        ended.exception()

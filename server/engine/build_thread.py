"""Build an engine in a thread that the service can leave behind."""

import asyncio
import multiprocessing
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Generic, TypeVar

import psutil

from medmoe.server.engine.process_tree import ProcessTree
from medmoe.server.tasks import DaemonThreads

Built = TypeVar("Built")

_FINISHES_SECONDS = 5.0
"""Time in which an abandoned build may finish by itself: near its end it cannot be interrupted."""
_FAILS_SECONDS = 20.0
"""Time in which it may fail after its processes have been killed; imports come to their end in it."""


class BuildThread(Generic[Built]):
    """Run `build` in a daemon thread, which does not keep the process from ending. One build at a time."""

    def __init__(self, build: Callable[[], Built]) -> None:
        self._others = frozenset(child.pid for child in multiprocessing.active_children())
        """Processes of other engines."""
        thread = DaemonThreads("engine-build")
        self._future = thread.submit(build)
        thread.end()

    async def result(self) -> Built:
        """Return what `build` returns, or raise what it raises. Cancelling this does not end the build."""
        return await asyncio.wrap_future(self._future)

    async def abandon(self) -> Built | None:
        """Bring the build to an end, by killing the processes that it has started; return what it has built after all.

        Return None when it failed, or when the thread had to be left behind.
        """
        if not await self._finished(_FINISHES_SECONDS):
            await asyncio.to_thread(_kill_children, self._others)
            await self._finished(_FAILS_SECONDS)
        if self._future.done() and self._future.exception() is None:
            return self._future.result()
        return None

    async def _finished(self, seconds: float) -> bool:
        with suppress(Exception):
            async with asyncio.timeout(seconds):
                await self.result()
        return self._future.done()


def _kill_children(others: Collection[int | None]) -> None:
    """Kill the processes that multiprocessing has started here, except `others`; decoders are not among them."""
    for child in multiprocessing.active_children():
        if child.pid in others:
            continue
        with suppress(psutil.NoSuchProcess):
            tree = ProcessTree([child.pid] if child.pid is not None else [])
            tree.kill()
            tree.clear()

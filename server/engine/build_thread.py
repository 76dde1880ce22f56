"""Build an engine in a thread that the service can leave behind."""

import asyncio
import multiprocessing
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

import psutil

from medmoe.server.engine.process_tree import ProcessTree

Built = TypeVar("Built")

_FINISHES_SECONDS = 5.0
"""Time in which an abandoned build may finish by itself: near its end it cannot be interrupted."""
_FAILS_SECONDS = 20.0
"""Time in which it may fail after its processes have been killed; imports come to their end in it."""


class BuildThread(Generic[Built]):
    """Run `build` in a daemon thread, which does not keep the process from ending. One build at a time."""

    def __init__(self, build: Callable[[], Built]) -> None:
        self._future: Future[Built] = Future()
        self._others = frozenset(child.pid for child in multiprocessing.active_children())
        """Processes of other engines."""
        threading.Thread(target=self._run, args=(build,), name="engine-build", daemon=True).start()

    async def result(self) -> Built:
        """Return what `build` returns, or raise what it raises. Cancelling this does not end the build."""
        waiting = asyncio.wrap_future(self._future)
        # A cancelled caller does not retrieve the exception, and asyncio would log that.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(waiting)

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

    def _run(self, build: Callable[[], Built]) -> None:
        try:
            self._future.set_result(build())
        except BaseException as error:
            self._future.set_exception(error)


def _kill_children(others: Collection[int | None]) -> None:
    """Kill the processes that multiprocessing has started here, except `others`; decoders are not among them."""
    for child in multiprocessing.active_children():
        if child.pid in others:
            continue
        with suppress(psutil.NoSuchProcess):
            tree = ProcessTree([child.pid] if child.pid is not None else [])
            tree.kill()
            tree.clear()

"""Run coroutines at once, as one; wait for an event for a limited time; work in a thread that can be left behind."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_PATIENCE = 5.0
"""Seconds for one look at files, after which their disk counts as hanging."""


async def run_all(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return the results in order. The first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in coroutines]
    except ExceptionGroup as failures:
        raise _first(failures) from failures
    return [task.result() for task in tasks]


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait at most `seconds` for `event`; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


class DaemonThreads:
    """Threads that do one piece of work after another each, and do not keep the process from ending."""

    def __init__(self, name: str, *, count: int = 1) -> None:
        """Start one thread now, and others up to `count` as they are needed."""
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._name = name
        self._count = count
        self._started = 0
        self._start()

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Return the future of `work`, which cannot be cancelled."""
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._queue.put(do)
        if self._started < self._count and not self._queue.empty():
            # Without room for another thread those that there are do the work.
            with suppress(RuntimeError):
                self._start()
        return future

    async def do(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, which is not begun once nobody waits for it."""
        gone = threading.Event()

        def waited_for() -> Result:
            if gone.is_set():
                raise asyncio.CancelledError
            return work()

        try:
            return await asyncio.wrap_future(self.submit(waited_for))
        finally:
            gone.set()

    async def look(self, work: Callable[[], Result], *, on_hang: Callable[[], object]) -> Result:
        """Return what `work` finds in files; call `on_hang` meanwhile where their disk hangs."""
        looking = asyncio.create_task(self.do(work))
        if not (await asyncio.wait({looking}, timeout=_PATIENCE))[0]:
            on_hang()
        return await looking

    def end(self) -> None:
        """End once what was submitted is done."""
        for _ in range(self._started):
            self._queue.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        self._started += 1

    def _run(self) -> None:
        for do in iter(self._queue.get, None):
            do()


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    error: Exception = failures
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

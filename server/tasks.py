"""Run coroutines at once, as one; wait for an event for a limited time; work in a thread that can be left behind."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


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
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = count
        for _ in range(count):
            threading.Thread(target=self._run, name=name, daemon=True).start()

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
        return future

    def end(self) -> None:
        """End once what was submitted is done."""
        for _ in range(self._count):
            self._queue.put(None)

    def _run(self) -> None:
        for do in iter(self._queue.get, None):
            do()


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    error: Exception = failures
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

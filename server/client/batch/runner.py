"""The loop of a batch: several tasks at a time, their lines in the input's order."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from medmoe.client.async_client import AsyncClient
from medmoe.client.batch.result_file import ResultFile
from medmoe.client.batch.result_line import Line, answered, failed
from medmoe.client.batch.task import Task
from medmoe.client.errors import (
    ClientError,
    NoConnection,
    ServiceFull,
    ServiceUnavailable,
    Unauthorized,
    Untrusted,
)
from medmoe.client.images.image import Picture

Load = Callable[[Task], Picture]

_ENDS_THE_RUN = (NoConnection, ServiceFull, ServiceUnavailable, Unauthorized, Untrusted)
"""What no line is to blame for, after all attempts: the rest would only meet it too."""
_AHEAD = 4
"""Times `concurrency`: lines that may wait for an earlier one. A kill loses at most these."""


async def run(
    client: AsyncClient,
    tasks: Sequence[Task],
    file: ResultFile,
    *,
    load: Load,
    concurrency: int,
    tick: Callable[[], None],
) -> None:
    """Ask all `tasks` and append their lines; a task that fails gets a line that says so. `tick` for each of them.

    Raises what would have failed every other task too, with everything before it written; InvalidInput of the file.
    """
    places = asyncio.Semaphore(concurrency)
    waiting = iter(tasks)
    asked: deque[asyncio.Task[Line]] = deque()

    async def one(task: Task) -> Line:
        async with places:
            return await _line(client, task, load=load)

    try:
        while True:
            while len(asked) < _AHEAD * concurrency and (task := next(waiting, None)) is not None:
                asked.append(asyncio.create_task(one(task)))
            if not asked:
                return
            file.append(await asked[0])
            asked.popleft()
            tick()
    finally:
        for pending in asked:
            pending.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _line(client: AsyncClient, task: Task, *, load: Load) -> Line:
    try:
        picture = await asyncio.to_thread(load, task)
        if task.labels is None:
            return answered(task, await client.ask(picture, task.question or "", **task.ask_options))
        return answered(task, await client.classify(picture, task.labels, mode=task.mode, **task.classify_options))
    except _ENDS_THE_RUN:
        raise
    except ClientError as error:
        return failed(task, error)

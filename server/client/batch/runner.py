"""Run the tasks of a batch concurrently and write their lines in the input's order."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, Unpack

from medmoe.client.answers import AnyClassification, Mode, VqaAnswer
from medmoe.client.batch.result_line import Line, answered, failed
from medmoe.client.batch.task import Task
from medmoe.client.errors import ENDS_A_RUN, ClientError
from medmoe.client.images.image import Image
from medmoe.client.options import AskOptions, ClassifyOptions
from medmoe.client.transport.retry import Retry

Load = Callable[[Task], Image]

PATIENT = Retry(attempts=20, longest_pause=30.0)
"""Retries that outlast a restart of the engine or of the service."""
_AHEAD = 4
"""Lines that may wait for an earlier one, in multiples of `concurrency`. A kill loses at most these."""


class Service(Protocol):
    """Answer requests, as AsyncClient does."""

    async def ask(self, image: Image, question: str, /, **options: Unpack[AskOptions]) -> VqaAnswer:
        """See AsyncClient.ask."""

    async def classify(
        self, image: Image, labels: Sequence[str], /, *, mode: Mode, **options: Unpack[ClassifyOptions]
    ) -> AnyClassification:
        """See AsyncClient.classify."""


class Output(Protocol):
    """Take lines, as ResultFile and list do."""

    def append(self, line: Line, /) -> None:
        """Append a line."""


async def run(
    client: Service,
    tasks: Sequence[Task],
    file: Output,
    *,
    load: Load,
    concurrency: int,
    tick: Callable[[], None],
) -> None:
    """Ask all `tasks` and append a line for each, which holds the answer or the error; call `tick` after each.

    Raises an error that would fail every other task too, after writing the lines before it, and InvalidInput when the
    file cannot be written.
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


async def _line(client: Service, task: Task, *, load: Load) -> Line:
    try:
        image = await asyncio.to_thread(load, task)
        if task.labels is None:
            return answered(task, await client.ask(image, task.question or "", **task.ask_options))
        return answered(task, await client.classify(image, task.labels, mode=task.mode, **task.classify_options))
    except ENDS_A_RUN:
        raise
    except ClientError as error:
        return failed(task, error)

"""Answer blocks of tasks in an actor: ask a service of its own or running replicas, and write the partition."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medmoe.client.async_client import AsyncClient
from medmoe.client.batch.result_line import ERROR, Line, failed
from medmoe.client.batch.runner import PATIENT, Load, run
from medmoe.client.batch.task import Task
from medmoe.client.cluster.local_service import LocalService, ServiceEnded
from medmoe.client.cluster.partitions import answered_keys, write_partition
from medmoe.client.cluster.plan import Block
from medmoe.client.cluster.replicas import Replicas
from medmoe.client.errors import ClientError

_OWN = replace(PATIENT, unreachable=False)
"""Retries against a service of one's own, which is restarted when it cannot be reached."""
_MOST_DEATHS = 6
"""Deaths of the actor's service in one block that end the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """Say how an actor answers; the same for all actors."""

    output: Path
    load: Load
    urls: tuple[str, ...] = ()
    """Addresses of running replicas; without any, each actor runs a service of its own."""
    api_key: str | Path | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockReport:
    """Report the result of a block."""

    rows: int
    errors: int
    seconds: float
    """Time without the start of a service."""


class Worker:
    """Hold one actor's service; it starts with the first block."""

    def __init__(self, config: WorkerConfig, *, start: Callable[[], LocalService] = LocalService) -> None:
        self._config = config
        self._start = start
        self._service: LocalService | None = None

    def answer(self, block: Block) -> BlockReport:
        """Answer the tasks of a block and write their rows.

        A block that a lost actor has already written is not asked again. Raises an error that would fail every other
        task too, and InvalidInput when the partition cannot be written.
        """
        path = self._config.output / block.partition
        if not block.again and answered_keys(path) >= {task.key for task in block.tasks}:
            return BlockReport(rows=len(block.tasks), errors=0, seconds=0.0)
        self._urls()
        begun = time.monotonic()
        lines = self._lines(block.tasks)
        write_partition(path, lines)
        errors = sum(line[ERROR] is not None for line in lines)
        return BlockReport(rows=len(lines), errors=errors, seconds=time.monotonic() - begun)

    def _lines(self, tasks: Sequence[Task]) -> list[Line]:
        """Return the lines of all tasks. A task that ends the service while it is alone in it gets an error."""
        lines: list[Line] = []
        deaths = 0
        while len(lines) < len(tasks):
            try:
                asyncio.run(self._ask(tasks[len(lines) :], lines, alone=deaths > 1))
            except ClientError as error:
                if self._service is None or self._service.alive:
                    raise
                deaths += 1
                if deaths > _MOST_DEATHS:
                    raise ServiceEnded(f"an actor's service ended {deaths} times in one block") from error
                if deaths > 2:
                    lines.append(failed(tasks[len(lines)], ServiceEnded("the service ended while it answered this")))
        return lines

    async def _ask(self, tasks: Sequence[Task], lines: list[Line], *, alone: bool) -> None:
        config = self._config
        retry = PATIENT if config.urls else _OWN
        key = config.api_key if config.urls else ""
        clients = [AsyncClient(url, api_key=key, timeout=config.timeout, retry=retry) for url in self._urls()]
        async with Replicas(clients) as replicas:
            concurrency = 1 if alone else config.concurrency
            await run(replicas, tasks, lines, load=config.load, concurrency=concurrency, tick=lambda: None)

    def _urls(self) -> Sequence[str]:
        """Return the addresses to ask; start the actor's service, or start it again. Raises ServiceEnded."""
        if self._config.urls:
            return self._config.urls
        if self._service is None or not self._service.alive:
            self._service = None
            self._service = self._start()
        return [self._service.url]

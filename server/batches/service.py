"""Offer files and batches to their owners, and run the batches."""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from starlette.types import ASGIApp

from medmoe.server.admission.background_turns import BackgroundTurns
from medmoe.server.auth.authenticator import Authenticator
from medmoe.server.auth.delegation import Delegation
from medmoe.server.auth.tenants import Grant
from medmoe.server.batches.errors import BatchEnded, FileInUse, StorageUnavailable
from medmoe.server.batches.file_store import FileStore
from medmoe.server.batches.job_store import Job, JobStore
from medmoe.server.batches.storage import open_directory
from medmoe.server.batches.storage_threads import StorageThreads
from medmoe.server.batches.worker import BatchWorker
from medmoe.server.schemas.openai.batch import BatchRequest, BatchStatus
from medmoe.server.settings import Settings

log = logging.getLogger("medmoe.batches")

_FILES, _BATCHES = "files", "batches"
_PATIENCE = 5.0
"""Seconds in which the batches must stop."""
_SWEEP = 60.0
"""Seconds between two deletions of what has expired."""


class BatchService:
    """The files and batches of one deployment."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        authenticator: Authenticator,
        turns: BackgroundTurns,
        is_ready: Callable[[], bool],
    ) -> None:
        """Take `directory` for this process. Raises ConfigError."""
        self._lock: int | None = open_directory(directory, _FILES, _BATCHES)
        days = settings.batch_retention_days
        self.threads = StorageThreads()
        self.jobs = JobStore(directory / _BATCHES, retention_days=days, threads=self.threads)
        self.files = FileStore(
            directory / _FILES,
            retention_days=days,
            max_stored_bytes=settings.batch_max_stored_bytes,
            unfinished=self.jobs.unfinished_results,
            threads=self.threads,
        )
        self._worker = BatchWorker(
            settings,
            self.files,
            self.jobs,
            threads=self.threads,
            authenticator=authenticator,
            turns=turns,
            is_ready=is_ready,
        )
        self._app: ASGIApp | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def of(
        cls, settings: Settings, *, authenticator: Authenticator, turns: BackgroundTurns, is_ready: Callable[[], bool]
    ) -> Self | None:
        """Return the service of a deployment, None where it has no directory. Raises ConfigError."""
        if settings.batch_dir is None:
            return None
        return cls(settings, settings.batch_dir, authenticator=authenticator, turns=turns, is_ready=is_ready)

    def start(self, app: ASGIApp) -> None:
        """Go on with the batches of an earlier process, asking `app`."""
        self._app = app
        self.files.delete_unfinished(is_used=self.jobs.uses)
        for job in self.jobs:
            if not job.has_ended:
                self._run(job)
        self._spawn(self._sweep())

    async def stop(self) -> None:
        """Stop where the next process can go on."""
        tasks = set(self._tasks)
        # A task that is cancelled waits for its thread, and no more when it is cancelled again.
        for _ in range(2):
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=_PATIENCE)
        if not await self.threads.end(_PATIENCE):
            # A thread may still write: the directory is another process's when this one has ended.
            log.error("batches are left behind: their disk hangs")
        elif self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def create(self, request: BatchRequest, grant: Grant) -> Job:
        """Begin a batch. Raises FileNotFound, StorageLimit, StorageUnavailable."""
        owner = grant.tenant.owner

        async def create() -> Job:
            self.files.find(request.input_file_id, owner, purpose="batch")
            await self.files.require_room(owner)
            job = await self.jobs.create(request, Delegation.of(grant))
            log.info("batch created", extra={"fields": {"batch": job.id, "tenant": grant.tenant.log_id}})
            self._run(job)
            return job

        return await self.threads.in_time(create())

    async def cancel(self, batch_id: str, owner: str) -> Job:
        """End a batch with the results that it has. Raises BatchNotFound, BatchEnded."""
        job = self.jobs.find(batch_id, owner)
        if job.has_ended or job.status == "finalizing":
            raise BatchEnded
        if job.status != "cancelling":
            job.move("cancelling")
            # Without room the batch still ends, and its end is written once there is room.
            with contextlib.suppress(StorageUnavailable):
                await self.threads.in_time(self.jobs.save(job))
            if job.answering is not None:
                job.answering.cancel()
        return job

    async def delete_file(self, file_id: str, owner: str) -> None:
        """Delete a file. Raises FileNotFound, FileInUse, OSError."""
        self.files.find(file_id, owner)
        if self.jobs.uses(file_id):
            raise FileInUse
        await self.threads.in_time(self.files.delete(file_id))

    async def delete_expired(self) -> None:
        """Delete the files and batches whose time is over. Raises OSError."""
        try:
            await self.files.delete_expired(is_used=self.jobs.uses)
        finally:
            await self.jobs.delete_expired()

    def count(self) -> Counter[BatchStatus]:
        """Return the number of batches by status."""
        return Counter(job.status for job in self.jobs)

    @property
    def is_paused(self) -> bool:
        """Return whether a batch waits for its disk."""
        return self.threads.hang or any(job.paused for job in self.jobs)

    def _run(self, job: Job) -> None:
        assert self._app is not None
        self._spawn(self._worker.run(self._app, job))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        while True:
            try:
                await self.delete_expired()
            except OSError as error:
                log.error("expired files cannot be deleted", extra={"fields": {"reason": error.strerror}})
            await asyncio.sleep(_SWEEP)

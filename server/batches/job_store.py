"""Keep batches on disk, each with its owner."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medmoe.server.auth.delegation import Delegation
from medmoe.server.batches.errors import BatchNotFound, StorageLimit
from medmoe.server.batches.file_store import new_id
from medmoe.server.batches.result_log import ResultLog
from medmoe.server.batches.storage import RECORD_SUFFIX, delete_each, read_records, replace
from medmoe.server.batches.storage_threads import StorageThreads
from medmoe.server.schemas.openai.batch import ENDED, Batch, BatchRequest, BatchStatus, RequestCounts

_WINDOW = 86_400
"""Seconds of the completion window."""
_DAY = 86_400
_MOST_BATCHES = 10_000
"""Batches of one owner, ended ones included: each takes memory and lengthens every list."""


class StoredBatch(BaseModel):
    """State of a batch on the disk."""

    batch: Batch
    delegation: Delegation
    output_id: str
    """The output file's id, which `batch` tells once the file is whole."""
    errors_id: str
    keep: int | None
    """Seconds for which the result files are kept; None: as the deployment keeps files."""


@dataclass(kw_only=True, eq=False)
class Job:
    """A batch, and its work in this process."""

    stored: StoredBatch
    results: ResultLog | None = None
    """Open while lines are answered."""
    answering: asyncio.Task[None] | None = None
    paused: bool = False
    """Whether the disk cannot be written."""
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def id(self) -> str:
        return self.stored.batch.id

    @property
    def owner(self) -> str:
        return self.stored.delegation.owner

    @property
    def status(self) -> BatchStatus:
        return self.stored.batch.status

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def ended_at(self) -> int | None:
        batch = self.stored.batch
        ended = batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at
        return ended if self.has_ended else None

    @property
    def batch(self) -> Batch:
        """Return the batch with what is known now."""
        changes: dict[str, Any] = {"paused": "storage" if self.paused else None}
        if self.results is not None:
            total = self.stored.batch.request_counts.total
            completed, failed = self.results.completed, self.results.failed
            changes["request_counts"] = RequestCounts(total=total, completed=completed, failed=failed)
        return self.stored.batch.model_copy(update=changes)

    def keep_counts(self) -> None:
        """Keep the counts of the results that are open, in memory."""
        self.stored.batch = self.batch.model_copy(update={"paused": None})

    def moved(self, status: BatchStatus, **changes: Any) -> Batch:
        """Return the batch with another status, which it has from now on."""
        now = {"status": status, f"{status}_at": int(time.time()), "paused": None}
        return self.batch.model_copy(update={**now, **changes})

    def move(self, status: BatchStatus) -> None:
        """Change the status in memory, and note when."""
        self.stored.batch = self.moved(status)


class JobStore:
    """Batches of all owners."""

    def __init__(self, folder: Path, *, retention_days: float, threads: StorageThreads) -> None:
        """Read the batches in `folder`. Raises ConfigError for a record that cannot be read."""
        self._folder = folder
        self._threads = threads
        self._retention = retention_days * _DAY
        self._jobs: dict[str, Job] = {}
        for stored in read_records(folder, StoredBatch, of="a batch"):
            self._jobs[stored.batch.id] = Job(stored=stored)

    def __iter__(self) -> Iterator[Job]:
        """Iterate over the batches, oldest first."""
        return iter(tuple(self._jobs.values()))

    def find(self, batch_id: str, owner: str) -> Job:
        """Return a batch of `owner`. Raises BatchNotFound."""
        job = self._jobs.get(batch_id)
        if job is None or job.owner != owner:
            raise BatchNotFound
        return job

    def unfinished_results(self, owner: str) -> Iterator[str]:
        """Yield the ids of the result files of the batches of `owner` that have not ended."""
        for job in self._jobs.values():
            if job.owner == owner and not job.has_ended:
                yield from (job.stored.output_id, job.stored.errors_id)

    async def create(self, request: BatchRequest, delegation: Delegation) -> Job:
        """Store a new batch. Raises StorageLimit, StorageUnavailable."""
        if sum(job.owner == delegation.owner for job in self._jobs.values()) >= _MOST_BATCHES:
            raise StorageLimit.of_batches(_MOST_BATCHES)
        now = int(time.time())
        batch = Batch(
            id=new_id("batch_"),
            endpoint=request.endpoint,
            input_file_id=request.input_file_id,
            status="validating",
            created_at=now,
            expires_at=now + _WINDOW,
            metadata=request.metadata,
        )
        expiry = request.output_expires_after
        stored = StoredBatch(
            batch=batch,
            delegation=delegation,
            output_id=new_id("file-"),
            errors_id=new_id("file-"),
            keep=expiry.seconds if expiry else None,
        )
        job = Job(stored=stored)
        # Before the record is on the disk: its input must not be deleted meanwhile.
        self._jobs[job.id] = job
        try:
            await self.save(job)
        except BaseException:
            del self._jobs[job.id]
            raise
        return job

    async def save(self, job: Job) -> None:
        """Write what is known of a batch. Raises StorageUnavailable."""
        async with job.saving:
            # Read inside, so that the last one to write is also the last one to read.
            await self._write(job.stored)

    async def end(self, job: Job, outcome: BatchStatus, **changes: Any) -> None:
        """Write the end of a batch, and only then let it be seen. Raises StorageUnavailable; then it has not ended."""
        async with job.saving:
            ended = job.stored.model_copy(update={"batch": job.moved(outcome, **changes)})
            await self._write(ended)
            job.stored = ended

    async def delete_expired(self) -> None:
        """Delete the batches that ended long ago. Raises the last OSError, after the others' deletion."""
        before = time.time() - self._retention
        expired = [job.id for job in self if job.ended_at is not None and job.ended_at <= before]
        await delete_each(expired, self._delete)

    async def _delete(self, name: str) -> None:
        await self._threads.do(partial(self._record(name).unlink, missing_ok=True))
        self._jobs.pop(name, None)

    async def _write(self, stored: StoredBatch) -> None:
        content = stored.model_dump_json().encode()
        await self._threads.do(partial(replace, self._record(stored.batch.id), content))

    def _record(self, batch_id: str) -> Path:
        return self._folder / f"{batch_id}{RECORD_SUFFIX}"

    def uses(self, file_id: str) -> bool:
        """Return whether a batch that has not ended reads or writes the file."""
        for job in self._jobs.values():
            stored = job.stored
            if not job.has_ended and file_id in (stored.batch.input_file_id, stored.output_id, stored.errors_id):
                return True
        return False

"""Answer the lines of batches, from wherever an earlier process has stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

from starlette.types import ASGIApp

from medmoe.server.admission.background_turns import BackgroundTurns
from medmoe.server.auth.authenticator import Authenticator
from medmoe.server.auth.errors import InsufficientScope
from medmoe.server.auth.tenants import Grant
from medmoe.server.batches.errors import StorageUnavailable
from medmoe.server.batches.file_store import FileStore
from medmoe.server.batches.in_process import AppResponse, post
from medmoe.server.batches.input_lines import InputErrors, InputLine, body_of, read_lines
from medmoe.server.batches.job_store import Job, JobStore
from medmoe.server.batches.result_line import answered_line, expired_line
from medmoe.server.batches.result_log import DamagedResults, ResultLog
from medmoe.server.batches.storage import written
from medmoe.server.batches.storage_threads import StorageThreads
from medmoe.server.errors import Unauthenticated
from medmoe.server.observability.request_record import CLIENT_GONE, BatchLine
from medmoe.server.schemas.openai.batch import BatchError, BatchErrors, RequestCounts
from medmoe.server.settings import Settings
from medmoe.server.tasks import run_all

log = logging.getLogger("medmoe.batches")

_TEMPORARY = frozenset(
    {
        "audit_unavailable",
        "client_disconnected",
        "decoder_unavailable",
        "draining",
        "engine_dead",
        "engine_restarting",
        "invalid_api_key",
        "not_ready",
        "overloaded",
    }
)
"""Error codes of the service's own state, which are no answer to a line."""
_AGAIN = 0.5
"""Seconds before a line is asked again, and between two looks at whether the service is ready."""
_ROOM = 2.0
"""Seconds between two attempts to write to a disk that is full."""
_MOST_INTERRUPTIONS = 3
"""Interruptions of a line, after which it is answered beside other requests."""

Result = TypeVar("Result")
_Outcome = Literal["completed", "failed", "expired", "cancelled"]


class _Failed(Exception):
    """The batch cannot go on."""

    def __init__(self, *errors: BatchError) -> None:
        super().__init__()
        self.errors = errors


class BatchWorker:
    """Answers batches: those of one owner one after another, those of different owners in turns."""

    def __init__(
        self,
        settings: Settings,
        files: FileStore,
        jobs: JobStore,
        *,
        threads: StorageThreads,
        authenticator: Authenticator,
        turns: BackgroundTurns,
        is_ready: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._files = files
        self._jobs = jobs
        self._threads = threads
        self._authenticator = authenticator
        self._turns = turns
        self._is_ready = is_ready
        self._validating = asyncio.Lock()
        # A lock lasts as long as a batch holds it or waits for it.
        self._validating_of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._answering_of: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self, app: ASGIApp, job: Job) -> None:
        """Bring a batch to its end, asking `app`."""
        errors: tuple[BatchError, ...] = ()
        outcome: _Outcome = "failed"
        try:
            outcome = await self._outcome(app, job)
        except _Failed as failure:
            errors = failure.errors
        except Exception as error:
            # Not its text, which may quote a line.
            log.error("batch failed", extra={"fields": {"batch": job.id, "exception": type(error).__name__}})
            errors = (BatchError(code="internal_error", message="The service failed; its log tells where."),)
        await self._until_storage_works(job, lambda: self._end(job, outcome, errors))
        counts = job.batch.request_counts.model_dump()
        log.info("batch ended", extra={"fields": {"batch": job.id, "status": outcome, **counts}})

    async def _outcome(self, app: ASGIApp, job: Job) -> _Outcome:
        if job.status == "validating":
            # Each owner has one batch in the queue of all, however many it has begun.
            async with self._validating_of.setdefault(job.owner, asyncio.Lock()), self._validating:
                lines = await self._lines(job)
            if job.status == "validating":
                job.stored.batch = job.moved("in_progress", request_counts=RequestCounts(total=len(lines)))
                await self._until_storage_works(job, lambda: self._jobs.save(job))
        answering = job.answering = asyncio.create_task(self._answer(app, job))
        if job.status == "cancelling":
            answering.cancel()
        try:
            await asyncio.wait({answering}, timeout=max(0.0, job.stored.batch.expires_at - time.time()))
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
        if job.status == "cancelling":
            return "cancelled"
        if answering.cancelled():
            return "expired"
        answering.result()
        return "completed"

    async def _answer(self, app: ASGIApp, job: Job) -> None:
        """Answer every line that has no result. Raises _Failed."""
        async with self._answering_of.setdefault(job.owner, asyncio.Lock()):
            lines = await self._lines(job)
            results = job.results = await self._open_results(job)
            try:
                pending = (line for line in lines if line.custom_id not in results.done)
                places = range(self._settings.batch_concurrency)
                await run_all(self._answer_lines(app, job, results, pending) for _ in places)
            finally:
                # In a thread, because an append may still be under way there.
                await self._threads.do(results.close)
                job.keep_counts()
                job.results = None

    async def _answer_lines(self, app: ASGIApp, job: Job, results: ResultLog, pending: Iterator[InputLine]) -> None:
        for line in pending:
            body = await self._read(job, partial(body_of, self._files.content(job.stored.batch.input_file_id), line))
            response = await self._ask(app, job, body)
            failed = response.status >= HTTPStatus.BAD_REQUEST
            append = partial(results.append, line.custom_id, answered_line(line.custom_id, response), failed=failed)
            await self._until_storage_works(job, partial(self._threads.do, append))

    async def _ask(self, app: ASGIApp, job: Job, body: dict[str, Any]) -> AppResponse:
        """Return the route's answer to a line, however often it is interrupted. Raises _Failed."""
        interruptions = 0
        while True:
            while not self._is_ready():
                await asyncio.sleep(_AGAIN)
            async with self._turns.turn(may_be_interrupted=interruptions < _MOST_INTERRUPTIONS) as turn:
                line = BatchLine(batch=job.id, grant=self._grant(job))
                response = await post(app, job.stored.batch.endpoint, body, line=line, gone=turn.interrupted)
            if response.status < HTTPStatus.BAD_REQUEST:
                return response
            if response.status == CLIENT_GONE:
                interruptions += 1
            elif response.error_code in _TEMPORARY:
                await asyncio.sleep(_AGAIN)
            else:
                return response

    def _grant(self, job: Job) -> Grant:
        try:
            grant = self._authenticator.redeem(job.stored.delegation)
            grant.require("ask")
        except Unauthenticated as error:
            message = "The API key that created the batch is not valid any more."
            raise _Failed(BatchError(code="invalid_api_key", message=message)) from error
        except InsufficientScope as error:
            message = "The API key that created the batch may not ask any more."
            raise _Failed(BatchError(code="insufficient_scope", message=message)) from error
        return grant

    async def _lines(self, job: Job) -> tuple[InputLine, ...]:
        batch = job.stored.batch
        read = partial(
            read_lines,
            self._files.content(batch.input_file_id),
            endpoint=batch.endpoint,
            max_lines=self._settings.batch_max_lines,
            max_body_bytes=self._settings.max_body_bytes,
        )
        return await self._read(job, read, is_long=True)

    async def _read(self, job: Job, read: Callable[[], Result], *, is_long: bool = False) -> Result:
        """Return what `read` makes of the input. Raises _Failed for one that is gone or has changed."""

        def reading() -> Result:
            try:
                with written():
                    return read()
            except InputErrors as error:
                raise _Failed(*error.errors) from error
            except (StorageUnavailable, ValueError, LookupError) as error:
                if isinstance(error, StorageUnavailable) and not isinstance(error.__cause__, FileNotFoundError):
                    raise
                raise _Failed(_unreadable()) from error

        return await self._until_storage_works(job, partial(self._threads.do, reading, is_long=is_long))

    async def _open_results(self, job: Job) -> ResultLog:
        opened: list[ResultLog] = []
        paths = self._files.content(job.stored.output_id), self._files.content(job.stored.errors_id)

        async def open_them() -> None:
            opening = asyncio.create_task(self._threads.do(partial(ResultLog, *paths), is_long=True))
            try:
                opened.append(await asyncio.shield(opening))
            except asyncio.CancelledError:
                # A thread cannot be cancelled: what it opens and cuts off must be closed before another opens it.
                with contextlib.suppress(DamagedResults, StorageUnavailable):
                    (await opening).close()
                raise

        try:
            await self._until_storage_works(job, open_them)
        except DamagedResults as error:
            raise _Failed(BatchError(code="results_damaged", message="A result file has been changed.")) from error
        return opened[0]

    async def _end(self, job: Job, outcome: _Outcome, errors: tuple[BatchError, ...]) -> None:
        """Publish the result files and save the batch as ended. Raises StorageUnavailable."""
        stored = job.stored
        if outcome in ("completed", "expired") and job.status != "finalizing":
            job.move("finalizing")
        if stored.batch.in_progress_at is not None:
            await self._settle(job, expired=outcome == "expired")
        published: dict[str, str] = {}
        for name, file_id in (("output", stored.output_id), ("error", stored.errors_id)):
            with written():
                if await self._files.is_empty(file_id):
                    await self._files.delete(file_id)
                    continue
            filename = f"{job.id}_{name}.jsonl"
            await self._files.publish(
                file_id, owner=job.owner, filename=filename, purpose="batch_output", keep=stored.keep
            )
            published[f"{name}_file_id"] = file_id
        await self._jobs.end(job, outcome, errors=BatchErrors(data=errors) if errors else None, **published)

    async def _settle(self, job: Job, *, expired: bool) -> None:
        """Count the results; where the batch has `expired`, write an error for each line that has none."""
        try:
            lines = await self._lines(job) if expired else ()
            results = await self._open_results(job)
        except _Failed:
            return
        job.results = results

        def note() -> None:
            with results:
                for line in lines:
                    results.append(line.custom_id, expired_line(line.custom_id), failed=True)

        try:
            await self._threads.do(note, is_long=True)
        finally:
            job.keep_counts()
            job.results = None

    async def _until_storage_works(self, job: Job, work: Callable[[], Awaitable[Result]]) -> Result:
        """Read or write, and while the disk fails pause the batch: nothing is lost, and nothing is done twice."""
        while True:
            try:
                result = await work()
            except StorageUnavailable as error:
                if not job.paused:
                    reason = type(error).__name__
                    log.error("batch paused: its disk fails", extra={"fields": {"batch": job.id, "error": reason}})
                job.paused = True
                await asyncio.sleep(_ROOM)
            else:
                job.paused = False
                return result


def _unreadable() -> BatchError:
    return BatchError(code="input_file_unreadable", message="The input file cannot be read any more.")

"""Write an audit trail from the event loop: records wait for one another, not for each its own write."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal, Self

from medmoe.model.errors import ConfigError
from medmoe.server.audit.errors import AuditError
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.audit.segment_writer import Fields, SegmentWriter, WriteFailed
from medmoe.server.errors import AuditUnavailable
from medmoe.server.settings import Settings
from medmoe.server.tasks import DaemonThreads

log = logging.getLogger("medmoe.audit")

OnFailure = Literal["refuse", "continue"]

_PATIENCE = 5.0
"""Seconds for one write, after which the disk counts as failing."""
_RETRY_SECONDS = 1.0
"""Time from a failed write to the next attempt."""
_RETRY_AFTER = 5
"""Seconds that a refused client is asked to wait."""
_UNAVAILABLE = "audit_unavailable"
"""Reason for which records are counted that cannot be written."""
_SYNC_SECONDS = 1.0
"""Longest time that a record stays in the memory of the operating system."""


def timestamp() -> str:
    """Return the time in UTC, as ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class _Waiting:
    """A record that is not written yet."""

    fields: Fields
    written: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Whether the operating system has it, and with `fsync` the disk too."""
    lost: bool = False
    """Whether the trail lacks it."""


class AuditTrail:
    """The audit trail of one process."""

    def __init__(self, writer: SegmentWriter, *, on_failure: OnFailure, count_failures: Callable[[int], None]) -> None:
        """Call `count_failures` with the number of records that a failed write or sync concerned."""
        self._writer = writer
        self._refuses = on_failure == "refuse"
        self._count_failures = count_failures
        self.identity: Fields | None = None
        """What the process serves; None before `begin`, while no record can be written."""
        self._event: Literal["start", "resume"] = "start"
        self._waiting: list[_Waiting] = []
        self._taken: Sequence[_Waiting] = ()
        """The records that the thread writes, or wrote last."""
        self._thread = DaemonThreads("audit")
        self._turn = asyncio.Lock()
        """Held while the thread writes, syncs or closes."""
        self._thread_since: float | None = None
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._retry_at: float | None = None
        self._unrecorded: Counter[str] = Counter()
        self._unsynced = 0
        """Records that were written since the last sync began; none where each write waits for the disk."""

    @classmethod
    def of(cls, settings: Settings, keys: AuditKeys, *, count_failures: Callable[[int], None]) -> Self:
        """Open the trail of a deployment. Raises ConfigError."""
        assert settings.audit_dir is not None
        try:
            writer = SegmentWriter(
                settings.audit_dir,
                key=keys.chain,
                segment_bytes=settings.audit_segment_mib * 2**20,
                fsync=settings.audit_sync == "always",
            )
        except AuditError as error:
            raise ConfigError(
                f"MEDMOE_AUDIT_DIR: {settings.audit_dir}: {error}; keep this trail, and name an empty directory for "
                "another"
            ) from error
        return cls(writer, on_failure=settings.audit_on_failure, count_failures=count_failures)

    async def begin(self, identity: Fields) -> None:
        """Write the first record of the process; `identity` says what it serves.

        Raises ConfigError when that fails and failures refuse.
        """
        try:
            await self._append_in_thread((), identity)
        except WriteFailed as error:
            if self._refuses:
                reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error.__cause__
                raise ConfigError(f"MEDMOE_AUDIT_DIR: the audit trail cannot be written: {reason}") from error
            self._fail(error)
        self.identity = identity
        log.info("audit trail", extra={"fields": {"head": self._writer.head}})

    async def record(self, fields: Fields) -> None:
        """Write a record before what it tells of happens.

        Raises AuditUnavailable when it fails and failures refuse, which they do before `begin`.
        """
        if self._refuses and self.identity is None:
            self.count_unrecorded(_UNAVAILABLE)
            raise AuditUnavailable(retry_after=_RETRY_AFTER)
        if not await self._append(fields) and self._refuses:
            raise AuditUnavailable(retry_after=_RETRY_AFTER)

    def note(self, fields: Fields) -> None:
        """Write a record of what has happened, later."""
        self._enqueue(fields)

    def count_unrecorded(self, reason: str) -> None:
        """Count what gets no record of its own; the next record tells how many by reason."""
        self._unrecorded[reason] += 1

    def require(self) -> None:
        """Raise AuditUnavailable before `begin` and while writes fail, where failures refuse."""
        if self._refuses and (self.identity is None or self._is_failing):
            raise AuditUnavailable(retry_after=_RETRY_AFTER)

    async def close(self) -> None:
        """Write the last record of the process, unlock the trail, and log what it lacks.

        A thread that hangs is left behind with its file and the lock.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                if self.identity is not None:
                    await self._append({"event": "stop"})
                if self._syncing is not None:
                    self._syncing.cancel()
                    await asyncio.gather(self._syncing, return_exceptions=True)
                await self._in_thread(self._writer.close)
        except OSError as error:
            self._fail_to_sync(error, self._unsynced)
        self._thread.end()
        log.info("audit trail", extra={"fields": {"head": self._writer.head}})
        waiting = sum(not one.written.done() for one in (*self._taken, *self._waiting))
        if lacks := self._unrecorded + Counter({_UNAVAILABLE: waiting}):
            log.critical("audit trail lacks records", extra={"fields": {"unrecorded": dict(lacks)}})

    @property
    def _is_failing(self) -> bool:
        now = time.monotonic()
        hangs = self._thread_since is not None and now - self._thread_since > _PATIENCE
        return hangs or (self._retry_at is not None and now < self._retry_at)

    async def _append(self, fields: Fields) -> bool:
        """Return whether the record was written."""
        waiting = self._enqueue(fields)
        try:
            async with asyncio.timeout(_PATIENCE):
                written = await asyncio.shield(waiting.written)
        except TimeoutError as error:
            written = False
            if self._retry_at is None:
                self._fail(error)
        if not written and self._refuses:
            self._withhold(waiting)
        return written

    def _withhold(self, waiting: _Waiting) -> None:
        """Take back the record of an answer that is not given, or write behind it what was answered instead."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            self._lose([waiting])
        elif not waiting.lost and "status" in waiting.fields:
            answered = {"time": timestamp(), "status": HTTPStatus.SERVICE_UNAVAILABLE, "error": _UNAVAILABLE}
            self._put(_Waiting({**waiting.fields, **answered}))

    def _enqueue(self, fields: Fields) -> _Waiting:
        waiting = _Waiting({"time": timestamp(), **fields})
        if self.identity is None or self._is_failing:
            self._lose([waiting])
        else:
            self._put(waiting)
        return waiting

    def _put(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write what waits, and what comes meanwhile."""
        try:
            while self._waiting:
                self._taken, self._waiting = self._waiting, []
                await self._write_batch(self._taken)
        finally:
            self._writing = None
        if self._syncing is None and not self._writer.fsync:
            self._syncing = asyncio.create_task(self._sync())

    async def _write_batch(self, batch: Sequence[_Waiting]) -> None:
        assert self.identity is not None
        unrecorded = Counter(self._unrecorded)
        records = [waiting.fields for waiting in batch]
        if unrecorded:
            records[0] = {**records[0], "unrecorded": dict(unrecorded)}
        written, is_safe = len(batch), True
        try:
            await self._append_in_thread(records, self.identity)
        except Exception as error:
            # Any exception: a record without an end would hold its request.
            written = error.written if isinstance(error, WriteFailed) else 0
            is_safe = not self._writer.fsync
            self._fail(error)
        if written:
            self._unrecorded -= unrecorded
            self._count_failures(0 if is_safe else written)
            self._unsynced += 0 if self._writer.fsync else written
        for waiting in batch[:written]:
            waiting.written.set_result(is_safe)
        self._lose(batch[written:])

    async def _append_in_thread(self, records: Sequence[Fields], identity: Fields) -> None:
        opening = {"time": timestamp(), "event": self._event, **identity}
        await self._in_thread(lambda: self._writer.append(records, opening=opening))
        self._event = "resume"
        if self._retry_at is not None:
            self._retry_at = None
            log.warning("audit trail continues", extra={"fields": {"head": self._writer.head}})

    async def _sync(self) -> None:
        await asyncio.sleep(_SYNC_SECONDS)
        # What is written from here on waits for the next one.
        self._syncing = None
        unsynced, self._unsynced = self._unsynced, 0
        try:
            await self._in_thread(self._writer.sync)
        except OSError as error:
            self._fail_to_sync(error, unsynced)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Let the thread do `work` in its turn. Cancelling this does not end the work."""

        async def alone() -> None:
            async with self._turn:
                self._thread_since = time.monotonic()
                try:
                    await asyncio.wrap_future(self._thread.submit(work))
                finally:
                    self._thread_since = None

        await asyncio.shield(alone())

    def _lose(self, batch: Sequence[_Waiting]) -> None:
        """Give up records that are not written."""
        if not batch:
            return
        self._unrecorded[_UNAVAILABLE] += len(batch)
        self._count_failures(len(batch))
        for waiting in batch:
            waiting.lost = True
            if not waiting.written.done():
                waiting.written.set_result(False)

    def _fail_to_sync(self, error: OSError, unsynced: int) -> None:
        self._count_failures(unsynced)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or type(cause).__name__
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        log.critical("audit trail failed", extra={"fields": {"reason": reason, "refuses": self._refuses}})

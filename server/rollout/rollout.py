"""Load a second checkpoint beside the active one, switch to it, go back, and retire it."""

import asyncio
import logging
import time
from collections.abc import Sequence

from starlette.requests import Request

from medmoe.model.errors import MedMoEError
from medmoe.server.engine.deployment.rollout_errors import RolloutDisabled, StandbyConflict
from medmoe.server.errors import Draining
from medmoe.server.lifecycle.supervisor import begin_answering, identity, start_model
from medmoe.server.models.served_model import BuildEngine
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.rollout.checkpoint_directory import CheckpointDirectory
from medmoe.server.rollout.comparison import compare
from medmoe.server.rollout.memory import check_second_engine
from medmoe.server.rollout.question_list import ComparedQuestion, read_question_file, read_questions
from medmoe.server.rollout.schema import CheckpointStatus, Comparison, LoadCheckpoint
from medmoe.server.rollout.standby import Standby, describe_active
from medmoe.server.settings import Settings
from medmoe.server.state import State

log = logging.getLogger("medmoe.rollout")

_GRACE = 5.0
"""Seconds beyond the longest request until a retired engine is closed."""


class Rollout:
    """The change of a service's checkpoint. There is one standby at a time; use it on the event loop's thread."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._standby: Standby | None = None
        self._comparison: Comparison | None = None

    @staticmethod
    def of(request: Request) -> "Rollout":
        """Return the rollout of the app that `request` came to."""
        rollout: Rollout = request.app.state.rollout
        return rollout

    def require_allowed(self) -> None:
        """Raise RolloutDisabled unless the deployment names a directory of checkpoints."""
        self._checkpoints()

    def status(self) -> CheckpointStatus:
        """Return what is served, and what stands by. Raises RolloutDisabled."""
        return CheckpointStatus(
            active=describe_active(self._state.active),
            standby=self._standby.describe() if self._standby is not None else None,
            comparison=self._comparison,
            available=self._checkpoints().names(),
        )

    async def load(self, wanted: LoadCheckpoint, record: RequestRecord) -> None:
        """Begin to load a checkpoint in the background.

        Raises RolloutDisabled, CheckpointNotFound, StandbyConflict, InsufficientMemory, InvalidField, and what
        Readiness.require_staying raises.
        """
        checkpoints, build = self._checkpoints(), self._state.build
        if build is None:
            raise RolloutDisabled()
        self._state.readiness.require_staying()
        settings = self._state.settings.model_copy(update={"model": checkpoints.checkpoint(wanted.name)})
        if self._standby is not None and self._standby.state != "failed":
            raise StandbyConflict(
                f"a checkpoint is {self._standby.state} beside the active one; DELETE /admin/checkpoint retires it"
            )
        failed, self._standby = self._standby, Standby(checkpoint=wanted.name)
        standby = self._standby
        try:
            await self._discard(failed)
            questions = await self._questions(wanted, checkpoints)
            if settings.engine == "vllm":
                check_second_engine(settings)
        except BaseException:
            if self._standby is standby:
                self._standby = None
            raise
        if self._standby is not standby:
            raise StandbyConflict("the checkpoint was retired before its loading began")
        self._comparison = None
        self._note("load", wanted.name, record)
        standby.loading = asyncio.create_task(self._load(standby, settings, build, questions, wanted, record))

    def activate(self, record: RequestRecord) -> None:
        """Send new requests to the standby; those that have begun stay with the model that was active.

        Raises StandbyConflict, Draining.
        """
        self._swap(self._ready_standby(previous=False), record, "activate")

    def rollback(self, record: RequestRecord) -> None:
        """Send new requests to the model that was active before. Raises StandbyConflict, Draining."""
        self._swap(self._ready_standby(previous=True), record, "rollback")

    async def retire(self, record: RequestRecord) -> None:
        """End the standby once it has answered its requests; return when its memory is free.

        Raises StandbyConflict without a standby.
        """
        standby = self._standby
        if standby is None:
            raise StandbyConflict("no checkpoint stands by")
        if standby.retiring is None:
            self._note("retire", standby.checkpoint, record)
            standby.retiring = asyncio.create_task(self._retire(standby))
        # The retirement goes on when the operator leaves.
        await asyncio.shield(standby.retiring)

    async def close(self) -> None:
        """End what runs in the background; the models are closed by their service."""
        tasks = (self._standby.loading, self._standby.retiring) if self._standby is not None else ()
        for task in tasks:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _checkpoints(self) -> CheckpointDirectory:
        if self._state.settings.checkpoints_dir is None:
            raise RolloutDisabled()
        return CheckpointDirectory(self._state.settings.checkpoints_dir)

    async def _questions(
        self, wanted: LoadCheckpoint, checkpoints: CheckpointDirectory
    ) -> tuple[ComparedQuestion, ...]:
        if wanted.questions is None:
            return ()
        if isinstance(wanted.questions, str):
            path = checkpoints.file(wanted.questions)
            return await asyncio.to_thread(read_question_file, path, max_bytes=self._state.settings.max_body_bytes)
        return read_questions(wanted.questions)

    async def _load(
        self,
        standby: Standby,
        settings: Settings,
        build: BuildEngine,
        questions: Sequence[ComparedQuestion],
        wanted: LoadCheckpoint,
        record: RequestRecord,
    ) -> None:
        """Start the engine and compare; a failure ends the standby and nothing else."""
        begun = time.monotonic()
        try:
            # Verifies the signature before the checkpoint is parsed.
            engine = await asyncio.to_thread(build, settings)
            # Whoever drains, or restarts the active engine, has seen no other model that would have to end.
            self._state.readiness.require_staying()
            model = standby.model = self._state.serve(settings, engine)
            self._state.models.other = model
            await start_model(model)
        except Exception as error:
            standby.failure = _reason(error)
            log.error("loading failed", extra={"fields": {"exception": type(error).__name__}})
            if standby.model is not None:
                await standby.model.close()
                standby.model.readiness.fail()
            return
        begin_answering(self._state, model, seconds=time.monotonic() - begun)
        if questions:
            async for comparison in compare(self._state.active, model, questions):
                self._comparison = comparison
        if wanted.activate and self._agrees(wanted) and standby.state == "ready" and self._standby is standby:
            self._swap(standby, record, "activate")

    def _agrees(self, wanted: LoadCheckpoint) -> bool:
        if wanted.min_agreement is None:
            return True
        found = self._comparison
        # A question without two answers has no equal ones.
        return found is not None and found.compared - len(found.different) >= wanted.min_agreement * found.questions

    def _ready_standby(self, *, previous: bool) -> Standby:
        if self._state.readiness.leaving:
            raise Draining()
        standby = self._standby
        if standby is None or standby.previous is not previous:
            raise StandbyConflict(
                "there is no previous checkpoint to go back to" if previous else "no loaded checkpoint stands by"
            )
        if standby.state != "ready":
            raise StandbyConflict(f"the checkpoint is {standby.state}, not ready")
        return standby

    def _swap(self, standby: Standby, record: RequestRecord, action: str) -> None:
        """Exchange the models. Nothing is awaited here, so every request sees one active model or the other."""
        old = self._state.active
        self._state.models.swap()
        if self._state.audit is not None:
            self._state.audit.identity = identity(self._state)
        self._standby = Standby(
            checkpoint=old.directory.name, model=old, loading=standby.loading, previous=not standby.previous
        )
        self._note(action, standby.checkpoint, record)

    async def _retire(self, standby: Standby) -> None:
        if standby.loading is not None:
            standby.loading.cancel()
            await asyncio.gather(standby.loading, return_exceptions=True)
        if standby.model is not None:
            standby.model.readiness.drain()
            await standby.model.wait_idle(self._state.settings.timeout_ms / 1000 + _GRACE)
        await self._discard(standby)
        self._standby = None

    async def _discard(self, standby: Standby | None) -> None:
        """Close the model of a standby."""
        if standby is not None and standby.model is not None:
            await standby.model.close()
        self._state.models.other = None

    def _note(self, action: str, checkpoint: str, record: RequestRecord) -> None:
        """Log the action, and write it to the audit trail."""
        subject = record.tenant.log_id if record.tenant else None
        weights = self._state.active.checkpoint.weights_sha256
        fields = {"action": action, "checkpoint": checkpoint, "subject": subject, "weights_sha256": weights}
        log.info("checkpoint", extra={"fields": fields})
        if self._state.audit is not None:
            self._state.audit.note({"event": "checkpoint", **fields})


def _reason(error: Exception) -> str:
    """Return the text of an error of ours; another's may hold anything."""
    if isinstance(error, MedMoEError):
        return str(error).removeprefix("MEDMOE_MODEL: ")
    return f"the start failed: {type(error).__name__}"

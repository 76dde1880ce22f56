"""Track whether the service can answer: starting, ready, restarting its engine, draining, or failed."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from medmoe.server.errors import Draining, EngineDeadError, EngineRestarting, NotReady

_UNKNOWN_START = 30
"""Seconds until the first start has been timed."""


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"


class Readiness:
    """The phase of the service and its transitions. A failure is final: `on_failure` ends the process."""

    def __init__(self, *, on_failure: Callable[[], None], restarts: bool) -> None:
        """Pass `restarts` when a supervisor waits for `left_ready` and replaces an engine that has died."""
        self.phase = Phase.STARTING
        self.left_ready = asyncio.Event()
        """Set when the service stops being ready."""
        self.leaving = False
        """Whether a stop has been announced: load balancers are told so while requests are still answered."""
        self.retry_after = _UNKNOWN_START
        """Seconds after which a client should repeat a request that was refused during a restart."""
        self._on_failure = on_failure
        self._restarts = restarts

    def require(self) -> None:
        """Raise NotReady, EngineRestarting, Draining or EngineDeadError unless requests can be answered."""
        match self.phase:
            case Phase.STARTING:
                raise NotReady("the model is still loading")
            case Phase.RESTARTING:
                raise EngineRestarting(retry_after=self.retry_after)
            case Phase.DRAINING:
                raise Draining("the service is shutting down")
            case Phase.FAILED:
                raise EngineDeadError("the engine has stopped")
            case Phase.READY:
                return

    def require_staying(self) -> None:
        """Raise what `require` raises, and Draining as soon as a stop has been announced."""
        self.require()
        if self.leaving:
            raise Draining("the service is about to shut down")

    def started(self) -> None:
        """Become ready after a start or a restart."""
        if self.phase in (Phase.STARTING, Phase.RESTARTING):
            self.phase = Phase.READY
            self.left_ready.clear()

    def drain(self) -> None:
        if self.phase is not Phase.FAILED:
            self._leave_for(Phase.DRAINING)

    def engine_died(self) -> None:
        """Begin a restart, or fail where no supervisor restarts engines."""
        if self.phase is not Phase.READY:
            return
        if self._restarts:
            self._leave_for(Phase.RESTARTING)
        else:
            self.fail()

    def fail(self) -> None:
        if self.phase in (Phase.STARTING, Phase.READY, Phase.RESTARTING):
            self._leave_for(Phase.FAILED)
            self._on_failure()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Call `engine_died` when the block raises EngineDeadError."""
        try:
            yield
        except EngineDeadError:
            self.engine_died()
            raise

    def _leave_for(self, phase: Phase) -> None:
        self.phase = phase
        self.left_ready.set()

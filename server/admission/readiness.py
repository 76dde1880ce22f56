"""Whether this process can answer: starting, ready, restarting its engine, draining, or failed for good.

Apart from admission, which asks how many: this asks whether at all. Failure is final; `on_failure` lets __main__ end
the process so that an orchestrator replaces it.
"""

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
    """The phase, and the only transitions it has."""

    def __init__(self, *, on_failure: Callable[[], None], restarts: bool = False) -> None:
        """`restarts`: somebody waits for `left_ready` and replaces an engine that has died."""
        self.phase = Phase.STARTING
        self.left_ready = asyncio.Event()
        """Set as soon as the service, once ready, no longer is."""
        self.retry_after = _UNKNOWN_START
        """Seconds after which a client that met a restart should come back."""
        self._on_failure = on_failure
        self._restarts = restarts

    def require(self) -> None:
        """Raises NotReady, EngineRestarting, Draining or EngineDeadError unless requests can be answered."""
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

    def started(self) -> None:
        """Also when it was not the first start."""
        if self.phase in (Phase.STARTING, Phase.RESTARTING):
            self.phase = Phase.READY
            self.left_ready.clear()

    def drain(self) -> None:
        if self.phase is not Phase.FAILED:
            self._leave_for(Phase.DRAINING)

    def engine_died(self) -> None:
        """The engine that had made the service ready is gone."""
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
        """Take note when what is inside meets a dead engine."""
        try:
            yield
        except EngineDeadError:
            self.engine_died()
            raise

    def _leave_for(self, phase: Phase) -> None:
        self.phase = phase
        self.left_ready.set()

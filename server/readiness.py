"""Whether this process can answer: starting, ready, draining, or failed for good.

Apart from admission, which asks how many: this asks whether at all. Failure is final, because a dead engine does not
come back inside its process; `on_failure` lets __main__ end the process so that an orchestrator replaces it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from medmoe.server.errors import Draining, EngineDeadError, NotReady


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Readiness:
    """The phase, and the only transitions it has."""

    def __init__(self, *, on_failure: Callable[[], None]) -> None:
        self.phase = Phase.STARTING
        self._on_failure = on_failure

    def require(self) -> None:
        """Raises NotReady, Draining or EngineDeadError unless requests can be answered."""
        match self.phase:
            case Phase.STARTING:
                raise NotReady("the model is still loading")
            case Phase.DRAINING:
                raise Draining("the service is shutting down")
            case Phase.FAILED:
                raise EngineDeadError("the engine has stopped")
            case Phase.READY:
                return

    def started(self) -> None:
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def drain(self) -> None:
        if self.phase is not Phase.FAILED:
            self.phase = Phase.DRAINING

    def fail(self) -> None:
        if self.phase in (Phase.STARTING, Phase.READY):
            self.phase = Phase.FAILED
            self._on_failure()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Fail for good when what is inside meets a dead engine."""
        try:
            yield
        except EngineDeadError:
            self.fail()
            raise

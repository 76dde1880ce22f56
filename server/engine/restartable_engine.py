"""Stand for the current engine, which the supervisor replaces when it has died.

Requests that were running when an engine died go through the quarantine.
"""

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import chain

from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.engine.base import (
    Engine,
    EngineDeadError,
    GenerationChunk,
    GenerationError,
    GenerationRequest,
)
from medmoe.server.engine.quarantine import Quarantine
from medmoe.server.errors import EngineRestarting

log = logging.getLogger(__name__)


class RestartableEngine:
    """Implement Engine with the `current` engine."""

    def __init__(self, engine: Engine) -> None:
        self.current = engine
        self.quarantine = Quarantine()
        self._dead = False

    @property
    def dtype(self) -> Dtype | None:
        """See Engine.dtype."""
        return self.current.dtype

    async def start(self) -> None:
        """See Engine.start."""
        await self.current.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        """See Engine.generate. Raises Quarantined, and EngineRestarting when the engine has been replaced."""
        engine = self._alive()
        async with self.quarantine.admit(request):
            try:
                async with aclosing(engine.generate(request)) as chunks:
                    async for chunk in chunks:
                        _require_numbers(chunk)
                        if chunk.finish_reason is not None:
                            self.quarantine.clear(request)
                        yield chunk
            except EngineDeadError as error:
                if engine is not self.current:
                    raise EngineRestarting(retry_after=1) from error
                self._died()
                raise

    def scores_branches(self, request: GenerationRequest) -> bool:
        """See Engine.scores_branches."""
        return self.current.scores_branches(request)

    async def check_health(self) -> None:
        """See Engine.check_health."""
        engine = self._alive()
        try:
            await engine.check_health()
        except EngineDeadError:
            if engine is self.current:
                self._died()
            raise

    async def ping(self) -> None:
        """See Engine.ping."""
        await self._alive().ping()

    async def kill(self) -> None:
        """Count the engine as dead at once, its requests as suspects, and kill its processes."""
        self._died()
        await self.current.kill()

    async def close(self) -> None:
        """Close the current engine as `close_engine` does."""
        await close_engine(self.current)

    def metrics(self) -> bytes:
        """See Engine.metrics."""
        return self.current.metrics()

    def replace(self, engine: Engine) -> None:
        """Make the started `engine` current; close the one before it first."""
        self.current = engine
        self._dead = False

    def _alive(self) -> Engine:
        if self._dead:
            raise EngineDeadError("the engine has ended")
        return self.current

    def _died(self) -> None:
        # Only the first report of a death counts: the engine's other requests are still inside.
        if not self._dead:
            self._dead = True
            self.quarantine.engine_died()


async def close_engine(engine: Engine) -> None:
    """Close an engine whatever its state; a failure is logged."""
    try:
        await engine.close()
    except Exception as error:
        log.error("closing the engine failed", extra={"fields": {"exception": type(error).__name__}})


def _require_numbers(chunk: GenerationChunk) -> None:
    """Raise GenerationError for a log-probability that is not a number; minus infinity is one."""
    numbers = chunk.logprobs
    if chunk.token_logprobs or chunk.branches:
        branches = (branch.token_logprobs.values() for branch in chunk.branches)
        numbers = (*numbers, *chain(chunk.token_logprobs.values(), *branches))
    if any(map(math.isnan, numbers)):
        raise GenerationError(
            "the model's probabilities are not numbers: the weights are damaged or incomplete, or MEDMOE_DTYPE is too"
            " narrow for them"
        )

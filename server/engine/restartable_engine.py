"""The engine that the rest of the service knows: it stays while engines come and go behind it.

Apart from the engines because a dead one is replaced by a fresh object, never revived; and apart from the supervisor,
which decides when. What is in an engine when it dies goes through the quarantine here.
"""

import math
from collections.abc import AsyncIterator

from medmoe.server.engine.base import (
    Engine,
    EngineDeadError,
    GenerationChunk,
    GenerationError,
    GenerationRequest,
    generation,
)
from medmoe.server.engine.quarantine import Quarantine
from medmoe.server.errors import EngineRestarting
from medmoe.server.schemas.inference import Dtype


class RestartableEngine:
    """Implements Engine with whichever engine is `current`."""

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

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
        """See Engine.generate. Raises Quarantined, and EngineRestarting to a laggard of an engine already replaced."""
        engine = self._alive()
        async with self.quarantine.admit(request):
            try:
                async with generation(engine, request) as chunks:
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
        """See Engine.close."""
        await self.current.close()

    def metrics(self) -> bytes:
        """See Engine.metrics."""
        return self.current.metrics()

    def replace(self, engine: Engine) -> None:
        """From now on, `engine`, which has been started. The one before it must have been closed."""
        self.current = engine
        self._dead = False

    def _alive(self) -> Engine:
        if self._dead:
            raise EngineDeadError("the engine has ended")
        return self.current

    def _died(self) -> None:
        # Once for each engine, by whoever hears of it first: the others are still counted as inside.
        if not self._dead:
            self._dead = True
            self.quarantine.engine_died()


def _require_numbers(chunk: GenerationChunk) -> None:
    """Raise GenerationError for a log-probability that is not a number; minus infinity is one."""
    if any(map(math.isnan, (*chunk.logprobs, *chunk.token_logprobs.values()))):
        raise GenerationError(
            "the model's probabilities are not numbers: the weights are damaged or incomplete, or MEDMOE_DTYPE is too"
            " narrow for them"
        )

"""What passes between the service and the engine that is current."""

import math
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import BranchScore, GenerationChunk, GenerationError, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.settings import Settings


class DamagedEngine(FakeEngine):
    """Computes what damaged weights compute."""

    chunk: GenerationChunk

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        yield self.chunk


_NO_NUMBER = BranchScore(token_logprobs={1: 0.0, 2: math.nan}, routed_experts=None)


@pytest.mark.parametrize(
    "chunk",
    [
        GenerationChunk(text="", token_ids=(1,), logprobs=(math.nan,)),
        GenerationChunk(text="", token_ids=(1,), logprobs=(0.0,), branches=(_NO_NUMBER,)),
    ],
    ids=["token", "branch"],
)
async def test_probabilities_that_are_not_numbers_are_refused(chunk: GenerationChunk) -> None:
    model = Settings.model_fields["model"].get_default(call_default_factory=True)
    config = MedMoEConfig.from_directory(model)
    damaged = DamagedEngine(config, Prompt.from_directory(model, config))
    damaged.chunk = chunk
    engine = RestartableEngine(damaged)
    request = GenerationRequest(
        request_id="1", prompt_ids=(1,), image=np.zeros((8, 8, 3), np.uint8), image_id="1", max_tokens=1
    )
    with pytest.raises(GenerationError, match="the weights are damaged or incomplete"):
        async for _ in engine.generate(request):
            pass

"""An engine that is closed under a request, found dead by the service before vLLM has noticed, tells nobody itself."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmoe.model.config import MedMoEConfig
from medmoe.server.engine.base import EngineDeadError, GenerationRequest
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import save_tiny_checkpoint

pytestmark = pytest.mark.engine


class SilentLlm:
    """As much of AsyncLLM as closing needs: it never answers, and tells of errors as vLLM does."""

    def __init__(self) -> None:
        self.output_processor = self
        self._waiting: list[asyncio.Queue[Exception]] = []

    async def generate(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Exception] = asyncio.Queue()
        self._waiting.append(queue)
        raise await queue.get()
        yield

    def propagate_error(self, error: Exception) -> None:
        for queue in self._waiting:
            queue.put_nowait(error)

    def shutdown(self, timeout: float | None = None) -> None:
        """Ends nothing that somebody waits for."""


@pytest.mark.asyncio
async def test_who_waits_is_told(tmp_path: Path) -> None:
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    config = MedMoEConfig.from_directory(checkpoint)
    engine = VllmEngine(Settings(model=checkpoint), config)
    engine._llm = SilentLlm()  # type: ignore[assignment]
    size = config.vision_config.image_size
    request = GenerationRequest(
        request_id="waiting",
        prompt_ids=(config.image_token_id,),
        image=np.zeros((size, size, 3), np.uint8),
        image_id="00",
        max_tokens=1,
    )

    async def ask() -> None:
        async for _ in engine.generate(request):
            pass

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.1)
    await engine.close()
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(asking, 60)

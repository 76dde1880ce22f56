"""Time the reference model in PyTorch: one request after the other, and static batches of every size.

A batch is what a program without an engine would make: images decoded and resized one by one, prompts padded on the
left, every row computed until the last has ended, every request answered when the batch is.
"""

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import psutil
import torch
from PIL import Image

from medmoe.model.image_processor import ImageProcessor
from medmoe.model.lora.checkpoint import load_adapted
from medmoe.model.prompt import Prompt
from tests.benchmarks.support.request_file import Asked
from tests.benchmarks.support.traffic import Answer, Reply
from tests.benchmarks.throughput.live import Live, Setup


class Reference:
    """medmoe.model.medmoe in float32 on CPU."""

    def __init__(self, setup: Setup) -> None:
        self._model = load_adapted(setup.model)
        self._prompt = Prompt.from_directory(setup.model, self._model.config)
        self._processor = ImageProcessor.from_config(self._model.config)

    @property
    def facts(self) -> dict[str, object]:
        decoder = self._model.language_model.config
        return {
            "threads": torch.get_num_threads(),
            "attention": getattr(decoder, "_attn_implementation", None),
            "dtype": str(next(self._model.parameters()).dtype),
        }

    @torch.inference_mode()
    def answers(self, batch: Sequence[Asked]) -> list[Answer]:
        """Raises ValueError for requests of different length limits."""
        (max_tokens,) = {asked.max_tokens for asked in batch}
        begun = time.monotonic()
        pixels = torch.from_numpy(np.stack([self._pixels(asked.image) for asked in batch]))
        decoded = time.monotonic()
        prompts = [self._prompt.expand(self._prompt.question(asked.question)) for asked in batch]
        features = self._model.vision_tower(pixels)
        found = self._model.generate(prompts, features, max_tokens=max_tokens)
        stages = {"image": decoded - begun, "engine": time.monotonic() - decoded}
        return [
            Answer(
                first=None,
                text=self._prompt.decode(ids),
                tokens=len(ids),
                token_ids=tuple(ids),
                prompt_ids=tuple(prompt),
                stages=stages,
            )
            for ids, prompt in zip(found, prompts, strict=True)
        ]

    async def ask(self, asked: Asked) -> Answer:
        return (await asyncio.to_thread(self.answers, [asked]))[0]

    def batches(self, requests: Sequence[Asked], *, size: int) -> list[Reply]:
        """All requests are there from the beginning; a batch takes the next `size` of them."""
        origin = time.monotonic()
        replies = []
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            begun = time.monotonic() - origin
            answers = self.answers(batch)
            ended = time.monotonic() - origin
            replies += [
                Reply(
                    number=asked.number,
                    begun=begun,
                    first=None,
                    ended=ended,
                    text=answer.text,
                    tokens=answer.tokens,
                    stages=answer.stages,
                )
                for asked, answer in zip(batch, answers, strict=True)
            ]
        return replies

    def _pixels(self, file: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(file)) as opened:
            return self._processor(opened)


@asynccontextmanager
async def reference(setup: Setup) -> AsyncIterator[tuple[Live, Reference]]:
    """The model, loaded."""
    begun = time.monotonic()
    model = await asyncio.to_thread(Reference, setup)
    facts = model.facts | {"start_seconds": time.monotonic() - begun}
    yield (
        Live(ask=model.ask, ask_with_ids=model.ask, root=psutil.Process(os.getpid()), client_apart=False, facts=facts),
        model,
    )

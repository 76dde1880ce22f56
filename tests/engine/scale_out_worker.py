"""Answers the questions of parity_cases with the serving engine, every layer shared between two ranks.

    python -m tests.engine.scale_out_worker DIRECTORY...

One engine after the other, each with three processes; the answers to DIRECTORY are left in DIRECTORY/answers.npz. A
process of its own, because the binding of threads to cores holds for as long as a process lives.
"""

import asyncio
import hashlib
import sys
from pathlib import Path

import numpy as np

from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.engine.parity_cases import IMAGES, MAX_TOKENS, QUESTIONS

ANSWERS_FILE = "answers.npz"
RANKS = 2


async def answer_all(directory: Path) -> None:
    config = MedMoEConfig.from_directory(directory)
    engine = VllmEngine(
        Settings(model=directory, dtype="float32", tensor_parallel_size=RANKS, drain_seconds=20), config
    )
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)

    async def answer(number: int) -> dict[str, np.ndarray]:
        image = processor.resize(IMAGES[number])
        request = GenerationRequest(
            request_id=str(number),
            prompt_ids=tuple(prompt.question(QUESTIONS[number])),
            image=np.asarray(image),
            image_id=hashlib.sha256(image.tobytes()).hexdigest(),
            max_tokens=MAX_TOKENS,
        )
        chunks = [chunk async for chunk in engine.generate(request)]
        experts = chunks[-1].routed_experts
        return {
            f"tokens.{number}": np.array([token for chunk in chunks for token in chunk.token_ids]),
            f"log_probs.{number}": np.array([value for chunk in chunks for value in chunk.logprobs]),
            **({} if experts is None else {f"experts.{number}": experts}),
        }

    await engine.start()
    try:
        answers = await asyncio.gather(*map(answer, range(len(QUESTIONS))))
    finally:
        await engine.close()
    np.savez(directory / ANSWERS_FILE, **{name: value for one in answers for name, value in one.items()})


if __name__ == "__main__":
    for name in sys.argv[1:]:
        asyncio.run(answer_all(Path(name)))

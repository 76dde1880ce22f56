"""Measure questions about images a second: the service's own engine adapter, and the reference answering one at a time.

Both are given decoded images of the model's size and generate as many tokens greedily; no image comes twice.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.benchmarks.gpu.parity import reference
from tests.benchmarks.kernels.quantised_parity import WORDS, drawn_image

CLIENTS = (1, 8, 64)
_MAX_TOKENS = {False: 32, True: 8}
_REQUESTS = {False: {1: 12, 8: 64, 64: 384}, True: {1: 4, 8: 16, 64: 64}}
_ALONE = {False: 6, True: 4}
"""Requests that the reference is asked."""


def measure(directory: Path, *, dtype: Dtype, device: str, tiny: bool, keep: Callable[[dict[str, Any]], None]) -> None:
    """Tells `keep` all that is known so far after each load."""
    config = MedMoEConfig.from_directory(directory)
    found: dict[str, Any] = {"max_tokens": _MAX_TOKENS[tiny], "engine": []}
    asyncio.run(_engine(directory, config, dtype=dtype, tiny=tiny, found=found, keep=keep))
    model = reference(directory, device=device, dtype=dtype)
    asked = _ALONE[tiny]
    images = [drawn_image(90_000 + number) for number in range(asked + 1)]
    model.generate(WORDS[:1], images[:1], max_tokens=_MAX_TOKENS[tiny])
    begun, tokens = time.perf_counter(), 0
    for number in range(asked):
        (ids,) = model.generate([WORDS[number % len(WORDS)]], [images[number + 1]], max_tokens=_MAX_TOKENS[tiny])
        tokens += len(ids)
    taken = time.perf_counter() - begun
    attention = getattr(model.model.language_model.config, "_attn_implementation", None)
    found["reference"] = {
        "requests": asked,
        "tokens": tokens,
        "seconds": taken,
        "requests_per_second": asked / taken,
        "attention": attention,
        "threads": torch.get_num_threads(),
    }
    keep(found)


async def _engine(
    directory: Path,
    config: MedMoEConfig,
    *,
    dtype: Dtype,
    tiny: bool,
    found: dict[str, Any],
    keep: Callable[[dict[str, Any]], None],
) -> None:
    engine = VllmEngine(Settings(model=directory, dtype=dtype, max_num_seqs=max(CLIENTS), drain_seconds=1), config)
    made = _requests(directory, config, max_tokens=_MAX_TOKENS[tiny])
    begun = time.perf_counter()
    await engine.start()
    found["start_seconds"] = time.perf_counter() - begun
    try:
        await _closed_loop(engine, [next(made) for _ in range(2 * max(CLIENTS))], clients=max(CLIENTS))
        for clients in CLIENTS:
            requests = [next(made) for _ in range(_REQUESTS[tiny][clients])]
            found["engine"].append({"clients": clients} | await _closed_loop(engine, requests, clients=clients))
            keep(found)
    finally:
        await engine.close()


async def _closed_loop(engine: VllmEngine, requests: list[GenerationRequest], *, clients: int) -> dict[str, Any]:
    """Each client asks again as soon as it is answered."""
    waiting, seconds, tokens = iter(requests), [], 0

    async def client() -> None:
        nonlocal tokens
        for request in waiting:
            begun = time.perf_counter()
            async for chunk in engine.generate(request):
                tokens += len(chunk.token_ids)
            seconds.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    taken = time.perf_counter() - begun
    return {
        "requests": len(requests),
        "tokens": tokens,
        "seconds": taken,
        "requests_per_second": len(requests) / taken,
        "median_latency": sorted(seconds)[len(seconds) // 2],
    }


def _requests(directory: Path, config: MedMoEConfig, *, max_tokens: int) -> Iterator[GenerationRequest]:
    prompt, processor = Prompt.from_directory(directory, config), ImageProcessor.from_config(config)
    number = 0
    while True:
        image = processor.resize(drawn_image(number))
        yield GenerationRequest(
            request_id=f"gpu-{number}",
            prompt_ids=tuple(prompt.question(WORDS[number % len(WORDS)])),
            image=np.asarray(image),
            image_id=hashlib.sha256(image.tobytes()).hexdigest(),
            max_tokens=max_tokens,
        )
        number += 1

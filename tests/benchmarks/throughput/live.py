"""Define the stacks that answer one request at a time, as context managers.

Whatever is entered is gone when it is left, its processes too: two engines never share the machine unless both were
entered.
"""

import asyncio
import hashlib
import io
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from medmoe.model.config import MedMoEConfig
from medmoe.model.image_processor import ImageProcessor
from medmoe.model.prompt import Prompt
from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.benchmarks.support.dialects import ChatRoute, OwnRoute, VllmRoute
from tests.benchmarks.support.request_file import Asked
from tests.benchmarks.support.sse_client import Dialect, SseClient
from tests.benchmarks.support.traffic import Answer, Ask
from tests.benchmarks.support.vllm_server import vllm_server
from tests.support.service.server_process import server_process

_START = 3600.0
"""Seconds; a process that has failed is noticed at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all stacks have in common."""

    model: Path
    dtype: Any
    """As `Settings.dtype`."""
    clients: int
    """Most at once."""
    null_tokens: int = 8
    vllm_logprobs: bool = False

    @property
    def settings(self) -> dict[str, str]:
        """Of the service: its defaults, and room for every client."""
        default = int(Settings.model_fields["max_concurrent"].default)
        return {
            "MEDMOE_MODEL": str(self.model),
            "MEDMOE_DTYPE": str(self.dtype),
            "MEDMOE_MAX_CONCURRENT": str(max(default, self.clients)),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """A stack that answers."""

    ask: Ask
    ask_with_ids: Ask
    """The same, and its answers tell token ids where the stack can."""
    root: psutil.Process
    """Whose tree does the work."""
    client_apart: bool
    """Whether this process only asks."""
    facts: dict[str, Any] = field(default_factory=dict)


Stack = Callable[[Setup], AbstractAsyncContextManager[Live]]


@asynccontextmanager
async def null_engine(setup: Setup) -> AsyncIterator[Live]:
    """Our service over an engine that answers at once."""
    arguments = ("-m", "tests.support.service.null_engine", "--tokens", str(setup.null_tokens))
    async with _served(setup, arguments, OwnRoute()) as live:
        yield live


@asynccontextmanager
async def service(setup: Setup) -> AsyncIterator[Live]:
    """Our service over vLLM."""
    async with _served(setup, ("-m", "medmoe.server"), OwnRoute()) as live:
        yield live


@asynccontextmanager
async def fake_service(setup: Setup) -> AsyncIterator[Live]:
    """Our service over the fake engine: only to try the benchmark itself."""
    async with _served(setup, ("-m", "medmoe.server"), OwnRoute(), engine="fake") as live:
        yield live


@asynccontextmanager
async def service_chat(setup: Setup) -> AsyncIterator[Live]:
    """Our service, asked as OpenAI's clients ask: byte for byte what vLLM's own server is asked."""
    route = ChatRoute(MedMoEConfig.from_directory(setup.model).name)
    async with _served(setup, ("-m", "medmoe.server"), route) as live:
        yield live


@asynccontextmanager
async def _served(
    setup: Setup, arguments: tuple[str, ...], dialect: Dialect, *, engine: str = "vllm"
) -> AsyncIterator[Live]:
    begun = time.monotonic()
    with server_process(arguments=arguments, settings=setup.settings | {"MEDMOE_ENGINE": engine}) as server:
        await asyncio.to_thread(server.wait_ready, _START)
        client = SseClient(server.url, dialect)
        yield Live(
            ask=client.ask,
            ask_with_ids=client.ask,
            root=psutil.Process(server.process.pid),
            client_apart=True,
            facts={"start_seconds": time.monotonic() - begun, "path": dialect.path},
        )
        client.close()
        # Not killed: the next stack needs the cores.
        await asyncio.to_thread(server.stop)


@asynccontextmanager
async def vllm_serve(setup: Setup) -> AsyncIterator[Live]:
    """vLLM's own server over the same engine."""
    begun = time.monotonic()
    name = MedMoEConfig.from_directory(setup.model).name
    async with vllm_server(Settings(model=setup.model, dtype=setup.dtype), seconds=_START) as (url, process, command):
        clients = [
            SseClient(url, VllmRoute(name, with_logprobs=setup.vllm_logprobs, with_ids=with_ids))
            for with_ids in (False, True)
        ]
        yield Live(
            ask=clients[0].ask,
            ask_with_ids=clients[1].ask,
            root=process,
            client_apart=True,
            facts={"start_seconds": time.monotonic() - begun, "command": command},
        )
        for client in clients:
            client.close()


@asynccontextmanager
async def in_process(setup: Setup) -> AsyncIterator[Live]:
    """vLLM's AsyncLLM as our engine builds it, asked without HTTP and without our service."""
    begun = time.monotonic()
    settings = Settings(model=setup.model, dtype=setup.dtype)
    config = MedMoEConfig.from_directory(setup.model)
    engine = VllmEngine(settings, config)
    await engine.start()
    asked = _InProcess(engine, Prompt.from_directory(setup.model, config), ImageProcessor.from_config(config))
    try:
        yield Live(
            ask=asked.ask,
            ask_with_ids=asked.ask,
            root=psutil.Process(os.getpid()),
            client_apart=False,
            facts={"start_seconds": time.monotonic() - begun, "loop": type(asyncio.get_running_loop()).__module__},
        )
    finally:
        await engine.close()


class _InProcess:
    """What a program without a service would do: decode and resize in a thread, then read vLLM's outputs."""

    def __init__(self, engine: VllmEngine, prompt: Prompt, processor: ImageProcessor) -> None:
        self._engine = engine
        self._llm = engine._running()
        self._prompt = prompt
        self._processor = processor
        self._count = 0

    async def ask(self, asked: Asked) -> Answer:
        begun = time.monotonic()
        image, image_id = await asyncio.to_thread(self._image, asked.image)
        decoded = time.monotonic()
        self._count += 1
        request = GenerationRequest(
            request_id=f"stack-{self._count}",
            prompt_ids=tuple(self._prompt.question(asked.question)),
            image=np.asarray(image),
            image_id=image_id,
            max_tokens=asked.max_tokens,
        )
        prompt = {
            "prompt_token_ids": list(request.prompt_ids),
            "multi_modal_data": {"image": image},
            "multi_modal_uuids": {"image": image_id},
        }
        first = last = None
        parameters = self._engine._sampling_params(request)
        async for output in self._llm.generate(prompt, parameters, request_id=request.request_id):
            last = output
            if first is None and output.outputs[0].text.strip():
                first = time.monotonic()
        if last is None:
            raise RuntimeError("the engine returned nothing")
        completion = last.outputs[0]
        return Answer(
            first=first,
            text=completion.text.strip(),
            tokens=len(completion.token_ids),
            token_ids=tuple(completion.token_ids),
            prompt_ids=tuple(last.prompt_token_ids or ()),
            stages={"image": decoded - begun, "engine": time.monotonic() - decoded},
        )

    def _image(self, file: bytes) -> tuple[Image.Image, str]:
        with Image.open(io.BytesIO(file)) as opened:
            image = self._processor.resize(opened)
        return image, hashlib.sha256(image.tobytes()).hexdigest()


STACKS: dict[str, Stack] = {
    "null": null_engine,
    "engine": in_process,
    "vllm_serve": vllm_serve,
    "service": service,
    "service_chat": service_chat,
    "fake": fake_service,
}

"""The real vLLM CPU engine, started once: it costs most of a minute on two cores."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import torch
from asgi_lifespan import LifespanManager
from safetensors.torch import save_file

from medmoe.model.checkpoint.io import load_checkpoint, model_tensors
from medmoe.model.config import MedMoEConfig
from medmoe.model.files.weight_files import shard_name
from medmoe.server.app import create_app
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings
from tests.support.checkpoints.tiny import save_tiny_checkpoint
from tests.support.checkpoints.tiny_reference import save_tiny_reference

START_SECONDS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """The whole service over the real engine, and the checkpoint it serves."""

    client: httpx.AsyncClient
    transport: httpx.AsyncBaseTransport
    """What other clients reach the service over."""
    engine: VllmEngine
    checkpoint: Path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    for name in [name for name in os.environ if name.startswith("MEDMOE_")]:
        del os.environ[name]
    checkpoint = save_tiny_checkpoint(tmp_path_factory.mktemp("served") / "tiny", tower_shard=True)
    save_tiny_reference(checkpoint)
    # What lies beside the weights must not be read: with these zeros every parity test would fail.
    zeros = {name: torch.zeros_like(value) for name, value in model_tensors(load_checkpoint(checkpoint)).items()}
    for name in ("zeros.safetensors", "consolidated.safetensors", shard_name(3, count=3)):
        save_file(zeros, checkpoint / name)
    settings = Settings(model=checkpoint, dtype="float32", drain_seconds=1, insecure=True)
    engine = VllmEngine(settings, MedMoEConfig.from_directory(checkpoint))
    app = create_app(settings, engine)
    async with LifespanManager(app, startup_timeout=START_SECONDS, shutdown_timeout=60) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client:
            async with asyncio.timeout(START_SECONDS):
                while (await client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.2)
            yield Served(client=client, transport=transport, engine=engine, checkpoint=checkpoint)

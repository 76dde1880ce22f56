"""Run the server over the real engine, whose worker begins an endless loop when the server gets SIGUSR1.

    python -m tests.support.service.looping_engine

Settings as always in MEDMOE_*. Unlike the service it lets vLLM send functions to its worker.
"""

import asyncio
import signal
import sys
from typing import Any

import medmoe.server.__main__ as server
from medmoe.model.config import MedMoEConfig
from medmoe.server.engine.deployment import vllm_environment
from medmoe.server.engine.vllm_engine import VllmEngine
from medmoe.server.settings import Settings


class LoopingEngine(VllmEngine):
    """Serve like VllmEngine until SIGUSR1."""

    async def start(self) -> None:
        await super().start()
        loop = asyncio.get_running_loop()
        self._loops: set[asyncio.Task[Any]] = set()
        loop.add_signal_handler(
            signal.SIGUSR1, lambda: self._loops.add(loop.create_task(self._running().collective_rpc(spin)))
        )


def spin(_: object) -> None:
    """Never return."""
    while True:
        pass


def build_engine(settings: Settings) -> LoopingEngine:
    return LoopingEngine(settings, MedMoEConfig.from_directory(settings.model))


if __name__ == "__main__":
    vllm_environment._ENVIRONMENT["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    server.build_engine = build_engine
    sys.exit(server.main())

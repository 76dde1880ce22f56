"""Run the real server and note how long its engine and its warm-up take; tests.benchmarks.start_up starts it.

The server imports nothing else than it always does.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from medmoe.server import __main__ as server
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.lifecycle import supervisor

PHASES = "START_UP_PHASES"
"""Names the file for the notes."""
ARGUMENTS = ("-c", "from tests.benchmarks.support.timed_server import serve; raise SystemExit(serve())")
"""Of Python. Not -m: a spawned process would import that module once more, as it does not with medmoe.server."""


def serve() -> int:
    RestartableEngine.start = _noted("engine", RestartableEngine.start)  # type: ignore[method-assign]
    supervisor.warm_up = _noted("warm-up", supervisor.warm_up)
    return server.main()


def _noted(name: str, action: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def noted(*given: Any) -> None:
        begun = time.monotonic()
        await action(*given)
        _note(phase=name, seconds=time.monotonic() - begun)

    return noted


def _note(**fields: object) -> None:
    with Path(os.environ[PHASES]).open("a") as file:
        file.write(json.dumps(fields) + "\n")

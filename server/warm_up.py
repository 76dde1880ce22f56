"""From a process that listens to a service that has proven it can answer.

Apart from app.py, which only wires: the order here is the meaning of /health/ready.
"""

import asyncio
import contextlib
import io
import logging

from PIL import Image

from medmoe.server.admission import Deadline
from medmoe.server.answering import answer
from medmoe.server.errors import EngineDeadError
from medmoe.server.request_record import RequestRecord
from medmoe.server.schemas import VQAFields
from medmoe.server.state import State

log = logging.getLogger("medmoe.start")

_SIDE = 64
_WATCH_SECONDS = 1.0
_PATIENCE = 600.0
"""Seconds: an engine may compile during its first answer, which no client's deadline should have to cover."""


async def start_up(state: State) -> None:
    """Start the engine, answer one question as any client's is answered, then be ready. Failure is final."""
    try:
        await asyncio.gather(state.engine.start(), state.hash_weights())
        await _answer_once(state)
    except Exception as error:
        # Nobody awaits this task while the server runs, so whatever it was must end here, and visibly. Its text is
        # safe to write: no client has been heard yet.
        log.critical("start failed", extra={"fields": {"exception": type(error).__name__, "reason": str(error)}})
        state.readiness.fail()
        return
    state.router_stats.reset()
    state.readiness.started()
    state.watching = asyncio.create_task(_watch(state))
    log.info("ready", extra={"fields": {"model": state.config.name, **state.hashes()}})


async def _watch(state: State) -> None:
    """Notice an engine that dies while nobody asks: liveness must not wait for the next request."""
    with contextlib.suppress(EngineDeadError):
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            with state.readiness.watch():
                await state.engine.check_health()


async def _answer_once(state: State) -> None:
    picture = io.BytesIO()
    side = max(_SIDE, state.settings.min_image_side)
    Image.new("RGB", (side, side)).save(picture, format="PNG")
    pieces = answer(
        state,
        VQAFields(question="What is shown?", max_tokens=min(2, state.settings.max_tokens)),
        image=picture.getvalue(),
        deadline=Deadline(_PATIENCE),
        record=RequestRecord(request_id="warm-up", method="POST"),
    )
    async for _ in pieces:
        pass

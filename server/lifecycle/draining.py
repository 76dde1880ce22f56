"""Drain the service when it is told to stop: finish the running requests, refuse new ones, then close."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from medmoe.server.admission.readiness import Phase
from medmoe.server.state import State

log = logging.getLogger("medmoe.stop")

_LAST_WORDS = 2.0
"""Seconds for sending the refusals of requests that could not be answered, and for closing connections."""


async def drain(state: State, *, hurry: asyncio.Event | None = None) -> None:
    """Announce the stop, then refuse new requests and wait for those inside; refuse what is left with 503.

    The two waits are `drain_lag_seconds` and `drain_seconds`; setting `hurry` ends them.
    """
    hurry = hurry or asyncio.Event()
    for model in state.models:
        model.readiness.leaving = True
    if state.readiness.phase is Phase.READY:
        await _unless(hurry, asyncio.sleep(state.settings.drain_lag_seconds))
    for model in state.models:
        model.readiness.drain()
    await _unless(hurry, state.admission.wait_idle(state.settings.drain_seconds))
    if state.admission.in_flight:
        log.warning("stopping with requests in flight", extra={"fields": {"count": state.admission.in_flight}})
        state.admission.cut_short()
        await state.admission.wait_idle(_LAST_WORDS)


async def _unless(event: asyncio.Event, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever comes first."""
    tasks = asyncio.create_task(event.wait()), asyncio.create_task(waiting)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()

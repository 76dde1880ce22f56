"""Drain the service: refuse new requests, and let the running ones finish."""

import logging

from medmoe.server.state import State

log = logging.getLogger("medmoe.stop")

_LAST_WORDS = 2.0
"""Seconds for sending the refusals to those who could not be answered, and for closing connections."""


async def drain(state: State) -> None:
    """Refuse what comes, wait for what is inside, at most `drain_seconds`; what is left then is answered with 503."""
    state.readiness.drain()
    if await state.admission.wait_idle(state.settings.drain_seconds):
        return
    log.warning("stopping with requests in flight", extra={"fields": {"count": state.admission.in_flight}})
    state.admission.cut_short()
    await state.admission.wait_idle(_LAST_WORDS)

"""How the service stops: not ready at once, what is inside may finish, nobody is left without an answer.

Apart from app.py because a signal must begin it while the port is still open: whoever comes then is told to go
elsewhere instead of meeting a closed door.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any

import uvicorn

from medmoe.server.state import State

log = logging.getLogger("medmoe.stop")

_LAST_WORDS = 2.0
"""Seconds for sending the refusals to those who could not be answered, and for closing connections."""

_DOORSTEP = 0.3
"""Seconds in which a connection made last may bring its request."""


async def drain(state: State) -> None:
    """Refuse what comes, wait for what is inside, at most `drain_seconds`; what is left then is answered with 503."""
    state.readiness.drain()
    if await state.admission.wait_idle(state.settings.drain_seconds):
        return
    log.warning("stopping with requests in flight", extra={"fields": {"count": state.admission.in_flight}})
    state.admission.cut_short()
    await state.admission.wait_idle(_LAST_WORDS)


class DrainingServer(uvicorn.Server):
    """Drains on the first SIGTERM or SIGINT, while it goes on listening; a second one does not wait."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Coroutine[Any, Any, None]],
        beside: AbstractAsyncContextManager[None],
        url: str,
    ) -> None:
        """`beside` is entered for as long as the server listens at `url`, draining included."""
        super().__init__(config)
        self._url = url
        self._drain = drain
        self._beside = beside
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def main_loop(self) -> None:
        """See uvicorn.Server.main_loop."""
        async with self._beside:
            self._loop = asyncio.get_running_loop()
            log.info(f"running on {self._url} while the model loads")
            await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server.shutdown, which also closes connections that have only just been made."""
        for server in self.servers:
            server.close()
        # Whoever came before the door was shut gets an answer: that it is shut.
        await asyncio.sleep(_DOORSTEP)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the interpreter, between any two instructions of the event loop's thread."""
        if self._loop is None or self._draining is not None or self.should_exit:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin, sig)

    def _begin(self, sig: int) -> None:
        log.info("stopping", extra={"fields": {"signal": signal.Signals(sig).name}})
        self._draining = asyncio.ensure_future(self._drain())
        self._draining.add_done_callback(lambda _: setattr(self, "should_exit", True))

"""Extend uvicorn: all that the service uses of it beyond its documented interface is in this module.

tests/unit/server/edge/test_uvicorn_adapter.py names it, so that a new version that changes it fails there.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from medmoe.server.edge.strict_h11 import StrictConnection

__all__ = ["STATUS_PHRASES", "STOPPING", "Config", "DrainingServer", "HTTPProtocol", "ServerState", "served_beside"]

log = logging.getLogger("medmoe.stop")
_start_log = logging.getLogger("medmoe.start")

_ALSO_STOPPING = (signal.SIGHUP, signal.SIGQUIT)
"""Signals that stop the service like SIGTERM and SIGINT, which uvicorn handles."""
STOPPING = (signal.SIGTERM, signal.SIGINT, *_ALSO_STOPPING)
_DOORSTEP = 0.3
"""Seconds in which a connection made last may bring its request."""
_KEPT_REMAINDER = 64 * 1024
"""Bytes of an unread body that are read after the response, so that the connection can be kept."""
_MAX_HEAD_BYTES = 16 * 1024
"""Where the configuration has no limit."""
_CLOSE = (b"connection", b"close")
_log = logging.getLogger("medmoe.edge.http")
# uvicorn warns of each malformed request; the line of a request says as much.
_log.addFilter(lambda record: record.levelno >= logging.ERROR)


class HTTPProtocol(H11Protocol):
    """uvicorn's protocol with a strict parser; it closes the connection when a response ends before its request."""

    conn: StrictConnection

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        *,
        on_malformed: Callable[[], None],
        on_complete: Callable[[], None],
    ) -> None:
        """Call `on_malformed` to answer a malformed request and to close, `on_complete` after each response."""
        super().__init__(config, server_state, app_state, loop)
        self.conn = StrictConnection(max_head_bytes=config.h11_max_incomplete_event_size or _MAX_HEAD_BYTES)
        self.logger = _log
        self.app = self._closing(self.app)
        self._on_malformed = on_malformed
        self._on_complete = on_complete

    @property
    def is_busy(self) -> bool:
        """Return whether a request has come whose response is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Return whether no part of a request has come that has not been answered."""
        return not self.is_busy and {*self.conn.states.values()} == {h11.IDLE} and not self.conn.trailing_data[0]

    @property
    def is_timed(self) -> bool:
        """Return whether uvicorn's timer closes the connection unless another request begins."""
        return self.is_idle and self.timeout_keep_alive_task is not None

    @property
    def has_unread_body(self) -> bool:
        """Return whether more of the present request is to come."""
        return self.conn.their_state is h11.SEND_BODY

    def can_be_answered_after_eof(self, *, pending: bool) -> bool:
        """Return whether a request waits whose client takes interim responses: not HTTP/1.0.

        `pending` bytes of its body have come and wait for the application; without them it must have come whole.
        """
        is_whole = pending or not self.has_unread_body
        return self.is_busy and is_whole and self.conn.their_http_version != b"1.0"

    def send_interim_response(self) -> None:
        """Send 100 (Continue), which clients discard (RFC 9110, 15.2), unless the response has begun."""
        if self.is_busy and not self.cycle.response_started:
            self.transport.write(
                self.conn.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
            )

    def stop_keep_alive_timer(self) -> None:
        """Keep the connection open whatever uvicorn's timer says."""
        self._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        """Prepare for the next request; uvicorn calls this after each response."""
        super().on_response_complete()
        self._on_complete()

    def shutdown(self) -> None:
        """Close after the present response; uvicorn calls this while it stops."""
        if self.transport.is_closing():
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Report a malformed request; uvicorn calls this for each."""
        if self.is_busy:
            # Its application waits for the rest of the body.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        self._on_malformed()

    def _closing(self, app: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            async def send_closing(message: Any) -> None:
                if message["type"] == "http.response.start" and self._must_close():
                    message = {**message, "headers": [*_without_connection(message), _CLOSE]}
                await send(message)

            await app(scope, receive, send_closing)

        return wrapped

    def _must_close(self) -> bool:
        remaining = self.conn.remaining
        # A client that was not told to continue may leave its body out, and send another request in its place.
        is_left_out = self.conn.they_are_waiting_for_100_continue
        unread = self.has_unread_body and (remaining is None or remaining > _KEPT_REMAINDER or is_left_out)
        return unread or self.conn.must_close


def _without_connection(message: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]


class DrainingServer(uvicorn.Server):
    """Drain on the first signal of STOPPING while listening goes on; cut the drain short on the second."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
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
        self._hurry = asyncio.Event()

    async def main_loop(self) -> None:
        """See uvicorn.Server.main_loop."""
        async with self._beside:
            self._loop = asyncio.get_running_loop()
            for sig in _ALSO_STOPPING:
                # Ignored under nohup, and then it stays so.
                if signal.getsignal(sig) is not signal.SIG_IGN:
                    self._loop.add_signal_handler(sig, self.handle_exit, sig, None)
            _start_log.info(f"running on {self._url} while the model loads")
            await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server.shutdown, which also closes connections that have only just been made."""
        for server in self.servers:
            server.close()
        # A connection that came before the socket closed gets an answer: that the service is stopping.
        await asyncio.sleep(_DOORSTEP)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; the interpreter calls this between any two instructions of the event loop's thread."""
        if self._loop is None or self.should_exit:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin, sig)

    def _begin(self, sig: int) -> None:
        log.info("stopping", extra={"fields": {"signal": signal.Signals(sig).name}})
        if self._draining is not None:
            self._hurry.set()
            return
        self._draining = asyncio.ensure_future(self._drain(self._hurry))
        self._draining.add_done_callback(lambda _: setattr(self, "should_exit", True))


@contextlib.asynccontextmanager
async def served_beside(app: Starlette, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve `app` at `listener` while inside; None serves nothing."""
    if listener is None:
        yield
        return
    config = uvicorn.Config(app, access_log=False, http="h11", ws="none", lifespan="off", log_config=None)
    server = _SecondServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class _SecondServer(uvicorn.Server):
    """Leaves signals to the service's own server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn.Server.capture_signals."""
        yield

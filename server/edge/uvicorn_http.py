"""Adapt uvicorn's HTTP protocol: every attribute of it that is not documented is used here.

tests/unit/server/edge/test_uvicorn_names.py names them.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from medmoe.server.edge.strict_h11 import StrictConnection

_KEPT_REMAINDER = 64 * 1024
"""Bytes of an unread body that are read after the response, so that the connection can be kept."""
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
        limit = config.h11_max_incomplete_event_size
        self.conn = StrictConnection(h11.SERVER, *([] if limit is None else [limit]))
        self.logger = _log
        self.app = self._closing(self.app)
        self._on_malformed = on_malformed
        self._on_complete = on_complete

    @property
    def is_busy(self) -> bool:
        """Whether a request has come whose response is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_idle(self) -> bool:
        """Whether no part of a request has come that has not been answered."""
        return not self.is_busy and {*self.conn.states.values()} == {h11.IDLE} and not self.conn.trailing_data[0]

    @property
    def is_timed(self) -> bool:
        """Whether uvicorn's timer closes the connection unless another request begins."""
        return self.is_idle and self.timeout_keep_alive_task is not None

    @property
    def has_unread_body(self) -> bool:
        """Whether more of the present request is to come."""
        return self.conn.their_state is h11.SEND_BODY

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
        if self.cycle is not None:
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
        unread = self.has_unread_body and (remaining is None or remaining > _KEPT_REMAINDER)
        return unread or self.conn.must_close


def _without_connection(message: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]

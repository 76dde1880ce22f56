"""Secure accepted connections with TLS. Until the handshake is done, one counts as idle, like one without a request."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from medmoe.server.edge.connection import EdgeProtocol
from medmoe.server.edge.tls import ServerTLS
from medmoe.server.edge.uvicorn_adapter import Config, ServerState

Result = TypeVar("Result")


class HandshakeProtocol(asyncio.Protocol):
    """An accepted connection until its handshake is done. `of` makes the class that a server uses."""

    protocol: type[EdgeProtocol]
    tls: ServerTLS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn gives its own protocols."""
        self._loop = _loop or asyncio.get_running_loop()
        self._secured = self.protocol(config, server_state, app_state, self._loop)
        self._table, self._connections = self.protocol.table, server_state.connections
        self._early = bytearray()
        """Bytes that came right behind the handshake."""

    @classmethod
    def of(cls, protocol: type[EdgeProtocol], tls: ServerTLS) -> "type[HandshakeProtocol]":
        """Return the class for one server, whose connections `protocol` serves once they are secure."""
        return type("HandshakeProtocol", (cls,), {"protocol": protocol, "tls": tls})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, also of the following."""
        self._transport = transport
        self._close = transport.abort
        if not self._table.add(self._close) and not self._table.add_refused(self._close):
            self._close()
            return
        self._table.note(self._close, idle=True)
        self._connections.add(self)  # type: ignore[arg-type]
        handshake = self._loop.start_tls(
            transport,
            self,
            self.tls.context,
            server_side=True,
            ssl_handshake_timeout=self._table.limits.head_seconds,
        )
        self._handing_over = self._loop.create_task(self._hand_over(_begun(handshake)))

    def data_received(self, data: bytes) -> None:
        self._early += data

    def shutdown(self) -> None:
        """Close; uvicorn calls this while it stops."""
        self._close()

    async def _hand_over(self, handshake: Coroutine[Any, Any, asyncio.Transport | None]) -> None:
        """Let the served protocol go on once the handshake is done."""
        transport = None
        try:
            transport = await handshake
        except OSError:
            # Not TLS, no certificate that is trusted, too late, or gone.
            pass
        finally:
            self._table.remove(self._close)
            self._connections.discard(self)
            if transport is None or self._transport.is_closing():
                self._close()
        if transport is None or transport.is_closing():
            return
        transport.set_protocol(self._secured)
        self._secured.connection_made(transport)
        if transport.is_closing():
            # Refused: it is gone once the client has closed too.
            self._table.add_refused(transport.abort)
        if self._early:
            self._secured.data_received(bytes(self._early))


def _begun(coroutine: Coroutine[Any, Any, Result]) -> Coroutine[Any, Any, Result]:
    """Run `coroutine` until it first waits, and return the rest; a task would begin after the first bytes have come."""
    first = coroutine.send(None)

    async def rest() -> Result:
        waiting = first
        while True:
            await asyncio.wait({waiting})
            try:
                waiting = coroutine.send(None)
            except StopIteration as ended:
                result: Result = ended.value
                return result

    return rest()

"""The first to see what comes on a connection: it refuses what can be refused at once, and lets all else in to h11.

Nearly all that a refusal costs is a request's way through parser, framework and back. So while the service has no room,
a plain request is answered as soon as its head is there, and its body is skipped as it comes. Whatever is not plain
goes the long way and is refused there, in the same words.
"""

import asyncio
from typing import Any

import h11
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol
from uvicorn.server import ServerState

from medmoe.server.edge.load_shedding import LoadShedder
from medmoe.server.edge.request_head import RequestHead


class LoadSheddingProtocol(asyncio.Protocol):
    """One connection. The class of a server is made with `of`."""

    refusal: LoadShedder

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes its own."""
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._inside: H11Protocol | None = None
        """From the first request on that was let in."""
        self._to_skip = 0
        """Bytes of a refused request's body that have not come yet."""
        self._ending = False
        """No other request is to follow."""
        self._write_paused = False
        self._patience: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, refusal: LoadShedder) -> "type[LoadSheddingProtocol]":
        """For uvicorn, which makes one for each connection without knowing of us."""
        return type("LoadSheddingProtocol", (cls,), {"refusal": refusal})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, also of the following."""
        self._transport = transport
        self._server_state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._lose_patience(later=False)
        while data and not self._transport.is_closing():
            if self._to_skip:
                skipped = min(self._to_skip, len(data))
                self._to_skip -= skipped
                data = data[skipped:]
                self._rest()
            elif (head := self._refusable(data)) is not None:
                data = data[head.size :]
                self._to_skip, self._ending = head.body_size, not head.keep
                self.refusal.refuse(head, send=self._send)
                self._rest()
            else:
                self._let_in(data)
                return

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._inside is not None:
            self._inside.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose_patience(later=False)
        self._server_state.connections.discard(self)
        if self._inside is not None:
            self._inside.connection_lost(exc)

    def shutdown(self) -> None:
        """Called by uvicorn while it stops; a connection that was let in is told itself."""
        self._transport.close()

    def _refusable(self, data: bytes) -> RequestHead | None:
        if not self.refusal.due or self._write_paused or not self._between_requests():
            return None
        head = RequestHead.read(data)
        return head if head is not None and self.refusal.concerns(head) else None

    def _between_requests(self) -> bool:
        """Nothing is under way inside, not even the beginning of a request."""
        inside = self._inside
        if inside is None:
            return True
        if inside.cycle is not None and not inside.cycle.response_complete:
            return False
        return {*inside.conn.states.values()} == {h11.IDLE} and not inside.conn.trailing_data[0]

    def _let_in(self, data: bytes) -> None:
        # It may have come right behind a request that was refused.
        self._lose_patience(later=False)
        if self._inside is None:
            self._inside = H11Protocol(self._config, self._server_state, self._app_state, self._loop)
            self._server_state.connections.discard(self)
            self._inside.connection_made(self._transport)
            if self._write_paused:
                self._inside.pause_writing()
        self._inside.data_received(data)

    def _send(self, response: Response) -> None:
        status = response.status_code
        headers = [*self._server_state.default_headers, *response.raw_headers]
        if self._ending:
            headers.append((b"connection", b"close"))
        lines = [b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status]), *(b"%s: %s" % header for header in headers)]
        self._transport.write(b"\r\n".join((*lines, b"", bytes(response.body))))

    def _rest(self) -> None:
        """After a refusal, and after each piece of its body: close, or wait for what is to come.

        Never close into the middle of a body: the kernel would answer the rest with a reset, which can take the answer
        away from a client that has not read it yet.
        """
        if self._ending and not self._to_skip:
            self._transport.close()
        else:
            self._lose_patience(later=True)

    def _lose_patience(self, *, later: bool) -> None:
        """Close as uvicorn closes a connection on which nothing comes any more; not `later`: not at all."""
        inside = self._inside
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if later:
            if inside is not None and inside.timeout_keep_alive_task is not None:
                # Of the last answer that came from inside.
                inside.timeout_keep_alive_task.cancel()
                inside.timeout_keep_alive_task = None
            self._patience = self._loop.call_later(self._config.timeout_keep_alive, self._transport.close)

"""Guard one connection: refuse early what can be refused, and bound what everything else may cost.

Nearly all that a refusal costs is a request's way through parser, framework and back. So while the service has no
room, a plain request is answered as soon as its head is there, and its body is skipped as it comes. Every other request
goes to uvicorn's protocol, a slice of bytes at a time, so that no connection holds the event loop.
"""

import asyncio
from typing import Any

from starlette.responses import Response

from medmoe.server.edge.connection_table import ConnectionTable
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.load_shedding import LoadShedder
from medmoe.server.edge.reader_check import ReaderCheck
from medmoe.server.edge.request_head import MAX_HEAD_BYTES, RequestHead
from medmoe.server.edge.transport import EdgeTransport
from medmoe.server.edge.uvicorn_adapter import STATUS_PHRASES, Config, HTTPProtocol, ServerState
from medmoe.server.errors import MalformedRequest, Overloaded, RequestTimeout, ServerError

_WORK_SECONDS = 0.001
"""Time for the bytes of one connection, before it is another's turn."""
_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES = 64 * 1024
_BODY_SLICE = 256 * 1024
"""Bytes of a body of known length that are parsed at once, as many as the loop reads at once."""
_SLICE = 1024
"""Bytes of a chunked body, or of an incomplete head, that are parsed at once; every six may be a chunk."""
_MAX_PENDING = 64 * 1024
"""Bytes that are read ahead, so that a client's leaving is noticed while it is answered."""


class EdgeProtocol(asyncio.Protocol):
    """One connection. `of` makes the class that a server uses."""

    shedder: LoadShedder
    table: ConnectionTable

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take what uvicorn gives its own protocols."""
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._limits, self._turns = self.table.limits, self.table.turns
        self._http: HTTPProtocol | None = None
        """Made for the first request that is not refused early."""
        self._pending = bytearray()
        self._to_skip = 0
        """Bytes of a refused request's body that have not come yet."""
        self._skip_until = 0.0
        self._ending = False
        """Whether the connection closes after the present refusal."""
        self._at_eof = False
        """Whether the client has ended its side of the connection."""
        self._write_paused = self._read_paused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._keep_alive_timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, shedder: LoadShedder, limits: ConnectionLimits | None = None) -> "type[EdgeProtocol]":
        """Return the class for one server."""
        table = ConnectionTable(limits or ConnectionLimits().within_descriptors())
        return type("EdgeProtocol", (cls,), {"shedder": shedder, "table": table})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, also of the following."""
        self._socket = transport
        self._transport = EdgeTransport(
            transport,
            loop=self._loop,
            limits=self._limits,
            readers=self.table.readers,
            is_receiving=self._is_receiving,
            on_reading=self._schedule,
        )
        self._reader_check = ReaderCheck(transport, probe=self._probe)
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        self._close = transport.abort
        if self.table.add(self._close):
            self._note_idleness()
        else:
            self._reject(Overloaded(retry_after=1))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._stop_keep_alive_timer()
        self._pending += data
        if self._turns.is_empty:
            self._process()
        else:
            self._turns.add(self._process)
            self._control_reading()

    def eof_received(self) -> bool:
        """Keep the connection for the answers to requests that came whole; TLS has no such half of a connection."""
        if self._transport.get_extra_info("ssl_object") is not None:
            return False
        self._at_eof = True
        self._process()
        return not self._socket.is_closing()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._http is not None:
            self._http.resume_writing()
        self._schedule()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pending.clear()
        self._turns.discard(self._process)
        self._stop_keep_alive_timer()
        self._stop_head_timer()
        self._reader_check.stop()
        self._transport.lost()
        self.table.remove(self._close)
        self._server_state.connections.discard(self)
        if self._http is not None:
            self._http.connection_lost(exc)

    def shutdown(self) -> None:
        """Close; uvicorn calls this while it stops, on its own protocol where there is one."""
        self._transport.close()

    def _schedule(self) -> None:
        self._turns.add(self._process)

    def _process(self) -> None:
        """Take slices of the pending bytes for a short time."""
        until = self._loop.time() + _WORK_SECONDS
        while self._can_take():
            self._take_slice()
            if self._loop.time() > until:
                break
        if self._socket.is_closing():
            return
        if self._can_take():
            self._schedule()
        elif self._at_eof:
            self._await_response_or_close()
        self._control_reading()
        self._note_idleness()

    def _await_response_or_close(self) -> None:
        http = self._http
        can_be_answered = http is not None and http.can_be_answered_after_eof(pending=bool(self._pending))
        if not can_be_answered or self._transport.lingering:
            self._transport.close()
        elif not self._reader_check.is_running:
            self._reader_check.start()

    def _probe(self) -> None:
        if self._http is not None:
            self._http.send_interim_response()

    def _can_take(self) -> bool:
        waits = self._transport.reading_paused and not self._transport.lingering
        return bool(self._pending) and not waits and not self._socket.is_closing()

    def _take_slice(self) -> None:
        if self._transport.lingering:
            self._transport.drop(len(self._pending))
            self._pending.clear()
        elif self._to_skip:
            self._skip()
            self._after_refusal()
        elif (head := self._refusable()) is not None:
            del self._pending[: head.size]
            self.table.note(self._close, idle=False)
            self._to_skip, self._ending = head.body_size, not head.keep
            self._skip_until = self._loop.time() + self._limits.linger_seconds
            self.shedder.refuse(head, send=self._send)
            self._skip()
            self._after_refusal()
        else:
            self._parse()

    def _skip(self) -> None:
        """Drop what has come of a refused request's body."""
        skipped = min(self._to_skip, len(self._pending))
        self._to_skip -= skipped
        del self._pending[:skipped]

    def _refusable(self) -> RequestHead | None:
        if not self.shedder.due or self._write_paused or (self._http is not None and not self._http.is_idle):
            return None
        head = RequestHead.read(bytes(self._pending[:MAX_HEAD_BYTES]))
        return head if head is not None and self.shedder.concerns(head) else None

    def _parse(self) -> None:
        if self._http is None:
            self._http = HTTPProtocol(
                self._config,
                self._server_state,
                self._app_state,
                self._loop,
                on_malformed=self._refuse_malformed,
                on_complete=self._schedule,
            )
            self._server_state.connections.discard(self)
            self._http.connection_made(self._transport)
            if self._write_paused:
                self._http.pause_writing()
        # A refusal may have started it; this request came right behind.
        self._stop_keep_alive_timer()
        remaining = self._http.conn.remaining
        # Never what follows: the next head tells how to slice it.
        size = min(remaining, _BODY_SLICE) if remaining else _SLICE
        if not self._http.has_unread_body:
            end = self._pending.find(_HEAD_END, 0, _HEAD_BYTES)
            size = end + len(_HEAD_END) if end >= 0 else _SLICE
        data = bytes(self._pending[:size])
        del self._pending[:size]
        self._http.data_received(data)

    def _control_reading(self) -> None:
        """Read on unless bytes wait for their turn, or enough of them for the parser."""
        pause = self._can_take() or len(self._pending) >= _MAX_PENDING
        if pause != self._read_paused and not self._at_eof and not self._socket.is_closing():
            self._read_paused = pause
            if pause:
                self._socket.pause_reading()
            else:
                self._socket.resume_reading()

    def _is_receiving(self) -> bool:
        if self._at_eof:
            return False
        return bool(self._to_skip or self._pending or (self._http is not None and self._http.has_unread_body))

    def _note_idleness(self) -> None:
        """Limit the time for a head, or for what is left of an answered body, from its first byte on."""
        http = self._http
        busy = http is not None and http.is_busy and not self._transport.lingering
        self.table.note(self._close, idle=not busy)
        timed = self._keep_alive_timer is not None or (http is not None and http.is_timed)
        if busy or timed or self._transport.lingering:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self._limits.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._http is None or self._http.has_unread_body or self._http.is_idle:
            self._socket.close()
        else:
            self._reject(RequestTimeout())
            self._transport.linger()

    def _refuse_malformed(self) -> None:
        self._reject(MalformedRequest())
        self._transport.linger()

    def _reject(self, error: ServerError) -> None:
        self._ending = True
        self.shedder.reject(error, send=self._send)

    def _send(self, response: Response) -> None:
        status = response.status_code
        headers = [*self._server_state.default_headers, *response.raw_headers]
        if self._ending:
            headers.append((b"connection", b"close"))
        lines = [b"HTTP/1.1 %d %s" % (status, STATUS_PHRASES[status]), *(b"%s: %s" % header for header in headers)]
        self._transport.write(b"\r\n".join((*lines, b"", bytes(response.body))))

    def _after_refusal(self) -> None:
        """Close, or wait for the rest of the body or for another request."""
        self._stop_keep_alive_timer()
        if self._http is not None:
            self._http.stop_keep_alive_timer()
        if self._ending and not self._to_skip:
            self._transport.close()
            return
        patience = float(self._config.timeout_keep_alive)
        if self._to_skip:
            patience = min(patience, self._skip_until - self._loop.time())
        self._keep_alive_timer = self._loop.call_later(patience, self._socket.close)

    def _stop_keep_alive_timer(self) -> None:
        if self._keep_alive_timer is not None:
            self._keep_alive_timer.cancel()
            self._keep_alive_timer = None

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

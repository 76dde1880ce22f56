"""Write to one client, wait for slow ones, and close without losing what they have not read yet."""

import asyncio
import contextlib
import fcntl
import struct
import termios
from collections.abc import Callable, Iterable
from typing import Any

from medmoe.server.edge.limits import ConnectionLimits


class SlowReaders:
    """The transports whose clients have not read everything yet, by the time of their last progress."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._waiting: dict[EdgeTransport, None] = {}

    def note(self, transport: "EdgeTransport") -> None:
        """Take note of progress, or of the first wait."""
        self._waiting.pop(transport, None)
        self._waiting[transport] = None
        if sum(one.unsent for one in self._waiting) > self._limits.unsent_bytes:
            next(iter(self._waiting)).abort()

    def forget(self, transport: "EdgeTransport") -> None:
        """Take note that everything was read, or that the connection is gone."""
        self._waiting.pop(transport, None)


class EdgeTransport(asyncio.Transport):
    """A transport that aborts when the client does not read, and lingers when it closes."""

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: ConnectionLimits,
        readers: SlowReaders,
        is_receiving: Callable[[], bool],
        on_reading: Callable[[], None],
    ) -> None:
        """`is_receiving` tells whether a request is incomplete; `on_reading` is called when reading is to go on."""
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._limits = limits
        self._readers = readers
        self._is_receiving = is_receiving
        self._on_reading = on_reading
        self.reading_paused = False
        """Whether the parser has enough for now."""
        self.lingering = False
        """Whether what comes is to be dropped: the last response was sent."""
        self._dropped = 0
        self._written = self._acknowledged = 0
        self._stall_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    @property
    def unsent(self) -> int:
        """Return the bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.Transport, also of the following."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)
        self._written += len(data)
        if self._stall_timer is None and self.unsent:
            self._acknowledged = self._received()
            self._watch()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False
        self._on_reading()

    def close(self) -> None:
        """Close once everything is sent; linger first while a request is incomplete, unless called again."""
        if self.lingering or not self._is_receiving():
            self._stop_lingering()
        else:
            self.linger()

    def linger(self) -> None:
        """End the response, and drop what the client still sends until it closes, within the limits.

        The kernel answers bytes that are never read with a reset, which takes the response away from the client.
        """
        if self.is_closing():
            return
        self.lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger_timer = self._loop.call_later(self._limits.linger_seconds, self._stop_lingering)
        self._on_reading()

    def abort(self) -> None:
        self._transport.abort()

    def drop(self, size: int) -> None:
        """Count bytes that were dropped while lingering."""
        self._dropped += size
        if self._dropped > self._limits.linger_bytes:
            self._stop_lingering()

    def lost(self) -> None:
        """Stop the timers of a connection that is gone."""
        for timer in (self._stall_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._readers.forget(self)

    def _stop_lingering(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None
        self._transport.close()

    def _watch(self) -> None:
        self._stall_timer = self._loop.call_later(self._limits.stall_seconds, self._check_progress)
        self._readers.note(self)

    def _check_progress(self) -> None:
        self._stall_timer = None
        if not self.unsent:
            self._readers.forget(self)
            return
        received = self._received()
        if received - self._acknowledged < self._limits.stall_bytes:
            self.abort()
            return
        self._acknowledged = received
        self._watch()

    def _received(self) -> int:
        """Return the bytes that the client has taken; the kernel's own buffer may hold megabytes."""
        queued = bytearray(4)
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError, ValueError):
                fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
        return self._written - self.unsent - int(struct.unpack("i", queued)[0])

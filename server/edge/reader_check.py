"""Find out whether a client that has ended its side of the connection still waits for the response."""

import asyncio
import select
from collections.abc import Callable

_CHECK_SECONDS = 0.25
_FIRST_PROBE_SECONDS = 0.5
"""Time for an answer before the first probe; it doubles with each probe."""
_MAX_PROBE_SECONDS = 8.0


class ReaderCheck:
    """Probe one client until its connection is reset.

    A client that closes the connection sends the same as one that only ends its requests. Bytes tell them apart: the
    kernel of the first answers them with a reset.
    """

    def __init__(self, transport: asyncio.Transport, *, probe: Callable[[], None]) -> None:
        """`probe` sends bytes that change nothing for a client that reads."""
        self._transport = transport
        self._probe = probe
        self._loop = asyncio.get_running_loop()
        self._probe_at = 0.0
        self._patience = _FIRST_PROBE_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Return whether the client is being checked."""
        return self._timer is not None

    def start(self) -> None:
        """Check until `stop`, or until the client is gone; then abort the connection."""
        self._probe_at = self._loop.time() + self._patience
        self._timer = self._loop.call_later(_CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """End the checks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        if self._is_gone():
            self._timer = None
            self._transport.abort()
            return
        if self._loop.time() >= self._probe_at:
            self._probe()
            self._patience = min(2 * self._patience, _MAX_PROBE_SECONDS)
            self._probe_at = self._loop.time() + self._patience
        self._timer = self._loop.call_later(_CHECK_SECONDS, self._check)

    def _is_gone(self) -> bool:
        """Return whether the connection was reset, which nothing else tells of while nothing is read or written."""
        connection = self._transport.get_extra_info("socket")
        if connection is None or connection.fileno() < 0:
            return False
        events = select.poll()
        events.register(connection.fileno(), 0)
        return bool(events.poll(0))

"""Keep the connections of one server and limit their number: close the longest idle one for a new one."""

import logging
from collections.abc import Callable

from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.transport import SlowReaders
from medmoe.server.edge.turn_queue import TurnQueue

log = logging.getLogger("medmoe.edge")

_MAX_REFUSED = 16
"""TLS connections beyond the limit whose handshake is done, because a refusal can only be read after it."""


class ConnectionTable:
    """The open connections of one server, by their functions that close them."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.readers = SlowReaders(limits)
        self.turns = TurnQueue()
        self._open: set[Callable[[], None]] = set()
        self._idle: dict[Callable[[], None], None] = {}
        self._refused: set[Callable[[], None]] = set()
        self._was_full = False

    def add(self, close: Callable[[], None]) -> bool:
        """Add a connection, in the place of the longest idle one where all are taken; False when none is idle."""
        if len(self._open) >= self.limits.max_connections:
            if not self._was_full:
                self._was_full = True
                log.warning("all connections are taken", extra={"fields": {"count": len(self._open)}})
            if not self._idle:
                return False
            longest = next(iter(self._idle))
            self.remove(longest)
            longest()
        self._open.add(close)
        return True

    def add_refused(self, close: Callable[[], None]) -> bool:
        """Add a connection that is only to be refused; False when there are many."""
        if len(self._refused) >= _MAX_REFUSED:
            return False
        self._refused.add(close)
        return True

    def note(self, close: Callable[[], None], *, idle: bool) -> None:
        """Take note of whether a connection waits for a request."""
        if not idle:
            self._idle.pop(close, None)
        elif close in self._open and close not in self._idle:
            self._idle[close] = None

    def remove(self, close: Callable[[], None]) -> None:
        """Remove a connection that is gone."""
        self._open.discard(close)
        self._refused.discard(close)
        self._idle.pop(close, None)
        self._was_full = self._was_full and 2 * len(self._open) >= self.limits.max_connections

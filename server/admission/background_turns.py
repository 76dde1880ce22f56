"""Let background requests run while no other request is inside, and rarely beside them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

_QUIET = 2.0
"""Seconds after the last request before a background request is idle work: a client that asks one after the other is
not met by one in every gap."""
_SHARE = 0.05
"""Share of the time in which a background request runs while others are inside, so that a busy service still ends its
batches."""
_LOOK = 0.05
"""Seconds between two looks at whether a turn is due."""


class BackgroundTurn:
    """A turn; `interrupted` is set when another request comes and the background request must leave."""

    def __init__(self, *, may_be_interrupted: bool) -> None:
        self.interrupted = asyncio.Event()
        self.may_be_interrupted = may_be_interrupted


class BackgroundTurns:
    """Turns of background requests, which give way to the others."""

    def __init__(self, places: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Let `places` background requests run at once; `clock` is in seconds."""
        self._places = asyncio.Semaphore(places)
        self._clock = clock
        self._foreground = 0
        self._quiet_since = float("-inf")
        self._next_beside = float("-inf")
        self._running: set[BackgroundTurn] = set()

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Hold while a request that goes first is inside."""
        self._foreground += 1
        for turn in self._running:
            if turn.may_be_interrupted:
                turn.interrupted.set()
        try:
            yield
        finally:
            self._foreground -= 1
            self._quiet_since = self._clock()

    @asynccontextmanager
    async def turn(self, *, may_be_interrupted: bool = True) -> AsyncIterator[BackgroundTurn]:
        """Wait for a turn and hold it; who waits longest is next."""
        async with self._places:
            while (wait := self._seconds_until_due()) > 0:
                await asyncio.sleep(min(wait, _LOOK))
            turn = BackgroundTurn(may_be_interrupted=may_be_interrupted and self._is_quiet)
            self._running.add(turn)
            begun = self._clock()
            try:
                yield turn
            finally:
                self._running.discard(turn)
                now = self._clock()
                self._next_beside = now + (now - begun) * (1 / _SHARE - 1)

    @property
    def _is_quiet(self) -> bool:
        return not self._foreground and self._clock() >= self._quiet_since + _QUIET

    def _seconds_until_due(self) -> float:
        now = self._clock()
        quiet = float("inf") if self._foreground else self._quiet_since + _QUIET - now
        beside = float("inf") if self._running else self._next_beside - now
        return min(quiet, beside)

"""Share each turn of the event loop among the connections that have bytes to parse."""

import asyncio
from collections.abc import Callable

_TURN_SECONDS = 0.005
"""Time for parsing in one turn, after which the loop serves everything else."""


class TurnQueue:
    """Callables that wait for their next slice of work, in order."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[], None], None] = {}
        self._scheduled = False

    @property
    def is_empty(self) -> bool:
        """Return whether a slice may be taken at once."""
        return not self._waiting

    def add(self, work: Callable[[], None]) -> None:
        """Call `work` once, when its turn comes; it may add itself again."""
        self._waiting[work] = None
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def discard(self, work: Callable[[], None]) -> None:
        """Forget `work`."""
        self._waiting.pop(work, None)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _TURN_SECONDS
        try:
            while self._waiting and loop.time() < until:
                work = next(iter(self._waiting))
                del self._waiting[work]
                work()
        finally:
            # Also after an exception: it is the matter of one connection.
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                loop.call_soon(self._run)

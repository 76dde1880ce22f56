"""How often one caller may ask: a bucket of permits that refills steadily."""

import math
import time
from collections.abc import Callable

from medmoe.server.errors import RateLimited

_SECONDS = 60.0


class TokenBucket:
    """Holds a minute's permits at most, so that a caller who was quiet may ask in a burst."""

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` in seconds; tests turn it by hand."""
        self._capacity = float(per_minute)
        self._clock = clock
        self._permits = self._capacity
        self._filled = clock()

    def take(self) -> None:
        """Use one permit. Raises RateLimited with the seconds until there is one."""
        now = self._clock()
        self._permits = min(self._capacity, self._permits + (now - self._filled) * self._capacity / _SECONDS)
        self._filled = now
        if self._permits < 1:
            raise RateLimited(retry_after=math.ceil((1 - self._permits) * _SECONDS / self._capacity))
        self._permits -= 1

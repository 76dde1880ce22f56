"""Limit the requests of one caller with a token bucket."""

import math
import time
from collections.abc import Callable

from medmoe.server.errors import RateLimited

_SECONDS = 60.0


class TokenBucket:
    """A bucket of at most one minute's permits, which refills steadily; a caller may use them in a burst."""

    def __init__(self, *, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Pass a `clock` in seconds."""
        self.per_minute = per_minute
        self._capacity = float(per_minute)
        self._clock = clock
        self._permits = self._capacity
        self._filled = clock()

    def take(self) -> None:
        """Use one permit. Raises RateLimited with the seconds until the next."""
        now = self._clock()
        self._permits = min(self._capacity, self._permits + (now - self._filled) * self._capacity / _SECONDS)
        self._filled = now
        if self._permits < 1:
            raise RateLimited(retry_after=math.ceil((1 - self._permits) * _SECONDS / self._capacity))
        self._permits -= 1

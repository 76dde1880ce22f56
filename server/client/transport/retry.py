"""How often, and when, a request is sent again: decided here, waited for in the two clients."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from medmoe.client.errors import ClientError, OutOfTime

_MOST_DOUBLINGS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Pauses double from `first_pause` to `longest_pause` seconds; where the service names a time, that is kept."""

    attempts: int = 5
    """In all; 1 never tries again."""
    first_pause: float = 0.5
    longest_pause: float = 30.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.attempts < 1 or self.first_pause < 0 or self.longest_pause < 0:
            raise ValueError("attempts are 1 or more, and pauses not negative")


DEFAULT = Retry()


class Attempts:
    """Those of one request, within one time for all of it."""

    def __init__(self, retry: Retry, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry = retry
        self._clock = clock
        self._end = clock() + seconds
        self._failed = 0

    def seconds(self) -> float:
        """What is left. Raises OutOfTime when nothing is."""
        left = self._end - self._clock()
        if left <= 0:
            raise OutOfTime("the time for this request has passed")
        return left

    def pause(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt. Raises `error` when there is none to be made."""
        self._failed += 1
        if not error.again or self._failed >= self._retry.attempts:
            raise error
        growth = 2.0 ** min(self._failed - 1, _MOST_DOUBLINGS)
        longest = min(self._retry.first_pause * growth, self._retry.longest_pause)
        # Clients that were refused together must not come back together, nor any of them too early.
        if error.retry_after is None:
            pause = random.uniform(longest / 2, longest)
        else:
            pause = error.retry_after + random.uniform(0, longest)
        if self._clock() + pause >= self._end:
            raise error
        return pause

"""How soon a dead engine is restarted, and when to give up."""

import time
from collections import deque
from collections.abc import Callable

_LONGEST_DELAY = 60.0


class RestartPolicy:
    """The first restart at once, each further one within the window after twice the delay of the one before it."""

    def __init__(
        self,
        *,
        attempts: int,
        window_seconds: float,
        first_delay: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `attempts` restarts in any `window_seconds`; `clock` in seconds, tests turn it by hand."""
        self._attempts = attempts
        self._window = window_seconds
        self._first_delay = first_delay
        self._clock = clock
        self._made: deque[float] = deque()

    def next_delay(self) -> float | None:
        """Count one attempt, and say how many seconds to wait before it; None when there have been too many."""
        now = self._clock()
        while self._made and now - self._made[0] > self._window:
            self._made.popleft()
        made = len(self._made)
        if made >= self._attempts:
            return None
        self._made.append(now)
        return min(_LONGEST_DELAY, self._first_delay * 2.0 ** (made - 1)) if made else 0.0

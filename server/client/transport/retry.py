"""Decide how often and when a request is sent again; the clients do the waiting."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from medmoe.client.errors import ClientError, ConnectionFailed, Overloaded, Timeout

_MOST_DOUBLINGS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Configure retries: pauses double from `first_pause` to `longest_pause` seconds; Retry-After has precedence."""

    attempts: int = 5
    """Attempts in total; 1 sends every request once."""
    first_pause: float = 0.5
    longest_pause: float = 30.0
    unreachable: bool = True
    """Whether to try again when no connection could be made at all."""
    notify: Callable[[ClientError, float], None] | None = None
    """Called before each pause with the error and the pause in seconds."""

    def __post_init__(self) -> None:
        """Raise ValueError for fewer than one attempt or a negative pause."""
        if self.attempts < 1 or self.first_pause < 0 or self.longest_pause < 0:
            raise ValueError("attempts are 1 or more, and pauses not negative")


DEFAULT = Retry()


class Attempts:
    """Count the attempts of one request and the time that is left for them."""

    def __init__(self, retry: Retry, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry = retry
        self._clock = clock
        self._end = clock() + seconds
        self._failed = 0

    def seconds(self) -> float:
        """Return the seconds that are left. Raises Timeout when there are none."""
        left = self._end - self._clock()
        if left <= 0:
            raise Timeout("the time for this request has passed")
        return left

    def pause(self, error: ClientError, *, idempotent: bool = True) -> float:
        """Return the seconds to wait before the next attempt. Raises `error` when there is no next attempt.

        A request that is not `idempotent` is sent again only where the service has surely not begun with it.
        """
        self._failed += 1
        if not error.retryable or self._failed >= self._retry.attempts:
            raise error
        if not idempotent and not _was_refused(error):
            if isinstance(error, ConnectionFailed):
                raise ConnectionFailed(f"{error}; the service may have done it, so it was not sent again") from error
            raise error
        if isinstance(error, ConnectionFailed) and error.unreachable and not self._retry.unreachable:
            raise error
        growth = 2.0 ** min(self._failed - 1, _MOST_DOUBLINGS)
        longest = min(self._retry.first_pause * growth, self._retry.longest_pause)
        # Random, so that clients that were refused together do not return together; never before Retry-After.
        if error.retry_after is None:
            pause = random.uniform(longest / 2, longest)
        else:
            pause = error.retry_after + random.uniform(0, longest)
        if self._clock() + pause >= self._end:
            raise error
        if self._retry.notify is not None:
            self._retry.notify(error, pause)
        return pause


def _was_refused(error: ClientError) -> bool:
    return isinstance(error, Overloaded) or (isinstance(error, ConnectionFailed) and error.unreachable)
